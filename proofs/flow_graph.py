"""The layers of a pattern as weighted graphs on one small set of units: what flow is computed on.

A unit is a token, a block in which the whole pattern is told, or, where the user asks for it, a block of any
size: then unit Q reads unit K iff some token of Q reads some token of K, which joins more than the pattern does.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import or_, sub
from typing import TYPE_CHECKING, NamedTuple

from sparsedsl.errors import Unsupported, WrongValue
from sparsedsl.forms import NormalForm
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern, whole
from sparsedsl.proofs.bits import ones
from sparsedsl.proofs.extent import Extent
from sparsedsl.proofs.layer_graph import layer_graphs
from sparsedsl.proofs.periodic_layer import PeriodicLayer
from sparsedsl.proofs.schedule import common_forms, looks_ahead, schedule_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A matrix of this many units squared takes 32 MiB; a product of two, about a second on one core.
MOST_UNITS = 1 << 11
# Folding tokens into blocks reads every token's row, or every block's readers.
MOST_TOKENS = 1 << 20
# A layer with more periodic classes than this is folded too slowly.
MOST_CLASSES = 1 << 10


@dataclass(frozen=True, slots=True)
class FlowGraph:
    """What each unit reads, head by head: bit K of heads[i][Q] says whether unit Q reads unit K in head i.

    layers[h] names the heads of layer h, counted from 0 at the bottom, by index; a head may occur several times.
    `absolute` are the units, as bits, with keys that the pattern names by position (sinks, global tokens); None
    where it has no normal form. `exact`: the units are the pattern's own.
    """

    heads: tuple[tuple[int, ...], ...]
    layers: tuple[tuple[int, ...], ...]
    extent: Extent
    absolute: int | None
    exact: bool

    @property
    def units(self) -> int:
        """The number of units."""
        return self.extent.units

    @property
    def uniform(self) -> bool:
        """Whether all layers are the same."""
        return len(set(self.layers)) == 1

    def edges(self, layer: int) -> tuple[int, ...]:
        """The union of a layer's heads, as rows of bits."""
        return self.union(set(self.layers[layer]))

    def union(self, heads: set[int]) -> tuple[int, ...]:
        """The union of some heads, as rows of bits."""
        rows = [0] * self.units
        for head in heads:
            rows = [a | b for a, b in zip(rows, self.heads[head], strict=True)]
        return tuple(rows)

    def weights(self, layer: int) -> NDArray[np.float64]:
        """A of one layer: the mean over its heads of the adjacency with each row scaled to sum 1.

        A row without a key is zero: that head passes nothing on.
        """
        import numpy as np

        heads = self.layers[layer]
        total = np.zeros((self.units, self.units))
        for head in sorted(set(heads)):
            matrix = as_matrix(self.heads[head]).astype(np.float64)
            keys = matrix.sum(axis=1, keepdims=True)
            total += matrix / np.maximum(keys, 1) * (heads.count(head) / len(heads))
        return total


def as_matrix(rows: Sequence[int]) -> NDArray[np.bool_]:
    """Rows of bits as a boolean square matrix."""
    import numpy as np

    units = len(rows)
    packed = b"".join(row.to_bytes(-(-units // 8), "little") for row in rows)
    flat = np.frombuffer(packed, dtype=np.uint8).reshape(units, -1)
    return np.unpackbits(flat, axis=1, count=units, bitorder="little").astype(np.bool_)


def flow_graph(pattern: Pattern | PerHead | Stack, *, seq_len: int, layers: int | None, block: int | None) -> FlowGraph:
    """The graph of a pattern, on its own units or on blocks.

    Cost
        O(units²) time and memory for each head on its own units; on blocks of a finer pattern, one pass over the
        readers of each block, O(units · classes · progressions · seq_len / 64).
    Raises
        WrongType, WrongValue: arguments that no flow can take.
        Unsupported: more than `MOST_UNITS` units, or a pattern that is too fine to be folded into blocks.
    """
    seq_len = whole("flow", "seq_len", seq_len, least=1)
    stacked = _layers_of(pattern, layers)
    heads: dict[Pattern, int] = {}
    for layer in stacked:
        for head in layer:
            heads.setdefault(head, len(heads))
    patterns = tuple(heads)
    rows, extent, absolute, ratio = _rows(patterns, seq_len, block)
    named = tuple(tuple(heads[head] for head in layer) for layer in stacked)
    return FlowGraph(rows, named, extent, absolute, exact=ratio == 1)


def _layers_of(pattern: Pattern | PerHead | Stack, layers: int | None) -> list[tuple[Pattern, ...]]:
    count = schedule_of(pattern, layers).count
    if count is None:
        raise WrongValue(
            "flow needs a number of layers",
            got="layers = None",
            expected="layers >= 1; a stack brings its own",
            hint="layers=28 (--layers 28)",
        )
    each = list(pattern) if isinstance(pattern, Stack) else [pattern] * count
    return [layer.heads if isinstance(layer, PerHead) else (layer,) for layer in each]


class _Rows(NamedTuple):
    """The rows of each head on the units of an extent; `ratio` of the pattern's own units make one of them."""

    heads: tuple[tuple[int, ...], ...]
    extent: Extent
    absolute: int | None
    ratio: int


def _rows(patterns: tuple[Pattern, ...], seq_len: int, block: int | None) -> _Rows:
    forms = common_forms(patterns)
    if forms is None or any(map(looks_ahead, forms)):
        graphs = layer_graphs(patterns, seq_len)
        ratio, extent = _units(seq_len, graphs.extent.unit, block)
        heads = tuple(_folded_rows(graph.rows, ratio) for graph in graphs.layers)
        # The graph may stand on smaller units than the forms.
        absolute = None if forms is None else _absolute(forms, Extent(seq_len, forms[0].unit), extent)
        return _Rows(heads, extent, absolute, ratio)
    fine = Extent(seq_len, forms[0].unit)
    ratio, extent = _units(seq_len, fine.unit, block)
    periodic = [PeriodicLayer(form, fine.units) for form in forms]
    absolute = _absolute(forms, fine, extent)
    if ratio == 1:
        return _Rows(tuple(tuple(map(layer.row, range(fine.units))) for layer in periodic), extent, absolute, ratio)
    _check_folding(fine, max(form.period for form in forms))
    return _Rows(tuple(_folded_readers(layer, ratio) for layer in periodic), extent, absolute, ratio)


def _absolute(forms: Sequence[NormalForm], fine: Extent, coarse: Extent) -> int:
    """The coarse units with a key, told in fine units, to which the last query's row is kinder than to later keys.

    Between two breaks of the keys, that row has distances that it does not have beyond the last break.
    """
    found = 0
    for form in forms:
        row = form.cells[bisect_right(form.q_breaks, fine.units - 1) - 1]
        for (lo, hi), cell in zip(pairwise(form.k_breaks), row[:-1], strict=True):
            if lo < fine.units and any(cell.combined(row[-1], sub).rows):
                first, last = lo * fine.unit, min(hi, fine.units) * fine.unit - 1
                found |= ones(last // coarse.unit + 1) & ~ones(first // coarse.unit)
    return found & ones(coarse.units)


def _units(seq_len: int, unit: int, block: int | None) -> tuple[int, Extent]:
    """How many of the pattern's units make one unit of the flow, and these units."""
    ratio = 1 if block is None else _ratio(block, unit)
    extent = Extent(seq_len, unit * ratio)
    if extent.units > MOST_UNITS:
        fits = extent.unit
        while -(-seq_len // fits) > MOST_UNITS:
            fits *= 2
        raise Unsupported(
            "flow keeps a number for each pair of units, and there are too many units",
            got=f"seq_len = {seq_len}: {extent.units} {'tokens' if extent.unit == 1 else f'blocks of {extent.unit}'}",
            expected=f"at most {MOST_UNITS} tokens or blocks",
            hint=f"block={fits} (--block {fits}), which lets a block read all that any of its tokens reads",
        )
    return ratio, extent


def _ratio(block: int, unit: int) -> int:
    """How many units a block has."""
    block = whole("flow", "block", block, least=1)
    if block % unit:
        raise WrongValue(
            "the block does not fit the pattern's own blocks",
            got=f"block = {block}, a pattern in blocks of {unit}",
            expected=f"a multiple of {unit}",
            hint=f"block={-(-block // unit) * unit} (--block {-(-block // unit) * unit})",
        )
    return block // unit


def _check_folding(fine: Extent, period: int) -> None:
    if fine.units > MOST_TOKENS or period > MOST_CLASSES:
        raise Unsupported(
            "the pattern is too fine to be folded into blocks",
            got=f"{fine.units} units and a period of {period}",
            expected=f"at most {MOST_TOKENS} units and a period of at most {MOST_CLASSES}",
            hint="seq_len=131072 (--seq-len 131072), or the pattern declared with .blocks(size)",
        )


def _folded_rows(rows: Sequence[int], ratio: int) -> tuple[int, ...]:
    """Row Q of the blocks: the blocks of all that the units of Q read."""
    if ratio == 1:
        return tuple(rows)
    found = []
    for first in range(0, len(rows), ratio):
        union = reduce(or_, rows[first : first + ratio])
        found.append(_as_bits(_blocks_in(union, len(rows), ratio)))
    return tuple(found)


def _folded_readers(layer: PeriodicLayer, ratio: int) -> tuple[int, ...]:
    """The same for a causal normal form, from the readers of each block."""
    import numpy as np

    starts = range(0, layer.units, ratio)
    columns = []
    for start in starts:
        inside = ones(min(ratio, layer.units - start)) << start
        columns.append(_blocks_in(layer.readers(inside), layer.units, ratio))
    return tuple(_as_bits(row) for row in np.stack(columns, axis=1))


def _blocks_in(bits: int, length: int, ratio: int) -> NDArray[np.bool_]:
    """Entry X: does [X · ratio, (X + 1) · ratio) hold a member, for all members below `length`."""
    import numpy as np

    blocks = -(-length // ratio)
    packed = np.frombuffer(bits.to_bytes(-(-blocks * ratio // 8), "little"), dtype=np.uint8)
    flat = np.unpackbits(packed, count=blocks * ratio, bitorder="little")
    return np.asarray(flat.reshape(blocks, ratio).any(axis=1))


def _as_bits(row: NDArray[np.bool_]) -> int:
    import numpy as np

    return int.from_bytes(np.packbits(row, bitorder="little").tobytes(), "little")
