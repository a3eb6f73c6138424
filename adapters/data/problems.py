"""Collecting what is wrong with a data set, of which there may be a great deal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import zip_longest

from adapters.data.description import Problem, Severity

PROBLEMS_KEPT = 200


class ProblemList:
    """Keeps some problems of each severity and counts the rest.

    Of each code the first are kept, so that a fault of every image hides none of another kind.
    """

    def __init__(
        self,
        problems: Iterable[Problem] = (),
        *,
        left_out: Mapping[Severity, int] | None = None,  # that were found and are not among them
    ) -> None:
        # By code, with their place among all.
        self._kept: dict[Severity, dict[str, list[tuple[int, Problem]]]] = {
            severity: {} for severity in Severity
        }
        self._found: Counter[Severity] = Counter(left_out or {})
        self.extend(problems)

    def extend(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self._found[problem.severity] += 1
            kept = self._kept[problem.severity].setdefault(problem.code, [])
            if len(kept) < PROBLEMS_KEPT:
                kept.append((self._found.total(), problem))

    def merge(self, other: ProblemList) -> None:
        """Take up what another list has kept, and its count of the rest."""
        self.extend(other.kept())
        self._found.update(other.left_out())

    def kept(self) -> tuple[Problem, ...]:
        """Return what there is room for, errors first."""
        errors = self._fairly(Severity.ERROR, PROBLEMS_KEPT)
        return (*errors, *self._fairly(Severity.WARNING, PROBLEMS_KEPT - len(errors)))

    def left_out(self) -> Counter[Severity]:
        """Return how many of each severity there is no room for."""
        return self._found - Counter(problem.severity for problem in self.kept())

    def result(self) -> tuple[Problem, ...]:
        """Return the kept problems, errors first, and a last one that counts what was left out."""
        kept, left_out = self.kept(), self.left_out()
        if not left_out:
            return kept
        parts = [f"{count} {severity}s" for severity, count in left_out.items()]
        message = f"and {' and '.join(parts)} more, of which only the number is kept"
        severity = Severity.ERROR if left_out[Severity.ERROR] else Severity.WARNING
        return (*kept, Problem(severity, "more_problems", message))

    def _fairly(self, severity: Severity, room: int) -> list[Problem]:
        """Return as many as there is room for, in turn of each code, in the order found."""
        rounds = zip_longest(*self._kept[severity].values())
        in_turn = [item for round in rounds for item in round if item is not None]
        return [problem for _, problem in sorted(in_turn[:room], key=lambda item: item[0])]
