"""Ultralytics, imported so that it stays on this machine and writes nothing of its own.

Left to itself the library looks names up at import, keeps settings in the home folder, sends
usage events, uploads to its platform, fetches fonts and weights, installs packages with pip and
unpickles whatever a checkpoint holds. Every module here that uses Ultralytics imports this one
first; what it changes is changed for the whole process.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import PIL.Image

# Before Ultralytics, which sets OMP_NUM_THREADS=1 for libraries that load after it.
import torch

from adapters.data.images import FORMATS

_ENVIRONMENT = {
    "YOLO_OFFLINE": "1",  # no look-up of host names at import, no usage events
    "YOLO_AUTOINSTALL": "0",  # a missing package is an error, never a call of pip
    "YOLO_VERBOSE": "0",  # no progress bars; reporting() decides what is logged
    "ULTRALYTICS_SAFE_LOAD": "1",  # checkpoints rebuild known model classes only
}
_TEMPORARY = ("YOLO_CONFIG_DIR", "OMP_NUM_THREADS")

# GPUs whose float16 arithmetic gives NaN losses; the list is Ultralytics' own (check_amp).
_BROKEN_HALF = re.compile(
    r"(nvidia|geforce|quadro|tesla).*?(1660|1650|1630|t400|t550|t600|t1000|t1200|t2000|k40m)",
    re.IGNORECASE,
)


def _import_library() -> None:
    """Import the library with its settings in a folder that is gone afterwards."""
    os.environ.update(_ENVIRONMENT)
    before = {name: os.environ.get(name) for name in _TEMPORARY}
    with tempfile.TemporaryDirectory(prefix="modelyard-") as scratch:
        os.environ["YOLO_CONFIG_DIR"] = scratch
        try:
            # The first optimizer and the first validator import these two: seconds of a child's
            # start that are the warm template's instead.
            import torch._dynamo  # noqa: F401
            import torchvision  # noqa: F401
            import ultralytics.models.yolo.detect  # noqa: F401
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _close_doors() -> None:
    """Replace what would reach out, also where something else imported the library first."""
    from ultralytics import utils
    from ultralytics.data import base as data_base
    from ultralytics.data import utils as data_utils
    from ultralytics.engine import trainer
    from ultralytics.nn import tasks
    from ultralytics.utils import SETTINGS, callbacks, checks, patches, plotting

    SETTINGS._save = _do_nothing  # settings stay in memory
    for name, value in SETTINGS.items():
        if value is True:  # sync, and every integration that a package would switch on
            SETTINGS.update({name: False})
    callbacks.add_integration_callbacks = _do_nothing  # events, the platform, trackers
    checks.AUTOINSTALL = False
    utils.VERBOSE = False  # progress bars, but for those that ask to be drawn all the same
    data_base.TQDM = _no_bar
    tasks.SAFE_LOAD = True
    trainer.check_amp = half_precision_works  # the library's own fetches weights to compare
    for module in (checks, data_utils, plotting):
        module.check_font = _packaged_font
    # Functions of other libraries that it replaced: a retry that sleeps, and a way to read images
    # that installs a package. Other frameworks of the same process are to have their own.
    torch.save = patches._torch_save
    PIL.Image.open = patches._image_open
    # Only images that pass this look reach OpenCV, which decodes by content and not by name.
    data_utils.Image = SimpleNamespace(**vars(PIL.Image))
    data_utils.Image.open = partial(PIL.Image.open, formats=FORMATS)


def _do_nothing(*_: Any, **__: Any) -> None:
    """Stand where Ultralytics would reach out of this process."""


def _no_bar(*arguments: Any, **options: Any) -> Any:
    from ultralytics.utils import TQDM

    return TQDM(*arguments, **{**options, "disable": True})


def _packaged_font(font: str = "") -> str:
    """Return a font that matplotlib brings, in place of one that Ultralytics would fetch."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def half_precision_works(model: torch.nn.Module) -> bool:
    """Return whether the model's device trains in float16, judged by the device's name."""
    device = next(model.parameters()).device
    return device.type == "cuda" and not _BROKEN_HALF.search(torch.cuda.get_device_name(device))


def keep_threads() -> None:
    """Let the library leave torch its threads; it would set one less than there are cores."""
    from ultralytics.utils import torch_utils

    torch_utils.NUM_THREADS = torch.get_num_threads()


class _LineHandler(logging.Handler):
    """Passes the library's lines on, without colours and without its tables and banners."""

    _KEPT = ("Transferred", "Remapped", "Class weights", "EarlyStopping")
    _KEPT_ANYWHERE = (
        "ignoring corrupt",
        "ignoring image",
        "corrupt JPEG",
        "duplicate labels",
        "with parameter groups",
    )
    _MOST_LINES = 50

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._write = write

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            return True
        message = record.getMessage()
        return message.startswith(self._KEPT) or any(t in message for t in self._KEPT_ANYWHERE)

    def emit(self, record: logging.LogRecord) -> None:
        from ultralytics.utils import remove_colorstr

        lines = remove_colorstr(record.getMessage()).splitlines()
        lines = [line.rstrip() for line in lines if line.strip()]
        for line in lines[: self._MOST_LINES]:
            self._write(line)
        if len(lines) > self._MOST_LINES:
            self._write(f"… and {len(lines) - self._MOST_LINES} more lines like these")


@contextmanager
def library_log(write: Callable[[str], None]) -> Iterator[None]:
    """Give what Ultralytics has to say to ``write``, a line at a time."""
    logger = logging.getLogger("ultralytics")
    handlers, level = logger.handlers[:], logger.level
    logger.handlers[:] = [_LineHandler(write)]
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers[:] = handlers
        logger.setLevel(level)


@contextmanager
def plotting_folder(parent: Path) -> Iterator[None]:
    """Let matplotlib, when it is imported here for the first time, keep its cache below parent."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # tells of its font cache
    with tempfile.TemporaryDirectory(prefix=".plots-", dir=parent) as scratch:
        before = os.environ.get("MPLCONFIGDIR")
        os.environ.setdefault("MPLCONFIGDIR", scratch)
        try:
            yield
        finally:
            if before is None:
                del os.environ["MPLCONFIGDIR"]


_import_library()
_close_doors()
