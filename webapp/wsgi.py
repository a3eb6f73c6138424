"""What gunicorn serves: ``gunicorn -k gevent webapp.wsgi:app``."""

import logging

from modelyard.settings import load_settings
from webapp import create_app
from webapp.garbage import collect_from_here_on
from webapp.metrics_folder import share_between_processes
from webapp.services.uploads import sweep_in_background

settings = load_settings()
logging.basicConfig(
    level=settings.log_level.upper(),
    format="%(asctime)s %(levelname)s %(name)s: %(message)s",
)
logging.getLogger("alembic").setLevel(logging.WARNING)  # it speaks whenever /readyz looks
share_between_processes(settings.home)  # before create_app imports the metrics
app = create_app(settings)
sweep_in_background(app)
collect_from_here_on()
