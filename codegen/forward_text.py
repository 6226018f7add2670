"""The fixed text of the forward kernel of a part; `${name}` marks what depends on the part."""

from __future__ import annotations

SHARED = '''
@triton.jit
def store_rows(ptr, row, values, inside, head_dim, D: tl.constexpr):
    """Store those rows that are inside; rows of the tensor are contiguous, `row` counts them all."""
    o_d = tl.arange(0, D)
    place = ptr + row[:, None] * head_dim + o_d[None, :]
    tl.store(place, values.to(ptr.dtype.element_ty), mask=inside[:, None] & (o_d < head_dim)[None, :])


@triton.jit
def load_rows(ptr, row, inside, head_dim, D: tl.constexpr):
    """The rows that are inside, in float32; 0 elsewhere."""
    o_d = tl.arange(0, D)
    place = ptr + row[:, None] * head_dim + o_d[None, :]
    return tl.load(place, mask=inside[:, None] & (o_d < head_dim)[None, :], other=0.0).to(tl.float32)
'''

MERGE = '''
@triton.jit
def merged(out, lse, before, before_lse):
    """Output and natural log-sum-exp of two disjoint parts together; a part of no key, with -inf, has no weight."""
    top = tl.maximum(lse, before_lse)
    top = tl.where(top > float("-inf"), top, 0.0)
    weight, before_weight = tl.exp(lse - top), tl.exp(before_lse - top)
    total = weight + before_weight
    some = tl.where(total > 0, total, 1.0)
    out = (out * weight[:, None] + before * before_weight[:, None]) / some[:, None]
    return out, tl.where(total > 0, top + tl.log(some), float("-inf"))
'''

KERNEL = '''
@triton.jit
def attend${p}(
    acc, row_max, row_sum, b_q, k_desc, v_desc, i_b, i_g, ${c}start, scale, keep, MASKED: tl.constexpr,
    BLOCK_N: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):
    """One key tile of the running softmax, in base 2; `keep` is read only where the tile is masked."""
    b_k = ${read}(k_desc, i_b, i_g, ${c}start, BLOCK_N, D)
    b_s = tl.dot(b_q, b_k.T, input_precision=PRECISION)
    if MASKED:
        b_s = tl.where(keep, b_s, float("-inf"))
    new_max = tl.maximum(row_max, tl.max(b_s, 1) * scale)
    b_p = tl.exp2(b_s * scale - new_max[:, None])
    shrink = tl.exp2(row_max - new_max)
    row_sum = row_sum * shrink + tl.sum(b_p, 1)
    b_v = ${read}(v_desc, i_b, i_g, ${c}start, BLOCK_N, D)
    acc = tl.dot(b_p.to(b_v.dtype), b_v, acc * shrink[:, None], input_precision=PRECISION)
    return acc, new_max, row_sum


@triton.jit(do_not_specialize=[
    "o_head", "o_token", "q_len", "k_len", "q_start", "heads", "group", "documents"${class_names}
])
def forward_kernel${p}(
    ${forward_pointers}q_desc, k_desc, v_desc, o_ptr, o_head, o_token, lse_ptr, ${before}scale, q_len, k_len,
    q_start, heads, group, cu_ptr, documents,${class_scalars}
    head_dim: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):
    """Output and log-sum-exp of one query tile of one head${of_class}."""
    BLOCK_M: tl.constexpr = ${block_m}
    BLOCK_N: tl.constexpr = ${block_n}
${row_tiles}
${set_owners}    # The last tiles read the most keys where the pattern grows: they start first.
${row_program}
    i_b, i_h = i_bh // heads, i_bh % heads
    i_g = i_h // group${row_class}
${row_document}
${set_first_key_tile}${set_key_tiles}
    # Where the first tile begins before the first query, its rows move down; those of the next tile are not stored.
    row_start = max(i * BLOCK_M - q_start, 0)
    o_m = q_start + row_start + tl.arange(0, BLOCK_M)
${set_o_n}    b_q = ${read}(q_desc, at_b, i_h, ${at_c}at_n + row_start, BLOCK_M, D)
    # A finite stand-in for -inf: a row without a key yet must not give inf - inf.
    row_max = tl.full([BLOCK_M], -3.0e38, tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D], tl.float32)
${walk}
    live = row_sum > 0
    total = tl.where(live, row_sum, 1.0)
    b_o = acc / total[:, None]
    b_lse = tl.where(live, (row_max + tl.log2(total)) * 0.6931471805599453, float("-inf"))
    inside = (o_m < (i + 1) * BLOCK_M) & (o_m - q_start < q_len)
    row = ${token_row}
    out_row = ${out_row}
${merge}    store_rows(o_ptr, out_row, b_o, inside, head_dim, D)
    tl.store(lse_ptr + row, b_lse, mask=inside)
'''
