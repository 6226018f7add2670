"""FlexAttention's `BlockMask` as a pattern: its blocks told by distance, by period and sinks, or one by one."""

from __future__ import annotations

from functools import reduce
from itertools import groupby
from operator import or_
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparsedsl.arithmetic import where
from sparsedsl.constructors import causal, empty, full, offsets, sink, sliding
from sparsedsl.errors import Unsupported, WrongType, shown
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern, Union, whole

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

# Cycles of more block rows than this are told block by block, in at most so many rectangles.
LONGEST_CYCLE = 64
MOST_RECTANGLES = 1 << 12

Blocks = NDArray[np.bool_]


def from_block_mask(block_mask: BlockMask, *, q_start: int = 0) -> Pattern | PerHead:
    """The pattern that equals a BlockMask on every pair inside its lengths.

    The blocks are told by distances (`offsets(...).blocks(s)`), by distances and a sink, by distances for each residue
    of the block row, or else as a finite set of rectangles; the first that is exact. Outside the mask's lengths the
    first three go on as they began, and the last holds nothing.

    PARTIAL blocks are decided by the mask's `mask_mod`. Two kinds of them are told: those in which every pair lives
    (as in a mask made with no mask_mod), and those in which just the pairs with k <= q do. Any other mask_mod holds
    more than the blocks can say. `q_start` is the position of query row 0, as in `to_mask_mod`.

    Shapes
        Batch 1, or equal masks for the whole batch. Heads that differ become `per_head`.
    Cost
        O(block rows · block columns) time and memory, and the mask_mod on every pair of the PARTIAL blocks.
    Raises
        WrongType: not a BlockMask.
        Unsupported: masks that differ in the batch, a mask_mod of another kind, or more than 4096 rectangles.
    Example
        >>> from sparsedsl.codegen.block_mask import to_block_mask
        >>> pattern = (sliding(3) | sink(1)).blocks(128) & causal()
        >>> str(from_block_mask(to_block_mask(pattern, 4096)))
        '(sliding(3) | sink(1)).blocks(128) & causal()'

    """
    from torch.nn.attention.flex_attention import BlockMask

    if not isinstance(block_mask, BlockMask):
        raise WrongType(
            "from_block_mask takes a BlockMask",
            where=f"from_block_mask({shown(block_mask)})",
            got=f"{shown(block_mask)} of type {type(block_mask).__name__}",
            expected="what create_block_mask or BlockMask.from_kv_blocks returns",
            hint="from_window(1023, 0) for a window",
        )
    q_start = whole("from_block_mask", "q_start", q_start, least=0)
    block_m, block_n = block_mask.BLOCK_SIZE
    q_len, k_len = block_mask.seq_lengths
    rows, columns = -(-q_len // block_m), -(-k_len // block_n)
    partial = _dense(block_mask.kv_num_blocks, block_mask.kv_indices, rows, columns)
    whole_blocks = np.zeros_like(partial)
    if block_mask.full_kv_num_blocks is not None and block_mask.full_kv_indices is not None:
        whole_blocks = _dense(block_mask.full_kv_num_blocks, block_mask.full_kv_indices, rows, columns)
    if (partial != partial[:1]).any() or (whole_blocks != whole_blocks[:1]).any():
        raise _unsupported("the masks of the batch differ", f"batch {len(partial)}", "one mask for the whole batch")
    heads = []
    for head in range(partial.shape[1]):
        cut = _cut_blocks(block_mask, partial[0, head], head, q_start)
        live = whole_blocks[0, head] | partial[0, head]
        heads.append(_told(live, cut, (block_m, block_n), q_start))
    return heads[0] if len(heads) == 1 else PerHead(tuple(heads))


def _unsupported(what: str, got: str, expected: str) -> Unsupported:
    return Unsupported(
        what,
        where="from_block_mask(block_mask)",
        got=got,
        expected=expected,
        hint="the pattern written in this language, and to_block_mask(pattern, ...) to go the other way",
    )


def _dense(counts: Tensor, tiles: Tensor, rows: int, columns: int) -> Blocks:
    """(batch, heads, rows, columns): where the ordered lists name a block."""
    number, order = counts.cpu().numpy(), tiles.cpu().numpy()
    number = number.reshape(-1, *number.shape[-2:]) if number.ndim > 2 else number.reshape(1, -1, rows)
    order = order.reshape(*number.shape, order.shape[-1])
    dense = np.zeros((*number.shape, columns), dtype=np.bool_)
    used = np.arange(order.shape[-1]) < number[..., None]
    place = np.nonzero(used)
    dense[*place[:-1], order[place]] = True
    return dense


def _cut_blocks(block_mask: BlockMask, partial: Blocks, head: int, q_start: int) -> Blocks:
    """Which PARTIAL blocks hold just the pairs with k <= q; in all others every pair lives, or this raises."""
    block_m, block_n = block_mask.BLOCK_SIZE
    q_len, k_len = block_mask.seq_lengths
    cut = np.zeros_like(partial)
    for i, j in np.argwhere(partial).tolist():
        q = torch.arange(i * block_m, min((i + 1) * block_m, q_len), device=block_mask.kv_indices.device)[:, None]
        k = torch.arange(j * block_n, min((j + 1) * block_n, k_len), device=q.device)[None, :]
        zero = torch.zeros_like(q)
        live = block_mask.mask_mod(zero, zero + head, q, k).expand(len(q), k.shape[1])
        if bool(live.all()):
            continue
        if not torch.equal(live, k <= q + q_start):
            raise _unsupported(
                "the mask_mod says more than the blocks",
                f"block ({i}, {j}) with {int(live.sum())} of {live.numel()} pairs, not those with k <= q",
                "PARTIAL blocks that are full, or cut by k <= q",
            )
        cut[i, j] = True
    return cut


def _told(live: Blocks, cut: Blocks, sides: tuple[int, int], q_start: int) -> Pattern:
    """The blocks of one head as a pattern; those of `cut` hold the pairs with k <= q only."""
    block_m, block_n = sides
    if not live.any():
        return empty()
    # k <= q changes nothing in the blocks that are not cut, if they lie before their queries: one pattern for both.
    i, j = np.nonzero(live & ~cut)
    looks_back = bool(((j + 1) * block_n - 1 <= q_start + i * block_m).all())
    if looks_back or not cut.any():
        pattern = None
        if block_m == block_n and q_start % block_m == 0:
            pattern = _short(live, q_start // block_m, block_m, cut_later=bool(cut.any()))
        if pattern is None:
            pattern = _rectangles(live, sides, q_start)
        if not cut.any():
            return pattern
        return causal() if pattern in (full(), causal().blocks(block_m)) else pattern & causal()
    return _rectangles(live & ~cut, sides, q_start) | _rectangles(cut, sides, q_start) & causal()


def _short(live: Blocks, first: int, size: int, *, cut_later: bool) -> Pattern | None:
    """Blocks told by distances, with a sink, or by the residue of the row; None where none of them is exact."""
    rows, columns = live.shape
    if live.all():
        return full()
    distance = first + np.arange(rows)[:, None] - np.arange(columns)[None, :]
    back = distance >= 0
    # The first columns that every later row reads, if it reads back at all, may be a sink.
    read_by_all = (live | ~back).all(0) & ~(live & ~back).any(0)
    sinks = int(np.argmin(read_by_all)) if not read_by_all.all() else columns
    if sinks == columns:
        return causal().blocks(size)
    for count in range(min(sinks, columns - 1) + 1):
        distances = np.unique(distance[:, count:][live[:, count:]])
        again = np.isin(distance, distances)
        if count:
            again |= back & (np.arange(columns) < count)
        if np.array_equal(again, live):
            parts = [each for each in [_distances(distances)] if each is not None]
            if count:
                # A sink alone is also read by the queries before it.
                parts.append(sink(count) if cut_later or back[:, :count].all() else sink(count) & causal())
            return reduce(or_, parts).blocks(size)
    for cycle in range(2, min(LONGEST_CYCLE, rows // 2) + 1):
        again = np.zeros_like(live)
        parts = []
        for residue in range(cycle):
            own = (first + np.arange(rows)) % cycle == residue
            distances = np.unique(distance[own][live[own]])
            again[own] = np.isin(distance[own], distances)
            near = _distances(distances)
            if near is not None:
                parts.append(where(f"q % {cycle} == {residue}") & near)
        if np.array_equal(again, live):
            return reduce(or_, parts).blocks(size)
    return None


def _distances(distances: NDArray[np.int64]) -> Pattern | None:
    """The set of distances as a window where it is one."""
    if not len(distances):
        return None
    low, high = int(distances[0]), int(distances[-1])
    if low <= 0 <= high and high - low + 1 == len(distances):
        return sliding(high + 1, ahead=-low)
    return offsets(distances.tolist())


def _rectangles(live: Blocks, sides: tuple[int, int], q_start: int) -> Pattern:
    """The blocks as rectangles of pairs: rows with equal blocks together, neighbouring blocks together."""
    block_m, block_n = sides
    parts = []
    for _, group in groupby(enumerate(live), key=lambda entry: entry[1].tobytes()):
        members = list(group)
        top, bottom = members[0][0] * block_m + q_start, (members[-1][0] + 1) * block_m + q_start
        ends = np.flatnonzero(np.diff(np.concatenate([[0], members[0][1].astype(np.int8), [0]]))).reshape(-1, 2)
        for lo, hi in ends.tolist():
            parts.append((top, bottom, lo * block_n, hi * block_n))
    if len(parts) > MOST_RECTANGLES:
        raise _unsupported(
            "the blocks have no short form",
            f"{len(parts)} rectangles",
            f"distances, a cycle of at most {LONGEST_CYCLE} block rows, or at most {MOST_RECTANGLES} rectangles",
        )
    texts = (f"(q >= {top}) & (q < {bottom}) & (k >= {left}) & (k < {right})" for top, bottom, left, right in parts)
    told = tuple(map(where, texts))
    return Union(told) if len(told) > 1 else told[0] if told else empty()
