"""The keys of a pattern in a few parts, each with its own bounds; the depth is that of the deepest part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsedsl.proofs.depth.bounds import Lower, Upper
from sparsedsl.proofs.depth.curves import Curve, Run
from sparsedsl.proofs.depth.layered import Layered
from sparsedsl.proofs.depth.recheck import all_joined_after
from sparsedsl.proofs.depth.stretch import Stretch
from sparsedsl.proofs.depth.words import Said, Step, whole_symbol

if TYPE_CHECKING:
    from sympy import Basic

    from sparsedsl.proofs.depth.facts import Facts

# The curve of which nothing is known: a single token.
NOTHING = Curve((Run(0, 1, 0),))


@dataclass(frozen=True, slots=True)
class Through:
    """All pairs of the tokens 0, ..., start are joined by `layers` layers: what any path to the first keys adds."""

    layers: int

    lemma = "through the start"

    def statement(self) -> Basic:
        """depth(n) <= depth beyond the start + layers."""
        from sympy import Function, Le

        n = whole_symbol("n")
        return Le(Function("depth")(n), Function("depth_beyond")(n) + self.layers)

    def because(self) -> Said:
        """Down to the start, and on from there."""
        from sympy import Integer

        return Said(
            "a path from a later token to one of the first keys may lead down to the first token beyond them, and from "
            "there to the key by {} layers at most, as counted",
            (Integer(self.layers),),
        )

    def holds(self, facts: Facts) -> bool:
        """Multiply the matrix of the first tokens."""
        return facts.endless and self.layers >= 1 and all_joined_after(facts.inner[0], facts.start + 1, self.layers)


@dataclass(frozen=True, slots=True)
class Distances:
    """The keys beyond the start: one set of distances that all tokens have, and one that none exceeds.

    `upper` is None where not all tokens are known to read the one before them.
    """

    upper: Upper | None
    lower: Lower
    shift: int
    through: Through | None = None

    def steps(self) -> list[Step]:
        """Every step, the common base once."""
        found: list[Step] = [self.upper.counted, *self.upper.growth] if self.upper else []
        if not self.upper or self.lower.counted != self.upper.counted:
            found.append(self.lower.counted)
        if self.lower.limit is not None:
            found.append(self.lower.limit)
        return [*found, self.through] if self.through else found

    def curves(self, facts: Facts) -> tuple[Curve, Curve]:
        """The lengths that h layers join at least, and at most."""
        at_least = self.upper.curve() if self.upper else NOTHING
        at_most = self.lower.curve()
        from_one = self.shift > 0 or facts.unit > 1
        return at_least.placed(self.shift, at_least_one=from_one), at_most.placed(self.shift, at_least_one=from_one)

    def holds(self, facts: Facts) -> bool:
        """Both chains, on the keys beyond the start of one pattern in all layers."""
        upper_holds = self.upper is None or self.upper.holds(facts)
        return facts.endless and self.shift == facts.start and upper_holds and self.lower.holds(facts)


@dataclass(frozen=True, slots=True)
class Layers:
    """The keys beyond the start, where every layer has one set of distances of its own."""

    layered: Layered
    shift: int

    through = None

    def steps(self) -> list[Step]:
        """The one step."""
        return [self.layered]

    def curves(self, facts: Facts) -> tuple[Curve, Curve]:
        """The lengths, exactly."""
        curve = self.layered.curve().placed(self.shift, at_least_one=self.shift > 0 or facts.unit > 1)
        return curve, curve

    def holds(self, facts: Facts) -> bool:
        """The layers are the stack's."""
        return not facts.endless and self.shift == facts.start and facts.is_exact


@dataclass(frozen=True, slots=True)
class Counted:
    """The first keys, or those and one period more, which stand for all: counted, then lengthened."""

    stretch: Stretch

    through = None

    def steps(self) -> list[Step]:
        """The one step."""
        return [self.stretch]

    def curves(self, facts: Facts) -> tuple[Curve, Curve]:
        """The lengths, exactly; on the part of a pattern that is periodic, they are lengths at least."""
        curve = self.stretch.curve().placed(0, at_least_one=facts.unit > 1)
        return curve, curve

    def holds(self, facts: Facts) -> bool:
        """Without a normal form of the whole pattern, nothing is said of how little is joined."""
        return facts.is_exact


Part = Distances | Layers | Counted


def covers(part: Part, facts: Facts) -> bool:
    """Whether the part is about all keys beyond the start."""
    return not isinstance(part, Counted) or part.stretch.keys == facts.start + facts.period
