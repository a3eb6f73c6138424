"""transformers, imported so that it stays on this machine and prints nothing of its own.

Left to itself the library looks models up on the hub, sends which of its features are used, draws
progress bars and warns by printing. Every module here that uses it imports this one first.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # weights are fetched by our own hand, from our own table
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",  # library_log() passes on what it warns of
    "TOKENIZERS_PARALLELISM": "false",
}
_LIBRARIES = ("transformers", "accelerate", "huggingface_hub", "torchmetrics")


def _import_library() -> None:
    """Import what the first step needs: a child's seconds become the warm template's."""
    os.environ.update(_ENVIRONMENT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Classes of the library are loaded when they are first named.
        import torch._dynamo  # noqa: F401
        import torchmetrics.classification
        import torchmetrics.detection  # noqa: F401
        import torchvision.transforms.v2  # noqa: F401
        from transformers import (  # noqa: F401
            SegformerImageProcessor,
            Trainer,
            TrainerCallback,
            TrainingArguments,
            ViTImageProcessor,
        )
        from transformers.loss import loss_utils  # noqa: F401
        from transformers.models.auto import modeling_auto  # noqa: F401
    from transformers.utils import logging as library_logging

    library_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


class _LineHandler(logging.Handler):
    """Passes on what a library warns of, a line at a time and each line once."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._write = write
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        for line in record.getMessage().splitlines():
            if line.strip() and line not in self._told:
                self._told.add(line)
                self._write(line.rstrip())


@contextmanager
def library_log(write: Callable[[str], None]) -> Iterator[None]:
    """Give what the libraries warn of to ``write`` for as long as the block runs."""
    handler = _LineHandler(write)
    before = {}
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        before[name] = (logger.handlers[:], logger.propagate, logger.level)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = _shown_by(handler)
        try:
            yield
        finally:
            for name, (handlers, propagate, level) in before.items():
                logger = logging.getLogger(name)
                logger.handlers[:] = handlers
                logger.propagate = propagate
                logger.setLevel(level)


def _shown_by(handler: logging.Handler) -> Callable[..., None]:
    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        # What only developers of the libraries can mend helps nobody who reads a job's log.
        if not issubclass(category, DeprecationWarning | FutureWarning):
            level, text = logging.WARNING, f"{category.__name__}: {message}"
            handler.handle(logging.LogRecord("warnings", level, filename, lineno, text, (), None))

    return show


_import_library()
