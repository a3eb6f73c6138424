"""The web process never imports what trains."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.services import python

PROGRAM = """
import sys
from modelyard.settings import load_settings
from webapp import create_app

home = sys.argv[1]
app = create_app(load_settings({"MODELYARD_HOME": home, "REDIS_URL": "redis://127.0.0.1:1/0"}))
client = app.test_client()
assert client.get("/api/v1/openapi.json").status_code == 200
assert client.get("/api/docs").status_code == 200
with app.app_context():
    from webapp.services.catalog import list_models
    assert list_models(framework=None, task_type=None, q=None, limit=5, cursor=None).items
heavy = {"torch", "torchvision", "timm", "ultralytics", "transformers", "numpy", "cv2", "workers"}
print(sorted(heavy & set(sys.modules)))
"""


def test_the_web_application_imports_no_training_library(tmp_path: Path) -> None:
    done = subprocess.run(
        python("-c", PROGRAM, str(tmp_path)), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_importing_the_web_application_connects_to_nothing_and_reads_no_settings() -> None:
    program = "import webapp, sys; assert 'flask_sqlalchemy' not in sys.modules"
    environ = {"MODELYARD_NONSENSE": "1", "PATH": "/usr/bin"}
    subprocess.run(python("-c", program), check=True, env=environ)
