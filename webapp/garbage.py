"""The garbage collector of a process that has loaded its code and now runs for weeks."""

from __future__ import annotations

import gc


def collect_from_here_on() -> None:
    """Take what is loaded out of the collector's sight: it stays, and is most of all there is.

    Requests leave cycles behind: a template's macros hold its context, and it them, with all that
    the page showed. Those of a slow request are old by then. Only a full collection finds them,
    and CPython makes one when a quarter of all objects are new: with the libraries' 200,000 among
    them that is an hour away and goes through all of these while every request waits.
    """
    gc.collect()  # what is garbage now would stay for good
    gc.freeze()
    gc.collect()  # of what is left: the quarter is reckoned from the last full collection
