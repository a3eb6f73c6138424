"""Where the processes of one gunicorn count their requests together.

Apart from webapp.telemetry, because the Prometheus client reads the variable when it is imported.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def share_between_processes(home: Path) -> None:
    """Name the folder after the parent's process id, so that each start counts from zero."""
    folder = home / "metrics" / str(os.getppid())
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[FOLDER_VARIABLE] = str(folder)
    for other in folder.parent.iterdir():
        if other.name.isdigit() and not Path(f"/proc/{other.name}").exists():
            shutil.rmtree(other, ignore_errors=True)
