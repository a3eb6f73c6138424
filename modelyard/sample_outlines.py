"""The outline of a set of pixels as a polygon along their edges, in whole numbers only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

Point = tuple[int, int]  # a corner of pixels: (0, 0) is the upper left one of the first pixel

# From a corner, in the order in which a walk with the pixels on its right turns left first, so
# that two pixels that touch at a corner only are one shape.
_TURNS = {(1, 0): [(0, -1), (1, 0), (0, 1)], (0, 1): [(1, 0), (0, 1), (-1, 0)],
          (-1, 0): [(0, 1), (-1, 0), (0, -1)], (0, -1): [(-1, 0), (0, -1), (1, 0)]}  # fmt: skip


def outline(pixels: Iterable[Point]) -> list[Point]:
    """Return the outer outline of the largest connected shape, clockwise, without its holes."""
    loops = _loops(_edges(set(pixels)))
    return max((_corners(loop) for loop in loops), key=area)


def area(polygon: list[Point]) -> int:
    """Return the area in pixels that a polygon, clockwise as seen on a screen, encloses."""
    following = [*polygon[1:], polygon[0]]
    twice = sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(polygon, following, strict=True))
    return twice // 2


def _edges(pixels: set[Point]) -> dict[Point, set[Point]]:
    """Return the directed edges between ink and no ink: for each corner, where they lead."""
    edges: dict[Point, set[Point]] = defaultdict(set)
    for x, y in pixels:
        if (x, y - 1) not in pixels:
            edges[x, y].add((x + 1, y))
        if (x + 1, y) not in pixels:
            edges[x + 1, y].add((x + 1, y + 1))
        if (x, y + 1) not in pixels:
            edges[x + 1, y + 1].add((x, y + 1))
        if (x - 1, y) not in pixels:
            edges[x, y + 1].add((x, y))
    return edges


def _loops(edges: dict[Point, set[Point]]) -> list[list[Point]]:
    loops = []
    for start in sorted(edges):
        while edges[start]:
            loop, here = [start], start
            there = min(edges[start])
            while True:
                edges[here].discard(there)
                if there == start:
                    break
                loop.append(there)
                step = (there[0] - here[0], there[1] - here[1])
                here = there
                places = [(here[0] + dx, here[1] + dy) for dx, dy in _TURNS[step]]
                there = next(place for place in places if place in edges[here])
            loops.append(loop)
    return loops


def _corners(loop: list[Point]) -> list[Point]:
    """Return a loop without the points that lie on a straight line between their neighbours."""
    around = zip([loop[-1], *loop[:-1]], loop, [*loop[1:], loop[0]], strict=True)
    return [p for a, p, b in around if not (a[0] == p[0] == b[0] or a[1] == p[1] == b[1])]
