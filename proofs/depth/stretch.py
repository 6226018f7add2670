"""A finite count that stands for every length: paths with an edge that can be lengthened by a whole period.

Let p be a multiple of the period. If an edge (q, k), q beyond the start, stays an edge when q moves on by p, and
again and again, then so does a path through it: what lies above the edge moves, what lies below stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sparsedsl.forms import NormalForm
from sparsedsl.integers import INFINITY, IntegerSet
from sparsedsl.proofs.depth.curves import Curve, Endless, runs_through
from sparsedsl.proofs.depth.recheck import Matrix, joined_through
from sparsedsl.proofs.depth.words import Said, longest, whole_symbol

if TYPE_CHECKING:
    from sympy import Basic

    from sparsedsl.proofs.depth.facts import Facts

# tails[layer][key piece][residue of the query]: distances that stay distances when the period is added.
Tails = tuple[tuple[tuple[IntegerSet, ...], ...], ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """lengths[h]: the length up to which h layers join all later tokens to each of the first `keys` keys.

    After the last of the lengths every length is joined if `endless`; else these layers are all there are. Found on
    the first `size` units; in the last `shift` of them each pair is joined by a path with an edge of the tails.
    """

    lengths: tuple[int, ...]
    endless: bool
    keys: int
    size: int
    shift: int
    tails: Tails

    lemma = "counted, then lengthened"

    def statement(self) -> Basic:
        """n(0) = 1, n(1) = ..., and n(h) = ∞ in the end."""
        from sympy import And, Eq, oo

        known = [Eq(longest(h), length) for h, length in enumerate(self.lengths)]
        return And(*known, *([Eq(longest(len(self.lengths)), oo)] if self.endless else []))

    def because(self) -> Said:
        """By counting, and by moving paths on."""
        from sympy import Integer

        q = whole_symbol("q")
        size, keys, p = Integer(self.size), Integer(self.keys), Integer(self.shift)
        counted = "all paths among the first {} positions were listed, to the first {} keys, which stand for all"
        if not self.endless:
            return Said(counted, (size, keys))
        return Said(
            counted + "; each of the last {} queries has a path with an edge that can be lengthened by {}, so with {} "
            "also {}, and so on, reaches the key in as many layers",
            (size, keys, p, p, q, q + p),
        )

    def curve(self) -> Curve:
        """The lengths as a curve."""
        return Curve(runs_through(self.lengths), Endless(len(self.lengths)) if self.endless else None)

    def holds(self, facts: Facts) -> bool:
        """Follow every path of the matrices row by row; see that the tails are edges and go on."""
        layers = len(self.lengths) - 1 + self.endless
        forms = [facts.inner[h % len(facts.inner)] for h in range(layers)]
        if self.keys not in (facts.start, facts.start + facts.period) or self.shift % facts.period:
            return False
        if not self._tails_hold(facts) or (layers > len(facts.inner) and not facts.endless):
            return False
        edges = {form: _edges(form, self.size) for form in forms}
        by_tails = {
            (form, tails): self._long_edges(facts, form, tails)
            for form, tails in zip(facts.inner, self.tails, strict=True)
        }
        longs = [by_tails[pair] for pair in zip(facts.inner, self.tails, strict=True)]
        through = joined_through(
            [edges[form] for form in forms], [longs[h % len(longs)] for h in range(layers)], self.keys
        )
        found = [1, *(_joined_length(joined, self.keys) for joined, _ in through)]
        if not self.endless:
            return tuple(found) == self.lengths and self.size > max(found) and len(facts.inner) == layers
        if tuple(found[:-1]) != self.lengths or found[-1] != self.size or self.size <= self.shift + self.keys:
            return False
        within = (1 << self.keys) - 1
        return all(long == within for long in through[-1][1][self.size - self.shift :])

    def _tails_hold(self, facts: Facts) -> bool:
        for form, pieces in zip(facts.inner, self.tails, strict=True):
            for cell, tails in zip(form.cells[-1], pieces, strict=True):
                if self.shift % cell.period or len(tails) != cell.period:
                    return False
                for row, tail in zip(cell.rows, tails, strict=True):
                    if tail - row or tail.shift(self.shift) - tail or tail & IntegerSet.interval(-INFINITY, 1):
                        return False
        return True

    def _long_edges(self, facts: Facts, form: NormalForm, tails: Sequence[tuple[IntegerSet, ...]]) -> Matrix:
        matrix = _edges(tail_form(form, tails), self.size)
        matrix[: facts.start] = False
        return matrix


def tail_form(form: NormalForm, tails: Sequence[tuple[IntegerSet, ...]]) -> NormalForm:
    """The form with the tails in the last row of rectangles, and nothing in the others."""
    from sparsedsl.forms import NOTHING, Periodic

    nothing = tuple(NOTHING for _ in form.k_breaks)
    last = tuple(Periodic(rows) for rows in tails)
    return replace(form, unit=1, cut=False, cells=(*(nothing for _ in form.q_breaks[1:]), last))


def _edges(form: NormalForm, size: int) -> Matrix:
    import numpy as np

    return np.tril(replace(form, unit=1, cut=False).dense(size, size))


def _joined_length(joined: list[int], keys: int) -> int:
    """The first query that lacks an earlier key among the first `keys`; all of them if none does."""
    for query, seen in enumerate(joined):
        wanted = (1 << min(query + 1, keys)) - 1
        if seen & wanted != wanted:
            return query
    return len(joined)
