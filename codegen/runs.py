"""From sets of tiles to loops: the runs that a kernel walks by arithmetic.

A run is either a stretch of tiles by a step or a geometric tail. `rows` and `columns` limit the query tiles and the
key tiles that take part; bounds are given for each class of query tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sparsedsl.codegen.geometric import GeometricTail, geometric_tail
from sparsedsl.codegen.tiles import Group, TileProgram
from sparsedsl.errors import NoNormalForm
from sparsedsl.integers import INFINITY, IntegerSet, Segment

# More runs than this under one mask make a longer kernel than a table would.
MOST_RUNS = 64


@dataclass(frozen=True, slots=True)
class Stretch:
    """Key tiles home - y, nearest <= y <= farthest, y ≡ phase (mod step); None is an end that `columns` sets."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    present: tuple[bool, ...]
    step: int
    phase: tuple[int, ...]
    nearest: tuple[int, ...] | None
    farthest: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Jump:
    """Key tiles home - sign · (offset + scale · base**t + w) for 0 <= t < count, 0 <= w < width."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    present: tuple[bool, ...]
    sign: int
    base: int
    scale: int
    width: int
    count: int
    offset: tuple[int, ...]


Run = Stretch | Jump


def runs_of(program: TileProgram, group: Group) -> tuple[Run, ...]:
    """The runs of one group of tiles, the same tiles in closed form.

    Raises
        NoNormalForm: more than MOST_RUNS runs, or a geometric tail that an absolute bound cuts on its near side.
    """
    classes = program.row_classes
    stretches: dict[tuple[int, bool, bool, int], dict[int, Segment]] = {}
    jumps: dict[tuple[int, int, int, int, int], dict[int, int]] = {}
    for c, visits in enumerate(group.visits):
        sign, tail, rest = _parted(visits)
        if tail is not None:
            _check_near_side(program, group, sign, tail)
            shape = (sign, tail.base, tail.scale, tail.width, tail.count)
            jumps.setdefault(shape, {})[c] = tail.offset
        order: dict[tuple[int, bool, bool], int] = {}
        for segment in rest:
            for single in _single_residues(segment):
                kind = (single.period, single.lo == -INFINITY, single.hi == INFINITY)
                order[kind] = order.get(kind, 0) + 1
                stretches.setdefault((*kind, order[kind]), {})[c] = single
    if len(stretches) + len(jumps) > MOST_RUNS:
        raise _too_irregular(f"{len(stretches) + len(jumps)} separate runs of tiles")
    runs: list[Run] = [_stretch(group, segments, classes) for segments in stretches.values()]
    for (sign, base, scale, width, count), offsets in jumps.items():
        some = next(iter(offsets.values()))
        offset = tuple(offsets.get(c, some) for c in range(classes))
        present = tuple(c in offsets for c in range(classes))
        runs.append(Jump(group.rows, group.columns, present, sign, base, scale, width, count, offset))
    return tuple(runs)


def _check_near_side(program: TileProgram, group: Group, sign: int, tail: GeometricTail) -> None:
    nearest_home = program.column_classes * (group.rows[0] // program.row_classes)
    if group.columns[1] != INFINITY or (sign < 0 and nearest_home + tail.offset + tail.scale < group.columns[0]):
        raise _too_irregular("powers cut by an absolute position")


def _parted(visits: IntegerSet) -> tuple[int, GeometricTail | None, tuple[Segment, ...]]:
    """(direction of the geometric tail, the tail, the other segments)."""
    tail = geometric_tail(visits.segments)
    if tail is not None:
        return 1, tail, visits.segments[: tail.start]
    mirrored = visits.negate().segments
    tail = geometric_tail(mirrored)
    if tail is not None:
        return -1, tail, IntegerSet(mirrored[: tail.start]).negate().segments
    return 1, None, visits.segments


def _single_residues(segment: Segment) -> Iterator[Segment]:
    """One segment for each residue of its word."""
    for residue in range(segment.period):
        if segment.word >> residue & 1:
            only = IntegerSet.residues(segment.period, [residue])
            yield from (only & IntegerSet.interval(segment.lo, segment.hi)).segments


def _stretch(group: Group, segments: dict[int, Segment], classes: int) -> Stretch:
    # A class without this run takes bounds that keep the rest even, so that they print as one; `present` turns it off.
    some = next(iter(segments.values()))
    return Stretch(
        group.rows,
        group.columns,
        tuple(c in segments for c in range(classes)),
        some.period,
        _filled({c: segment.word.bit_length() - 1 for c, segment in segments.items()}, classes),
        None if some.lo == -INFINITY else _filled({c: each.lo for c, each in segments.items()}, classes),
        None if some.hi == INFINITY else _filled({c: each.hi - 1 for c, each in segments.items()}, classes),
    )


def _filled(known: dict[int, int], classes: int) -> tuple[int, ...]:
    """The known values; the missing ones on the line through the first two known, or like the first."""
    (start, value), *others = known.items()
    slope = (others[0][1] - value) // (others[0][0] - start) if others else 0
    return tuple(known.get(c, value + slope * (c - start)) for c in range(classes))


def _too_irregular(got: str) -> NoNormalForm:
    return NoNormalForm(
        "the pattern has no short closed form in tiles",
        got=got,
        expected=f"at most {MOST_RUNS} runs of tiles under one mask",
    )
