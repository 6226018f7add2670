"""Segments and words: the bit-level ground under `IntegerSet`.

A word is an integer read as a bit set: bit r says whether the residue r belongs. A segment repeats its word
between two bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from math import lcm
from typing import NamedTuple

INFINITY = 1 << 62
LAST_POSITION = 1 << 40
# Words longer than this make every operation slow; `normal` then declares that a pattern has no normal form.
LONGEST_WORD = 1 << 16


class WordTooLong(ArithmeticError):
    """Two periodic sets whose common period exceeds `LONGEST_WORD`."""


class Segment(NamedTuple):
    """{x : lo <= x < hi, bit (x mod period) of word is set}; a plain interval has period 1 and word 1."""

    lo: int
    hi: int
    period: int = 1
    word: int = 1


def first_member(word: int, period: int, at_least: int) -> int:
    """The least x >= at_least with x mod period in a word that is not empty."""
    residue = at_least % period
    later = word >> residue
    if later:
        return at_least + (later & -later).bit_length() - 1
    return at_least + period - residue + (word & -word).bit_length() - 1


def last_member(word: int, period: int, below: int) -> int:
    """The greatest x < below with x mod period in a word that is not empty."""
    residue = (below - 1) % period
    earlier = word & ((1 << (residue + 1)) - 1)
    if earlier:
        return below - 1 - residue + earlier.bit_length() - 1
    return below - 1 - residue - period + word.bit_length() - 1


def repeated(word: int, period: int, length: int) -> int:
    """The first `length` bits of word, word, word, ..."""
    result, done = word, period
    while done < length:
        result |= result << done
        done *= 2
    return result & ((1 << length) - 1)


@lru_cache(maxsize=1 << 10)
def smallest_period(word: int, period: int) -> tuple[int, int]:
    """The same periodic set with the least period."""
    if word == (1 << period) - 1:
        return 1, 1
    divisor, rest = 2, period
    while rest > 1:
        if divisor * divisor > rest:
            divisor = rest
        if rest % divisor:
            divisor += 1
            continue
        rest //= divisor
        shorter = period // divisor
        start = word & ((1 << shorter) - 1)
        if repeated(start, shorter, period) == word:
            word, period = start, shorter
    return period, word


def canonical(raw: Iterable[Segment]) -> tuple[Segment, ...]:
    """Tight bounds, least periods, neighbours merged. `raw` is sorted and disjoint."""
    done: list[Segment] = []
    for lo, hi, period, word in raw:
        if word == 0 or lo >= hi:
            continue
        if period > 1:
            period, word = smallest_period(word, period)
        if period > 1:
            if lo > -INFINITY:
                lo = first_member(word, period, lo)
            if lo >= hi:
                continue
            if hi < INFINITY:
                hi = last_member(word, period, hi) + 1
            length = hi - lo
            if length <= period and _window(Segment(lo, hi, period, word), lo, length) == (1 << length) - 1:
                period, word = 1, 1
        if done:
            merged = _merge(done[-1], Segment(lo, hi, period, word))
            if merged is not None:
                done[-1] = merged
                continue
        done.append(Segment(lo, hi, period, word))
    return tuple(done)


def combined(
    left: Sequence[Segment], right: Sequence[Segment], operation: Callable[[int, int], int]
) -> tuple[Segment, ...]:
    """The segments of a set operation, which is told by its effect on words."""
    if plain(left) and plain(right):
        return _swept(left, right, operation)
    raw: list[Segment] = []
    i = j = 0
    for lo, hi in pairwise(sorted({edge for segment in (*left, *right) for edge in (segment.lo, segment.hi)})):
        # Invariant: segments before i (j) end at or before lo.
        while i < len(left) and left[i].hi <= lo:
            i += 1
        while j < len(right) and right[j].hi <= lo:
            j += 1
        one = left[i] if i < len(left) and left[i].lo <= lo else NOTHING
        other = right[j] if j < len(right) and right[j].lo <= lo else NOTHING
        period = lcm(one.period, other.period)
        if period > LONGEST_WORD:
            raise WordTooLong(period)
        word = operation(repeated(one.word, one.period, period), repeated(other.word, other.period, period))
        raw.append(Segment(lo, hi, period, word))
    return canonical(raw)


def plain(segments: Iterable[Segment]) -> bool:
    """Whether every segment is an interval."""
    return all(segment.period == 1 for segment in segments)


def _swept(
    left: Sequence[Segment], right: Sequence[Segment], operation: Callable[[int, int], int]
) -> tuple[Segment, ...]:
    """`combined` for intervals only, in one sweep over their ends."""
    ends = [(segment.lo, 1) for segment in left] + [(segment.hi, -1) for segment in left]
    ends += [(segment.lo, 2) for segment in right] + [(segment.hi, -2) for segment in right]
    ends.sort()
    kept = [operation(state & 1, state >> 1) for state in range(4)]
    swept: list[Segment] = []
    # Invariant: bit 0 (1) of state says that the sweep is inside the left (right) set; `start` is where it
    # entered the result.
    state = start = 0
    for place, change in ends:
        before, state = kept[state], state + change
        if before == kept[state]:
            continue
        if not before:
            start = place
            # Left and entered again at one place: the segment goes on.
            if swept and swept[-1].hi == place:
                start = swept.pop().lo
        elif start < place:
            swept.append(Segment(start, place))
    return tuple(swept)


def _merge(left: Segment, right: Segment) -> Segment | None:
    """One segment for both, where the word of either simply goes on through the other."""
    for segment, other in ((left, right), (right, left)):
        if not _goes_on(segment, other):
            continue
        if first_member(segment.word, segment.period, left.hi) == right.lo:
            return Segment(left.lo, right.hi, segment.period, segment.word)
    return None


def _goes_on(segment: Segment, other: Segment) -> bool:
    """Whether the word of `segment` has the members of `other` between the ends of `other`."""
    if (segment.period, segment.word) == (other.period, other.word):
        return True
    length = other.hi - other.lo
    if length > segment.period:
        return False
    return _window(segment, other.lo, length) == _window(other, other.lo, length)


def _window(segment: Segment, lo: int, length: int) -> int:
    """Bit x for the word of the segment at lo + x, 0 <= x < length."""
    return repeated(rotated(segment.word, segment.period, -lo), segment.period, length)


def segment_text(segment: Segment) -> str:
    """The members, listed if they are few, else three of them, dots and the last: `0, 2, 4, ..., 98`."""
    lo, hi, period, word = segment
    listed: list[int] = []
    if lo == -INFINITY and hi < INFINITY:
        x = hi
        while len(listed) < 3:
            x = last_member(word, period, x)
            listed.insert(0, x)
        return "..., " + ", ".join(map(str, listed))
    x = lo if lo > -INFINITY else 0
    while len(listed) < 4 and x < hi:
        x = first_member(word, period, x) + 1
        listed.append(x - 1)
    if listed[-1] == hi - 1:
        return ", ".join(map(str, listed))
    head = "..., " if lo == -INFINITY else ""
    tail = ", ..." if hi == INFINITY else f", ..., {hi - 1}"
    return head + ", ".join(map(str, listed[:3])) + tail


def add(bound: int, by: int) -> int:
    """A bound moved by a number; an infinite bound stays."""
    return bound if abs(bound) == INFINITY else bound + by


def multiply(bound: int, factor: int) -> int:
    """A bound times a positive number; an infinite bound stays."""
    return bound if abs(bound) == INFINITY else bound * factor


def rotated(word: int, period: int, by: int) -> int:
    """The word of {x + by : x in the periodic set}."""
    by %= period
    return ((word << by) | (word >> (period - by))) & ((1 << period) - 1) if by else word


NOTHING = Segment(-INFINITY, INFINITY, 1, 0)
