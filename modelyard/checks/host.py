"""The machine itself."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator

import psutil

from modelyard.checks import Finding, ok, problem, warning
from modelyard.counting import counted
from modelyard.settings import Settings

OLDEST_PYTHON = (3, 11)
LEAST_MEMORY_GIB = 4


def python(settings: Settings) -> Iterator[Finding]:
    """Look at the interpreter."""
    text = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        yield problem("python", text, remedy=f"install Python {wanted} or newer, then make install")
    else:
        yield ok("python", text)


def processor_and_memory(settings: Settings) -> Iterator[Finding]:
    """Look at processors and memory."""
    memory = psutil.virtual_memory()
    total, free = memory.total / 2**30, memory.available / 2**30
    processors = counted(psutil.cpu_count() or 1, "processor")
    text = f"{processors}, {free:.1f} of {total:.1f} GiB of memory free"
    if free < LEAST_MEMORY_GIB:
        yield warning("machine", text, remedy="a job may run out of memory; use small batches")
    else:
        yield ok("machine", text)
