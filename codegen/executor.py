"""The CPU road: attention by gathering, for each tile of queries, the keys that it reads, in plain torch.

The text below the imports is part of every emitted module, so it uses nothing of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Decides the pairs of a PARTIAL tile: (q positions [M, 1], k positions [1, n]) -> bool [M, n].
Mask = Callable[[Tensor, Tensor], Tensor]
# (query tile, number of key tiles) -> ranges of key tiles, each with its mask; None is FULL.
RowRuns = Callable[[int, int], Sequence[tuple[range, Mask | None]]]


@dataclass(frozen=True)
class HeadGroup:
    """Query heads that share a pattern (None: all of them), and the key tiles that each of their tiles reads."""

    heads: tuple[int, ...] | None
    runs: RowRuns


@dataclass(frozen=True)
class CpuPart:
    """A part of the pattern, over ranks of residue classes modulo `step`; `classes` are those of each head.

    One tuple of classes stands for all heads.
    """

    step: int
    classes: tuple[tuple[int, ...], ...]
    groups: Sequence[HeadGroup]


@dataclass(frozen=True)
class Slice:
    """The rows and keys of one residue class, of all heads or of one, and the rank of the first row."""

    heads: slice
    key_heads: slice
    rows: slice
    keys: slice
    q_start: int


@dataclass(frozen=True)
class QueryTile:
    """Rows of the query tensor, their positions, and the key spans (from, to, mask) that they read."""

    rows: slice
    positions: Tensor
    spans: list[tuple[int, int, Mask | None]]

    def keys(self, tensor: Tensor) -> Tensor:
        """The rows of a key or value tensor that the tile reads, spans side by side; neighbours need no copy."""
        parts: list[tuple[int, int]] = []
        for start, stop, _ in self.spans:
            if parts and parts[-1][1] == start:
                parts[-1] = (parts[-1][0], stop)
            else:
                parts.append((start, stop))
        rows = [tensor[..., start:stop, :] for start, stop in parts]
        return rows[0] if len(rows) == 1 else torch.cat(rows, -2)

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """What to add to the scores [rows, keys]: 0, and -inf where a pair is dead; None where all tiles are FULL."""
        if all(mask is None for _, _, mask in self.spans):
            return None
        bias = torch.zeros(len(self.positions), sum(stop - start for start, stop, _ in self.spans), dtype=dtype)
        column = 0
        for start, stop, mask in self.spans:
            if mask is not None:
                dead = ~mask(self.positions[:, None], torch.arange(start, stop)[None, :])
                bias[:, column : column + stop - start].masked_fill_(dead, float("-inf"))
            column += stop - start
        return bias

    def add_to_keys(self, tensor: Tensor, share: Tensor) -> None:
        """Add a share for each key read to the rows of a gradient."""
        row = 0
        for start, stop, _ in self.spans:
            tensor[..., start:stop, :] += share[..., row : row + stop - start, :]
            row += stop - start


def query_tiles(q_len: int, k_len: int, q_start: int, runs: RowRuns, block_m: int, block_n: int) -> Iterator[QueryTile]:
    """The tiles of queries that read any key, from the first position that is not negative."""
    for i in range(max(q_start, 0) // block_m, -(-(q_start + q_len) // block_m)):
        first, last = max(i * block_m, q_start, 0), min((i + 1) * block_m, q_start + q_len)
        spans: list[tuple[int, int, Mask | None]] = []
        for tiles, mask in runs(i, -(-k_len // block_n)):
            for step in [tiles] if tiles.step == 1 else [range(tile, tile + 1) for tile in tiles]:
                start, stop = step.start * block_n, min(step.stop * block_n, k_len)
                if start < stop:
                    spans.append((start, stop, mask))
        if spans and first < last:
            spans.sort(key=lambda span: span[0])
            yield QueryTile(slice(first - q_start, last - q_start), torch.arange(first, last), spans)


def head_parts(groups: Sequence[HeadGroup], heads: int, key_heads: int) -> Iterator[tuple[slice, slice, RowRuns]]:
    """(query heads, key heads, runs): all heads at once where they share a pattern, otherwise one by one."""
    for group in groups:
        if group.heads is None:
            yield slice(0, heads), slice(0, key_heads), group.runs
            continue
        for head in group.heads:
            key_head = head // (heads // key_heads)
            yield slice(head, head + 1), slice(key_head, key_head + 1), group.runs


def slices(part: CpuPart, heads: int, key_heads: int, q_start: int) -> Iterator[Slice]:
    """Every class that has pairs."""
    share = heads // key_heads
    for head, classes in enumerate(part.classes):
        alone = len(part.classes) > 1
        own = slice(head, head + 1) if alone else slice(0, heads)
        shared = slice(head // share, head // share + 1) if alone else slice(0, key_heads)
        for residue in classes:
            first = (residue - q_start) % part.step
            rows, keys = slice(first, None, part.step), slice(residue, None, part.step)
            yield Slice(own, shared, rows, keys, (q_start + first - residue) // part.step)


def fold_heads(tensor: Tensor, key_heads: int) -> Tensor:
    """(B, H, M, ...) -> (B, G, H / G · M, ...): the rows of the query heads that share a key head."""
    batch, heads, rows = tensor.shape[:3]
    return tensor.reshape(batch, key_heads, heads // key_heads * rows, *tensor.shape[3:])


def unfold_heads(tensor: Tensor, rows: int) -> Tensor:
    """The inverse of `fold_heads`, for tiles of `rows` rows."""
    batch, key_heads, folded = tensor.shape[:3]
    return tensor.reshape(batch, key_heads * folded // rows, rows, *tensor.shape[3:])


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    q_start: int,
    groups: Sequence[HeadGroup],
    block_m: int,
    block_n: int,
) -> tuple[Tensor, Tensor]:
    """Output and natural log-sum-exp.

    Each tile is one call of torch's own fused CPU kernel over the gathered keys; memory beside the result is one
    tile's keys and bias.
    """
    out = torch.zeros(q.shape, dtype=q.dtype)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    lse = torch.full(q.shape[:3], float("-inf"), dtype=wide)
    for own, shared, runs in head_parts(groups, q.shape[1], k.shape[1]):
        k_part, v_part = k[:, shared], v[:, shared]
        for tile in query_tiles(q.shape[2], k.shape[2], q_start, runs, block_m, block_n):
            b_q = fold_heads(q[:, own, tile.rows], k_part.shape[1])
            bias, rows = tile.bias(q.dtype), len(tile.positions)
            live = None
            if bias is not None:
                live = (bias == 0).any(1)
                bias = bias.repeat(b_q.shape[2] // rows, 1) if b_q.shape[2] > rows else bias
            b_o, b_lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                b_q, tile.keys(k_part), tile.keys(v_part), 0.0, False, attn_mask=bias, scale=scale
            )
            b_o, b_lse = unfold_heads(b_o, rows), unfold_heads(b_lse, rows)
            if live is not None:
                # The fused kernel leaves rows without a key to its caller.
                b_o = b_o.masked_fill(~live[:, None], 0.0)
                b_lse = b_lse.masked_fill(~live, float("-inf"))
            out[:, own, tile.rows], lse[:, own, tile.rows] = b_o, b_lse
    return out, lse


def backward(
    d_out: Tensor,
    d_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    scale: float,
    q_start: int,
    groups: Sequence[HeadGroup],
    block_m: int,
    block_n: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v; scores are computed again tile by tile."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    delta = (out.to(wide) * d_out.to(wide)).sum(-1)
    if d_lse is not None:
        delta = delta - d_lse
    # A row without a key: exp(score - inf) = 0.
    lse = lse.masked_fill(lse == float("-inf"), float("inf"))
    dq = torch.zeros(q.shape, dtype=q.dtype)
    dk, dv = torch.zeros(k.shape, dtype=wide), torch.zeros(v.shape, dtype=wide)
    for own, shared, runs in head_parts(groups, q.shape[1], k.shape[1]):
        k_part, v_part, dk_part, dv_part = k[:, shared], v[:, shared], dk[:, shared], dv[:, shared]
        key_heads = k_part.shape[1]
        for tile in query_tiles(q.shape[2], k.shape[2], q_start, runs, block_m, block_n):
            b_q, b_do = (fold_heads(each[:, own, tile.rows], key_heads).to(wide) for each in (q, d_out))
            b_lse, b_delta = (fold_heads(each[:, own, tile.rows, None], key_heads) for each in (lse, delta))
            b_k, b_v = tile.keys(k_part).to(wide), tile.keys(v_part).to(wide)
            bias, rows = tile.bias(wide), len(tile.positions)
            scores = (b_q * scale) @ b_k.mT
            if bias is not None:
                scores += bias.repeat(b_q.shape[2] // rows, 1)
            p = scores.sub_(b_lse).exp_()
            tile.add_to_keys(dv_part, p.mT @ b_do)
            ds = p.mul_((b_do @ b_v.mT).sub_(b_delta)).mul_(scale)
            tile.add_to_keys(dk_part, ds.mT @ b_q)
            dq[:, own, tile.rows] = unfold_heads(ds @ b_k, rows).to(q.dtype)
    return dq, dk.to(k.dtype), dv.to(v.dtype)


def forward_parts(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, q_start: int, parts: Sequence[CpuPart], block_m: int, block_n: int
) -> tuple[Tensor, Tensor]:
    """Output and natural log-sum-exp over disjoint parts, merged class by class."""
    if [part.step for part in parts] == [1]:
        return forward(q, k, v, q_start=q_start, groups=parts[0].groups, scale=scale, block_m=block_m, block_n=block_n)
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    out = torch.zeros(q.shape, dtype=wide)
    lse = torch.full(q.shape[:3], float("-inf"), dtype=wide)
    for part in parts:
        for each in slices(part, q.shape[1], k.shape[1], q_start):
            b_q = q[:, each.heads, each.rows]
            b_k, b_v = (tensor[:, each.key_heads, each.keys] for tensor in (k, v))
            if not b_q.shape[2] or not b_k.shape[2]:
                continue
            b_o, b_lse = forward(
                b_q, b_k, b_v, q_start=each.q_start, groups=part.groups, scale=scale, block_m=block_m, block_n=block_n
            )
            before, lse_before = out[:, each.heads, each.rows], lse[:, each.heads, each.rows]
            both = torch.logaddexp(b_lse, lse_before)
            # Where there is no key yet, exp(-inf - 0) leaves both weights at 0.
            level = both.masked_fill(both == float("-inf"), 0.0)
            weight, weight_before = (b_lse - level).exp()[..., None], (lse_before - level).exp()[..., None]
            out[:, each.heads, each.rows] = b_o * weight + before * weight_before
            lse[:, each.heads, each.rows] = both
    return out.to(q.dtype), lse


def backward_parts(
    d_out: Tensor,
    d_lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    *,
    scale: float,
    q_start: int,
    parts: Sequence[CpuPart],
    block_m: int,
    block_n: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v: the sums over the parts."""
    if [part.step for part in parts] == [1]:
        return backward(
            d_out,
            d_lse,
            q,
            k,
            v,
            out,
            lse,
            q_start=q_start,
            groups=parts[0].groups,
            scale=scale,
            block_m=block_m,
            block_n=block_n,
        )
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    dq, dk, dv = (torch.zeros(each.shape, dtype=wide) for each in (q, k, v))
    for part in parts:
        for each in slices(part, q.shape[1], k.shape[1], q_start):
            rows = [tensor[:, each.heads, each.rows] for tensor in (d_out, d_lse, q, out, lse)]
            b_k, b_v = (tensor[:, each.key_heads, each.keys] for tensor in (k, v))
            if not rows[2].shape[2] or not b_k.shape[2]:
                continue
            b_do, b_dlse, b_q, b_o, b_lse = rows
            b_dq, b_dk, b_dv = backward(
                b_do,
                b_dlse,
                b_q,
                b_k,
                b_v,
                b_o,
                b_lse,
                q_start=each.q_start,
                groups=part.groups,
                scale=scale,
                block_m=block_m,
                block_n=block_n,
            )
            dq[:, each.heads, each.rows] += b_dq
            dk[:, each.key_heads, each.keys] += b_dk
            dv[:, each.key_heads, each.keys] += b_dv
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)
