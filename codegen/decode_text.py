"""The fixed text of the kernels that read a cache; `${name}` marks what depends on the part."""

from __future__ import annotations

SHARED = '''
@triton.jit
def standing(lengths, i_b, capacity, q_start, q_len):
    """(keys in use, position of the first query) of a sequence; a length outside the cache is that of its end."""
    if lengths is None:
        length, start = capacity, q_start
    else:
        length = min(max(tl.load(lengths + i_b), 0), capacity)
        start = length - q_len
    return length, start


@triton.jit
def split_of(tiles, i_s, splits):
    """The share [first, end) of split i_s, all shares of one size or one more."""
    size, larger = tiles // splits, tiles % splits
    first = i_s * size + min(i_s, larger)
    return first, first + size + (i_s < larger).to(tl.int32)


@triton.jit
def attend_cached(
    acc, row_max, row_sum, b_q, k_ptr, v_ptr, page_table, pages, k_page, k_row, v_page, v_row, k_pos, live, keep,
    scale, MASKED: tl.constexpr, PAGE_SIZE: tl.constexpr, head_dim: tl.constexpr, D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One key tile of the running softmax, in base 2. No key and no page's number is read where `live` is false."""
    if PAGE_SIZE == 0:
        k_place, v_place = k_pos.to(tl.int64) * k_row, k_pos.to(tl.int64) * v_row
    else:
        # A number that names no page must not lead out of the cache.
        page = tl.load(page_table + k_pos // PAGE_SIZE, mask=live, other=0)
        page = tl.minimum(tl.maximum(page, 0), pages - 1).to(tl.int64)
        k_place = page * k_page + k_pos % PAGE_SIZE * k_row
        v_place = page * v_page + k_pos % PAGE_SIZE * v_row
    o_d = tl.arange(0, D)
    here = live[:, None] & (o_d < head_dim)[None, :]
    b_k = tl.load(k_ptr + k_place[:, None] + o_d[None, :], mask=here, other=0.0)
    b_s = tl.dot(b_q, b_k.T, input_precision=PRECISION)
    if MASKED:
        b_s = tl.where(keep, b_s, float("-inf"))
    new_max = tl.maximum(row_max, tl.max(b_s, 1) * scale)
    b_p = tl.exp2(b_s * scale - new_max[:, None])
    shrink = tl.exp2(row_max - new_max)
    row_sum = row_sum * shrink + tl.sum(b_p, 1)
    b_v = tl.load(v_ptr + v_place[:, None] + o_d[None, :], mask=here, other=0.0)
    acc = tl.dot(b_p.to(b_v.dtype), b_v, acc * shrink[:, None], input_precision=PRECISION)
    return acc, new_max, row_sum


@triton.jit
def store_split(
    acc, row_max, row_sum, o_ptr, lse_ptr, row, inside, alone, head_dim: tl.constexpr, D: tl.constexpr
):
    """A split's output and log-sum-exp; the output of a row without a key is wanted only where there is one split."""
    # Not "> 0": a sum that is no number is that of a row with keys, and must be seen.
    live = row_sum != 0
    total = tl.where(live, row_sum, 1.0)
    b_lse = tl.where(live, (row_max + tl.log2(total)) * 0.6931471805599453, float("-inf"))
    store_rows(o_ptr, row, acc / total[:, None], inside & (live | alone), head_dim, D)
    tl.store(lse_ptr + row, b_lse, mask=inside)


@triton.jit(do_not_specialize=["splits", "rows"])
def combine_kernel(
    split_o_ptr, split_lse_ptr, o_ptr, lse_ptr, splits, rows, head_dim: tl.constexpr, D: tl.constexpr
):
    """One query row from all its splits, merged by log-sum-exp in their order: the same sum each time."""
    row = tl.program_id(0).to(tl.int64)
    o_d = tl.arange(0, D)
    top = -3.0e38
    total = 0.0
    acc = tl.zeros([D], tl.float32)
    for first in range(0, splits, 16):
        o_s = first + tl.arange(0, 16)
        place = o_s * rows.to(tl.int64) + row
        b_lse = tl.load(split_lse_ptr + place, mask=o_s < splits, other=float("-inf"))
        new_top = max(top, tl.max(b_lse, 0))
        weight = tl.exp(b_lse - new_top)
        here = (weight != 0)[:, None] & (o_d < head_dim)[None, :]
        b_o = tl.load(split_o_ptr + place[:, None] * head_dim + o_d[None, :], mask=here, other=0.0)
        shrink = tl.exp(top - new_top)
        acc = acc * shrink + tl.sum(b_o * weight[:, None], 0)
        total = total * shrink + tl.sum(weight, 0)
        top = new_top
    some = tl.where(total != 0, total, 1.0)
    tl.store(o_ptr + row * head_dim + o_d, (acc / some).to(o_ptr.dtype.element_ty), mask=o_d < head_dim)
    tl.store(lse_ptr + row, tl.where(total != 0, top + tl.log(some), float("-inf")))
'''

_PARAMETERS = """
    ${pointers}q_ptr, k_ptr, v_ptr, o_ptr, lse_ptr, lengths, page_table, scale,
    q_len, capacity, q_start, pages, heads, group, splits, rows,
    table_row, q_batch, q_head, q_row, k_page, k_head, k_row, v_page, v_head, v_row,"""

_START = """    length, start = standing(lengths, i_b, capacity, q_start, q_len)"""

_CACHE = """    o_n = tl.arange(0, BLOCK_N)
    k_ptr += i_g.to(tl.int64) * k_head
    v_ptr += i_g.to(tl.int64) * v_head
    if PAGE_SIZE == 0:
        k_ptr += i_b.to(tl.int64) * k_page
        v_ptr += i_b.to(tl.int64) * v_page
    else:
        page_table += i_b.to(tl.int64) * table_row
"""

# One query position: the rows of the tile are the query heads that share a key head.
POSITION = f'''
@triton.jit(
    do_not_specialize=[
        ${{not_specialised}}"q_len", "capacity", "q_start", "pages", "heads", "group", "splits", "rows", "share",
        "table_row",
    ],
    do_not_specialize_on_alignment=["lse_ptr", "lengths"],
)
def decode_kernel${{p}}({_PARAMETERS}
    share, ROWS: tl.constexpr, PAGE_SIZE: tl.constexpr, head_dim: tl.constexpr, D: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One split of one query position's keys, for the query heads that share them: the rows of the tile."""
    BLOCK_N: tl.constexpr = ${{block_n}}
    # Neighbouring programs are neighbouring positions, which read the same keys.
    i_m, program = tl.program_id(0) % q_len, tl.program_id(0) // q_len
    i_s, program = program % splits, program // splits
    i_b, i_h = program // (heads // share), program % (heads // share) * share
    i_g = i_h // group
{_START}
    position = start + i_m
    here = position >= 0
    position = max(position, 0)
${{place}}${{set_key_tiles}}{_CACHE}    o_h = tl.arange(0, ROWS)
    o_d = tl.arange(0, D)
    inside = o_h < share
    q_place = i_b.to(tl.int64) * q_batch + (i_h + o_h).to(tl.int64) * q_head + i_m.to(tl.int64) * q_row
    b_q = tl.load(q_ptr + q_place[:, None] + o_d[None, :], mask=inside[:, None] & (o_d < head_dim)[None, :], other=0.0)
    row_max = tl.full([ROWS], -3.0e38, tl.float32)
    row_sum = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, D], tl.float32)
${{walk}}
    row = i_s.to(tl.int64) * rows + (i_b * heads + i_h + o_h).to(tl.int64) * q_len + i_m
    store_split(acc, row_max, row_sum, o_ptr, lse_ptr, row, inside, splits == 1, head_dim, D)
'''

# Many query positions: the rows of the tile are positions of one query head, as in the forward kernel.
CHUNK = f'''
@triton.jit(
    do_not_specialize=[
        ${{not_specialised}}"q_len", "capacity", "q_start", "pages", "heads", "group", "splits", "rows", "row_tiles",
        "table_row",
    ],
    do_not_specialize_on_alignment=["lse_ptr", "lengths"],
)
def chunk_kernel${{p}}({_PARAMETERS}
    row_tiles, PAGE_SIZE: tl.constexpr, head_dim: tl.constexpr, D: tl.constexpr, PRECISION: tl.constexpr,
):
    """One split of the keys of one query tile of one head${{of_class}}, where the queries are many."""
    BLOCK_M: tl.constexpr = ${{block_m}}
    BLOCK_N: tl.constexpr = ${{block_n}}
    i_r, program = tl.program_id(0) % row_tiles, tl.program_id(0) // row_tiles
${{class_program}}    i_s, program = program % splits, program // splits
    i_b, i_h = program // heads, program % heads
    i_g = i_h // group
{_START}
${{place}}    i = first_rank // BLOCK_M + i_r
${{set_key_tiles}}{_CACHE}    o_m = i * BLOCK_M + tl.arange(0, BLOCK_M)
    o_d = tl.arange(0, D)
    o_row = ${{row_of_rank}}
    inside = (o_row >= 0) & (o_row < q_len)
    # The last tile may begin after the last query.
    here = ${{first_row}} < q_len
    q_place = i_b.to(tl.int64) * q_batch + i_h.to(tl.int64) * q_head + o_row.to(tl.int64) * q_row
    b_q = tl.load(q_ptr + q_place[:, None] + o_d[None, :], mask=inside[:, None] & (o_d < head_dim)[None, :], other=0.0)
    row_max = tl.full([BLOCK_M], -3.0e38, tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D], tl.float32)
${{walk}}
    row = i_s.to(tl.int64) * rows + (i_b * heads + i_h).to(tl.int64) * q_len + o_row
    store_split(acc, row_max, row_sum, o_ptr, lse_ptr, row, inside, splits == 1, head_dim, D)
'''
