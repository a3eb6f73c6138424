"""Collecting what is wrong with a data set, of which there may be a great deal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from adapters.data.description import Problem, Severity

PROBLEMS_KEPT = 200


class ProblemList:
    """Keeps the first problems of each severity and counts the rest."""

    def __init__(self, problems: Iterable[Problem] = ()) -> None:
        self._kept: dict[Severity, list[Problem]] = {severity: [] for severity in Severity}
        self._found: Counter[Severity] = Counter()
        self.extend(problems)

    def extend(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self._found[problem.severity] += 1
            if len(self._kept[problem.severity]) < PROBLEMS_KEPT:
                self._kept[problem.severity].append(problem)

    def result(self) -> tuple[Problem, ...]:
        """Return the kept problems, errors first, and a last one that counts what was left out."""
        kept = [*self._kept[Severity.ERROR], *self._kept[Severity.WARNING]][:PROBLEMS_KEPT]
        left_out = self._found - Counter(problem.severity for problem in kept)
        if not left_out:
            return tuple(kept)
        parts = [f"{count} {severity}s" for severity, count in left_out.items()]
        message = f"and {' and '.join(parts)} more, of which only the number is kept"
        severity = Severity.ERROR if left_out[Severity.ERROR] else Severity.WARNING
        return (*kept, Problem(severity, "more_problems", message))
