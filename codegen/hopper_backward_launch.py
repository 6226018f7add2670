"""The fixed text around the backward kernel for Hopper: what comes before and after it, and all launches."""

from __future__ import annotations

ROWS = '''
@triton.jit(do_not_specialize=[
    "o_head", "o_token", "do_head", "do_token", "q_len", "q_start"${rows_names}
])
def hopper_rows_kernel${p}(
    ${row_constants}o_ptr, o_head, o_token, do_ptr, do_head, do_token, lse_ptr, dlse_ptr, rows_ptr, dq_blocks_ptr,
    q_len, q_start,${rows_scalars}
    HEAD_DIM: tl.constexpr, D: tl.constexpr,
):
    """What the backward kernel takes off the scores, and adds to dP, of each row of a query tile; zeros for its dq.

    Log-sum-exp in base 2, +inf for a row outside or without a key, so that its p is 0; and dlse - sum(o * do), what
    the softmax's gradient takes off.
    """
    BLOCK_M: tl.constexpr = ${block_m}
    first_row_tile = max(q_start, 0) // BLOCK_M
    row_tiles = (q_start + q_len + BLOCK_M - 1) // BLOCK_M - first_row_tile
${row_program}${rows_class}
    o_m = i * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = (o_m >= q_start) & (o_m - q_start < q_len)
    row = ${token_row}
    out_row = ${out_row}
    d_out_row = ${d_out_row}
    b_o = load_rows(o_ptr, out_row, inside, HEAD_DIM, D)
    b_do = load_rows(do_ptr, d_out_row, inside, HEAD_DIM, D)
    b_delta = tl.load(dlse_ptr + row, mask=inside, other=0.0) - tl.sum(b_o * b_do, 1)
    b_lse = tl.load(lse_ptr + row, mask=inside, other=float("-inf"))
    tile = ${tile_row}
    rows_ptr += tile * (2 * BLOCK_M) + tl.arange(0, BLOCK_M)
    tl.store(rows_ptr, tl.where(b_lse == float("-inf"), float("inf"), b_lse * 1.4426950408889634))
    tl.store(rows_ptr + BLOCK_M, b_delta)
    tl.store(dq_blocks_ptr + tile * (BLOCK_M * D) + tl.arange(0, BLOCK_M * D), tl.zeros([BLOCK_M * D], tl.float32))


@triton.jit(do_not_specialize=["q_len", "q_start"${rows_names}])
def hopper_dq_kernel${p}(
    ${row_constants}dq_blocks_ptr, dq_ptr, ${before}softmax_scale, q_len, q_start,${rows_scalars}
    HEAD_DIM: tl.constexpr, D: tl.constexpr,
):
    """dq of one query tile from its sums in blocks of half its columns, which lie as `add_block` left them."""
    BLOCK_M: tl.constexpr = ${block_m}
    HALF: tl.constexpr = D // 2
    first_row_tile = max(q_start, 0) // BLOCK_M
    row_tiles = (q_start + q_len + BLOCK_M - 1) // BLOCK_M - first_row_tile
${row_program}${rows_class}
    o_m = i * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = (o_m >= q_start) & (o_m - q_start < q_len)
    row = ${token_row}
    tile = ${tile_row}
    for block in tl.static_range(2):
        o_d = block * HALF + tl.arange(0, HALF)
        b_dq = tl.load(dq_blocks_ptr + (tile * 2 + block) * (BLOCK_M * HALF) + tl.arange(0, BLOCK_M * HALF))
        # 8 columns, warp, row, pair of columns, half of the warp's rows, column.
        b_dq = tl.permute(tl.reshape(b_dq, [HALF // 8, 4, 8, 4, 2, 2]), [1, 4, 2, 0, 3, 5])
        b_dq = tl.reshape(b_dq, [BLOCK_M, HALF]) * softmax_scale
        place = row[:, None] * HEAD_DIM + o_d[None, :]
        here = inside[:, None] & (o_d < HEAD_DIM)[None, :]
${add_before}        tl.store(dq_ptr + place, b_dq.to(dq_ptr.dtype.element_ty), mask=here)
'''

LAUNCH = """

def hopper_backward_part${p}(
    run: Callable[..., None], d_out: Tensor, d_lse: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    results: Sequence[Tensor], ${before_results}scale: float, q_start: int,${split_option}
) -> bool:
    batch, heads, q_len, head_dim = q.shape
    key_heads, k_len = k.shape[1], k.shape[2]
    width = next_power_of_2(head_dim)
    dq, dk, dv = results
    row_tiles = batch * heads * tiles_in(q_start, q_len, ${block_m})
${set_sums}    works = batch * key_heads * tiles_in(0, k_len, ${block_n})${more_works}
    rows = torch.empty((max(row_tiles, 1), 2, ${block_m}), dtype=torch.float32, device=q.device)
    dq_blocks = torch.empty(row_tiles * ${block_m} * width${share_room}, dtype=torch.float32, device=q.device)
    if row_tiles:
        run(
            hopper_rows_kernel${p},
            row_tiles,
${row_constants_given}            out,
            *rows_apart(out),
            d_out,
            *rows_apart(d_out),
            lse,
            d_lse,
            rows,
            dq_blocks,
            q_len,
            q_start,
            HEAD_DIM=head_dim,
            D=width,
            num_warps=4,
        )
    if works:
        run(
            hopper_gradients_kernel${p},
            min(works, multiprocessors(q.device)),
${constants_given}            hopper_descriptor(q, ${block_m}),
            hopper_keys_in_halves(hopper_descriptor(k, ${block_n}), width),
            hopper_descriptor(v, ${block_n}),
            hopper_descriptor(d_out, ${block_m}),
            hopper_rows_descriptor(rows),
${give_results}            dq_blocks,
            ${counter},
            scale * LOG2_E,
            scale,
            q_len,
            k_len,
            q_start,
            heads,
            heads // key_heads,
            works,
${give_shares}            HEAD_DIM=head_dim,
            D=width,
            STAGES=3,
            DYNAMIC=${dynamic},
${give_split}            num_warps=4,
            maxnreg=168,
        )
${add_shares}    if row_tiles:
        run(
            hopper_dq_kernel${p},
            row_tiles,
${row_constants_given}            dq_blocks,
            dq,
${give_before}            scale,
            q_len,
            q_start,
            HEAD_DIM=head_dim,
            D=width,
            num_warps=4,
        )
    return row_tiles + works > 0
${form}"""

LAUNCH_IN_CLASSES = """

def hopper_backward_part${p}(
    run: Callable[..., None], d_out: Tensor, d_lse: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    results: Sequence[Tensor], ${before_results}scale: float, q_start: int,
) -> bool:
    batch, heads, rows, head_dim = q.shape
    key_heads = k.shape[1]
    width = next_power_of_2(head_dim)
    dq, dk, dv = results
    ran = False
    for each in class_ranges(${step}, q_start, rows, k.shape[2], False):
        q_start, q_len, k_len = each.q_start, each.queries, each.keys
        row_tiles = batch * heads * ${each_count}tiles_in(q_start, q_len, ${block_m})
        works = batch * key_heads * each.count * tiles_in(0, k_len, ${block_n})
        ran |= row_tiles + works > 0
        row_numbers = torch.empty((max(row_tiles, 1), 2, ${block_m}), dtype=torch.float32, device=q.device)
        dq_blocks = torch.empty(row_tiles * ${block_m} * width, dtype=torch.float32, device=q.device)
        if row_tiles:
            run(
                hopper_rows_kernel${p},
                row_tiles,
${row_constants_given}                out,
                *rows_apart(out),
                d_out,
                *rows_apart(d_out),
                lse,
                d_lse,
                row_numbers,
                dq_blocks,
                q_len,
                q_start,
${give_rows_classes}                HEAD_DIM=head_dim,
                D=width,
                num_warps=4,
            )
        if works:
            run(
                hopper_gradients_kernel${p},
                min(works, multiprocessors(q.device)),
${constants_given}                hopper_class_descriptor(q, ${step}, each.first_row, each.count, q_len, ${block_m}),
                hopper_keys_in_halves(
                    hopper_class_descriptor(k, ${step}, each.first, each.count, k_len, ${block_n}), width
                ),
                hopper_class_descriptor(v, ${step}, each.first, each.count, k_len, ${block_n}),
                hopper_class_descriptor(d_out, ${step}, each.first_row, each.count, q_len, ${block_m}),
                hopper_rows_descriptor(row_numbers),
${give_results}                dq_blocks,
                ${counter},
                scale * LOG2_E,
                scale,
                q_len,
                k_len,
                q_start,
                heads,
                heads // key_heads,
                works,
${give_key_classes}                HEAD_DIM=head_dim,
                D=width,
                STAGES=3,
                DYNAMIC=${dynamic},
                num_warps=4,
                maxnreg=168,
            )
        if row_tiles:
            run(
                hopper_dq_kernel${p},
                row_tiles,
${row_constants_given}                dq_blocks,
                dq,
${give_before}                scale,
                q_len,
                q_start,
${give_rows_classes}                HEAD_DIM=head_dim,
                D=width,
                num_warps=4,
            )
    return ran
"""

REPEATS = """\
    The same inputs give the same bits each time, but for dq on Hopper, whose sums take any order; under
    torch.use_deterministic_algorithms(True) all repeat."""

HOST = '''

def hopper_gradients(q: Tensor) -> bool:
    """Whether there is a backward kernel for Hopper for a call, whose sums for dq may then take any order.

    It adds to dq with atomic operations: under `torch.use_deterministic_algorithms(True)` the plain kernels run.
    """
    return ${narrowest} < q.shape[3] <= ${widest} and not torch.are_deterministic_algorithms_enabled()


@cache
def hopper_half_layout(rank: int, width: int) -> Any:
    """How a block of 16-bit rows lies in shared memory in two pieces, each of half its columns."""
    return gl.NVMMASharedLayout(swizzle_byte_width=width, element_bitwidth=16, rank=rank)


def hopper_keys_in_halves(keys: HopperDescriptor, width: int) -> HopperDescriptor:
    """K as the copy engine brings it: for dq each warpgroup multiplies one of the pieces."""
    layout = hopper_half_layout(len(keys.block_shape), width)
    return HopperDescriptor(keys.base, keys.shape, keys.strides, keys.block_shape, layout)


def hopper_rows_descriptor(rows: Tensor) -> HopperDescriptor:
    """The rows' numbers [tiles, 2, rows] as the copy engine reads them, one query tile's at a time."""
    layout = gl.NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=32, rank=3)
    return HopperDescriptor(rows, list(rows.shape), list(rows.stride()), [1, *rows.shape[1:]], layout)
'''
