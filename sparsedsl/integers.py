"""Exact sets of integers: the one currency of the normal form, the checker and the tile program.

A set is a sorted tuple of disjoint segments; inside a segment membership is periodic. Intervals, arithmetic
progressions, finite sets and their unions are exact for all integers. A geometric progression is listed up to
`LAST_POSITION`, the largest token position that any part of this package accepts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import gcd
from operator import and_, or_
from typing import TYPE_CHECKING

from sparsedsl.segments import (
    INFINITY,
    LAST_POSITION,
    LONGEST_WORD,
    Segment,
    WordTooLong,
    add,
    canonical,
    combined,
    first_member,
    multiply,
    plain,
    repeated,
    rotated,
    segment_text,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "EMPTY",
    "EVERYTHING",
    "INFINITY",
    "LAST_POSITION",
    "LONGEST_WORD",
    "IntegerSet",
    "Segment",
    "WordTooLong",
]


# The first so many members tell sets apart at a glance.
HASHED = 256
# So many numbers are counted faster one by one than as an array.
FEW = 8


def _members(period: int, word: int) -> NDArray[np.bool_]:
    """(period,): whether bit r of the word is set."""
    import numpy as np

    return np.array([bool(word >> r & 1) for r in range(period)])


def _difference(left: int, right: int) -> int:
    return left & ~right


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class IntegerSet:
    """A set of integers as sorted, disjoint, periodic segments.

    Cost
        Union, intersection, difference: O(segments · word / 64) time and memory, whatever the values are.
    Example
        >>> window = IntegerSet.interval(0, 4)
        >>> even = IntegerSet.residues(2, [0])
        >>> print(window & even, window - even, IntegerSet.powers(2) & IntegerSet.interval(0, 20), sep="; ")
        {0, 2}; {1, 3}; {1, 2, 4, 8, 16}
        >>> print(IntegerSet.interval(0, INFINITY) & even)
        {0, 2, 4, ...}
        >>> 6 in even, (window & even).count(0, 3)
        (True, 2)

    """

    segments: tuple[Segment, ...]

    # --- constructors

    @staticmethod
    def interval(lo: int, hi: int) -> IntegerSet:
        """{x : lo <= x < hi}; either end may be infinite."""
        return IntegerSet((Segment(lo, hi),) if lo < hi else ())

    @staticmethod
    def residues(period: int, members: Iterable[int]) -> IntegerSet:
        """{x : x mod period in members}."""
        word = 0
        for member in members:
            word |= 1 << (member % period)
        return IntegerSet.periodic(period, word)

    @staticmethod
    def periodic(period: int, word: int) -> IntegerSet:
        """{x : bit (x mod period) of word is set}."""
        return IntegerSet(canonical([Segment(-INFINITY, INFINITY, period, word)]))

    @staticmethod
    def of(members: Iterable[int]) -> IntegerSet:
        """The finite set of these integers."""
        return IntegerSet(canonical(Segment(x, x + 1) for x in sorted(set(members))))

    @staticmethod
    def powers(base: int) -> IntegerSet:
        """{base**t : t >= 0}, listed up to LAST_POSITION."""
        members = [1]
        while members[-1] * base <= LAST_POSITION:
            members.append(members[-1] * base)
        return IntegerSet.of(members)

    @staticmethod
    def union_of(sets: Sequence[IntegerSet]) -> IntegerSet:
        """The union of many sets; sets made of intervals only are merged in one sweep."""
        plain: list[Segment] = []
        periodic = EMPTY
        for each in sets:
            if each.is_plain:
                plain.extend(each.segments)
            else:
                periodic |= each
        plain.sort()
        merged: list[Segment] = []
        for segment in plain:
            if merged and segment.lo <= merged[-1].hi:
                merged[-1] = Segment(merged[-1].lo, max(merged[-1].hi, segment.hi))
            else:
                merged.append(segment)
        return IntegerSet(tuple(merged)) | periodic

    # --- set algebra

    @property
    def is_plain(self) -> bool:
        """Whether every segment is an interval."""
        return plain(self.segments)

    @property
    def is_interval(self) -> bool:
        """Whether the set is one interval."""
        return len(self.segments) == 1 and self.segments[0].period == 1

    def _clipped(self, to: Segment) -> IntegerSet:
        """The members inside an interval."""
        if to.lo <= self.segments[0].lo and self.segments[-1].hi <= to.hi:
            return self
        inside = (Segment(max(lo, to.lo), min(hi, to.hi), *rest) for lo, hi, *rest in self.segments)
        return IntegerSet(canonical(inside))

    def __or__(self, other: IntegerSet) -> IntegerSet:
        if not other.segments:
            return self
        return IntegerSet(combined(self.segments, other.segments, or_)) if self.segments else other

    def __and__(self, other: IntegerSet) -> IntegerSet:
        if not self.segments or not other.segments:
            return EMPTY
        if other.is_interval:
            return self._clipped(other.segments[0])
        if self.is_interval:
            return other._clipped(self.segments[0])
        return IntegerSet(combined(self.segments, other.segments, and_))

    def __sub__(self, other: IntegerSet) -> IntegerSet:
        if not self.segments or not other.segments:
            return self
        return IntegerSet(combined(self.segments, other.segments, _difference))

    def __invert__(self) -> IntegerSet:
        return EVERYTHING - self

    def __bool__(self) -> bool:
        return bool(self.segments)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IntegerSet):
            return NotImplemented
        if self.segments == other.segments:
            return True
        return hash(self) == hash(other) and not self - other and not other - self

    def __hash__(self) -> int:
        # Equal sets may be cut into segments differently, but share their ends and their members near one of them.
        if not self.segments:
            return 0
        lo, hi = self.segments[0].lo, self.segments[-1].hi
        start = lo if lo > -INFINITY else hi - HASHED if hi < INFINITY else 0
        return hash((lo, hi, self.bits(start, start + HASHED)))

    def __le__(self, other: IntegerSet) -> bool:
        return not self - other

    # --- images and preimages

    def shift(self, by: int) -> IntegerSet:
        """{x + by : x in the set}."""
        if by == 0:
            return self
        return IntegerSet(
            tuple(
                Segment(add(lo, by), add(hi, by), period, rotated(word, period, by))
                for lo, hi, period, word in self.segments
            )
        )

    def negate(self) -> IntegerSet:
        """{-x : x in the set}."""
        raw = []
        for lo, hi, period, word in reversed(self.segments):
            mirrored = word
            if period > 1:
                mirrored = sum(1 << (-residue % period) for residue in range(period) if word >> residue & 1)
            raw.append(Segment(add(-hi, 1), add(-lo, 1), period, mirrored))
        return IntegerSet(canonical(raw))

    def lift(self, size: int) -> IntegerSet:
        """{x : x // size in the set}."""
        if size == 1:
            return self
        raw = []
        for lo, hi, period, word in self.segments:
            if period == 1:
                raw.append(Segment(multiply(lo, size), multiply(hi, size)))
                continue
            if period * size > LONGEST_WORD:
                raise WordTooLong(period * size)
            ones = (1 << size) - 1
            wide = sum(ones << r * size for r in range(period) if word >> r & 1)
            raw.append(Segment(multiply(lo, size), multiply(hi, size), period * size, wide))
        return IntegerSet(canonical(raw))

    def scale(self, factor: int) -> IntegerSet:
        """{factor · x : x in the set}, factor >= 1."""
        if factor == 1:
            return self
        raw = []
        for lo, hi, period, word in self.segments:
            if period * factor > LONGEST_WORD and hi - lo > 1:
                raise WordTooLong(period * factor)
            if hi - lo == 1:
                raw.append(Segment(lo * factor, lo * factor + 1))
                continue
            spread = sum(1 << r * factor for r in range(period) if word >> r & 1)
            raw.append(Segment(multiply(lo, factor), add(multiply(add(hi, -1), factor), 1), period * factor, spread))
        return IntegerSet(canonical(raw))

    def sample(self, step: int, start: int = 0) -> IntegerSet:
        """{x : start + step · x in the set}, step >= 1."""
        raw = []
        for lo, hi, period, word in self.segments:
            first = lo if lo == -INFINITY else -((start - lo) // step)
            end = hi if hi == INFINITY else -((start - hi) // step)
            shorter = period // gcd(period, step)
            seen = sum(1 << x for x in range(shorter) if word >> ((start + step * x) % period) & 1)
            raw.append(Segment(first, end, shorter, seen))
        return IntegerSet(canonical(raw))

    def modulo_preimage(self, period: int) -> IntegerSet:
        """{x : x mod period in the set}."""
        if period > LONGEST_WORD:
            raise WordTooLong(period)
        return IntegerSet.periodic(period, self.bits(0, period))

    def dilate(self, width: int) -> IntegerSet:
        """{x + s : x in the set, 0 <= s < width}."""
        if width <= 0:
            return EMPTY
        parts = []
        for segment in self.segments:
            if segment.period == 1:
                parts.append(IntegerSet((Segment(segment.lo, add(segment.hi, width - 1)),)))
                continue
            grown, covered = IntegerSet((segment,)), 1
            while covered < width:
                step = min(covered, width - covered)
                grown |= grown.shift(step)
                covered += step
            parts.append(grown)
        return IntegerSet.union_of(parts)

    def erode(self, width: int) -> IntegerSet:
        """{x : x - s in the set for all 0 <= s < width}."""
        return ~((~self).dilate(width))

    # --- questions

    def __contains__(self, value: int) -> bool:
        at = bisect_right(self.segments, value, key=lambda segment: segment.lo) - 1
        if at < 0:
            return False
        _, hi, period, word = self.segments[at]
        return value < hi and bool(word >> (value % period) & 1)

    def contains(self, values: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Membership of each entry of an int64 array. O(entries · log segments) time, O(entries) memory."""
        import numpy as np

        if len(self.segments) <= 4:  # a few comparisons cost less than a search
            found: NDArray[np.bool_] = np.zeros(values.shape, dtype=np.bool_)
            for lo, hi, period, word in self.segments:
                within = (values >= lo) & (values < hi)
                if period > 1:
                    within &= _members(period, word)[values % period]
                found |= within
            return found
        starts = np.array([segment.lo for segment in self.segments])
        ends = np.array([segment.hi for segment in self.segments])
        at = np.searchsorted(starts, values, side="right") - 1
        inside: NDArray[np.bool_] = (at >= 0) & (values < ends[at])
        for i, (_, _, period, word) in enumerate(self.segments):
            if period > 1:
                here = inside & (at == i)
                inside[here] = _members(period, word)[values[here] % period]
        return inside

    @property
    def minimum(self) -> int:
        """The least member, or -INFINITY; the set must not be empty."""
        return self.segments[0].lo

    @property
    def maximum(self) -> int:
        """The greatest member, or INFINITY; the set must not be empty."""
        hi = self.segments[-1].hi
        return hi if hi == INFINITY else hi - 1

    @property
    def is_finite(self) -> bool:
        """Whether the set has a least and a greatest member, or none at all."""
        return not self.segments or (self.minimum > -INFINITY and self.maximum < INFINITY)

    def count(self, lo: int, hi: int) -> int:
        """The number of members x with lo <= x < hi; both finite."""
        total = 0
        for start, end, period, word in self.segments:
            a, b = max(lo, start), min(hi, end)
            if a >= b:
                continue
            whole, rest = divmod(b - a, period)
            total += whole * word.bit_count()
            if rest:
                total += (rotated(word, period, -a) & ((1 << rest) - 1)).bit_count()
        return total

    def counts(self, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same for each pair of entries. O(entries · segments) time, O(entries) memory."""
        import numpy as np

        if len(lo) <= FEW:
            return np.array([self.count(*ends) for ends in zip(lo.tolist(), hi.tolist(), strict=True)], dtype=np.int64)
        total = np.zeros_like(lo)
        for start, end, period, word in self.segments:
            a, b = np.maximum(lo, start), np.minimum(hi, end)
            if period > 1:
                below = np.concatenate([[0], np.cumsum(_members(period, word))])
                a, b = (x // period * below[-1] + below[x % period] for x in (np.minimum(a, b), b))
            total += np.maximum(b - a, 0)
        return total

    def bits(self, lo: int, hi: int) -> int:
        """The members x with lo <= x < hi as an integer: bit x - lo. O((hi - lo) / 64) time and memory."""
        result = 0
        for start, end, period, word in self.segments:
            a, b = max(lo, start), min(hi, end)
            if a >= b:
                continue
            run = (1 << (b - a)) - 1 if period == 1 else repeated(rotated(word, period, -a), period, b - a)
            result |= run << (a - lo)
        return result

    def members(self, lo: int, hi: int) -> Iterator[int]:
        """The members x with lo <= x < hi, in order."""
        for start, end, period, word in self.segments:
            x, stop = max(lo, start), min(hi, end)
            if period == 1:
                yield from range(x, stop)
                continue
            while x < stop and (x := first_member(word, period, x)) < stop:
                yield x
                x += 1

    def __str__(self) -> str:
        return "{" + ", ".join(segment_text(segment) for segment in self.segments) + "}"

    def __repr__(self) -> str:
        return f"IntegerSet({self!s})"


EMPTY = IntegerSet(())
EVERYTHING = IntegerSet((Segment(-INFINITY, INFINITY),))
