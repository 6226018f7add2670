"""One pattern a head, one layer a pattern: `PerHead` and `Stack`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from sparsedsl.errors import HeadMismatch, OutOfRange, WrongType, WrongValue
from sparsedsl.pattern import Pattern, Union, whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, repr=False)
class PerHead:
    """One pattern for each query head of a layer; set operations and `blocks` apply head by head."""

    heads: tuple[Pattern, ...]

    def union(self) -> Pattern:
        """The layer's graph: the pairs of any head."""
        distinct = tuple(dict.fromkeys(self.heads))
        return distinct[0] if len(distinct) == 1 else Union(distinct)

    def dense(self, q_len: int, k_len: int | None = None, *, q_start: int | None = None) -> NDArray[np.bool_]:
        """The heads' matrices stacked: (heads, q_len, k_len)."""
        import numpy as np

        return np.stack([head.dense(q_len, k_len, q_start=q_start) for head in self.heads])

    def blocks(self, size: int) -> PerHead:
        """Every head lifted to blocks."""
        return PerHead(tuple(head.blocks(size) for head in self.heads))

    def _each(self, other: Pattern | PerHead, join: Callable[[Pattern, Pattern], Pattern]) -> PerHead:
        if isinstance(other, Pattern):
            return PerHead(tuple(join(head, other) for head in self.heads))
        if not isinstance(other, PerHead):
            return NotImplemented
        if len(other.heads) != len(self.heads):
            raise HeadMismatch(
                "two per-head patterns have different numbers of heads",
                where=f"{self} with {other}",
                got=f"{len(self.heads)} and {len(other.heads)} heads",
                expected="the same number, or one pattern for all heads",
            )
        return PerHead(tuple(join(a, b) for a, b in zip(self.heads, other.heads, strict=True)))

    def __or__(self, other: Pattern | PerHead) -> PerHead:
        return self._each(other, lambda a, b: a | b)

    def __and__(self, other: Pattern | PerHead) -> PerHead:
        return self._each(other, lambda a, b: a & b)

    def __sub__(self, other: Pattern | PerHead) -> PerHead:
        return self._each(other, lambda a, b: a - b)

    def __invert__(self) -> PerHead:
        return PerHead(tuple(~head for head in self.heads))

    def __bool__(self) -> NoReturn:
        self.union().__bool__()

    def __str__(self) -> str:
        return f"per_head([{', '.join(map(str, self.heads))}])"

    def __repr__(self) -> str:
        return f"per_head([{', '.join(map(repr, self.heads))}])"


Layer = Pattern | PerHead


@dataclass(frozen=True, slots=True, repr=False, init=False)
class Stack:
    """One pattern for each layer, the first layer first; `cycle` repeats a few patterns over many layers.

    Example
        >>> stack = cycle([sliding(4), causal()], layers=5)
        >>> len(stack), str(stack[3])
        (5, 'causal()')

    """

    patterns: tuple[Layer, ...]
    layers: int

    def __init__(self, patterns: Sequence[Layer], layers: int | None = None) -> None:
        checked = _layers("Stack", patterns)
        count = len(checked) if layers is None else whole("Stack", "layers", layers, least=1)
        # Shortest cycle first, so that equal schedules are equal values.
        object.__setattr__(self, "patterns", _shortest_cycle(checked, count))
        object.__setattr__(self, "layers", count)

    def __len__(self) -> int:
        return self.layers

    def __getitem__(self, layer: int) -> Layer:
        if not -self.layers <= layer < self.layers:
            raise OutOfRange(
                "the stack has no such layer",
                where=f"stack[{layer}]",
                got=f"layer = {layer}",
                expected=f"0 <= layer < {self.layers}",
            )
        return self.patterns[layer % self.layers % len(self.patterns)]

    def __bool__(self) -> NoReturn:
        self.patterns[0].__bool__()

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
    used = patterns[:layers]
    for length in range(1, len(used)):
        spelled = (patterns[i % len(patterns)] for i in range(layers))
        if all(pattern == used[i % length] for i, pattern in enumerate(spelled)):
            return used[:length]
    return used


def _layers(call: str, patterns: Iterable[Layer]) -> tuple[Layer, ...]:
    listed = tuple(patterns) if isinstance(patterns, Iterable) else (patterns,)
    for each in listed:
        if not isinstance(each, Pattern | PerHead):
            raise _not_a_pattern(call, each)
    if not listed:
        raise WrongValue(
            "the list of patterns is empty", where=f"{call}([])", got="no pattern", expected="one or more"
        )
    return listed


def _not_a_pattern(call: str, got: object) -> WrongType:
    return WrongType(
        f"{call} takes patterns",
        where=f"{call}([...])",
        got=f"{got!r} of type {type(got).__name__}",
        expected="a list of patterns",
        hint=f"{call}([sliding(1024), causal()])",
    )
