"""How long a key is still read, while tokens are generated one by one: what a cache has to keep, for any length.

Query t reads keys at t and before. The lifetime of key k is the distance to its last reader: the largest q - k with
q >= k and (q, k) in the pattern. It is a number, or endless, or there is no reader at all. Beyond the pattern's
absolute positions it depends on k mod period only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from sparsedsl.errors import LONGEST_SHOWN_LINE, NoNormalForm, clipped
from sparsedsl.index import AllOf, AnyOf, Comparison, Member, Negation, Predicate, lowered
from sparsedsl.integers import EVERYTHING, INFINITY, IntegerSet, WordTooLong
from sparsedsl.pattern import Pattern
from sparsedsl.preimage import NotOnePosition, preimage
from sparsedsl.rows import block_size, repetition
from sparsedsl.terms import Constant, Q, substitute

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The lifetime of a key that no query reads, its own included; and of one that is read for ever.
UNREAD, ENDLESS = -1, INFINITY
# Kernels count positions in int32: a reader farther away than any of them never comes.
FARTHEST_READER = 1 << 31
# Keys looked at one by one, before the period repeats.
MOST_UNITS = 1 << 16


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """`first` for the keys 0, 1, ...; from there on `cycle[k % period]`."""

    first: tuple[int, ...]
    cycle: tuple[int, ...]

    @property
    def period(self) -> int:
        """After how many keys lifetimes repeat."""
        return len(self.cycle)

    def of(self, key: int) -> int:
        """The lifetime of one key."""
        return self.first[key] if key < len(self.first) else self.cycle[key % len(self.cycle)]

    def last_readers(self, start: int, stop: int) -> NDArray[np.int64]:
        """The last reader of each key in [start, stop): k + lifetime; k - 1 if unread, beyond 2**62 if endless."""
        import numpy as np

        keys = np.arange(start, stop, dtype=np.int64)
        result = keys + np.array(self.cycle, dtype=np.int64)[keys % len(self.cycle)]
        early = keys[keys < len(self.first)]
        if len(early):
            result[: len(early)] = early + np.array(self.first, dtype=np.int64)[early]
        return result


@cache
def lifetimes(pattern: Pattern) -> Lifetimes:
    """The lifetimes of a pattern's keys. Pairs that look ahead take no part: a later key is not there yet.

    Cost
        O((first + period) / unit · atoms · segments) time, unit being the blocks in which the pattern is told; no
        length enters.
    Raises
        NoNormalForm: the pattern never repeats, holds random choices, or repeats after more than 65536 units.
    Example
        >>> from sparsedsl.constructors import causal, chunked, power, sink, sliding
        >>> lifetimes(sliding(4)), lifetimes(chunked(3) & causal())
        (Lifetimes(first=(), cycle=(3,)), Lifetimes(first=(), cycle=(2, 1, 0)))
        >>> lifetimes(sliding(4) | sink(1)).of(0) == ENDLESS == lifetimes(power()).of(5)
        True

    """
    predicate = lowered(pattern.predicate())
    repeats = repetition(predicate)
    unit = block_size(predicate) or 1
    if repeats is None or sum(repeats) // unit > MOST_UNITS:
        raise _no_lifetimes(pattern, "no period" if repeats is None else f"a period of {sum(repeats)} tokens")
    period, start = repeats
    try:
        values = [life for first in range(0, start + period, unit) for life in _of_unit(predicate, first, unit)][
            : start + period
        ]
    except (NotOnePosition, WordTooLong):
        raise _no_lifetimes(pattern, "a condition that is no set of positions for one key") from None
    cycle = [values[start + (residue - start) % period] for residue in range(period)]
    # The least period, and the first keys only as far as they differ.
    shorter = next(p for p in range(1, period + 1) if period % p == 0 and cycle == cycle[:p] * (period // p))
    while start and values[start - 1] == cycle[(start - 1) % shorter]:
        start -= 1
    return Lifetimes(tuple(values[:start]), tuple(cycle[:shorter]))


def _no_lifetimes(pattern: Pattern, got: str) -> NoNormalForm:
    return NoNormalForm(
        "it can't be told for how long the keys are read",
        where=clipped(str(pattern), LONGEST_SHOWN_LINE),
        got=got,
        expected=f"a pattern without random choices that repeats after at most {MOST_UNITS} units",
        hint="a cache that keeps every key; sliding(1024) | sink(4) needs 1028",
    )


def _of_unit(predicate: Predicate, first: int, unit: int) -> list[int]:
    """The lifetimes of the keys of one unit, which starts at `first`: but for the cut they have the same readers."""
    readers = readers_of(predicate, first) & IntegerSet.interval(first, INFINITY)
    if not readers:
        return [UNREAD] * unit
    last = readers.maximum
    if last - first >= FARTHEST_READER:
        return [ENDLESS] * unit
    return [last - key if last >= key else UNREAD for key in range(first, first + unit)]


def readers_of(predicate: Predicate, key: int) -> IntegerSet:
    """The queries that read a key, at any length; members below 0 mean nothing.

    Cost
        O(atoms · segments) time.
    Raises
        NotOnePosition: a term with the query in it twice, or a random choice.
    Example
        >>> from sparsedsl.constructors import dilated
        >>> str(readers_of(dilated(3, dilation=4).predicate(), 5))
        '{5, 9, 13}'

    """
    match predicate:
        case AllOf(parts):
            result = EVERYTHING
            for part in parts:
                result &= readers_of(part, key)
            return result
        case AnyOf(parts):
            return IntegerSet.union_of([readers_of(part, key) for part in parts])
        case Negation(part):
            return ~readers_of(part, key)
        case Comparison():
            return readers_of(lowered(predicate), key)
        case Member(term, members):
            return preimage(substitute(term, Q, Constant(key)), members)
    raise NotOnePosition
