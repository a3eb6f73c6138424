"""Work that holds the CPU, kept out of the loop that serves everybody else."""

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
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("socket"):
        return function(*arguments, **keywords)
    import gevent

    result: T = gevent.get_hub().threadpool.apply(function, arguments, keywords)
    return result
