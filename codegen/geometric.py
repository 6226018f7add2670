"""Recognise a geometric tail in a list of intervals: what lets a kernel walk powers by arithmetic, not by a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsedsl.integers import INFINITY, Segment

# Fewer intervals than this are as well listed one by one.
SHORTEST_TAIL = 4


@dataclass(frozen=True, slots=True)
class GeometricTail:
    """The intervals [offset + scale · base**t, ... + width) for 0 <= t < count, from segment `start` on."""

    start: int
    base: int
    scale: int
    offset: int
    width: int
    count: int


def geometric_tail(segments: Sequence[Segment]) -> GeometricTail | None:
    """The longest geometric tail of at least SHORTEST_TAIL plain, finite intervals of one width.

    Example
        >>> tail = geometric_tail([Segment(0, 3), Segment(7, 9), Segment(15, 17), Segment(31, 33), Segment(63, 65)])
        >>> tail.start, tail.base, tail.scale, tail.offset, tail.width, tail.count
        (1, 2, 8, -1, 2, 4)

    """
    if len(segments) < SHORTEST_TAIL:
        return None
    if any(segment.period != 1 or segment.hi == INFINITY for segment in segments[-SHORTEST_TAIL:]):
        return None
    before, middle, last = (segment.lo for segment in segments[-3:])
    base, rest = divmod(last - middle, middle - before)
    if rest or base < 2:
        return None
    offset, rest = divmod(base * middle - last, base - 1)
    if rest:
        return None
    width = segments[-1].hi - segments[-1].lo
    start = len(segments) - 1
    while (
        start > 0
        and segments[start - 1].hi - segments[start - 1].lo == width
        and segments[start - 1].period == 1
        and (segments[start - 1].lo - offset) * base == segments[start].lo - offset
        and segments[start - 1].lo > offset
    ):
        start -= 1
    count = len(segments) - start
    if count < SHORTEST_TAIL:
        return None
    return GeometricTail(start, base, segments[start].lo - offset, offset, width, count)
