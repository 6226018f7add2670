"""The tile program: which key tiles a query tile reads, as closed-form runs that do not depend on the length.

Query tile i holds the queries [i·BLOCK_M, (i+1)·BLOCK_M), key tile j the keys [j·BLOCK_N, (j+1)·BLOCK_N), both in
absolute positions. After `row_classes` query tiles, that is `column_classes` key tiles, the pattern repeats. With

    home(i) = column_classes · (i // row_classes)

every visited key tile is j = home(i) - y, where y is in a set that depends on i mod row_classes only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from math import lcm
from typing import TYPE_CHECKING

from sparsedsl.codegen.geometric import geometric_tail
from sparsedsl.codegen.masks import Box, positions, simplified, tidy
from sparsedsl.errors import NoNormalForm
from sparsedsl.forms import NormalForm, Periodic
from sparsedsl.index import TRUE, Predicate
from sparsedsl.integers import EMPTY, EVERYTHING, INFINITY, IntegerSet, Segment
from sparsedsl.normal import normalise
from sparsedsl.pattern import Pattern

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Beyond this many classes a program is better told as a table.
MOST_CLASSES = 1 << 10
# Each mask is a loop of its own in the kernel.
MOST_MASKS = 4


@dataclass(frozen=True, slots=True)
class Group:
    """Tiles of one kind: those that need the same mask, inside one rectangle of tiles.

    `visits[c]` is the set of y for query tiles of class c; `mask` is TRUE for FULL tiles. Only query tiles in
    `rows` and key tiles in `columns` (half-open, the end may be infinite) take part.
    """

    mask: Predicate
    rows: tuple[int, int]
    columns: tuple[int, int]
    visits: tuple[IntegerSet, ...]

    @property
    def full(self) -> bool:
        """Whether the tiles are FULL: no mask at all."""
        return self.mask == TRUE


@dataclass(frozen=True, slots=True)
class TileProgram:
    """All groups of a pattern for one pair of tile sizes; no tile is in two groups, none that is live in none."""

    block_m: int
    block_n: int
    row_classes: int
    column_classes: int
    groups: tuple[Group, ...]
    looks_ahead: bool

    def row(self, i: int, column_tiles: int) -> Iterator[tuple[int, Predicate]]:
        """The key tiles below `column_tiles` that query tile i reads, each with its mask."""
        home = self.column_classes * (i // self.row_classes)
        for group in self.groups:
            if group.rows[0] <= i < group.rows[1]:
                visits = group.visits[i % self.row_classes]
                lo, hi = group.columns[0], min(group.columns[1], column_tiles)
                for y in visits.members(home - hi + 1, home - lo + 1):
                    yield home - y, group.mask

    def transposed(self) -> TileProgram:
        """The program of the key tiles: which query tiles read a key tile. Masks stay over (q, k)."""
        rows, columns = self.row_classes, self.column_classes
        groups = [
            Group(group.mask, group.columns, group.rows, _transposed(group.visits, rows, columns))
            for group in self.groups
        ]
        return TileProgram(self.block_n, self.block_m, columns, rows, tuple(groups), self.looks_ahead)

    def counts(self, q_tiles: range, column_tiles: int) -> tuple[int, int]:
        """(FULL, PARTIAL) tiles visited by these query tiles. O(tiles · segments) time."""
        full, partial = self.counts_by_tile(q_tiles, column_tiles)
        return int(full.sum()), int(partial.sum())

    def counts_by_tile(self, q_tiles: range, column_tiles: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(FULL, PARTIAL) tiles visited by each of these query tiles, which follow one another."""
        import numpy as np

        full, partial = (np.zeros(len(q_tiles), dtype=np.int64) for _ in range(2))
        for group in self.groups:
            first, end = max(group.rows[0], q_tiles.start), min(group.rows[1], q_tiles.stop)
            lo, hi = group.columns[0], min(group.columns[1], column_tiles)
            found = full if group.full else partial
            for start in range(first, min(end, first + self.row_classes)):
                visits = group.visits[start % self.row_classes]
                if visits:
                    home = self.column_classes * (np.arange(start, end, self.row_classes) // self.row_classes)
                    own = slice(start - q_tiles.start, end - q_tiles.start, self.row_classes)
                    found[own] += visits.counts(home - hi + 1, home - lo + 1)
        return full, partial


def _transposed(visits: tuple[IntegerSet, ...], rows: int, columns: int) -> tuple[IntegerSet, ...]:
    """For each class of key tiles the set of home - i over the query tiles i that read it.

    y = columns · X - e says that a query tile of class c reads the key tile of class e, X superperiods before its
    own; seen from there the query tile is rows · X + c.
    """
    points: list[list[int]] = [[] for _ in range(columns)]
    longer: list[IntegerSet] = []
    for c, each in enumerate(visits):
        rest = []
        for segment in each.segments:
            if segment.hi - segment.lo > 2 * columns:
                rest.append(segment)
                continue
            for y in IntegerSet((segment,)).members(segment.lo, segment.hi):
                e = -y % columns
                points[e].append(-(rows * ((y + e) // columns) + c))
        longer.append(IntegerSet(tuple(rest)))
    turned = []
    for e in range(columns):
        parts = [each.sample(columns, -e).scale(rows).shift(c).negate() for c, each in enumerate(longer) if each]
        turned.append(IntegerSet.union_of([IntegerSet.of(points[e]), *parts]))
    return tuple(turned)


@lru_cache(maxsize=256)
def schedule(pattern: Pattern, block_m: int, block_n: int) -> TileProgram:
    """The tile program of a periodic pattern.

    Cost
        O(classes · tile rows · segments) time, independent of any length.
    Raises
        NoNormalForm: the pattern is not periodic, or repeats only after more than MOST_CLASSES tiles.
    """
    form = normalise(pattern)
    row_classes, column_classes = _classes(pattern, form, block_m, block_n)
    period = row_classes * block_m
    predicate = pattern.predicate()
    found: dict[tuple[Predicate, tuple[int, int], tuple[int, int]], list[IntegerSet]] = {}
    for rows in _tile_regions(form.q_breaks, form.unit, block_m):
        for columns in _tile_regions(form.k_breaks, form.unit, block_n):
            for c in range(row_classes):
                if rows[1] - rows[0] == 1 and rows[0] % row_classes != c:
                    continue
                some, every = _lines(form, rows, columns, c, block_m, block_n)
                some &= _reachable(rows, columns, row_classes, column_classes)
                every &= some
                if every:
                    found.setdefault((TRUE, rows, columns), [EMPTY] * row_classes)[c] = every
                for run in _runs(some - every):
                    k_near = (-run.maximum * block_n, -run.minimum * block_n + block_n - 1)
                    q_near = (c * block_m, c * block_m + block_m - 1)
                    box = Box(positions(rows, block_m), positions(columns, block_n), q_near, k_near, period)
                    mask = simplified(predicate, box)
                    visits = found.setdefault((mask, rows, columns), [EMPTY] * row_classes)
                    visits[c] |= run
    groups = [Group(mask, rows, columns, tuple(visits)) for (mask, rows, columns), visits in found.items()]
    return TileProgram(
        block_m,
        block_n,
        row_classes,
        column_classes,
        _joined(_few_masks(groups, predicate)),
        form.looks_ahead,
    )


@lru_cache(maxsize=256)
def visited(pattern: Pattern, block_m: int, block_n: int) -> TileProgram:
    """The same tiles as `schedule`, FULL and PARTIAL together: all under the pattern's own predicate.

    Cost, Raises
        Those of `schedule`.
    """
    form = normalise(pattern)
    row_classes, column_classes = _classes(pattern, form, block_m, block_n)
    mask = tidy(pattern.predicate())
    groups = []
    for rows in _tile_regions(form.q_breaks, form.unit, block_m):
        for columns in _tile_regions(form.k_breaks, form.unit, block_n):
            reachable = _reachable(rows, columns, row_classes, column_classes)
            single = rows[0] % row_classes if rows[1] - rows[0] == 1 else None
            visits = tuple(
                _lines(form, rows, columns, c, block_m, block_n)[0] & reachable if single in (None, c) else EMPTY
                for c in range(row_classes)
            )
            if any(visits):
                groups.append(Group(mask, rows, columns, visits))
    return TileProgram(block_m, block_n, row_classes, column_classes, _joined(groups), form.looks_ahead)


def _classes(pattern: Pattern, form: NormalForm, block_m: int, block_n: int) -> tuple[int, int]:
    """After how many query tiles, and key tiles, the pattern repeats."""
    period = lcm(form.period * form.unit, block_m, block_n)
    row_classes, column_classes = period // block_m, period // block_n
    if max(row_classes, column_classes) > MOST_CLASSES:
        raise NoNormalForm(
            "the pattern repeats after too many tiles",
            where=str(pattern),
            got=f"a period of {period} tokens, {row_classes} query tiles of {block_m}",
            expected=f"at most {MOST_CLASSES} tiles",
        )
    return row_classes, column_classes


def _few_masks(groups: list[Group], predicate: Predicate) -> list[Group]:
    """The same tiles; where there are too many different masks, PARTIAL tiles all ask the whole predicate."""
    if len({group.mask for group in groups if not group.full}) <= MOST_MASKS:
        return groups
    joined: dict[tuple[Predicate, tuple[int, int], tuple[int, int]], Group] = {}
    for group in groups:
        mask = TRUE if group.full else predicate
        key = (mask, group.rows, group.columns)
        if key in joined:
            visits = tuple(a | b for a, b in zip(joined[key].visits, group.visits, strict=True))
            joined[key] = Group(mask, group.rows, group.columns, visits)
        else:
            joined[key] = replace(group, mask=mask)
    return list(joined.values())


def _joined(groups: list[Group]) -> tuple[Group, ...]:
    """Neighbouring rectangles of tiles with the same mask and the same visits as one; FULL tiles first."""
    done: list[Group] = []
    for group in sorted(groups, key=lambda group: not group.full):
        for place, other in enumerate(done):
            if (other.mask, other.visits) != (group.mask, group.visits):
                continue
            if other.rows == group.rows and other.columns[1] == group.columns[0]:
                done[place] = replace(other, columns=(other.columns[0], group.columns[1]))
                break
        else:
            done.append(group)
    return tuple(done)


def _runs(partial: IntegerSet) -> Iterator[IntegerSet]:
    """PARTIAL tiles in runs that are likely to share a mask: ends apart from the middle, a geometric tail together."""
    segments = partial.segments
    tail = geometric_tail(segments)
    if tail is not None:
        yield IntegerSet(segments[tail.start :])
        segments = segments[: tail.start]
    for lo, hi, period, word in segments:
        if hi - lo <= 2 or period > 1:
            yield IntegerSet((Segment(lo, hi, period, word),))
            continue
        first = lo if lo > -INFINITY else lo - 1
        last = hi if hi == INFINITY else hi - 1
        yield from (
            IntegerSet.interval(*ends) for ends in ((lo, first + 1), (first + 1, last), (last, hi)) if ends[0] < ends[1]
        )


def _tile_regions(breaks: tuple[int, ...], unit: int, size: int) -> list[tuple[int, int]]:
    """Ranges of tiles: those that lie in one piece, and single tiles that a break cuts."""
    edges = {0}
    for each in breaks:
        edges.add(each * unit // size)
        edges.add(-(-each * unit // size))
    return list(pairwise((*sorted(edges), INFINITY)))


def _reachable(rows: tuple[int, int], columns: tuple[int, int], row_classes: int, column_classes: int) -> IntegerSet:
    """The y that can occur at all: home(i) - j with i in rows and j in columns."""
    first = column_classes * (rows[0] // row_classes)
    low = -INFINITY if columns[1] == INFINITY else first - columns[1] + 1
    if rows[1] == INFINITY:
        return IntegerSet.interval(low, INFINITY)
    last = column_classes * ((rows[1] - 1) // row_classes)
    return IntegerSet.interval(low, last - columns[0] + 1)


def _lines(
    form: NormalForm, rows: tuple[int, int], columns: tuple[int, int], c: int, block_m: int, block_n: int
) -> tuple[IntegerSet, IntegerSet]:
    """({y : some pair of the tile is live}, {y : every pair is}) for query tiles of class c in a region."""
    some, every = EMPTY, EVERYTHING
    for (q_piece, k_piece), cell in form.pieces():
        row_span = _overlap(q_piece, rows, form.unit, block_m)
        column_span = _overlap(k_piece, columns, form.unit, block_n)
        if row_span is None or column_span is None:
            continue
        for top, bottom, live_somewhere, live_everywhere in _strips(form, cell, c * block_m, row_span):
            width = column_span[1] - column_span[0]
            height = bottom - top
            shift = column_span[0] - (height - 1)
            some |= live_somewhere.shift(shift).dilate(width + height - 1)
            every -= (~live_everywhere).shift(shift).dilate(width + height - 1)
    return some.sample(block_n, c * block_m), every.sample(block_n, c * block_m)


def _overlap(piece: tuple[int, int], tiles: tuple[int, int], unit: int, size: int) -> tuple[int, int] | None:
    """The offsets inside a tile of the region that lie in the piece, as [from, to); None where none do."""
    start, end = piece[0] * unit, piece[1] if piece[1] == INFINITY else piece[1] * unit
    if tiles[1] - tiles[0] > 1:
        inside = (
            start <= tiles[0] * size
            and (tiles[1] == INFINITY or tiles[1] * size <= end)
            and (tiles[1] != INFINITY or end == INFINITY)
        )
        return (0, size) if inside else None
    lo = max(0, start - tiles[0] * size)
    hi = size if end == INFINITY else min(size, end - tiles[0] * size)
    return (lo, hi) if lo < hi else None


def _strips(
    form: NormalForm, cell: Periodic, tile_start: int, span: tuple[int, int]
) -> Iterator[tuple[int, int, IntegerSet, IntegerSet]]:
    """Cut the rows of a tile into strips whose rows share one set of distances.

    Yields (top, bottom, some, every): with D the distance from the tile's first key to its first query, the pair
    (row r, column s) is live for some (every) r of the strip where D - s + (r - top of a one-row strip) does.
    """
    if form.unit == 1:
        top = span[0]
        for row in range(span[0] + 1, span[1] + 1):
            if row < span[1] and cell.row(tile_start + row) == cell.row(tile_start + top):
                continue
            distances = cell.row(tile_start + top).shift(-top)
            yield top, row, distances, distances
            top = row
        return
    row = span[0]
    while row < span[1]:
        query, place = divmod(tile_start + row, form.unit)
        end = min(span[1], row + form.unit - place)
        # Seen from the tile's first row, all rows of one unit read the same keys, but for the causal cut.
        some = every = cell.row(query).negate().lift(form.unit).negate().shift(place - row)
        if form.cut:
            some &= IntegerSet.interval(-(end - 1), INFINITY)
            every &= IntegerSet.interval(-row, INFINITY)
        yield row, row + 1, some, every
        row = end
