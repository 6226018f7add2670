"""From sets of tiles to loops: the runs that a kernel walks by arithmetic, or from a list.

A run is a stretch of tiles by a step, a geometric tail, or a list of tiles, repeated or not. `rows` and `columns`
limit the query tiles and the key tiles that take part; bounds are given for each class of query tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import lcm

from sparsedsl.codegen.geometric import GeometricTail, geometric_tail
from sparsedsl.codegen.tiles import Group, TileProgram
from sparsedsl.errors import NoNormalForm
from sparsedsl.integers import INFINITY, IntegerSet, Segment

# With more runs than this under one mask, single tiles are listed instead of spelled out.
MOST_RUNS = 6
# Longer lists than this, all classes together, are left to the table that is made for each length.
LONGEST_LIST = 1 << 15
# Kernels count tiles in 32 bits: no tile stands farther away than this.
FARTHEST = 1 << 30


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


@dataclass(frozen=True, slots=True)
class Listed:
    """Key tiles home - sign · (base + turn · t + e) for t >= 0 and e in entries, sorted and below `turn`.

    base, entries are given for each class. Without `endless` t is 0; with it there is no last tile.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    sign: int
    base: tuple[int, ...]
    turn: int
    endless: bool
    entries: tuple[tuple[int, ...], ...]


Run = Stretch | Jump | Listed


def runs_of(program: TileProgram, group: Group) -> tuple[Run, ...]:
    """The runs of one group of tiles: the same tiles.

    Raises
        NoNormalForm: too irregular for runs and for lists.
    """
    visits = tuple(_visible(each) for each in group.visits)
    short = _spelled(program, group, visits)
    if short is not None and len(short) <= MOST_RUNS:
        return short
    runs: list[Run] = []
    singles = [IntegerSet(tuple(segment for segment in each.segments if not _is_endless(segment))) for each in visits]
    if any(singles):
        runs.append(_list_of(group, singles))
    runs += _endless(group, 1, [_back(each, first=0) for each in visits])
    runs += _endless(group, -1, [_back(each.negate(), first=1) for each in visits])
    return tuple(runs)


def _visible(visits: IntegerSet) -> IntegerSet:
    """The same tiles within FARTHEST; a long segment that goes beyond may as well have no end."""
    kept = []
    for lo, hi, period, word in visits.segments:
        if lo > FARTHEST or hi <= -FARTHEST:
            continue
        long = hi - lo > FARTHEST
        first = -INFINITY if long and lo < -FARTHEST else lo
        kept.append(Segment(first, INFINITY if long and hi > FARTHEST else hi, period, word))
    return IntegerSet(tuple(kept))


def _spelled(program: TileProgram, group: Group, visits: tuple[IntegerSet, ...]) -> tuple[Run, ...] | None:
    """Stretches and jumps; None where a jump can't be told by arithmetic."""
    classes = program.row_classes
    stretches: dict[tuple[int, bool, bool, int], dict[int, Segment]] = {}
    jumps: dict[tuple[int, int, int, int, int], dict[int, int]] = {}
    for c, each in enumerate(visits):
        sign, tail, rest = _parted(each)
        if tail is not None:
            if _cut_on_its_near_side(program, group, sign, tail):
                return None
            shape = (sign, tail.base, tail.scale, tail.width, tail.count)
            jumps.setdefault(shape, {})[c] = tail.offset
        order: dict[tuple[int, bool, bool], int] = {}
        for segment in rest:
            for single in _single_residues(segment):
                kind = (single.period, single.lo == -INFINITY, single.hi == INFINITY)
                order[kind] = order.get(kind, 0) + 1
                stretches.setdefault((*kind, order[kind]), {})[c] = single
        if len(stretches) + len(jumps) > MOST_RUNS:
            return None
    runs: list[Run] = [_stretch(group, segments, classes) for segments in stretches.values()]
    for (sign, base, scale, width, count), offsets in jumps.items():
        some = next(iter(offsets.values()))
        offset = tuple(offsets.get(c, some) for c in range(classes))
        present = tuple(c in offsets for c in range(classes))
        runs.append(Jump(group.rows, group.columns, present, sign, base, scale, width, count, offset))
    return tuple(runs)


def _cut_on_its_near_side(program: TileProgram, group: Group, sign: int, tail: GeometricTail) -> bool:
    nearest_home = program.column_classes * (group.rows[0] // program.row_classes)
    cut_ahead = sign < 0 and nearest_home + tail.offset + tail.scale < group.columns[0]
    return group.columns[1] != INFINITY or cut_ahead


def _list_of(group: Group, singles: list[IntegerSet]) -> Listed:
    """Every tile by itself; there are finitely many."""
    if sum(each.count(-FARTHEST, FARTHEST + 1) for each in singles) > LONGEST_LIST:
        raise _too_irregular(f"more than {LONGEST_LIST} single tiles")
    lists = [list(each.members(-FARTHEST, FARTHEST + 1)) for each in singles]
    base = tuple(each[0] if each else 0 for each in lists)
    entries = tuple(tuple(y - start for y in each) for each, start in zip(lists, base, strict=True))
    turn = max(each[-1] + 1 for each in entries if each)
    return Listed(group.rows, group.columns, 1, base, turn, False, entries)


def _is_endless(segment: Segment) -> bool:
    return segment.lo == -INFINITY or segment.hi == INFINITY


def _back(visits: IntegerSet, *, first: int) -> IntegerSet:
    """The segment that goes on for ever; from `first` on if it also comes from for ever."""
    last = visits.segments[-1:]
    endless = IntegerSet(last if last and last[0].hi == INFINITY else ())
    return endless & IntegerSet.interval(first, INFINITY) if endless and endless.minimum == -INFINITY else endless


def _endless(group: Group, sign: int, halves: list[IntegerSet]) -> Iterator[Run]:
    """The tiles home - sign · y for the endless sets of y, one for each class."""
    if not any(halves):
        return
    period = lcm(*(each.segments[0].period for each in halves if each))
    base = tuple(each.minimum if each else 0 for each in halves)
    if period == 1:
        present, none = tuple(map(bool, halves)), (0,) * len(halves)
        nearest, farthest = (base, None) if sign > 0 else (None, tuple(-each for each in base))
        yield Stretch(group.rows, group.columns, present, 1, none, nearest, farthest)
        return
    if period * len(halves) > LONGEST_LIST:
        raise _too_irregular(f"tiles that repeat after {period} only")
    entries = tuple(
        tuple(y - start for y in each.members(start, start + period)) for each, start in zip(halves, base, strict=True)
    )
    yield Listed(group.rows, group.columns, sign, base, period, True, entries)


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
        "the pattern has no short form in tiles",
        got=got,
        expected=f"at most {MOST_RUNS} runs of tiles under one mask, or {LONGEST_LIST} single tiles",
    )
