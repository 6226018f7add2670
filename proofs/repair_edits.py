"""The edits of `repair`: what each adds to a layer, as edges and as text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sparsedsl.constructors import causal, offsets, sink, sliding
from sparsedsl.layers import PerHead, Stack
from sparsedsl.leaves import Causal, Offsets, Sink, Sliding
from sparsedsl.pattern import Blocks, Intersection, Pattern, Union
from sparsedsl.proofs.bits import lowest, ones

Kind = Literal["distance", "sink", "window"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Addition:
    """The pairs that an edit adds to a layer, all with K <= Q, on units.

    distance  {Q - K = amount}
    sink      {K < amount}, 1 <= amount
    window    {Q - K < amount}, 1 <= amount; the last window of all is the causal pattern
    """

    kind: Kind
    amount: int

    def row(self, query: int) -> int:
        """The units that a unit gains, or has already."""
        if self.kind == "sink":
            return ones(min(self.amount, query + 1))
        if self.kind == "window":
            return ones(query + 1) & ~ones(query + 1 - self.amount)
        return 1 << query - self.amount if query >= self.amount else 0

    def readers(self, keys: int, units: int) -> int:
        """The units with an added edge to some unit of `keys`; O(units / 64 · log2 of the window)."""
        if self.kind == "distance":
            return keys << self.amount & ones(units)
        if self.kind == "sink":
            inside = keys & ones(self.amount)
            return ones(units) & ~ones(lowest(inside)) if inside else 0
        # Invariant: `found` is the union of keys + d over d < width.
        found, width = keys, 1
        while width < self.amount:
            more = min(width, self.amount - width)
            found |= found << more & ones(units)
            width += more
        return found

    def leaf(self) -> Pattern:
        """The constructor that adds them, the causal cut apart."""
        if self.kind == "distance":
            return offsets({self.amount})
        return sink(self.amount) if self.kind == "sink" else sliding(self.amount)


def with_addition(layer: Pattern, addition: Addition, unit: int) -> Pattern:
    """The layer with the pairs added, in the layer's own form where it is `(...).blocks(unit) & causal()`.

    Example
        >>> from sparsedsl.text import parse
        >>> print(with_addition(parse("(sliding(9) | sink(1)).blocks(256) & causal()"), Addition("window", 19), 256))
        (sliding(19) | sink(1)).blocks(256) & causal()
        >>> print(with_addition(parse("dilated(64, 4)"), Addition("sink", 2), 1))
        dilated(window=64, dilation=4) | sink(2) & causal()

    """
    leaf = addition.leaf()
    inside = _before_the_cut(layer)
    if inside is not None and unit == 1:
        return _merged(inside, leaf) & causal()
    if isinstance(inside, Blocks) and inside.size == unit:
        return _merged(inside.part, leaf).blocks(unit) & causal()
    if unit > 1:
        return layer | leaf.blocks(unit) & causal()
    return layer | leaf & causal() if addition.kind == "sink" else _merged(layer, leaf)


def _before_the_cut(layer: Pattern) -> Pattern | None:
    """X of a layer X & causal()."""
    match layer:
        case Intersection((inside, Causal())) | Intersection((Causal(), inside)):
            return inside
    return None


def _merged(pattern: Pattern, leaf: Pattern) -> Pattern:
    """pattern | leaf, a window widened or a set of distances enlarged instead of a second one beside it."""
    parts = list(pattern.parts) if isinstance(pattern, Union) else [pattern]
    for place, part in enumerate(parts):
        match part, leaf:
            case Sliding(window, 0), Sliding(wider, 0):
                parts[place] = sliding(max(window, wider))
            case Sink(count), Sink(more):
                parts[place] = sink(max(count, more))
            case Offsets(distances), Offsets(more):
                parts[place] = offsets({*distances, *more})
            case _:
                continue
        return parts[0] if len(parts) == 1 else Union(tuple(parts))
    return pattern | leaf


def edited(
    pattern: Pattern | PerHead | Stack,
    addition: Addition,
    unit: int,
    *,
    positions: Collection[int],
    heads: Sequence[int],
) -> Pattern | PerHead | Stack:
    """The whole pattern with some layers edited, each in one of its heads.

    `positions` are layers of a stack, counted from 0; without a stack there is one pattern for all layers.
    heads[i] is the head of layer i that is edited, where the layer is a per-head pattern.
    """
    if not isinstance(pattern, Stack):
        return _layer_edited(pattern, addition, unit, heads[0])
    return Stack(
        [
            _layer_edited(layer, addition, unit, heads[place]) if place in positions else layer
            for place, layer in enumerate(pattern)
        ]
    )


def _layer_edited(layer: Pattern | PerHead, addition: Addition, unit: int, head: int) -> Pattern | PerHead:
    if isinstance(layer, Pattern):
        return with_addition(layer, addition, unit)
    each = list(layer.heads)
    each[head] = with_addition(each[head], addition, unit)
    return PerHead(tuple(each))
