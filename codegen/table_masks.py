"""What the table road needs of a pattern: its predicate as data, and the masks that its tiles may ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import gcd
from typing import Any

from sparsedsl.codegen.tiling import Tiles
from sparsedsl.errors import Unsupported
from sparsedsl.index import (
    DISTANCE,
    FALSE,
    TRUE,
    AllOf,
    AnyOf,
    Binary,
    Chosen,
    Comparison,
    Constant,
    Member,
    Negation,
    Position,
    Predicate,
    Term,
    all_of,
    any_of,
    lowered,
    negation,
)
from sparsedsl.integers import INFINITY, IntegerSet
from sparsedsl.pattern import Pattern

# Each different random choice doubles the number of masks.
MOST_CHOICES = 3
# Triton's matrix products need at least this many rows and columns.
LEAST_TILE = 16


@dataclass(frozen=True, slots=True)
class TableMasks:
    """The masks that a table's tiles may need: FULL first, then one for each outcome of the random choices."""

    predicate: Predicate
    choices: tuple[Chosen, ...]
    masks: tuple[Predicate, ...]

    @staticmethod
    def of(pattern: Pattern) -> TableMasks:
        """The masks of a pattern; the outcome with bit a of its number set has choice a true."""
        predicate = lowered(pattern.predicate())
        choices = tuple(dict.fromkeys(_choices(predicate)))
        if len(choices) > MOST_CHOICES:
            raise Unsupported(
                "the pattern has too many random choices",
                where=str(pattern),
                got=f"{len(choices)} different random_blocks",
                expected=f"at most {MOST_CHOICES}",
                hint="one random_blocks of more blocks",
            )
        outcomes = [outcome[::-1] for outcome in product((False, True), repeat=len(choices))]
        masks = (_decided(predicate, dict(zip(choices, outcome, strict=True))) for outcome in outcomes)
        return TableMasks(predicate, choices, (TRUE, *masks))

    @property
    def looks_back(self) -> bool:
        """Whether the predicate plainly asks for k <= q."""
        parts = self.predicate.parts if isinstance(self.predicate, AllOf) else (self.predicate,)
        back = IntegerSet.interval(0, INFINITY)
        return any(isinstance(part, Member) and part.term == DISTANCE and part.members <= back for part in parts)

    def fitted(self, tiles: Tiles) -> Tiles:
        """The tiles, made smaller where a random choice would change inside one.

        Raises
            Unsupported: a choice that changes inside every tile.
        """
        for choice in self.choices:
            for side, position in (("block_m", choice.q), ("block_n", choice.k)):
                size = gcd(getattr(tiles, side), _block_of(position))
                if size < LEAST_TILE:
                    raise Unsupported(
                        "a random choice changes inside a tile",
                        got=f"a choice for each {_block_of(position)} positions",
                        expected=f"random_blocks whose block is a multiple of {LEAST_TILE}",
                        hint="random_blocks(block=64, ...)",
                    )
                tiles = replace(tiles, **{side: size})
        return tiles


def _block_of(position: Term) -> int:
    match position:
        case Binary("//", Position(), Constant(size)):
            return size
    return 1


def encoded(predicate: Predicate) -> Any:
    """The predicate as the nested tuples that the table maker reads; `repr` is their source."""
    match predicate:
        case Member(term, members):
            return "in", _encoded_term(term), tuple(tuple(segment) for segment in members.segments)
        case Comparison():
            return encoded(lowered(predicate))
        case Chosen(count, seed, query, key):
            return "drawn", count, seed, _encoded_term(query), _encoded_term(key)
        case AllOf(parts):
            return "all", *map(encoded, parts)
        case AnyOf(parts):
            return "any", *map(encoded, parts)
        case Negation(part):
            return "not", encoded(part)


def _encoded_term(term: Term) -> Any:
    match term:
        case Position(name):
            return name
        case Constant(value):
            return value
        case Binary(operator, left, right):
            return operator, _encoded_term(left), _encoded_term(right)


def _choices(predicate: Predicate) -> list[Chosen]:
    match predicate:
        case Chosen():
            return [predicate]
        case AllOf(parts) | AnyOf(parts):
            return [choice for part in parts for choice in _choices(part)]
        case Negation(part):
            return _choices(part)
    return []


def _decided(predicate: Predicate, outcome: dict[Chosen, bool]) -> Predicate:
    """The predicate with its random choices replaced by their outcomes."""
    match predicate:
        case Chosen():
            return TRUE if outcome[predicate] else FALSE
        case AllOf(parts):
            return all_of(*(_decided(part, outcome) for part in parts))
        case AnyOf(parts):
            return any_of(*(_decided(part, outcome) for part in parts))
        case Negation(part):
            return negation(_decided(part, outcome))
    return predicate
