"""Work that holds the CPU or a disk, kept out of the loop that serves everybody else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def run_blocking(function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
    """Call a function and return its result; under gevent, in a real thread of the hub's pool.

    A password hash takes a tenth of a second and a large data set minutes: in gevent's loop they
    would stop every other request and every open stream.
    """
    if not _in_gevent():
        return function(*arguments, **keywords)
    import gevent

    result: T = gevent.get_hub().threadpool.apply(function, arguments, keywords)
    return result


def within(seconds: float, function: Callable[..., T], *arguments: Any) -> T:
    """Call what waits for a network. Raises TimeoutError, under gevent only, where it is silent."""
    if not _in_gevent():
        return function(*arguments)
    import gevent

    with gevent.Timeout(seconds, TimeoutError(f"nothing came for {seconds:g} s")):
        return function(*arguments)


def _in_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))
