"""One layer with a causal normal form, on the units of one length: who reads whom, as bit sets."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

from sparsedsl.forms import NormalForm, Periodic
from sparsedsl.integers import IntegerSet
from sparsedsl.proofs.bits import lowest, ones, periodic_bits, progressions, sums


@dataclass(frozen=True)
class PeriodicLayer:
    """A normal form and a number of units; causal, unless a method says otherwise."""

    form: NormalForm
    units: int

    def readers(self, keys: int) -> int:
        """The units with an edge to some unit of `keys`.

        Cost
            O(rectangles · different rows · progressions · units / 64) time, O(units / 8) bytes.
        """
        found = 0
        for ((q_piece, k_piece), cell), classes in zip(self.form.pieces(), self._classes, strict=True):
            inside = keys & _interval(k_piece, self.units)
            if inside and q_piece[0] < self.units:
                found |= self._readers_in(inside, classes, cell.period) & _interval(q_piece, self.units)
        return found

    def _readers_in(self, keys: int, classes: dict[IntegerSet, int], period: int) -> int:
        first = lowest(keys)
        limit = self.units - first
        found = 0
        for row, word in classes.items():
            terms = progressions(row, limit)
            if any(step == 1 and start + count == limit for start, step, count in terms):
                # Everything from `start` on is reached from the first key, so later keys add less.
                start = min(start for start, step, count in terms if step == 1 and start + count == limit)
                tail = ones(limit) ^ ones(start)
                terms = tuple(term for term in terms if term[0] < start)
            else:
                tail = 0
            (reached,) = sums([keys >> first], [terms], [limit]) if terms else (0,)
            found |= (reached | tail) << first & periodic_bits(word, period, self.units)
        return found

    def row(self, query: int) -> int:
        """The units that a unit has an edge to; here the form may look ahead."""
        found = 0
        end = query + 1 if self.form.cut else self.units
        for ((q_piece, k_piece), cell), mirrored in zip(self.form.pieces(), self._mirrored, strict=True):
            if q_piece[0] <= query < q_piece[1]:
                lo, hi = k_piece[0], min(k_piece[1], end)
                if lo < hi:
                    found |= mirrored[query % cell.period].shift(query).bits(lo, hi) << lo
        return found

    @cached_property
    def _classes(self) -> tuple[dict[IntegerSet, int], ...]:
        """For each rectangle the different rows, each with the residues that have it as a word."""
        return tuple(_different(cell) for _, cell in self.form.pieces())

    @cached_property
    def _mirrored(self) -> tuple[tuple[IntegerSet, ...], ...]:
        """For each rectangle and residue, key minus query instead of query minus key."""
        return tuple(tuple(row.negate() for row in cell.rows) for _, cell in self.form.pieces())

    def loops_at(self, unit: int) -> bool:
        """Whether a unit has an edge to itself."""
        return 0 in self.form.cell_at(unit, unit).row(unit)

    @cached_property
    def loops(self) -> int:
        """The units with an edge to themselves."""
        found = 0
        for (q_piece, k_piece), cell in self.form.pieces():
            both = max(q_piece[0], k_piece[0]), min(q_piece[1], k_piece[1])
            word = sum(1 << r for r, row in enumerate(cell.rows) if 0 in row)
            found |= periodic_bits(word, cell.period, self.units) & _interval(both, self.units)
        return found


def _different(cell: Periodic) -> dict[IntegerSet, int]:
    words: dict[IntegerSet, int] = defaultdict(int)
    for residue, row in enumerate(cell.rows):
        words[row] |= 1 << residue
    return words


def _interval(piece: tuple[int, int], length: int) -> int:
    return ones(min(piece[1], length)) & ~ones(piece[0]) if piece[0] < min(piece[1], length) else 0
