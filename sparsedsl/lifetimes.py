"""How long a key is still read, while tokens are generated one by one: what a cache has to keep, for any length.

Query t reads keys at t and before. The lifetime of key k is the distance to its last reader: the largest q - k with
q >= k and (q, k) in the pattern. It is a number, or endless, or there is no reader at all. Beyond the pattern's
absolute positions it depends on k mod period only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from sparsedsl.errors import LONGEST_SHOWN_LINE, NoNormalForm, clipped
from sparsedsl.index import (
    AllOf,
    AnyOf,
    Comparison,
    Member,
    Negation,
    Predicate,
    all_of,
    holds,
    lowered,
    substituted,
)
from sparsedsl.integers import EVERYTHING, INFINITY, IntegerSet, WordTooLong
from sparsedsl.pattern import Pattern
from sparsedsl.preimage import NotOnePosition, preimage
from sparsedsl.rows import block_size, repetition
from sparsedsl.terms import DISTANCE, Binary, Constant, K, Position, Q, Term, evaluate, substitute

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The lifetime of a key that no query reads, its own included; and of one that is read for ever.
UNREAD, ENDLESS = -1, INFINITY
# Kernels count positions in int32: a reader farther away than any of them never comes.
FARTHEST_READER = 1 << 31
# Keys looked at one by one, before the period repeats.
MOST_UNITS = 1 << 16
# The condition that causal() is.
LOOKS_BACK = Member(DISTANCE, IntegerSet.interval(0, INFINITY))
# More of them are not taken apart.
MOST_ALTERNATIVES = 256


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
        O((first + period) / unit · atoms · segments) time for each alternative of a union, with its own period and
        unit, the blocks in which it is told; of keys that a condition on the key alone rules out, a few operations of
        numpy. No length enters.
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
        values = _of_union(predicate, start + period)
    except (NotOnePosition, WordTooLong):
        raise _no_lifetimes(pattern, "a condition that is no set of positions for one key") from None
    cycle = [values[start + (residue - start) % period] for residue in range(period)]
    # The least period, and the first keys only as far as they differ.
    shorter = next(p for p in range(1, period + 1) if period % p == 0 and cycle == cycle[:p] * (period // p))
    while start and values[start - 1] == cycle[(start - 1) % shorter]:
        start -= 1
    return Lifetimes(tuple(values[:start]), tuple(cycle[:shorter]))


def _of_union(predicate: Predicate, length: int) -> list[int]:
    """The lifetimes of the keys [0, length): the last reader is the last one of any alternative."""
    import numpy as np

    longest = np.full(length, UNREAD, dtype=np.int64)
    for alternative in _alternatives(predicate):
        values, start = _of_alternative(alternative)
        period = len(values) - start
        key = np.arange(length)
        np.maximum(longest, values[np.where(key < start, key, start + (key - start) % period)], out=longest)
    told: list[int] = longest.tolist()
    return told


def _alternatives(predicate: Predicate) -> tuple[Predicate, ...]:
    """Predicates whose union is this one; conditions that all alternatives share are handed to each."""
    match predicate:
        case AnyOf(parts):
            found = tuple(each for part in parts for each in _alternatives(part))
        case AllOf(parts):
            choice = next((part for part in parts if isinstance(part, AnyOf)), None)
            if choice is None:
                return (predicate,)
            rest = [part for part in parts if part is not choice]
            found = tuple(each for part in choice.parts for each in _alternatives(all_of(part, *rest)))
        case _:
            return (predicate,)
    return tuple(dict.fromkeys(found)) if len(found) <= MOST_ALTERNATIVES else (predicate,)


@lru_cache(maxsize=512)  # the heads of a layer share alternatives
def _of_alternative(predicate: Predicate) -> tuple[NDArray[np.int64], int]:
    """The lifetimes of the first keys and of one period, and where the period begins."""
    import numpy as np

    repeats = repetition(predicate)
    assert repeats is not None, "it repeats where the whole pattern does"
    period, start = repeats
    unit = block_size(predicate) or 1
    firsts = np.arange(0, start + period, unit)
    parts = predicate.parts if isinstance(predicate, AllOf) else (predicate,)
    # Conditions on the key alone are looked at for all keys at once.
    on_key = [part for part in parts if substituted(part, Constant(0), K) == part]
    some = np.ones(len(firsts), dtype=np.bool_)
    for part in on_key:
        some &= holds(part, np.zeros_like(firsts), firsts)
    # Looking back is what lifetimes do anyway.
    rest = [part for part in parts if part not in on_key and part != LOOKS_BACK]
    values = np.full((len(firsts), unit), UNREAD, dtype=np.int64)
    if some.any():
        asked = firsts[some]
        # Keys that all conditions see alike have the same readers: one of them is asked.
        seen = np.stack([np.zeros_like(asked), *(np.broadcast_to(_seen(part, asked), asked.shape) for part in rest)])
        _, places, group = np.unique(seen, axis=1, return_index=True, return_inverse=True)
        readers = [readers_of(all_of(*rest), int(asked[place])) for place in places]
        last = np.array([each.maximum if each else -1 for each in readers], dtype=np.int64)[group.reshape(-1)]
        life = last[:, None] - (asked[:, None] + np.arange(unit))
        life[life < 0] = UNREAD
        life[last - asked >= FARTHEST_READER] = ENDLESS
        values[some] = life
    return values.reshape(-1)[: start + period], start


def _seen(part: Predicate, keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """What a condition sees of each key: with the same number two keys have the same readers."""
    match part:
        case Member(Binary("-", left, right)) if _has_only(left, Q) and _has_only(right, K):
            return evaluate(right, keys, keys)
        case Member(Binary("%", Binary("-", left, right), Constant(modulus))) if (
            _has_only(left, Q) and _has_only(right, K) and modulus > 0
        ):
            return evaluate(right, keys, keys) % modulus
    return keys


def _has_only(term: Term, position: Position) -> bool:
    q, k = (Q, Constant(0)) if position == Q else (Constant(0), K)
    return substitute(term, q, k) == term


def _no_lifetimes(pattern: Pattern, got: str) -> NoNormalForm:
    return NoNormalForm(
        "it can't be told for how long the keys are read",
        where=clipped(str(pattern), LONGEST_SHOWN_LINE),
        got=got,
        expected=f"a pattern without random choices that repeats after at most {MOST_UNITS} units",
        hint="a cache that keeps every key; sliding(1024) | sink(4) needs 1028",
    )


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
