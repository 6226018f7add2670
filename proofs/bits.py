"""Sets of positions or distances as Python integers: bit x of the integer says whether x belongs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache

from sparsedsl.integers import IntegerSet
from sparsedsl.segments import repeated, rotated

# So many steps are counted one by one.
FEW_STEPS = 8


def ones(length: int) -> int:
    """{0, ..., length - 1}; empty where the length is 0 or less."""
    return (1 << length) - 1 if length > 0 else 0


def below(bits: int, limit: int) -> int:
    """The members before the limit; a copy is made only where some are not."""
    return bits & ones(limit) if bits.bit_length() > limit else bits


def lowest(bits: int) -> int:
    """The least member; the set must not be empty."""
    return (bits & -bits).bit_length() - 1


def lowest_missing(bits: int) -> int:
    """The least x >= 0 that is not a member."""
    return (~bits & (bits + 1)).bit_length() - 1


def members(bits: int) -> Iterator[int]:
    """The members in rising order; O(members · length / 64)."""
    while bits:
        first = lowest(bits)
        yield first
        bits &= bits - 1


def runs(bits: int) -> Iterator[tuple[int, int]]:
    """The maximal intervals [lo, hi) of members, in rising order."""
    start = 0
    while bits:
        gap = lowest(bits)
        bits >>= gap
        length = lowest_missing(bits)
        bits >>= length
        yield start + gap, start + gap + length
        start += gap + length


def progressions(distances: IntegerSet, limit: int) -> tuple[tuple[int, int, int], ...]:
    """The members in [0, limit) as arithmetic progressions (first, step, count).

    Example
        >>> progressions(IntegerSet.of([1, 2, 3, 8]) | IntegerSet.interval(20, 30), 25)
        ((1, 1, 3), (8, 1, 1), (20, 1, 5))
        >>> progressions(IntegerSet.residues(4, [1]), 12)
        ((1, 4, 3),)

    """
    found = []
    for lo, hi, period, word in distances.segments:
        start, end = max(lo, 0), min(hi, limit)
        for residue in members(word):
            first = start + (residue - start) % period
            if first < end:
                found.append((first, period, (end - first + period - 1) // period))
    return tuple(found)


def sums(sets: Sequence[int], rows: Sequence[Sequence[tuple[int, int, int]]], limits: Sequence[int]) -> list[int]:
    """For each class s: the union over D in rows[s] of sets[s - D] + D, below limits[s]; classes count modulo P.

    Set
        sets[r] holds distances from a query of class r; a row holds its own query's distances D as progressions.
        One hop of D leads from class s to class (s - D) mod P, so the result is what s sees through one hop.
    Cost
        Let n = max limits. Time O(P · n / 64 · (progressions + log2 of the longest)), memory O(P · n / 8) bytes:
        the progressions with the same step share tables of 1, 2, 4, ... terms, or grow from one another.

    """
    classes = len(sets)
    results = [0] * classes
    # step -> (class of the first term, number of terms) -> (class, place of the first term)
    wanted: dict[int, dict[Run, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for s, row in enumerate(rows):
        for first, step, count in row:
            if first < limits[s]:
                wanted[1 if count == 1 else step][(s - first) % classes, count].append((s, first))
    for step, places in wanted.items():
        for run, bits in _unions(sets, step, places, limits):
            for s, first in places[run]:
                results[s] |= bits << first
    return [below(result, limit) for result, limit in zip(results, limits, strict=True)]


# (s, count): the terms sets[s - step·i] + step·i for i < count.
Run = tuple[int, int]


def _unions(
    sets: Sequence[int], step: int, wanted: Collection[Run], limits: Sequence[int]
) -> Iterator[tuple[Run, int]]:
    """The union of each run, below the limit of its class."""
    classes = len(sets)
    by_count: dict[int, list[int]] = defaultdict(list)
    for s, count in wanted:
        by_count[count].append(s)
    # A run that has one term more than a run before it is that run and the term: the rows of a chunk are of this kind.
    grown = {(s, count) for s, count in wanted if count == 1 or ((s - step) % classes, count - 1) in wanted}
    doubled = dict(_doubled(sets, step, [run for run in wanted if run not in grown], limits))
    before: dict[Run, int] = {}
    for count in sorted(by_count):
        found = {}
        for s in by_count[count]:
            if (s, count) not in grown:
                bits = doubled.pop((s, count))
            elif count == 1:
                bits = sets[s]
            else:
                bits = below(sets[s] | before[(s - step) % classes, count - 1] << step, limits[s])
            found[s, count] = bits
            yield (s, count), bits
        before = found


def _doubled(sets: Sequence[int], step: int, runs: Sequence[Run], limits: Sequence[int]) -> Iterator[tuple[Run, int]]:
    """The unions of runs from tables of 1, 2, 4, ... terms, which have the entries that are needed."""
    classes, longest = len(sets), max(limits)
    # Two entries of 2**level terms, overlapping, cover the terms of a run: level -> (run, distance of the second).
    by_level: dict[int, list[tuple[Run, int]]] = defaultdict(list)
    needed: dict[int, set[int]] = defaultdict(set)
    for s, count in runs:
        level = count.bit_length() - 1
        rest = step * (count - (1 << level))
        by_level[level].append(((s, count), rest))
        needed[level] |= {s, (s - rest) % classes}
    top = max(by_level, default=0)
    for level in range(top, 0, -1):
        hop = step << (level - 1)
        needed[level - 1] |= needed[level] | ({(s - hop) % classes for s in needed[level]} if hop < longest else set())
    # Invariant: table[s] = union of sets[s - step·i] + step·i over i < 2**level.
    table = {s: sets[s] for s in needed[0]}
    for level in range(top + 1):
        hop = step << (level - 1) if level else longest
        if hop < longest:
            table = {s: below(table[s] | table[(s - hop) % classes] << hop, limits[s]) for s in needed[level]}
        for (s, count), rest in by_level.get(level, ()):
            more = table[(s - rest) % classes] << rest if 0 < rest < limits[s] else 0
            yield (s, count), table[s] | more


def periodic_bits(word: int, period: int, length: int) -> int:
    """The first `length` bits of the word repeated."""
    return repeated(word, period, length) if word else 0


def position_sum(bits: int) -> int:
    """The sum of the members; O(length / 64 · log2(length))."""
    length = bits.bit_length()
    return sum(
        (bits & mask).bit_count() << digit
        for digit, mask in enumerate(_digit_masks(1 << (length - 1).bit_length() if length > 1 else length))
    )


def steps_below(bits: int, end: int, period: int) -> int:
    """The sum over the members d of the number of t >= 0 with d + period · t <= end; all members are <= end.

    Example
        >>> steps_below(0b1011, 5, 2)  # 0: 0, 2, 4; 1: 1, 3, 5; 3: 3, 5
        8

    """
    if end < FEW_STEPS * period:
        return sum(below(bits, end - period * t + 1).bit_count() for t in range(end // period + 1))
    count = bits.bit_count()
    total = count * end - position_sum(bits)
    # total is the sum of end - d; take off the rests (end - d) mod period, digit by digit.
    length = bits.bit_length()
    for digit, word in enumerate(_rest_words(period)):
        mask = periodic_bits(rotated(word, period, end), period, length)
        total -= (bits & mask).bit_count() << digit
    return total // period + count


@lru_cache(maxsize=1)
def _digit_masks(length: int) -> tuple[int, ...]:
    """For each binary digit, the x < length in which it is 1; the length is a power of two."""
    digits = (length - 1).bit_length() if length else 0
    return tuple(repeated(ones(1 << d) << (1 << d), 2 << d, length) for d in range(digits))


@lru_cache(maxsize=1)
def _rest_words(period: int) -> tuple[int, ...]:
    """For each binary digit, the d < period with that digit set in -d mod period."""
    return tuple(
        sum(1 << d for d in range(period) if (-d % period) >> digit & 1) for digit in range((period - 1).bit_length())
    )
