"""`modelyard doctor`: what this machine has, what it lacks, and what to do about each thing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from modelyard.checks import Finding, Level, folders, frameworks, host, services, store
from modelyard.settings import Settings

# In the order a person would mend things.
CHECKS: tuple[Callable[[Settings], Iterable[Finding]], ...] = (
    host.python,
    host.processor_and_memory,
    frameworks.installed,
    frameworks.torch_and_gpu,
    services.redis,
    services.database,
    folders.data_roots,
    folders.outputs,
    folders.disks,
    folders.shared_outputs,
    store.store,
    folders.weights,
)
_SIGNS = {Level.OK: "ok  ", Level.WARNING: "look", Level.PROBLEM: "FAIL"}


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield a finding for each thing that was looked at, as soon as it is known."""
    for check in CHECKS:
        yield from check(settings)


def lines(finding: Finding) -> Iterator[str]:
    """Yield the lines of the report on one finding."""
    yield f"{_SIGNS[finding.level]}  {finding.name:<12} {finding.text}"
    if finding.remedy:
        yield f"{'':<6}{'':<12} → {finding.remedy}"
