"""The fixed text of an emitted module; `$name` marks what depends on the pattern."""

from __future__ import annotations

IMPORTS = """
from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
${cache_import}${table_imports}
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

PATTERN = $pattern
DIGEST = "$digest"
"""

TABLE_IMPORTS = """from hashlib import blake2b
from typing import Any
"""

MASK = """
@triton.jit
def $name(q, k):
    return $condition
"""

MASK_WITH_SETS = """
@triton.jit
def $name(q, k, constants):
    return $condition


def ${name}_on_cpu(q: Tensor, k: Tensor) -> Tensor:
    return $on_cpu
"""

CONSTANTS = '''
def packed_bits(spans: list[tuple[int, int]], lo: int, hi: int) -> list[int]:
    """The numbers of the half-open spans as bits from lo to hi, 32 to an int32, the least bit first."""
    bits = sum((1 << end - lo) - (1 << start - lo) for start, end in spans)
    words = [bits >> 32 * word & 0xFFFFFFFF for word in range((hi - lo + 31) // 32)]
    return [word - (word >> 31 << 32) for word in words]


# What no short formula gives; its size follows the pattern, not any length.
CONSTANTS = (
${constants})


@lru_cache(maxsize=None)
def constants_on(device: torch.device) -> Tensor:
    """The constants on a device."""
    return torch.tensor(CONSTANTS, dtype=torch.int32, device=device)
'''

LISTS = '''
@triton.jit
def listed_below(bound, constants, start, many, TURN: tl.constexpr, WIDTH: tl.constexpr):
    """How many tiles of a list stand below `bound`: `many` items, each again every TURN."""
    bound = max(bound, 0)
    items = tl.load(constants + start + tl.arange(0, WIDTH))
    return bound // TURN * many + tl.sum((items < bound % TURN).to(tl.int32), 0)


def listed_tiles(
    home: int, start: int, many: int, width: int, turn: int, sign: int, first: int, end: int
) -> Iterator[int]:
    """The tiles of a list that are in [first, end)."""
    items = CONSTANTS[start : start + many]
    farthest = home - first if sign > 0 else end - 1 - home
    for turns in range(max(farthest, -1) // turn + 1):
        for item in items:
            tile = home - sign * (turns * turn + item)
            if first <= tile < end:
                yield tile
'''

SETS = '''
@triton.jit
def listed(constants, value, START: tl.constexpr, LO: tl.constexpr, HI: tl.constexpr):
    """Whether the value is in a set that is kept as bits from LO to HI."""
    bit = value - LO
    inside = (bit >= 0) & (bit < HI - LO)
    word = tl.load(constants + START + bit // 32, mask=inside, other=0)
    return inside & (((word >> (bit % 32)) & 1) == 1)


def listed_on_cpu(value: Tensor, start: int, lo: int, hi: int) -> Tensor:
    """The same for a tensor on the CPU."""
    bit = (value - lo).clamp(0, hi - lo - 1)
    word = constants_on(torch.device("cpu"))[start + bit // 32]
    return (value >= lo) & (value < hi) & ((word >> (bit % 32)) & 1 == 1)
'''

JUMPS = '''
@triton.jit
def jump(t, SCALE: tl.constexpr, BASE: tl.constexpr, COUNT: tl.constexpr):
    """SCALE * BASE**t for 0 <= t < COUNT."""
    if BASE == 2:
        return SCALE << t
    distance = SCALE
    for s in tl.static_range(COUNT - 1):
        distance = tl.where(s < t, distance * BASE, distance)
    return distance


@triton.jit
def tiles_in_jumps(room, SCALE: tl.constexpr, BASE: tl.constexpr, WIDTH: tl.constexpr, COUNT: tl.constexpr):
    """How many tiles of the jumps [SCALE * BASE**t, ... + WIDTH), 0 <= t < COUNT, are below `room`."""
    tiles = 0
    for t in tl.static_range(COUNT):
        tiles += min(max(room - SCALE * BASE**t, 0), WIDTH)
    return tiles
'''

FORWARD = '''
@triton.jit
def attend(
    acc, row_max, row_sum, b_q, k_desc, v_desc, i_b, i_g, start, scale, keep, MASKED: tl.constexpr, BLOCK_N:
    tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):
    """One key tile of the running softmax, in base 2; `keep` is read only where the tile is masked."""
    b_k = k_desc.load([i_b, i_g, start, 0]).reshape(BLOCK_N, D)
    b_s = tl.dot(b_q, b_k.T, input_precision=PRECISION)
    if MASKED:
        b_s = tl.where(keep, b_s, float("-inf"))
    new_max = tl.maximum(row_max, tl.max(b_s, 1) * scale)
    b_p = tl.exp2(b_s * scale - new_max[:, None])
    shrink = tl.exp2(row_max - new_max)
    row_sum = row_sum * shrink + tl.sum(b_p, 1)
    b_v = v_desc.load([i_b, i_g, start, 0]).reshape(BLOCK_N, D)
    acc = tl.dot(b_p.to(b_v.dtype), b_v, acc * shrink[:, None], input_precision=PRECISION)
    return acc, new_max, row_sum


@triton.jit
def store_rows(ptr, i_bh, values, o_m, i, q_start, q_len, head_dim, BLOCK_M: tl.constexpr, D: tl.constexpr):
    """Store those rows of query tile i that are in it; the tensor is contiguous (batch x heads, q_len, head_dim)."""
    o_d = tl.arange(0, D)
    inside = (o_m < (i + 1) * BLOCK_M) & (o_m - q_start < q_len)
    row = i_bh.to(tl.int64) * q_len + o_m - q_start
    place = ptr + row[:, None] * head_dim + o_d[None, :]
    tl.store(place, values.to(ptr.dtype.element_ty), mask=inside[:, None] & (o_d < head_dim)[None, :])


@triton.jit(do_not_specialize=["q_len", "k_len", "q_start", "heads", "group"])
def forward_kernel(
    ${forward_pointers}q_desc, k_desc, v_desc, o_ptr, lse_ptr, scale, q_len, k_len, q_start, heads, group, head_dim:
    tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):
    """Output and log-sum-exp of one query tile of one head."""
    BLOCK_M: tl.constexpr = $block_m
    BLOCK_N: tl.constexpr = $block_n
    first_row_tile = max(q_start, 0) // BLOCK_M
    row_tiles = (q_start + q_len - 1) // BLOCK_M + 1 - first_row_tile
    i_bh = tl.program_id(0) // row_tiles
    # The last tiles read the most keys where the pattern grows: they start first.
    i = first_row_tile + row_tiles - 1 - tl.program_id(0) % row_tiles
    i_b, i_h = i_bh // heads, i_bh % heads
    i_g = i_h // group
    first_key_tile = 0
    key_tiles = (k_len + BLOCK_N - 1) // BLOCK_N

    # Where the first tile begins before the first query, its rows move down; those of the next tile are not stored.
    row_start = max(i * BLOCK_M - q_start, 0)
    o_m = q_start + row_start + tl.arange(0, BLOCK_M)
    o_n = tl.arange(0, BLOCK_N)
    b_q = q_desc.load([i_b, i_h, row_start, 0]).reshape(BLOCK_M, D)
    # A finite stand-in for -inf: a row without a key yet must not give inf - inf.
    row_max = tl.full([BLOCK_M], -3.0e38, tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D], tl.float32)
$walk
    live = row_sum > 0
    total = tl.where(live, row_sum, 1.0)
    store_rows(o_ptr, i_bh, acc / total[:, None], o_m, i, q_start, q_len, head_dim, BLOCK_M, D)
    b_lse = tl.where(live, (row_max + tl.log2(total)) * 0.6931471805599453, float("-inf"))
    inside = (o_m < (i + 1) * BLOCK_M) & (o_m - q_start < q_len)
    tl.store(lse_ptr + i_bh.to(tl.int64) * q_len + o_m - q_start, b_lse, mask=inside)
'''

BACKWARD = '''
@triton.jit(do_not_specialize=["q_len", "q_start"])
def rows_kernel(
    o_ptr, do_ptr, lse_ptr, dlse_ptr, row_lse_ptr, row_delta_ptr, q_len, q_start, head_dim: tl.constexpr, D:
    tl.constexpr,
):
    """What the backward kernels ask of each row of a query tile, laid out tile by tile.

    Log-sum-exp in base 2, +inf for a row outside or without a key, so that its p is 0; and
    delta = sum(o * do) - dlse, what the softmax's gradient takes off.
    """
    BLOCK_M: tl.constexpr = $dq_block_m
    first_row_tile = max(q_start, 0) // BLOCK_M
    row_tiles = (q_start + q_len - 1) // BLOCK_M + 1 - first_row_tile
    i_bh = tl.program_id(0) // row_tiles
    i = first_row_tile + tl.program_id(0) % row_tiles
    o_m = q_start + max(i * BLOCK_M - q_start, 0) + tl.arange(0, BLOCK_M)
    o_d = tl.arange(0, D)
    inside = (o_m < (i + 1) * BLOCK_M) & (o_m - q_start < q_len)
    row = i_bh.to(tl.int64) * q_len + o_m - q_start
    place = row[:, None] * head_dim + o_d[None, :]
    here = inside[:, None] & (o_d < head_dim)[None, :]
    b_o = tl.load(o_ptr + place, mask=here, other=0.0).to(tl.float32)
    b_do = tl.load(do_ptr + place, mask=here, other=0.0).to(tl.float32)
    b_delta = tl.sum(b_o * b_do, 1) - tl.load(dlse_ptr + row, mask=inside, other=0.0)
    b_lse = tl.load(lse_ptr + row, mask=inside, other=float("-inf")) * 1.4426950408889634
    o_row = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    tl.store(row_lse_ptr + o_row, tl.where(b_lse == float("-inf"), float("inf"), b_lse))
    tl.store(row_delta_ptr + o_row, b_delta)


@triton.jit
def add_dq(
    acc, b_q, b_do, b_lse, b_delta, k_desc, v_desc, i_b, i_g, start, scale, keep, MASKED: tl.constexpr,
    BLOCK_N: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):
    """One key tile's share of dq, not yet scaled."""
    b_k = k_desc.load([i_b, i_g, start, 0]).reshape(BLOCK_N, D)
    b_s = tl.dot(b_q, b_k.T, input_precision=PRECISION)
    b_p = tl.exp2(b_s * scale - b_lse[:, None])
    if MASKED:
        b_p = tl.where(keep, b_p, 0.0)
    b_v = v_desc.load([i_b, i_g, start, 0]).reshape(BLOCK_N, D)
    b_dp = tl.dot(b_do, b_v.T, input_precision=PRECISION)
    b_ds = b_p * (b_dp - b_delta[:, None])
    return tl.dot(b_ds.to(b_k.dtype), b_k, acc, input_precision=PRECISION)


@triton.jit(do_not_specialize=["q_len", "k_len", "q_start", "heads", "group"])
def dq_kernel(
    ${dq_pointers}q_desc, k_desc, v_desc, do_desc, dq_ptr, row_lse_ptr, row_delta_ptr, scale, softmax_scale,
    q_len, k_len, q_start, heads, group, head_dim: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):
    """The gradient of one query tile of one head."""
    BLOCK_M: tl.constexpr = $dq_block_m
    BLOCK_N: tl.constexpr = $dq_block_n
    first_row_tile = max(q_start, 0) // BLOCK_M
    row_tiles = (q_start + q_len - 1) // BLOCK_M + 1 - first_row_tile
    i_bh = tl.program_id(0) // row_tiles
    i = first_row_tile + row_tiles - 1 - tl.program_id(0) % row_tiles
    i_b, i_h = i_bh // heads, i_bh % heads
    i_g = i_h // group
    first_key_tile = 0
    key_tiles = (k_len + BLOCK_N - 1) // BLOCK_N

    row_start = max(i * BLOCK_M - q_start, 0)
    o_m = q_start + row_start + tl.arange(0, BLOCK_M)
    o_n = tl.arange(0, BLOCK_N)
    b_q = q_desc.load([i_b, i_h, row_start, 0]).reshape(BLOCK_M, D)
    b_do = do_desc.load([i_b, i_h, row_start, 0]).reshape(BLOCK_M, D)
    o_row = (i_bh.to(tl.int64) * row_tiles + i - first_row_tile) * BLOCK_M + tl.arange(0, BLOCK_M)
    b_lse = tl.load(row_lse_ptr + o_row)
    b_delta = tl.load(row_delta_ptr + o_row)
    acc = tl.zeros([BLOCK_M, D], tl.float32)
$dq_walk
    store_rows(dq_ptr, i_bh, acc * softmax_scale, o_m, i, q_start, q_len, head_dim, BLOCK_M, D)


@triton.jit
def add_dkdv(
    dk, dv, b_k, b_v, q_desc, do_desc, row_lse_ptr, row_delta_ptr, i_b, i_h, o_row, row_start, scale, keep,
    MASKED: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):
    """One query tile's share of dk (not yet scaled) and dv; scores stand transposed, keys down, queries across."""
    b_q = q_desc.load([i_b, i_h, row_start, 0]).reshape(BLOCK_M, D)
    b_lse = tl.load(row_lse_ptr + o_row)
    b_st = tl.dot(b_k, b_q.T, input_precision=PRECISION)
    b_pt = tl.exp2(b_st * scale - b_lse[None, :])
    if MASKED:
        b_pt = tl.where(keep, b_pt, 0.0)
    b_do = do_desc.load([i_b, i_h, row_start, 0]).reshape(BLOCK_M, D)
    dv = tl.dot(b_pt.to(b_do.dtype), b_do, dv, input_precision=PRECISION)
    b_delta = tl.load(row_delta_ptr + o_row)
    b_dpt = tl.dot(b_v, b_do.T, input_precision=PRECISION)
    b_dst = b_pt * (b_dpt - b_delta[None, :])
    dk = tl.dot(b_dst.to(b_q.dtype), b_q, dk, input_precision=PRECISION)
    return dk, dv


@triton.jit(do_not_specialize=["q_len", "k_len", "q_start", "heads", "group"])
def dkdv_kernel(
    ${dkdv_pointers}q_desc, k_desc, v_desc, do_desc, dk_desc, dv_desc, row_lse_ptr, row_delta_ptr, scale, softmax_scale,
    q_len, k_len, q_start, heads, group, D: tl.constexpr, PRECISION: tl.constexpr,
):
    """The gradients of one key tile of one key head, summed over the query heads that share it."""
    BLOCK_M: tl.constexpr = $dkdv_block_m
    BLOCK_N: tl.constexpr = $dkdv_block_n
    key_tiles = (k_len + BLOCK_N - 1) // BLOCK_N
    key_heads = heads // group
    all_heads = tl.num_programs(0) // key_tiles
    # Key tiles that every query reads take longest: those of all heads start first.
    early = min(key_tiles, $early_tiles)
    later = max(tl.program_id(0) - early * all_heads, 0)
    i_bg, j = later // max(key_tiles - early, 1), early + later % max(key_tiles - early, 1)
    if tl.program_id(0) < early * all_heads:
        i_bg, j = tl.program_id(0) % all_heads, tl.program_id(0) // all_heads
    i_b, i_g = i_bg // key_heads, i_bg % key_heads
    first_row_tile = max(q_start, 0) // BLOCK_M
    row_tiles = (q_start + q_len - 1) // BLOCK_M + 1

    o_n = j * BLOCK_N + tl.arange(0, BLOCK_N)
    b_k = k_desc.load([i_b, i_g, j * BLOCK_N, 0]).reshape(BLOCK_N, D)
    b_v = v_desc.load([i_b, i_g, j * BLOCK_N, 0]).reshape(BLOCK_N, D)
    dk = tl.zeros([BLOCK_N, D], tl.float32)
    dv = tl.zeros([BLOCK_N, D], tl.float32)
    for i_h in range(i_g * group, (i_g + 1) * group):
        head_row = (i_b * heads + i_h).to(tl.int64) * (row_tiles - first_row_tile) * BLOCK_M
$dkdv_walk
    dk *= softmax_scale
    dk_desc.store([i_b, i_g, j * BLOCK_N, 0], dk.to(dk_desc.dtype).reshape(1, 1, BLOCK_N, D))
    dv_desc.store([i_b, i_g, j * BLOCK_N, 0], dv.to(dv_desc.dtype).reshape(1, 1, BLOCK_N, D))
'''

LAUNCH = '''
LOG2_E = 1.4426950408889634


def on_gpu_road(tensor: Tensor) -> bool:
    """Whether the Triton kernels run: on a CUDA device, or on the CPU under TRITON_INTERPRET=1."""
    return tensor.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"


def tile_descriptor(tensor: Tensor, rows: int) -> TensorDescriptor:
    """A (batch, heads, length, head_dim) tensor read in tiles of `rows` rows of one head; outside reads give 0."""
    width = triton.next_power_of_2(tensor.shape[3])
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), [1, 1, rows, width])


def readable(tensor: Tensor) -> Tensor:
    """The tensor itself where tiles can be read from it: rows contiguous, every stride a multiple of 16 bytes."""
    strides = [stride * tensor.element_size() for stride in tensor.stride()[:3]]
    aligned = tensor.data_ptr() % 16 == 0 and all(stride % 16 == 0 and stride > 0 for stride in strides)
    return tensor if tensor.stride(3) == 1 and aligned else tensor.clone(memory_format=torch.contiguous_format)


def tiles_in(start: int, length: int, size: int) -> int:
    """How many tiles hold the positions start .. start + length - 1 that are not negative."""
    return max((start + length - 1) // size + 1 - max(start, 0) // size, 0)


def launch_forward(q: Tensor, k: Tensor, v: Tensor, scale: float, q_start: int) -> tuple[Tensor, Tensor]:
    batch, heads, q_len, head_dim = q.shape
    k_len = k.shape[2]
    q, k, v = readable(q), readable(k), readable(v)
    # Rows before position 0 have no key, and no tile.
    new = torch.zeros if q_start < 0 else torch.empty
    out = new((batch, heads, q_len, head_dim), dtype=q.dtype, device=q.device)
    lse = torch.full((batch, heads, q_len), float("-inf"), dtype=torch.float32, device=q.device)
    grid = (batch * heads * tiles_in(q_start, q_len, $block_m),)
    if grid[0]:
        forward_kernel[grid](
${forward_arrays}            tile_descriptor(q, $block_m),
            tile_descriptor(k, $block_n),
            tile_descriptor(v, $block_n),
            out,
            lse,
            scale * LOG2_E,
            q_len,
            k_len,
            q_start,
            heads,
            heads // k.shape[1],
            head_dim=head_dim,
            D=triton.next_power_of_2(head_dim),
            PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
            num_warps=$warps,
            num_stages=$stages,
        )
    return out, lse


def launch_backward(
    d_out: Tensor, d_lse: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float, q_start: int
) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, q_len, head_dim = q.shape
    key_heads, k_len = k.shape[1], k.shape[2]
    q, k, v, d_out = readable(q), readable(k), readable(v), d_out.contiguous()
    dq = (torch.zeros if q_start < 0 else torch.empty)(q.shape, dtype=q.dtype, device=q.device)
    dk = torch.empty(k.shape, dtype=k.dtype, device=k.device)
    dv = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    width = triton.next_power_of_2(head_dim)
    row_tiles = batch * heads * tiles_in(q_start, q_len, $dq_block_m)
    row_lse = torch.empty(row_tiles * $dq_block_m, dtype=torch.float32, device=q.device)
    row_delta = torch.empty_like(row_lse)
    if row_tiles:
        rows_kernel[(row_tiles,)](
            out.contiguous(),
            d_out,
            lse,
            d_lse.contiguous(),
            row_lse,
            row_delta,
            q_len,
            q_start,
            head_dim=head_dim,
            D=width,
        )
    numbers = (scale * LOG2_E, scale, q_len, k_len, q_start, heads, heads // key_heads)
    precision = "ieee" if q.dtype == torch.float32 else "tf32"
    if row_tiles:
        dq_kernel[(row_tiles,)](
${dq_arrays}            tile_descriptor(q, $dq_block_m),
            tile_descriptor(k, $dq_block_n),
            tile_descriptor(v, $dq_block_n),
            tile_descriptor(d_out, $dq_block_m),
            dq,
            row_lse,
            row_delta,
            *numbers,
            head_dim=head_dim,
            D=width,
            PRECISION=precision,
            num_warps=$dq_warps,
            num_stages=$dq_stages,
        )
    grid = (batch * key_heads * tiles_in(0, k_len, $dkdv_block_n),)
    if grid[0]:
        dkdv_kernel[grid](
${dkdv_arrays}            tile_descriptor(q, $dkdv_block_m),
            tile_descriptor(k, $dkdv_block_n),
            tile_descriptor(v, $dkdv_block_n),
            tile_descriptor(d_out, $dkdv_block_m),
            tile_descriptor(dk, $dkdv_block_n),
            tile_descriptor(dv, $dkdv_block_n),
            row_lse,
            row_delta,
            *numbers,
            D=width,
            PRECISION=precision,
            num_warps=$dkdv_warps,
            num_stages=$dkdv_stages,
        )
    return dq, dk, dv
'''
