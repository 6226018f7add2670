"""Keys and pairs of one layer: the worst row, all live pairs, the rows without a key."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import lcm
from typing import NamedTuple

from sparsedsl.forms import NormalForm
from sparsedsl.integers import INFINITY, IntegerSet
from sparsedsl.proofs.bits import ones, progressions
from sparsedsl.proofs.extent import Extent
from sparsedsl.proofs.layer_graph import LayerGraphs
from sparsedsl.proofs.periodic_layer import PeriodicLayer


class Counts(NamedTuple):
    """One layer's keys in the worst row, its pairs, those of them with k <= q, and its rows without a key.

    All in tokens, but for `keyless`: units as bits.
    """

    degree: int
    pairs: int
    causal_pairs: int
    keyless: int


# --- causal normal forms: closed sums


def form_counts(layer: PeriodicLayer, extent: Extent) -> Counts:
    """The counts of a causal normal form.

    Cost
        O(periods · progressions · log N) time for the pairs and O(periods · progressions²) for the degree, no
        matter how many rows there are; the rows without a key cost one layer of reach, and nothing where every
        row has its own key.
    """
    form = layer.form
    earlier = _EarlierUnits(form, extent)
    last = extent.units - 1
    cross = extent.unit * (extent.unit * earlier.total(last) + extent.last_size * earlier.of(last))
    loops = layer.loops
    own = (loops & ones(last)).bit_count() * _triangle(extent.unit)
    own += (loops >> last & 1) * _triangle(extent.last_size)
    degree = max(
        earlier.of(query) * extent.unit + (extent.size(query) if loops >> query & 1 else 0)
        for query in earlier.worst_queries()
    )
    everything = ones(extent.units)
    keyless = 0 if loops == everything else everything & ~layer.readers(everything)
    return Counts(degree, cross + own, cross + own, keyless)


def _triangle(size: int) -> int:
    return size * (size + 1) // 2


class _EarlierUnits:
    """How many earlier units each unit reads."""

    def __init__(self, form: NormalForm, extent: Extent) -> None:
        self.units = extent.units
        ends = (*form.q_breaks, INFINITY)
        # (first query, end of the queries, rectangles); a rectangle is (its key piece, rows of distances).
        self.bands = [
            (
                lo,
                min(hi, self.units),
                list(zip(pairwise((*form.k_breaks, INFINITY)), cells, strict=True)),
            )
            for (lo, hi), cells in zip(pairwise(ends), form.cells, strict=True)
            if lo < self.units
        ]

    def of(self, query: int) -> int:
        """The earlier units that one unit reads."""
        (cells,) = (cells for lo, hi, cells in self.bands if lo <= query < hi)
        return sum(cell.row(query).count(max(1, query - piece[1] + 1), query - piece[0] + 1) for piece, cell in cells)

    def total(self, end: int) -> int:
        """The sum over the queries before `end`, by closed forms."""
        total = 0
        for lo, hi, cells in self.bands:
            for (k_lo, k_hi), cell in cells:
                for s, row in enumerate(cell.rows):
                    first = lo + (s - lo) % cell.period
                    queries = _Queries(first, cell.period, max(0, -((first - min(hi, end)) // cell.period)))
                    for d, step, count in progressions(row, self.units):
                        if d == 0:
                            # The query's own unit is no earlier one.
                            d, count = step, count - 1
                        # Distances up to Q - k_lo, less those up to Q - k_hi.
                        total += _at_most(queries, d + k_lo, step, count)
                        if k_hi < INFINITY:
                            total -= _at_most(queries, d + k_hi, step, count)
        return total

    def worst_queries(self) -> Iterator[int]:
        """Queries among which is one with the most keys.

        Between two ends of segments, the keys of the queries of a class are a line plus a periodic part, so the
        most stand within one period of an end. With one key piece they only ever grow.
        """
        yield self.units - 1
        for lo, hi, cells in self.bands:
            period = lcm(*(cell.period for _, cell in cells))
            for s in range(period):
                first = lo + (s - lo) % period
                if len(cells) == 1 and first < hi:
                    # The last two of the class: the last unit of all may have fewer keys of its own.
                    last = first + (hi - 1 - first) // period * period
                    yield from {last, max(first, last - period)}
                elif first < hi:
                    rows = [(piece, cell.row(s)) for piece, cell in cells]
                    yield from _near_ends(rows, first, hi, period)


def _near_ends(rows: list[tuple[tuple[int, int], IntegerSet]], first: int, end: int, step: int) -> Iterator[int]:
    """The queries first, first + step, ... below end within a common period of an end of a segment."""
    # At the end of a key piece the query's own key may come or go.
    ends = {first, end} | {key for piece, _ in rows for key in piece if key < INFINITY}
    period = step
    for piece, row in rows:
        for lo, hi, repeat, _ in row.segments:
            period = lcm(period, repeat)
            ends |= {key + distance for key in piece for distance in (lo, hi) if key < INFINITY}
    near: set[int] = set()
    for place in ends:
        start = max(first, place - period - step)
        start += (first - start) % step
        near.update(range(start, min(end, place + period + step), step))
    yield from near


class _Queries(NamedTuple):
    """first, first + step, ...: `count` of them."""

    first: int
    step: int
    number: int


def _at_most(queries: _Queries, start: int, step: int, count: int) -> int:
    """The sum over the queries Q of how many of start, start + step, ... (`count` of them) are <= Q."""
    return _ramp(queries, start, step) - _ramp(queries, start + step * count, step)


def _ramp(queries: _Queries, start: int, step: int) -> int:
    """The sum over the queries Q >= start of (Q - start) // step + 1."""
    first, period, count = queries
    skipped = max(0, -((first - start) // period))
    count -= skipped
    if count <= 0:
        return 0
    return _floor_sum(count, step, period, first + period * skipped - start) + count


def _floor_sum(count: int, divisor: int, slope: int, offset: int) -> int:
    """The sum over 0 <= t < count of (slope · t + offset) // divisor, all numbers >= 0; O(log) steps.

    Example
        >>> _floor_sum(5, 3, 2, 1) == sum((2 * t + 1) // 3 for t in range(5))
        True

    """
    total = 0
    while True:
        total += slope // divisor * (count * (count - 1) // 2) + offset // divisor * count
        slope, offset = slope % divisor, offset % divisor
        top = slope * count + offset
        if top < divisor:
            return total
        # The points under the line t -> (slope t + offset) / divisor, counted along the other axis.
        count, divisor, slope, offset = top // divisor, slope, divisor, top % divisor


# --- layer graphs: by row


def graph_counts(graphs: LayerGraphs, index: int) -> Counts:
    """The counts of one layer graph; O(units² / 64) time."""
    extent = graphs.extent
    last = extent.units - 1
    degree = pairs = causal_pairs = keyless = 0
    for query, row in enumerate(graphs.layers[index].rows):
        size = extent.size(query)
        others = row & ~(1 << query)
        reads_last = others >> last & 1
        keys = (others.bit_count() - reads_last) * extent.unit + reads_last * extent.last_size
        earlier = (row & ones(query)).bit_count() * extent.unit
        loop = row >> query & 1
        own_pairs = loop * (size * size if graphs.ahead else _triangle(size))
        degree = max(degree, keys + loop * size)
        pairs += keys * size + own_pairs
        causal_pairs += earlier * size + loop * _triangle(size)
        keyless |= (row == 0) << query
    return Counts(degree, pairs, causal_pairs, keyless)
