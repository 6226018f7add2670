"""How steps speak: a sentence with formulas in it, and the symbols that all steps share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sympy import Basic, Symbol

    from sparsedsl.proofs.depth.facts import Facts


@dataclass(frozen=True, slots=True)
class Said:
    """A text with a pair of braces for each formula."""

    text: str
    formulas: tuple[Basic, ...] = ()


class Step(Protocol):
    """One step of a proof: a frozen dataclass that knows its lemma, its statement and how to check itself."""

    @property
    def lemma(self) -> str:
        """The name of the lemma, in a few words."""

    def statement(self) -> Basic:
        """What the step says, as a sympy relation."""

    def because(self) -> Said:
        """What justifies it, for a reader."""

    def holds(self, facts: Facts) -> bool:
        """Check it again, symbolically or in exact integers, sharing no code with the search that found it."""


def whole_symbol(name: str) -> Symbol:
    """The symbol of a whole number >= 0."""
    from sympy import Symbol

    return Symbol(name, integer=True, nonnegative=True)


def reach(layers: Basic | int) -> Basic:
    """R(h): the greatest R such that h layers join all distances up to it."""
    from sympy import Function

    return Function("R")(layers)


def longest(layers: Basic | int) -> Basic:
    """n(h): the greatest length that h layers join."""
    from sympy import Function

    return Function("n")(layers)
