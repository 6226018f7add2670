"""What a proof is about: the normal forms of the layers, on which every step is checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from math import lcm

from sparsedsl.errors import NoNormalForm
from sparsedsl.forms import NormalForm
from sparsedsl.index import FALSE, TRUE, AllOf, AnyOf, Negation, Predicate, all_of, any_of, negation
from sparsedsl.integers import INFINITY, IntegerSet, WordTooLong
from sparsedsl.layers import PerHead, Stack
from sparsedsl.leaves import Where
from sparsedsl.normal import normalise_predicate
from sparsedsl.pattern import Pattern
from sparsedsl.proofs.schedule import common_forms, looks_ahead


@dataclass(frozen=True)
class Facts:
    """The layers from the bottom; `inner` ⊆ the pattern ⊆ `outer`, the same where the pattern has a normal form.

    An endless pattern has one entry for all its layers, a stack one for each of them.
    """

    pattern: Pattern | PerHead | Stack
    endless: bool
    unit: int
    inner: tuple[NormalForm, ...]
    outer: tuple[NormalForm, ...]

    @cached_property
    def start(self) -> int:
        """Beyond it, in units, every row and every key is periodic."""
        return max(max(*form.q_breaks, *form.k_breaks) for form in self.inner + self.outer)

    @cached_property
    def period(self) -> int:
        """The common period of the rows beyond the start, in units."""
        return lcm(*(form.cells[-1][-1].period for form in self.inner + self.outer))

    @property
    def is_exact(self) -> bool:
        """Whether the normal forms are the pattern itself."""
        return self.inner == self.outer

    def inside(self, distances: IntegerSet) -> bool:
        """Whether every token beyond the start reads all these distances in every layer."""
        wanted = distances & IntegerSet.interval(1, INFINITY)
        return all(wanted <= row for form in self.inner for row in form.cells[-1][-1].rows)

    def covered_by(self, distances: IntegerSet) -> bool:
        """Whether no token beyond the start reads any other distance in any layer."""
        beyond = IntegerSet.interval(1, INFINITY) - distances
        return not any(row & beyond for form in self.outer for row in form.cells[-1][-1].rows)

    @cached_property
    def ahead(self) -> bool:
        """Whether some token may read a key to its right, so that complete means every pair at all."""
        return any(map(looks_ahead, self.outer))


@cache
def facts_of(pattern: Pattern | PerHead | Stack) -> Facts:
    """The normal forms of a pattern's layers; of its periodic part and its periodic hull where it has none itself.

    Where not even those exist, nothing and everything.
    """
    layers = tuple(pattern) if isinstance(pattern, Stack) else (pattern,)
    graphs = tuple(each.union() if isinstance(each, PerHead) else each for each in layers)
    endless = not isinstance(pattern, Stack)
    forms = common_forms(graphs)
    if forms is not None:
        return Facts(pattern, endless, forms[0].unit, forms, forms)
    inner = [Where(periodic_part(graph.predicate(), keep=False)) for graph in graphs]
    outer = [Where(periodic_part(graph.predicate(), keep=True)) for graph in graphs]
    forms = common_forms((*inner, *outer))
    count = len(graphs)
    if forms is None:
        forms = (normalise_predicate(FALSE),) * count + (normalise_predicate(TRUE),) * count
    return Facts(pattern, endless, forms[0].unit, forms[:count], forms[count:])


def periodic_part(predicate: Predicate, *, keep: bool) -> Predicate:
    """The predicate with every condition that has no normal form taken as true (`keep`) or as false.

    What is left contains the pattern, or is contained in it: no negation stands above a condition.
    """
    match predicate:
        case AllOf(parts):
            return all_of(*(periodic_part(part, keep=keep) for part in parts))
        case AnyOf(parts):
            return any_of(*(periodic_part(part, keep=keep) for part in parts))
        case Negation(part):
            return negation(periodic_part(part, keep=not keep))
    try:
        normalise_predicate(predicate)
    except (NoNormalForm, WordTooLong):
        return TRUE if keep else FALSE
    return predicate
