"""The compiler's decisions for a pattern, as data: which parts, and in which order each is walked.

A part whose pairs all agree modulo d is walked in residue order: the positions of one class form a dense sequence,
read by stride. A union whose terms want different orders is split into disjoint parts, merged by log-sum-exp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, reduce
from itertools import product
from typing import NamedTuple

import torch

from sparsedsl.codegen.masks import tidy
from sparsedsl.codegen.ranks import Ranked, ranked, step_of
from sparsedsl.codegen.table import live_tiles
from sparsedsl.codegen.table_masks import TableMasks, encoded
from sparsedsl.index import AllOf, AnyOf, Chosen, Negation, Predicate, all_of, any_of, lowered, negation
from sparsedsl.layers import PerHead
from sparsedsl.leaves import Where
from sparsedsl.pattern import Pattern

# A union of more terms than this stays in one part.
MOST_TERMS = 16
# Costs are counted in tiles of this size, on a sample of the query tiles of a sequence of this length.
TILE, LENGTH, SAMPLE = 64, 65536, 16
# What merging costs a query tile, in tiles: its output is written and read once more, in float32.
MERGE_TILES = 4
# Another order must be this much cheaper than the one order for all.
GAIN = 0.8


@dataclass(frozen=True, slots=True)
class Part:
    """Pairs walked in one order: identity (step 1), or the residue order of `step`.

    `kinds` are the different patterns among the heads, over ranks where step > 1; `kind_of` gives each head its own,
    and is empty where there is one for all. `classes` are the residue classes that have pairs, for each head where
    they differ: one tuple for each, or a single one for all.
    """

    step: int
    kinds: tuple[Pattern, ...]
    kind_of: tuple[int, ...]
    classes: tuple[tuple[int, ...], ...]

    @property
    def covers_all_rows(self) -> bool:
        """Whether its kernels reach every query of every head."""
        return all(len(each) == self.step for each in self.classes)


@dataclass(frozen=True, slots=True)
class Costs:
    """What was weighed: tiles that a query tile visits in identity order, and in parts with what merging costs."""

    identity: float
    parts: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Disjoint parts, together the whole pattern; the last one covers all rows.

    `costs` are those of the first kind of heads; None where no other order was to be had.
    """

    parts: tuple[Part, ...]
    costs: Costs | None = None


def plan(pattern: Pattern | PerHead) -> Plan:
    """The parts of a pattern and their orders.

    Cost
        Milliseconds for each residue class of each order; no length enters.
    """
    heads = (pattern,) if isinstance(pattern, Pattern) else pattern.heads
    kinds = tuple(dict.fromkeys(heads))
    kind_of = () if isinstance(pattern, Pattern) else tuple(kinds.index(head) for head in heads)
    found = [_parts(kind) for kind in kinds]
    shared = _shared(found)
    costs = Costs(_tiles(kinds[0], LENGTH), _cost(found[0])) if shared else None
    if costs is None or costs.parts > GAIN * costs.identity:
        return Plan((Part(1, kinds, kind_of, ((0,),)),), costs)
    parts = []
    for place, (step, each) in enumerate(shared):
        classes = tuple(found[kinds.index(head)][place].classes for head in heads)
        parts.append(Part(step, (each,), (), classes if len(set(classes)) > 1 else classes[:1]))
    return Plan(tuple(parts), costs)


class Share(NamedTuple):
    """A part of one pattern: its order, its pairs (in ranks where step > 1), the classes that have any."""

    step: int
    pattern: Pattern
    classes: tuple[int, ...]


def _shared(found: Sequence[tuple[Share, ...]]) -> list[tuple[int, Pattern]]:
    """(step, pattern) of the parts, where all kinds of heads have the same ones but for their residue classes."""
    first = [(share.step, share.pattern) for share in found[0]]
    return first if all([(share.step, share.pattern) for share in each] == first for each in found) else []


@cache
def _parts(pattern: Pattern) -> tuple[Share, ...]:
    """Disjoint parts in more than one order, or in residue order; none where identity order is all there is."""
    groups: dict[int, list[Predicate]] = {}
    for term in _terms(lowered(pattern.predicate())) or ():
        groups.setdefault(step_of(term), []).append(term)
    groups.pop(0, None)
    if not groups or set(groups) == {1}:
        return ()
    # Taking the small steps from the large ones leaves the local part whole; where the classes then differ, the other
    # way round may do.
    for steps in (sorted(groups), sorted(groups, reverse=True)):
        parts = _disjoint(groups, steps)
        if parts and len(parts[-1].classes) == parts[-1].step:
            return parts
    return ()


def _disjoint(groups: dict[int, list[Predicate]], steps: Sequence[int]) -> tuple[Share, ...]:
    """A part for each step, each less those before; the one that covers all rows last. None where classes differ."""
    done: list[Predicate] = []
    parts = []
    for step in steps:
        whole = any_of(*groups[step])
        own = tidy(all_of(whole, *(negation(each) for each in done)))
        done.append(whole)
        inside = Ranked(own, (0,)) if step == 1 else ranked(own, step)
        if inside is None:
            return ()
        if inside.classes:
            parts.append(Share(step, Where(inside.predicate), inside.classes))
    return tuple(sorted(parts, key=lambda part: len(part.classes) == part.step))


def _terms(predicate: Predicate) -> list[Predicate] | None:
    """The terms of a union, what all of them must fulfil put into each; None where there are too many."""
    match predicate:
        case AnyOf(parts):
            below = [_terms(part) for part in parts]
            terms = [term for each in below if each is not None for term in each]
            return None if None in below or len(terms) > MOST_TERMS else terms
        case AllOf(parts):
            below = [_terms(part) for part in parts]
            choices = [each for each in below if each is not None]
            count = reduce(lambda total, each: total * len(each), choices, 1)
            if None in below or count > MOST_TERMS:
                return None
            return [all_of(*choice) for choice in product(*choices)]
        case Negation(part) if isinstance(part, AllOf | AnyOf):
            join = any_of if isinstance(part, AllOf) else all_of
            return _terms(join(*(negation(each) for each in part.parts)))
        case Chosen() | Negation():
            return None
    return [predicate]


def _cost(parts: Sequence[Share]) -> float:
    """Tiles a query tile of the sequence, and what merging costs beside."""
    tiles = sum(_tiles(each, LENGTH // step) * len(classes) / step for step, each, classes in parts)
    return tiles + MERGE_TILES * (len(parts) - 1)


@cache
def _tiles(pattern: Pattern, length: int) -> float:
    """The mean number of tiles that a query tile visits."""
    predicate = encoded(TableMasks.of(pattern).predicate)
    rows = length // TILE
    sample = [rows * (2 * number + 1) // (2 * SAMPLE) for number in range(SAMPLE)]
    with torch.device("cpu"):
        found = [len(live_tiles(predicate, (), TILE, TILE, range(i, i + 1), rows)[0]) for i in sample]
    return sum(found) / len(found)
