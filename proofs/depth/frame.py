"""Steps about the pattern as a whole: what is enough to look at, and what settles completeness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsedsl.integers import INFINITY, IntegerSet
from sparsedsl.proofs.depth.recheck import neighbours_missing, self_edges_missing
from sparsedsl.proofs.depth.words import Said, whole_symbol

if TYPE_CHECKING:
    from sympy import Basic

    from sparsedsl.proofs.depth.facts import Facts


@dataclass(frozen=True, slots=True)
class Blocks:
    """The pattern is told in blocks of `unit` tokens, each of which reads itself: N tokens are ⌈N / unit⌉ blocks."""

    unit: int

    lemma = "blocks"

    def statement(self) -> Basic:
        """n = ⌈N / unit⌉."""
        from sympy import Eq, ceiling

        return Eq(whole_symbol("n"), ceiling(whole_symbol("N") / self.unit))

    def because(self) -> Said:
        """An edge joins all tokens of two blocks."""
        return Said(
            "an edge between two blocks joins each token of one to each of the other, so a path of blocks is a path of "
            "tokens; inside a block one layer joins all earlier tokens"
        )

    def holds(self, facts: Facts) -> bool:
        """The unit is the normal form's, and no block lacks its own edge in the first layer."""
        return self.unit == facts.unit and self_edges_missing(facts.inner[:1], facts.start + facts.period) is None


@dataclass(frozen=True, slots=True)
class SelfEdges:
    """Without the residual connection: every token reads itself in every layer (missing: the first that does not)."""

    missing: int | None

    lemma = "self edges"

    def statement(self) -> Basic:
        """(q, q) is an edge for all q, or it is not for the first one."""
        return _relation(self.missing, 0)

    def because(self) -> Said:
        """A path from a token to itself stays there."""
        if self.missing is None:
            return Said("every token reads itself in every layer, so the residual connection would add nothing")
        return Said("a path from a token to itself stays there, and in some layer this one has no edge to itself")

    def holds(self, facts: Facts) -> bool:
        """Ask for the edge of every unit of a period; where a token looks ahead, a path may come back to it."""
        forms = facts.inner if self.missing is None else facts.outer
        if facts.ahead and self.missing is not None:
            return False
        return self_edges_missing(forms, facts.start + facts.period) == self.missing


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Each token reads the one before it in some layer (missing: the first that never does)."""

    missing: int | None

    lemma = "neighbours"

    def statement(self) -> Basic:
        """(q, q − 1) is an edge for all q >= 1, or it is not for the first one."""
        return _relation(self.missing, 1)

    def because(self) -> Said:
        """Between neighbours there is no third token."""
        if self.missing is None:
            return Said(
                "each token reads the one before it, so enough layers join all tokens; depth is a matter of counting"
            )
        return Said(
            "a path from a token to the one before it has no third token to pass through: it is that one edge, which "
            "is in no layer. The same pair fails at every greater length, and all earlier neighbours are joined"
        )

    def holds(self, facts: Facts) -> bool:
        """Ask for the edge of every unit of a period; where a token looks ahead, there may be a third token."""
        forms = facts.inner if self.missing is None else facts.outer
        if facts.ahead:
            return False
        return neighbours_missing(forms, facts.start + facts.period) == self.missing


@dataclass(frozen=True, slots=True)
class OwnBlock:
    """A block of two tokens or more that does not read itself: its second token never reaches its first."""

    block: int

    lemma = "own block"

    def statement(self) -> Basic:
        """(Q, Q) is not an edge."""
        return _relation(self.block, 0)

    def because(self) -> Said:
        """The path would stay inside the block."""
        return Said("a path between two tokens of one block stays in the block, which has no edge to itself")

    def holds(self, facts: Facts) -> bool:
        """Every layer lacks the edge."""
        return (
            facts.unit > 1
            and not facts.ahead
            and all(0 not in form.cell_at(self.block, self.block).row(self.block) for form in facts.outer)
        )


@dataclass(frozen=True, slots=True)
class Residues:
    """Every distance of every layer is a multiple of `divisor` > 1."""

    divisor: int

    lemma = "invariant"

    def statement(self) -> Basic:
        """(q − k) mod divisor = 0 along every path."""
        from sympy import Eq, Mod

        return Eq(Mod(whole_symbol("q") - whole_symbol("k"), self.divisor), 0)

    def because(self) -> Said:
        """Sums of multiples."""
        from sympy import Integer

        return Said(
            "every edge has a distance that {} divides, so a path never leaves a residue class",
            (Integer(self.divisor),),
        )

    def holds(self, facts: Facts) -> bool:
        """No row has another distance."""
        others = ~IntegerSet.residues(self.divisor, [0])
        return self.divisor > 1 and not any(
            row & others for form in facts.outer for _, cell in form.pieces() for row in cell.rows
        )


@dataclass(frozen=True, slots=True)
class Borders:
    """Every edge of every layer stays in a chunk of `size` units of `unit` tokens."""

    size: int
    unit: int

    lemma = "invariant"

    def statement(self) -> Basic:
        """⌊q / chunk⌋ = ⌊k / chunk⌋ along every path."""
        from sympy import Eq, floor

        chunk = self.size * self.unit
        return Eq(floor(whole_symbol("q") / chunk), floor(whole_symbol("k") / chunk))

    def because(self) -> Said:
        """No edge crosses."""
        from sympy import Integer

        return Said("no edge crosses a multiple of {}, so no path does", (Integer(self.size * self.unit),))

    def holds(self, facts: Facts) -> bool:
        """The distances of the query at place r of its chunk lie in [r − size + 1, r]."""
        return self.unit == facts.unit and all(
            self.size % cell.period == 0
            and all(cell.row(r) <= IntegerSet.interval(r - self.size + 1, r + 1) for r in range(self.size))
            for form in facts.outer
            for _, cell in form.pieces()
        )


@dataclass(frozen=True, slots=True)
class Direct:
    """The keys in [lo, hi) are read by every later token; the tokens beyond are the same pattern, `hi` fewer."""

    lo: int
    hi: int

    lemma = "sink"

    def statement(self) -> Basic:
        """lo <= k < hi, k < q: one layer joins (q, k)."""
        from sympy import And, Eq, Function, Implies, Le, Lt

        q, k = whole_symbol("q"), whole_symbol("k")
        return Implies(And(Le(self.lo, k), Lt(k, self.hi), Lt(k, q)), Eq(Function("E")(q, k), 1))

    def because(self) -> Said:
        """One edge."""
        return Said(
            "each is one edge away from every later token. A path to any later key never comes down so far, so these "
            "keys shorten no other path"
        )

    def holds(self, facts: Facts) -> bool:
        """Every row that can hold such a distance does, in the first layer."""
        form = facts.inner[0]
        for (q_piece, k_piece), cell in form.pieces():
            lo, hi = max(self.lo, k_piece[0]), min(self.hi, k_piece[1])
            if lo >= hi or q_piece[1] <= lo + 1:
                continue
            end = INFINITY if q_piece[1] == INFINITY else q_piece[1] - lo
            wanted = IntegerSet.interval(max(1, q_piece[0] - hi + 1), end)
            if not all(wanted <= row for row in cell.rows):
                return False
        return 0 <= self.lo < self.hi <= facts.start


@dataclass(frozen=True, slots=True)
class Everything:
    """The pattern has every pair at all."""

    lemma = "full"

    def statement(self) -> Basic:
        """depth = 1."""
        from sympy import Eq, Symbol

        return Eq(Symbol("depth"), 1)

    def because(self) -> Said:
        """One edge."""
        return Said("every token reads every token")

    def holds(self, facts: Facts) -> bool:
        """No row lacks a distance."""
        rows = (row for _, cell in facts.inner[0].pieces() for row in cell.rows)
        return all(IntegerSet.interval(-INFINITY, INFINITY) <= row for row in rows)


def _relation(missing: int | None, distance: int) -> Basic:
    """E(q, k) is 1 where q reads k, else 0."""
    from sympy import Eq, Function, Ge, Implies, Integer

    edge = Function("E")
    q = whole_symbol("q")
    if missing is None:
        return Implies(Ge(q, distance), Eq(edge(q, q - distance), 1))
    return Eq(edge(Integer(missing), Integer(missing - distance)), 0)
