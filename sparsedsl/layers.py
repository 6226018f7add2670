"""One pattern a head, one layer a pattern: `PerHead` and `Stack`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import and_, index, or_, sub
from typing import TYPE_CHECKING, NoReturn

from sparsedsl.errors import HeadMismatch, OutOfRange, WrongType, WrongValue, shown
from sparsedsl.pattern import Operand, Pattern, check_operand, refuse_truth, whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, repr=False)
class PerHead(Operand):
    """One pattern for each query head of a layer; set operations and `blocks` apply head by head."""

    heads: tuple[Pattern, ...]

    def union(self) -> Pattern:
        """The layer's graph: the pairs of any head."""
        return reduce(or_, dict.fromkeys(self.heads))

    def dense(self, q_len: int, k_len: int | None = None, *, q_start: int | None = None) -> NDArray[np.bool_]:
        """The heads' matrices stacked: (heads, q_len, k_len)."""
        import numpy as np

        return np.stack([head.dense(q_len, k_len, q_start=q_start) for head in self.heads])

    def blocks(self, size: int) -> PerHead:
        """Every head lifted to blocks."""
        return PerHead(tuple(head.blocks(size) for head in self.heads))

    def __or__(self, other: Pattern | PerHead) -> PerHead:
        return _head_by_head("|", or_, self, other)

    def __and__(self, other: Pattern | PerHead) -> PerHead:
        return _head_by_head("&", and_, self, other)

    def __sub__(self, other: Pattern | PerHead) -> PerHead:
        return _head_by_head("-", sub, self, other)

    def __ror__(self, other: Pattern) -> PerHead:
        return PerHead(tuple(other | head for head in self.heads))

    def __rand__(self, other: Pattern) -> PerHead:
        return PerHead(tuple(other & head for head in self.heads))

    def __rsub__(self, other: Pattern) -> PerHead:
        return PerHead(tuple(other - head for head in self.heads))

    def __invert__(self) -> PerHead:
        return PerHead(tuple(~head for head in self.heads))

    def __str__(self) -> str:
        return f"per_head([{', '.join(map(str, self.heads))}])"

    def __repr__(self) -> str:
        return f"per_head([{', '.join(map(repr, self.heads))}])"


def _head_by_head(
    sign: str, join: Callable[[Pattern, Pattern], Pattern], left: PerHead, right: Pattern | PerHead
) -> PerHead:
    if isinstance(right, Pattern):
        return PerHead(tuple(join(head, right) for head in left.heads))
    check_operand(sign, left, right)
    if len(left.heads) != len(right.heads):
        raise HeadMismatch(
            "two per-head patterns have different numbers of heads",
            where=f"{shown(left)} {sign} {shown(right)}",
            got=f"{len(left.heads)} and {len(right.heads)} heads",
            expected="the same number, or one pattern for all heads",
            hint=f"per_head([...]) of {len(left.heads)} patterns on both sides",
        )
    return PerHead(tuple(join(a, b) for a, b in zip(left.heads, right.heads, strict=True)))


Layer = Pattern | PerHead


@dataclass(frozen=True, slots=True, repr=False, init=False)
class Stack:
    """One pattern for each layer, the first layer first; `cycle` repeats a few patterns over many layers.

    Kept as the shortest cycle, so that equal schedules are equal values.

    Example
        >>> from sparsedsl.constructors import causal, cycle, sliding
        >>> stack = cycle([sliding(4), causal()], layers=5)
        >>> len(stack), str(stack[3]), stack == Stack([*stack])
        (5, 'causal()', True)

    """

    patterns: tuple[Layer, ...]
    layers: int

    def __init__(self, patterns: Iterable[Layer], *, layers: int | None = None) -> None:
        checked = checked_layers("Stack", patterns)
        count = len(checked) if layers is None else whole("Stack", "layers", layers, least=1)
        object.__setattr__(self, "patterns", _shortest_cycle(checked, count))
        object.__setattr__(self, "layers", count)

    def __len__(self) -> int:
        return self.layers

    def __iter__(self) -> Iterator[Layer]:
        return (self.patterns[layer % len(self.patterns)] for layer in range(self.layers))

    def __getitem__(self, layer: int) -> Layer:
        try:
            layer = index(layer)
        except TypeError:
            raise WrongType(
                "a layer is a whole number",
                where=f"stack[{shown(layer)}]",
                got=f"{shown(layer)} of type {type(layer).__name__}",
                expected=f"an int, {-self.layers} <= layer < {self.layers}",
                hint="stack[0], or [*stack][:2] for several",
            ) from None
        if not -self.layers <= layer < self.layers:
            raise OutOfRange(
                "the stack has no such layer",
                where=f"stack[{shown(layer)}]",
                got=f"layer = {shown(layer)}",
                expected=f"{-self.layers} <= layer < {self.layers}",
                hint=f"stack[{self.layers - 1}], the last layer",
            )
        return self.patterns[layer % self.layers % len(self.patterns)]

    def __bool__(self) -> NoReturn:
        refuse_truth(self)

    def _listed(self, show: Callable[[Layer], str]) -> str:
        listed = ", ".join(show(pattern) for pattern in self.patterns)
        if len(self.patterns) == self.layers:
            return f"Stack([{listed}])"
        return f"cycle([{listed}], layers={self.layers})"

    def __str__(self) -> str:
        return self._listed(str)

    def __repr__(self) -> str:
        return self._listed(repr)


def _shortest_cycle(patterns: tuple[Layer, ...], layers: int) -> tuple[Layer, ...]:
    """The shortest list that spells the same `layers` layers when it is repeated."""
    given = min(len(patterns), layers)
    for length in range(1, given):
        # Both sides repeat after `given` layers: what holds that far holds for good.
        compared = range(length, min(layers, length + given))
        if all(patterns[i % given] == patterns[i % length] for i in compared):
            return patterns[:length]
    return patterns[:given]


def checked_layers(call: str, patterns: Iterable[Layer]) -> tuple[Layer, ...]:
    """The patterns as a tuple, one or more of them."""
    try:
        listed = tuple(patterns)
    except TypeError:
        raise not_a_pattern(call, patterns) from None
    for each in listed:
        if not isinstance(each, Layer):
            raise not_a_pattern(call, each)
    if not listed:
        raise WrongValue(
            "the list of patterns is empty",
            where=f"{call}([])",
            got="no pattern",
            expected="one or more",
            hint=example_of(call),
        )
    return listed


def not_a_pattern(call: str, got: object) -> WrongType:
    """The error for a list of patterns that holds something else."""
    return WrongType(
        f"{call} takes patterns",
        where=f"{call}([...])",
        got=f"{shown(got)} of type {type(got).__name__}",
        expected="a list of patterns",
        hint=example_of(call),
    )


def example_of(call: str) -> str:
    """A call of `per_head`, `Stack` or `cycle` that works."""
    return f"{call}([sliding(1024), causal()]{', layers=28' if call == 'cycle' else ''})"
