"""The fixed text of the backward kernels of a part; `${name}` marks what depends on the part."""

from __future__ import annotations

KERNELS = '''
@triton.jit(do_not_specialize=[
    "o_head", "o_token", "do_head", "do_token", "q_len", "q_start", "documents"${rows_names}
])
def rows_kernel${p}(
    o_ptr, o_head, o_token, do_ptr, do_head, do_token, lse_ptr, dlse_ptr, row_lse_ptr, row_delta_ptr, q_len, q_start,
    cu_ptr, documents,${rows_scalars}
    head_dim: tl.constexpr, D: tl.constexpr,
):
    """What the backward kernels ask of each row of a query tile, laid out tile by tile.

    Log-sum-exp in base 2, +inf for a row outside or without a key, so that its p is 0; and
    delta = sum(o * do) - dlse, what the softmax's gradient takes off.
    """
    BLOCK_M: tl.constexpr = ${dq_block_m}
${row_tiles}
${row_program}${rows_class}
${rows_document}
    o_m = q_start + max(i * BLOCK_M - q_start, 0) + tl.arange(0, BLOCK_M)
    inside = (o_m < (i + 1) * BLOCK_M) & (o_m - q_start < q_len)
    row = ${token_row}
    out_row = ${out_row}
    d_out_row = ${d_out_row}
    b_o = load_rows(o_ptr, out_row, inside, head_dim, D)
    b_do = load_rows(do_ptr, d_out_row, inside, head_dim, D)
    b_delta = tl.sum(b_o * b_do, 1) - tl.load(dlse_ptr + row, mask=inside, other=0.0)
    b_lse = tl.load(lse_ptr + row, mask=inside, other=float("-inf")) * 1.4426950408889634
    row_tile = ${tile_row}
    o_row = row_tile * BLOCK_M + tl.arange(0, BLOCK_M)
    tl.store(row_lse_ptr + o_row, tl.where(b_lse == float("-inf"), float("inf"), b_lse))
    tl.store(row_delta_ptr + o_row, b_delta)


@triton.jit
def add_dq${p}(
    acc, b_q, b_do, b_lse, b_delta, k_desc, v_desc, i_b, i_g, ${c}start, scale, keep, MASKED: tl.constexpr,
    BLOCK_N: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):
    """One key tile's share of dq, not yet scaled."""
    b_k = ${read}(k_desc, i_b, i_g, ${c}start, BLOCK_N, D)
    b_s = tl.dot(b_q, b_k.T, input_precision=PRECISION)
    b_p = tl.exp2(b_s * scale - b_lse[:, None])
    if MASKED:
        b_p = tl.where(keep, b_p, 0.0)
    b_v = ${read}(v_desc, i_b, i_g, ${c}start, BLOCK_N, D)
    b_dp = tl.dot(b_do, b_v.T, input_precision=PRECISION)
    b_ds = b_p * (b_dp - b_delta[:, None])
    return tl.dot(b_ds.to(b_k.dtype), b_k, acc, input_precision=PRECISION)


@triton.jit(do_not_specialize=["q_len", "k_len", "q_start", "heads", "group", "documents"${class_names}])
def dq_kernel${p}(
    ${dq_pointers}q_desc, k_desc, v_desc, do_desc, dq_ptr, ${before}row_lse_ptr, row_delta_ptr, scale,
    softmax_scale, q_len, k_len, q_start, heads, group, cu_ptr, documents,${class_scalars}
    head_dim: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):
    """The gradient of one query tile of one head${of_class}."""
    BLOCK_M: tl.constexpr = ${dq_block_m}
    BLOCK_N: tl.constexpr = ${dq_block_n}
${row_tiles}
${dq_set_owners}${row_program}
    i_b, i_h = i_bh // heads, i_bh % heads
    i_g = i_h // group${row_class}
${row_document}
${dq_set_first_key_tile}${dq_set_key_tiles}
    row_start = max(i * BLOCK_M - q_start, 0)
    o_m = q_start + row_start + tl.arange(0, BLOCK_M)
${dq_set_o_n}    b_q = ${read}(q_desc, at_b, i_h, ${at_c}at_n + row_start, BLOCK_M, D)
    b_do = ${read}(do_desc, at_b, i_h, ${at_c}at_n + row_start, BLOCK_M, D)
    row_tile = ${tile_row}
    o_row = row_tile * BLOCK_M + tl.arange(0, BLOCK_M)
    b_lse = tl.load(row_lse_ptr + o_row)
    b_delta = tl.load(row_delta_ptr + o_row)
    acc = tl.zeros([BLOCK_M, D], tl.float32)
${dq_walk}
    acc *= softmax_scale
    inside = (o_m < (i + 1) * BLOCK_M) & (o_m - q_start < q_len)
    row = ${token_row}
${add_dq_before}    store_rows(dq_ptr, row, acc, inside, head_dim, D)


@triton.jit
def add_dkdv${p}(
    dk, dv, b_k, b_v, q_desc, do_desc, row_lse_ptr, row_delta_ptr, i_b, i_h, ${c}o_row, row_start, scale,
    keep, MASKED: tl.constexpr, BLOCK_M: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):
    """One query tile's share of dk (not yet scaled) and dv; scores stand transposed, keys down, queries across."""
    b_q = ${read}(q_desc, i_b, i_h, ${c}row_start, BLOCK_M, D)
    b_lse = tl.load(row_lse_ptr + o_row)
    b_st = tl.dot(b_k, b_q.T, input_precision=PRECISION)
    b_pt = tl.exp2(b_st * scale - b_lse[None, :])
    if MASKED:
        b_pt = tl.where(keep, b_pt, 0.0)
    b_do = ${read}(do_desc, i_b, i_h, ${c}row_start, BLOCK_M, D)
    dv = tl.dot(b_pt.to(b_do.dtype), b_do, dv, input_precision=PRECISION)
    b_delta = tl.load(row_delta_ptr + o_row)
    b_dpt = tl.dot(b_v, b_do.T, input_precision=PRECISION)
    b_dst = b_pt * (b_dpt - b_delta[None, :])
    dk = tl.dot(b_dst.to(b_q.dtype), b_q, dk, input_precision=PRECISION)
    return dk, dv


@triton.jit(do_not_specialize=["q_len", "k_len", "q_start", "heads", "group", "documents"${key_names}])
def dkdv_kernel${p}(
    ${dkdv_pointers}q_desc, k_desc, v_desc, do_desc, ${dkdv_results}row_lse_ptr, row_delta_ptr, scale,
    softmax_scale, q_len, k_len, q_start, heads, group, cu_ptr, documents,${key_scalars}
    D: tl.constexpr, PRECISION: tl.constexpr,
):
    """The gradients of one key tile of one key head${of_class}, summed over the query heads that share it."""
    BLOCK_M: tl.constexpr = ${dkdv_block_m}
    BLOCK_N: tl.constexpr = ${dkdv_block_n}
${dkdv_set_owners}    key_tiles = (k_len + BLOCK_N - 1) // BLOCK_N if cu_ptr is None else k_len // BLOCK_N + documents
    key_heads = heads // group
${key_order}
    i_b, i_g = i_bg // key_heads, i_bg % key_heads
    first_row_tile = max(q_start, 0) // BLOCK_M
    row_tiles = (q_start + q_len + BLOCK_M - 1) // BLOCK_M
${key_document}

    o_n = j * BLOCK_N + tl.arange(0, BLOCK_N)
    b_k = ${read}(k_desc, at_b, i_g, ${at_c}at_n + j * BLOCK_N, BLOCK_N, D)
    b_v = ${read}(v_desc, at_b, i_g, ${at_c}at_n + j * BLOCK_N, BLOCK_N, D)
    dk = tl.zeros([BLOCK_N, D], tl.float32)
    dv = tl.zeros([BLOCK_N, D], tl.float32)
    for i_h in range(i_g * group, (i_g + 1) * group):
${key_heads}
${dkdv_walk}
    dk *= softmax_scale
${store_dkdv}
'''
