"""The steps of the verifier: one layer more on top of listed sets, by shifts and unions of bits.

Part of the verifier: it imports nothing of what writes certificates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, lcm

from sparsedsl.index import Predicate
from sparsedsl.proofs.verifier_file import reject
from sparsedsl.rows import Rows, block_size, repetition
from sparsedsl.segments import first_member

# Bits that shifts and unions may touch before the verifier gives up: some ten seconds.
MOST_WORK = 1 << 38
# What the smallest operation counts for, and what a row counts for beside its length, for each part of a pattern.
LEAST_WORK = 1 << 12
ROW_WORK = 1 << 16
# The same for each block drawn, and for each place at which a condition is evaluated by itself.
DRAW_WORK = 1 << 18
PLACE_WORK = 1 << 8
# Units of one length, bits of the sets of one layer, different parts of one pattern.
MOST_UNITS = 1 << 22
MOST_BITS = 1 << 30
MOST_PARTS = 1 << 12
# Distances kept, as progressions, for all classes and layers.
MOST_SPREADS = 1 << 20


def below(length: int) -> int:
    """Bits 0, ..., length - 1."""
    return (1 << max(length, 0)) - 1


def each_bit(bits: int) -> list[int]:
    """The places of the bits that are set."""
    if bits.bit_count() * 32 < bits.bit_length():
        found = []
        while bits:
            found.append((bits & -bits).bit_length() - 1)
            bits &= bits - 1
        return found
    return [at for at, digit in enumerate(reversed(f"{bits:b}")) if digit == "1"] if bits else []


def _cut(bits: int, length: int) -> int:
    return bits & below(length) if bits.bit_length() > length else bits


@dataclass(slots=True)
class Work:
    """Bits that may still be touched."""

    left: int = MOST_WORK

    def spend(self, bits: int = 0) -> None:
        """Take them off, or reject."""
        self.left -= bits + LEAST_WORK
        if self.left < 0:
            reject("work", "it takes too much work to check")


@dataclass(frozen=True, slots=True)
class Spread:
    """The distances first, first + step, ..., `count` of them."""

    first: int
    step: int
    count: int

    def up(self, bits: int, length: int, work: Work) -> int:
        """The union of the bits moved up by each of the distances, below `length`."""
        covered = 1
        while covered < self.count and bits:
            # Invariant: bits is the union over the first `covered` distances, less `first`.
            more = min(covered, self.count - covered)
            work.spend(bits.bit_length() + more * self.step)
            bits = _cut(bits | bits << more * self.step, length)
            covered += more
        work.spend(bits.bit_length() + self.first)
        return _cut(bits << self.first, length)

    def down(self, bits: int, work: Work) -> int:
        """The union of the bits moved down by each of the distances, from 0 on."""
        bits >>= self.first
        covered = 1
        while covered < self.count and bits:
            more = min(covered, self.count - covered)
            work.spend(bits.bit_length())
            bits |= bits >> more * self.step
            covered += more
        return bits


class Layers:
    """The layers of a certificate's pattern on units; a unit is the largest block in which all layers are told."""

    def __init__(self, predicates: Sequence[Predicate], seq_len: int, work: Work, *, unit: int | None = None) -> None:
        self.unit = gcd(*map(block_size, predicates)) or 1 if unit is None else unit
        self.seq_len = seq_len
        self.units = -(-seq_len // self.unit)
        self.work = work
        if self.units > MOST_UNITS:
            reject("limits", "the length has too many units", got=str(self.units), expected=f"at most {MOST_UNITS}")
        self.rows = [Rows(each, unit=self.unit, count=self.units) for each in predicates]
        if sum(rows.size for rows in self.rows) > MOST_PARTS:
            reject("limits", "the pattern has too many parts", expected=f"at most {MOST_PARTS}")
        found = [repetition(rows.predicate) for rows in self.rows]
        known = [each for each in found if each is not None]
        self.repeats = len(known) == len(found)
        self.period = lcm(*(period for period, _ in known))
        self.start = min(self.units, max((start for _, start in known), default=0))
        self._columns: dict[tuple[int, int], int] = {}
        self._spreads: dict[tuple[int, int], list[Spread]] = {}
        self._evaluated = [0] * len(self.rows)
        self._kept = 0
        self._rows: dict[tuple[int, int], int] = {}

    def tokens_of(self, unit: int) -> int:
        """The number of tokens of a unit; the last may be shorter."""
        return min(self.unit, self.seq_len - unit * self.unit)

    def _spend_on(self, layer: int, length: int) -> None:
        """The work of reading one row or column, and what the last one took beyond that."""
        rows = self.rows[layer]
        evaluated, self._evaluated[layer] = rows.evaluated - self._evaluated[layer], rows.evaluated
        self.work.spend(rows.size * (length + ROW_WORK) + rows.draws * DRAW_WORK + evaluated * PLACE_WORK)

    def row(self, layer: int, query: int) -> int:
        """The keys of a query."""
        self.work.spend(self.units)
        if (layer, query) not in self._rows:
            self._spend_on(layer, self.units)
            if len(self._rows) * self.units > MOST_BITS:
                self._rows.clear()
            self._rows[layer, query] = self.rows[layer].row(query)
        return self._rows[layer, query]

    def column(self, layer: int, key: int) -> int:
        """The queries of a key before the start."""
        if (layer, key) not in self._columns:
            self._spend_on(layer, self.units)
            self._columns[layer, key] = self.rows[layer].column(key)
        return self._columns[layer, key]

    def last_of_class(self, query: int) -> int:
        """The last query whose edges repeat those of this one."""
        return self.units - 1 - (self.units - 1 - query) % self.period

    def spreads(self, layer: int, query: int) -> list[Spread]:
        """The distances from a query to its keys at or beyond the start, for the last query of a class.

        Each has a step that leads to one class. The query itself stands first, then the longest: they fill most.
        """
        if (layer, query) not in self._spreads:
            self._spend_on(layer, 0)
            found = []
            # Keys from `start` to the query, walked downwards: residues of keys in a segment become distances.
            for lo, hi, period, word in self.rows[layer].row_set(query).segments:
                lo, hi = max(lo, self.start), min(hi, query + 1)
                for residue in each_bit(word):
                    key = first_member(1 << residue, period, lo)
                    if key < hi:
                        count = (hi - 1 - key) // period + 1
                        found += self._by_class(query - key - (count - 1) * period, period, count)
            self._spreads[layer, query] = sorted(found, key=lambda each: (each.first != 0, -each.count, each.first))
        return self._spreads[layer, query]

    def _by_class(self, first: int, step: int, count: int) -> list[Spread]:
        apart = self.period // gcd(step, self.period)
        self._kept += min(apart, count)
        if self._kept > MOST_SPREADS:
            reject("limits", "the pattern has too many distances", expected=f"at most {MOST_SPREADS} progressions")
        return [
            Spread(first + step * at, step * apart, (count - 1 - at) // apart + 1) for at in range(min(apart, count))
        ]

    def seen_above(self, layer: int, query: int, sets: dict[int, int]) -> int:
        """What a class sees through an edge of one layer more: distances, for the last query of the class.

        `sets` holds what the last query of each class sees through the layers below.
        """
        length = query - self.start + 1
        full = below(length)
        # What single distances add is gathered apart: where it is short, so is the union.
        seen = single = 0
        for spread in self.spreads(layer, query):
            if seen == full:
                return full
            reached = spread.up(sets[self.last_of_class(query - spread.first)], length, self.work)
            if spread.count > 1 or not spread.first:
                seen |= reached
            else:
                single |= reached
        return seen | single

    def readers(self, layer: int, keys: int) -> int:
        """The queries with an edge to one of the keys."""
        found = 0
        for key in each_bit(keys & below(self.start)):
            found |= self.column(layer, key)
        later = keys >> self.start
        for query in range(max(self.start, self.units - self.period), self.units) if later else ():
            reached = 0
            for spread in self.spreads(layer, query):
                reached |= spread.up(later, self.units - self.start, self.work)
            found |= reached << self.start & self._class(query)
        return found

    def keys(self, layer: int, queries: int) -> int:
        """The keys of one of the queries, by classes."""
        found = sum(1 << key for key in range(self.start) if self.column(layer, key) & queries)
        for query in range(max(self.start, self.units - self.period), self.units):
            part = queries & self._class(query)
            if part:
                for spread in self.spreads(layer, query):
                    found |= spread.down(part, self.work) & ~below(self.start)
        return found

    def _class(self, query: int) -> int:
        """The queries from the start on of the class of a query."""
        bits, covered = 1 << query % self.period, self.period
        while covered < self.units:
            self.work.spend(covered)
            bits |= bits << covered
            covered *= 2
        return bits & below(self.units) & ~below(self.start)
