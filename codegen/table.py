"""The road of patterns with no short form in tiles: a table of the live tiles, made for each length.

Rectangles of pairs are judged by interval arithmetic on the pattern's predicate: no pair live, some, or all. Live
rectangles are quartered along the keys down to single tiles, so work and memory follow the live tiles, never N².

The text below the imports is part of the emitted modules that need it, so it uses nothing of this package. There a
predicate is nested tuples: ("all", ...), ("any", ...), ("not", x), ("in", term, segments) and
("drawn", count, seed, q term, k term); a term is "q", "k", a number or (operator, left, right).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rectangles:
    """Many rectangles of pairs: inclusive ends of the queries and of the keys, one entry for each rectangle."""

    q_low: Tensor
    q_high: Tensor
    k_low: Tensor
    k_high: Tensor


def judged(predicate: Any, box: Rectangles) -> tuple[Tensor, Tensor]:
    """(some pair may be live, every pair is) for each rectangle; never wrong, sometimes undecided."""
    match predicate:
        case ("in", term, segments):
            low, high = term_range(term, box)
            inside = members_below(segments, high + 1) - members_below(segments, low)
            return inside > 0, inside == high - low + 1
        case ("drawn", count, seed, query, key):
            return judged_draw(count, seed, term_range(query, box), term_range(key, box))
        case ("not", part):
            some, every = judged(part, box)
            return ~every, ~some
        case ("all", *parts):
            some = every = torch.ones_like(box.q_low, dtype=torch.bool)
            for part in parts:
                possible, certain = judged(part, box)
                some, every = some & possible, every & certain
            return some, every
        case ("any", *parts):
            some = every = torch.zeros_like(box.q_low, dtype=torch.bool)
            for part in parts:
                possible, certain = judged(part, box)
                some, every = some | possible, every | certain
            return some, every
    raise AssertionError(predicate)


def term_range(term: Any, box: Rectangles) -> tuple[Tensor, Tensor]:
    """Inclusive bounds of the term in each rectangle; never too narrow."""
    match term:
        case "q":
            return box.q_low, box.q_high
        case "k":
            return box.k_low, box.k_high
        case int(value):
            return torch.full_like(box.q_low, value), torch.full_like(box.q_low, value)
        case (operator, left, right):
            a, b = term_range(left, box)
            c, d = term_range(right, box)
            match operator:
                case "+":
                    return a + c, b + d
                case "-":
                    return a - d, b - c
                case "*":
                    corners = torch.stack([a * c, a * d, b * c, b * d])
                    return corners.amin(0), corners.amax(0)
                case "//":
                    return floor_div(a, c), floor_div(b, c)
                case "%":
                    one_turn = floor_div(a, c) == floor_div(b, c)
                    return torch.where(one_turn, a % c, 0), torch.where(one_turn, b % c, c - 1)
    raise AssertionError(term)


def floor_div(a: Tensor, b: Tensor) -> Tensor:
    """Division towards minus infinity."""
    return torch.div(a, b, rounding_mode="floor")


def members_below(segments: Any, bound: Tensor) -> Tensor:
    """How many members of (lo, hi, period, word) segments stand in [-2**40, bound); differences are exact."""
    total = torch.zeros_like(bound)
    for lo, hi, period, word in segments:
        start = max(lo, -(1 << 40))
        length = bound.clamp(start, min(hi, 1 << 40)) - start
        if period == 1:
            total += length
            continue
        bits = [word >> (start + x) % period & 1 for x in range(period)]
        before = torch.tensor([0, *bits]).cumsum(0)
        total += floor_div(length, torch.tensor(period)) * before[-1] + before[length % period]
    return total


def judged_draw(
    count: int, seed: int, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """A seeded choice of columns for each row, judged on rectangles of rows and columns."""
    (row, last_row), (low, high) = rows, columns
    some, every = torch.zeros_like(row, dtype=torch.bool), torch.ones_like(row, dtype=torch.bool)
    if not len(row):
        return some, every
    first = int(row.min())
    picks = [drawn(number, count, seed) for number in range(first, int(last_row.max()) + 1)]
    table = torch.tensor([[*each, *[-1] * (count - len(each))] for each in picks])
    for step in range(int((last_row - row).max()) + 1):
        chosen = table[torch.minimum(row + step, last_row) - first]
        hits = ((chosen >= low[:, None]) & (chosen <= high[:, None])).sum(1)
        some, every = some | (hits > 0), every & (hits == high - low + 1)
    return some, every


@lru_cache(maxsize=1 << 16)
def drawn(row: int, count: int, seed: int) -> tuple[int, ...]:
    """The sorted choice of `count` different numbers from 0..row, the same on every machine and version."""
    if count > row:
        return tuple(range(row + 1))
    chosen: set[int] = set()
    draw = 0
    while len(chosen) < count:
        digest = blake2b(f"{seed}/{row}/{draw}".encode(), digest_size=8).digest()
        chosen.add(int.from_bytes(digest, "big") % (row + 1))
        draw += 1
    return tuple(sorted(chosen))


def live_tiles(
    predicate: Any, choices: Any, block_m: int, block_n: int, rows: range, columns: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(query tile, key tile, kind) of every tile that may hold a live pair.

    Kind 0 is FULL; kind 1 + c is PARTIAL, bit a of c saying that choice a is true in the tile.
    """
    i = torch.arange(rows.start, rows.stop if columns else rows.start)
    j, size = torch.zeros_like(i), 1
    while size < columns:
        size *= 4
    while True:
        box = Rectangles(i * block_m, (i + 1) * block_m - 1, j * block_n, (j + size) * block_n - 1)
        some, every = judged(predicate, box)
        i, j, every = i[some], j[some], every[some]
        if size == 1:
            break
        size //= 4
        i, j = i.repeat_interleave(4), (j[:, None] + size * torch.arange(4)).ravel()
        i, j = i[j < columns], j[j < columns]
    box = Rectangles(i * block_m, (i + 1) * block_m - 1, j * block_n, (j + 1) * block_n - 1)
    outcome = torch.zeros_like(i)
    for number, choice in enumerate(choices):
        outcome += judged(choice, box)[1].long() << number
    return i, j, torch.where(every, 0, 1 + outcome)


def compressed(kind: Tensor, own: Tensor, visited: Tensor, kinds: int, owners: int) -> tuple[Tensor, Tensor]:
    """The visited tiles of each kind and owner, one run after the other: (starts [kinds, owners + 1], tiles)."""
    place = kind * owners + own
    order = torch.argsort(place * (int(visited.max()) + 1 if len(visited) else 1) + visited)
    counts = torch.bincount(place, minlength=kinds * owners).reshape(kinds, owners)
    ends = counts.ravel().cumsum(0).reshape(kinds, owners)
    return torch.cat([ends - counts, ends[:, -1:]], 1), visited[order]
