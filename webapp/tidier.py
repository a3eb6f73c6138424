"""`python -m webapp.tidier`: removes what deleted jobs have left, and once a day what is too old.

Started by the recorder where there is something to do (webapp.services.tidying), for a large folder
on a slow disk takes minutes: neither a web process nor the recorder itself may. Killed at any
moment, it is followed by another, which goes on.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

from sqlalchemy.exc import OperationalError

from modelyard.disk import readable
from modelyard.process import die_with_parent
from modelyard.settings import SettingsError, load_settings
from modelyard.storage import StorageError
from webapp import create_app
from webapp.services import deletion, disk_use, retention
from webapp.services.local_runner import StopFlag

logger = logging.getLogger(__name__)

_NICE = 10  # whoever trains on this host goes first


def tidy(stop: StopFlag) -> bool:
    """Tidy up until asked to stop; False where something has to be tried again."""

    def wanted() -> bool:
        return not stop.requested

    done = deletion.finish(still_wanted=wanted)
    if wanted() and disk_use.due():
        report = retention.collect(by_person=False, still_wanted=wanted)
        for reason, (count, size) in report.by_reason().items():
            logger.info("removed %s of %s: %s", readable(size), reason, count)
        disk_use.measure(still_wanted=wanted)
    return done


def main() -> int:
    die_with_parent(os.getppid())
    os.nice(_NICE)
    stop = StopFlag()
    signal.signal(signal.SIGTERM, lambda *_: stop.request())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the recorder ends it
    try:
        settings = load_settings()
        app = create_app(settings)
    except SettingsError as error:
        sys.stderr.write(f"modelyard tidier: {error}\n")
        return 2
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        with app.app_context():
            return 0 if tidy(stop) else 1
    except OperationalError as error:
        logger.warning("the database does not answer: %s", str(error).splitlines()[0])
    except StorageError as error:
        logger.warning("%s", error)
    return 1


if __name__ == "__main__":
    sys.exit(main())
