"""The leaves of the algebra: one class for each constructor, with its set and its text."""

from __future__ import annotations

from dataclasses import dataclass

from sparsedsl.index import (
    DISTANCE,
    FALSE,
    TRUE,
    Chosen,
    Constant,
    K,
    Member,
    Predicate,
    Q,
    all_of,
    binary,
    lowered,
    predicate_text,
)
from sparsedsl.integers import INFINITY, LAST_POSITION, LONGEST_WORD, IntegerSet
from sparsedsl.pattern import Pattern

# A dilation beyond the longest word is listed, distance by distance, up to so many.
MOST_LISTED = 1 << 10


class Leaf(Pattern):
    """A pattern made by one constructor call; each leaf writes its own."""

    __slots__ = ()

    def _call(self) -> str:
        raise NotImplementedError

    def _text(self, level: int, *, source: bool) -> str:
        return self._call()


@dataclass(frozen=True, slots=True, repr=False)
class Sliding(Leaf):
    """{-ahead <= q - k < window}."""

    window: int
    ahead: int

    def predicate(self) -> Predicate:
        return Member(DISTANCE, IntegerSet.interval(-self.ahead, self.window))

    def _call(self) -> str:
        return f"sliding({self.window}, ahead={self.ahead})" if self.ahead else f"sliding({self.window})"


@dataclass(frozen=True, slots=True, repr=False)
class Dilated(Leaf):
    """{q - k in {0, d, ..., (window - 1) d}}."""

    window: int
    dilation: int

    def predicate(self) -> Predicate:
        if self.dilation <= LONGEST_WORD:
            return Member(DISTANCE, IntegerSet.interval(0, self.window).scale(self.dilation))
        # No word is that long: the distances that a position can have, one by one, or the remainder.
        window = min(self.window, LAST_POSITION // self.dilation + 1)
        if window <= MOST_LISTED:
            return Member(DISTANCE, IntegerSet.of(range(0, window * self.dilation, self.dilation)))
        near = IntegerSet.interval(0, (window - 1) * self.dilation + 1)
        return all_of(Member(DISTANCE, near), _divisible(self.dilation))

    def _call(self) -> str:
        return f"dilated(window={self.window}, dilation={self.dilation})"


def _divisible(divisor: int) -> Predicate:
    """{divisor divides q - k}, also where the divisor is longer than any word."""
    if divisor <= LONGEST_WORD:
        return Member(DISTANCE, IntegerSet.residues(divisor, [0]))
    return Member(binary("%", DISTANCE, Constant(divisor)), IntegerSet.of([0]))


@dataclass(frozen=True, slots=True, repr=False)
class Power(Leaf):
    """{q - k in {0} or a power of base}."""

    base: int

    def predicate(self) -> Predicate:
        return Member(DISTANCE, IntegerSet.powers(self.base) | IntegerSet.of([0]))

    def _call(self) -> str:
        return "power()" if self.base == 2 else f"power(base={self.base})"


@dataclass(frozen=True, slots=True, repr=False)
class Sink(Leaf):
    """{k < count}."""

    count: int

    def predicate(self) -> Predicate:
        return Member(K, IntegerSet.interval(-INFINITY, self.count))

    def _call(self) -> str:
        return f"sink({self.count})"


@dataclass(frozen=True, slots=True, repr=False)
class Strided(Leaf):
    """{stride divides q - k}."""

    stride: int

    def predicate(self) -> Predicate:
        return _divisible(self.stride)

    def _call(self) -> str:
        return f"strided({self.stride})"


@dataclass(frozen=True, slots=True, repr=False)
class Chunked(Leaf):
    """{q // size = k // size}."""

    size: int

    def predicate(self) -> Predicate:
        q, k = binary("//", Q, Constant(self.size)), binary("//", K, Constant(self.size))
        return Member(binary("-", q, k), IntegerSet.of([0]))

    def _call(self) -> str:
        return f"chunked({self.size})"


@dataclass(frozen=True, slots=True, repr=False)
class Offsets(Leaf):
    """{q - k in distances}, the distances sorted and distinct."""

    distances: tuple[int, ...]

    def predicate(self) -> Predicate:
        return Member(DISTANCE, IntegerSet.of(self.distances))

    def _call(self) -> str:
        return f"offsets({{{', '.join(map(str, self.distances))}}})"


@dataclass(frozen=True, slots=True, repr=False)
class Causal(Leaf):
    """{k <= q}."""

    def predicate(self) -> Predicate:
        return Member(DISTANCE, IntegerSet.interval(0, INFINITY))

    def _call(self) -> str:
        return "causal()"


@dataclass(frozen=True, slots=True, repr=False)
class Full(Leaf):
    """Every pair."""

    def predicate(self) -> Predicate:
        return TRUE

    def _call(self) -> str:
        return "full()"


@dataclass(frozen=True, slots=True, repr=False)
class Empty(Leaf):
    """No pair."""

    def predicate(self) -> Predicate:
        return FALSE

    def _call(self) -> str:
        return "empty()"


@dataclass(frozen=True, slots=True, repr=False)
class RandomBlocks(Leaf):
    """{k // block is among the count blocks drawn for q // block from 0..q // block}."""

    block: int
    count: int
    seed: int

    def predicate(self) -> Predicate:
        size = Constant(self.block)
        return Chosen(self.count, self.seed, binary("//", Q, size), binary("//", K, size))

    def _call(self) -> str:
        return f"random_blocks(block={self.block}, count={self.count}, seed={self.seed})"


@dataclass(frozen=True, slots=True, repr=False)
class Where(Leaf):
    """The pairs for which an arithmetic condition, made of comparisons, holds."""

    condition: Predicate

    def predicate(self) -> Predicate:
        return lowered(self.condition)

    def _text(self, level: int, *, source: bool) -> str:
        text = predicate_text(self.condition)
        return f"where({text!r})" if source else f"where({text})"
