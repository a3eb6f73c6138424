"""Collecting what is wrong with a data set, of which there may be a great deal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import zip_longest

from adapters.data.description import Problem, Severity

PROBLEMS_KEPT = 200


class ProblemList:
    """Keeps some problems of each severity and counts the rest.

    Of each code the first are kept, so that a fault of every image hides none of another kind.
    """

    def __init__(self, problems: Iterable[Problem] = ()) -> None:
        # By code, with their place among all.
        self._kept: dict[Severity, dict[str, list[tuple[int, Problem]]]] = {
            severity: {} for severity in Severity
        }
        self._found: Counter[Severity] = Counter()
        self.extend(problems)

    def extend(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self._found[problem.severity] += 1
            kept = self._kept[problem.severity].setdefault(problem.code, [])
            if len(kept) < PROBLEMS_KEPT:
                kept.append((self._found.total(), problem))

    def result(self) -> tuple[Problem, ...]:
        """Return the kept problems, errors first, and a last one that counts what was left out."""
        kept = self._fairly(Severity.ERROR, PROBLEMS_KEPT)
        kept += self._fairly(Severity.WARNING, PROBLEMS_KEPT - len(kept))
        left_out = self._found - Counter(problem.severity for problem in kept)
        if not left_out:
            return tuple(kept)
        parts = [f"{count} {severity}s" for severity, count in left_out.items()]
        message = f"and {' and '.join(parts)} more, of which only the number is kept"
        severity = Severity.ERROR if left_out[Severity.ERROR] else Severity.WARNING
        return (*kept, Problem(severity, "more_problems", message))

    def _fairly(self, severity: Severity, room: int) -> list[Problem]:
        """Return as many as there is room for, in turn of each code, in the order found."""
        rounds = zip_longest(*self._kept[severity].values())
        in_turn = [item for round in rounds for item in round if item is not None]
        return [problem for _, problem in sorted(in_turn[:room], key=lambda item: item[0])]
