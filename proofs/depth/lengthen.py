"""The search for a `Stretch`: sets of distances for each residue, and sets of queries for the keys before the start."""

from __future__ import annotations

from math import lcm

from sparsedsl.forms import NormalForm
from sparsedsl.integers import INFINITY, IntegerSet
from sparsedsl.proofs.bits import lowest_missing, ones, progressions, sums
from sparsedsl.proofs.depth.facts import Facts
from sparsedsl.proofs.depth.stretch import Stretch, Tails, tail_form
from sparsedsl.proofs.periodic_layer import PeriodicLayer

# Layers of one pattern that the search tries, the longest shift, and the most units counted.
MOST_LAYERS = 64
LONGEST_SHIFT = 1 << 12
MOST_UNITS = 1 << 13
# Edges read by the check of a Stretch: a few seconds.
MOST_EDGES = 1 << 24

# (distances or queries joined, and those joined by a path with an edge of the tails), for each class or key.
Joined = tuple[list[int], list[int]]


def stretch_of(facts: Facts, *, absolute_only: bool) -> Stretch | None:
    """The proof by lengthened paths for all keys, or for the keys before the start; None if there is none in reach.

    Cost
        O(layers · period · progressions · size / 64) time for at most MOST_UNITS units, tried at growing sizes.
    """
    keys = facts.start + (0 if absolute_only else facts.period)
    found = _tails(facts)
    if found is None or keys > MOST_UNITS:
        return None
    tails, shift, threshold = found
    if facts.endless and not any(tail for form in tails for piece in form for tail in piece):
        return None
    layers = MOST_LAYERS if facts.endless else len(facts.inner)
    depth = threshold + 2 * (shift + facts.period) + 8
    while facts.start + depth <= MOST_UNITS and _edge_count(facts, facts.start + depth) <= MOST_EDGES:
        size = facts.start + depth
        search = _Search(facts, tails, size, shift, absolute_only=absolute_only)
        lengths = [1]
        for layer in range(layers):
            search.advance(layer % len(facts.inner))
            length = search.length()
            if length >= size:
                break
            lengths.append(length)
        else:
            # A stack that ends before all is joined; one pattern that gets no farther than this is given up.
            if facts.endless or max(lengths) >= size - shift - keys:
                return None
            return Stretch(tuple(lengths), False, keys, size, shift, tails)
        if search.lengthens(shift + keys):
            return Stretch(tuple(lengths), True, keys, size, shift, tails)
        depth *= 2
    return None


def _edge_count(facts: Facts, size: int) -> int:
    """About how many edges the layers have on so many units."""
    return sum(size * max(row.count(0, size) for _, cell in form.pieces() for row in cell.rows) for form in facts.inner)


def _tails(facts: Facts) -> tuple[Tails, int, int] | None:
    """The tails of every row beyond the start, the shift, and the distance from which they are all there."""
    shift, threshold = facts.period, 1
    for form in facts.inner:
        for cell in form.cells[-1]:
            shift = lcm(shift, cell.period, *(row.segments[-1].period for row in cell.rows if _goes_on(row)))
    if shift > LONGEST_SHIFT:
        return None
    tails = []
    for form in facts.inner:
        pieces = []
        for cell in form.cells[-1]:
            rows = tuple(_tail(row) for row in cell.rows)
            threshold = max(threshold, *(row.minimum for row in rows if row), 1)
            pieces.append(rows)
        tails.append(tuple(pieces))
    return tuple(tails), shift, threshold


def _goes_on(row: IntegerSet) -> bool:
    return bool(row) and row.segments[-1].hi == INFINITY


def _tail(row: IntegerSet) -> IntegerSet:
    """The members from which on the last segment's word is all there, without what else stands between."""
    if not _goes_on(row):
        return IntegerSet(())
    last = row.segments[-1]
    word = IntegerSet.periodic(last.period, last.word) & IntegerSet.interval(1, INFINITY)
    missing = word - row
    return word & IntegerSet.interval(missing.maximum + 1 if missing else 1, INFINITY)


class _Search:
    """What the layers so far join: by distance beyond the start, by query for each key before it."""

    def __init__(self, facts: Facts, tails: Tails, size: int, shift: int, *, absolute_only: bool) -> None:
        self.facts, self.size, self.absolute_only = facts, size, absolute_only
        self.limit = size - facts.start
        self.period = 0 if absolute_only else facts.period
        self.classes: Joined = ([1] * self.period, [0] * self.period)
        self.keys: Joined = ([1 << key for key in range(facts.start)], [0] * facts.start)
        regular = [form.cells[-1][-1] for form in facts.inner]
        ends = [each[-1] for each in tails]
        self.rows = [[progressions(_back(c.row(s)), self.limit) for s in range(self.period)] for c in regular]
        self.long_rows = [[progressions(end[s % len(end)], self.limit) for s in range(self.period)] for end in ends]
        self.layers = [PeriodicLayer(_back_form(form), size) for form in facts.inner]
        self.long_layers = [
            PeriodicLayer(tail_form(form, each), size) for form, each in zip(facts.inner, tails, strict=True)
        ]
        self.beyond = ones(size) & ~ones(facts.start)

    def advance(self, layer: int) -> None:
        """Add one layer."""
        joined, long = self.classes
        limits = [self.limit] * self.period
        rows, long_rows = self.rows[layer], self.long_rows[layer]
        self.classes = (
            [a | b for a, b in zip(joined, sums(joined, rows, limits), strict=True)],
            [
                a | b | c
                for a, b, c in zip(long, sums(long, rows, limits), sums(joined, long_rows, limits), strict=True)
            ],
        )
        everyone, some = self.layers[layer], self.long_layers[layer]
        joined, long = self.keys
        self.keys = (
            [queries | everyone.readers(queries) for queries in joined],
            [
                old | (everyone.readers(old) if old else 0) | some.readers(queries) & self.beyond
                for queries, old in zip(joined, long, strict=True)
            ],
        )

    def length(self) -> int:
        """The greatest length at which every pair is joined; `size` if none is missing."""
        start, least = self.facts.start, self.size
        for s, bits in enumerate(self.classes[0]):
            missing = start + lowest_missing(bits)
            least = min(least, missing + (s - missing) % self.period)
        for key, queries in enumerate(self.keys[0]):
            least = min(least, key + lowest_missing(queries >> key))
        return least

    def lengthens(self, last: int) -> bool:
        """Whether each of the last pairs has a path that can be lengthened."""
        top = ones(self.limit) & ~ones(self.limit - last)
        final = ones(self.size) & ~ones(self.size - last)
        return all(bits & top == top for bits in self.classes[1]) and all(
            bits & final == final for bits in self.keys[1]
        )


def _back(row: IntegerSet) -> IntegerSet:
    return row & IntegerSet.interval(1, INFINITY)


def _back_form(form: NormalForm) -> NormalForm:
    """Earlier keys only: what a unit sees of itself does not matter here."""
    from dataclasses import replace

    from sparsedsl.forms import Periodic

    cells = tuple(tuple(Periodic(tuple(_back(row) for row in cell.rows)) for cell in row) for row in form.cells)
    return replace(form, unit=1, cut=False, cells=cells)
