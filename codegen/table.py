"""The road for patterns with no closed form in tiles: a table of the live tiles, made for each length.

Rectangles of pairs are judged by interval arithmetic on the pattern's predicate: no pair live, some, or all. Live
rectangles are quartered along the keys down to single tiles, so work and memory follow the live tiles, never N².
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

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
    drawn,
    lowered,
    negation,
)
from sparsedsl.integers import INFINITY, IntegerSet
from sparsedsl.pattern import Pattern

Numbers = NDArray[np.int64]
Truths = NDArray[np.bool_]

# Each different random choice doubles the number of masks.
MOST_CHOICES = 3


@dataclass(frozen=True, slots=True)
class Rectangles:
    """Many rectangles of pairs: inclusive ends of the queries and of the keys, one entry for each rectangle."""

    q_low: Numbers
    q_high: Numbers
    k_low: Numbers
    k_high: Numbers


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


@dataclass(frozen=True, slots=True)
class TileTable:
    """For each mask the live tiles, by rows or by columns, as in a compressed sparse row matrix.

    Shapes
        starts (masks, own tiles + 1) into tiles, one run of visited tiles after the other; int32.
    """

    starts: NDArray[np.int32]
    tiles: NDArray[np.int32]


def tile_table(masks: TableMasks, block_m: int, block_n: int, rows: range, columns: int) -> tuple[TileTable, TileTable]:
    """The table by query tiles of `rows`, and the table by key tiles below `columns`.

    Cost
        O(live tiles · log(columns)) time and memory.
    Raises
        Unsupported: a random choice is not the same in a whole tile.
    """
    i, j, kind = live_tiles(masks, block_m, block_n, rows, columns)
    count = len(masks.masks)
    by_row = _compressed(kind, i - rows.start, j, count, len(rows))
    return by_row, _compressed(kind, j, i, count, columns)


def live_tiles(
    masks: TableMasks, block_m: int, block_n: int, rows: range, columns: int
) -> tuple[Numbers, Numbers, Numbers]:
    """(query tile, key tile, mask number) of every tile that may hold a live pair."""
    i = np.arange(rows.start, rows.stop, dtype=np.int64)
    j, size = np.zeros_like(i), 1
    while size < columns:
        size *= 4
    while True:
        box = Rectangles(i * block_m, (i + 1) * block_m - 1, j * block_n, (j + size) * block_n - 1)
        some, every = judged(masks.predicate, box)
        i, j, every = i[some], j[some], every[some]
        if size == 1:
            break
        size //= 4
        i, j = np.repeat(i, 4), (j[:, None] + size * np.arange(4)).ravel()
        i, j = i[j < columns], j[j < columns]
    box = Rectangles(i * block_m, (i + 1) * block_m - 1, j * block_n, (j + 1) * block_n - 1)
    outcome = np.zeros_like(i)
    for number, choice in enumerate(masks.choices):
        possible, certain = judged(choice, box)
        if np.any(possible & ~certain & ~every):
            raise Unsupported(
                "a random choice changes inside a tile",
                got=f"tiles of {block_m} x {block_n}",
                expected="random_blocks whose block is a multiple of both",
                hint=f"random_blocks(block={max(block_m, block_n)}, ...)",
            )
        outcome += certain.astype(np.int64) << number
    kind = np.where(every, 0, 1 + outcome)
    return i, j, kind


def _compressed(kind: Numbers, own: Numbers, visited: Numbers, kinds: int, owners: int) -> TileTable:
    order = np.lexsort((visited, own, kind))
    counts = np.bincount(kind * owners + own, minlength=kinds * owners).reshape(kinds, owners)
    ends = np.cumsum(counts.ravel()).reshape(kinds, owners)
    starts = np.concatenate([(ends - counts), ends[:, -1:]], axis=1) if owners else np.zeros((kinds, 1))
    return TileTable(starts.astype(np.int32), visited[order].astype(np.int32))


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


# --- three-valued judgement of rectangles


def judged(predicate: Predicate, box: Rectangles) -> tuple[Truths, Truths]:
    """(some pair may be live, every pair is live) for each rectangle; never wrong, sometimes undecided."""
    match predicate:
        case Comparison():
            return judged(lowered(predicate), box)
        case Member(term, members):
            low, high = _ranges(term, box)
            inside = _count_below(members, high + 1) - _count_below(members, low)
            return inside > 0, inside == high - low + 1
        case Chosen():
            return _chosen(predicate, box)
        case Negation(part):
            some, every = judged(part, box)
            return ~every, ~some
        case AllOf(parts):
            some, every = np.ones_like(box.q_low, dtype=np.bool_), np.ones_like(box.q_low, dtype=np.bool_)
            for part in parts:
                possible, certain = judged(part, box)
                some, every = some & possible, every & certain
            return some, every
        case AnyOf(parts):
            some, every = np.zeros_like(box.q_low, dtype=np.bool_), np.zeros_like(box.q_low, dtype=np.bool_)
            for part in parts:
                possible, certain = judged(part, box)
                some, every = some | possible, every | certain
            return some, every


def _ranges(term: Term, box: Rectangles) -> tuple[Numbers, Numbers]:
    """Inclusive bounds of the term in each rectangle; never too narrow."""
    match term:
        case Position("q"):
            return box.q_low, box.q_high
        case Position():
            return box.k_low, box.k_high
        case Constant(value):
            return np.full_like(box.q_low, value), np.full_like(box.q_low, value)
        case Binary(operator, left, right):
            a, b = _ranges(left, box)
            c, d = _ranges(right, box)
            match operator:
                case "+":
                    return a + c, b + d
                case "-":
                    return a - d, b - c
                case "*":
                    corners = np.stack([a * c, a * d, b * c, b * d])
                    return corners.min(0), corners.max(0)
                case "//":
                    return a // c, b // c
                case "%":
                    one_turn = a // c == b // c
                    return np.where(one_turn, a % c, 0), np.where(one_turn, b % c, c - 1)


def _count_below(members: IntegerSet, bound: Numbers) -> Numbers:
    """The number of members in [-2**40, bound), so that a difference counts the members between two bounds."""
    total = np.zeros_like(bound)
    for lo, hi, period, word in members.segments:
        start = max(lo, -(1 << 40))
        length = np.clip(bound, start, min(hi, 1 << 40)) - start
        if period == 1:
            total += length
            continue
        bits = np.array([word >> (start + x) % period & 1 for x in range(period)], dtype=np.int64)
        before = np.concatenate([[0], np.cumsum(bits)])
        total += length // period * before[-1] + before[length % period]
    return total


def _chosen(choice: Chosen, box: Rectangles) -> tuple[Truths, Truths]:
    row, last_row = _ranges(choice.q, box)
    low, high = _ranges(choice.k, box)
    some, every = np.zeros_like(row, dtype=np.bool_), np.ones_like(row, dtype=np.bool_)
    if not len(row):
        return some, every
    table = np.full((int(last_row.max()) + 1, choice.count), -1, dtype=np.int64)
    for number in range(len(table)):
        picked = drawn(number, choice.count, choice.seed)
        table[number, : len(picked)] = picked
    for step in range(int((last_row - row).max()) + 1):
        picks = table[np.minimum(row + step, last_row)]
        hits = ((picks >= low[:, None]) & (picks <= high[:, None])).sum(1)
        some |= hits > 0
        every &= hits == high - low + 1
    return some, every
