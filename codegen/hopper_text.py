"""The fixed text of the warp-specialised forward kernel for Hopper GPUs; `${name}` marks what depends on the part."""

from __future__ import annotations

IMPORTS = """from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as HopperDescriptor
"""

COPIES = """
# Triton 3.8 gave the first two other names, 3.9 the third.
copy_in = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
copy_out = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
seen_as = getattr(gl.shared_memory_descriptor, "reinterpret", None) or gl.shared_memory_descriptor._reinterpret
"""

LISTS = '''
@gluon.jit
def hopper_listed_below(bound, constants, start, many, TURN: gl.constexpr, WIDTH: gl.constexpr):
    """How many tiles of a list stand below `bound`: `many` items, each again every TURN."""
    bound = gl.maximum(bound, 0)
    rest = bound % TURN
    found = 0
    # Half the list, a quarter, ...: a search in a power of two of sorted items.
    for power in gl.static_range(1, 16):
        if WIDTH >> power > 0:
            last = constants + (start + found + (WIDTH >> power) - 1)
            found = gl.where(gl.load(last) < rest, found + (WIDTH >> power), found)
    found = gl.where(gl.load(constants + (start + found)) < rest, found + 1, found)
    return bound // TURN * many + found
'''

# One pair for each loop of the tile program.
WALK = '''
@gluon.jit
def hopper_count${s}(i, key_tiles${constants}):
    """How many key tiles query tile i reads here. ${what}"""
${count_lines}
    return ${count}


@gluon.jit
def hopper_tile${s}(u, i, key_tiles${constants}):
    """The u-th of these tiles."""
${tile_lines}
    return j
'''

MASKED = '''
@gluon.jit
def hopper_masked${p}(
    b_s, position, k_first, present, k_len${constants}, MASK: gl.constexpr, COLUMNS: gl.constexpr
):
    """Scores of a PARTIAL tile, -inf where a pair takes no part by the mask of this number; all, if not present."""
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, COLUMNS, 16])
    q = position + gl.arange(0, 64, gl.SliceLayout(1, S_LAYOUT))
${masks}
    return b_s
'''

KERNEL = '''
@gluon.jit
def hopper_step${p}(
    acc, weights, shrink, row_max, row_sum, b_q, k_smem, v_smem, k_ready, k_free, v_ready, v_free, slot, phase,
    v_slot, v_phase, position, j, present, k_len, scale${constants}, MASK: gl.constexpr, FIRST: gl.constexpr,
    COLUMNS: gl.constexpr, OLD_FIRST: gl.constexpr, OLD_COLUMNS: gl.constexpr, BLOCK_N: gl.constexpr, D: gl.constexpr,
    DTYPE: gl.constexpr,
):
    """The scores of one key tile beside the values of the tile before; this tile's softmax runs under the latter.

    Of each tile only the columns FIRST .. FIRST + COLUMNS - 1 are read; a tile that is not present is all masked. O
    shrinks, and the weights are rounded, in the step after theirs, while its scores are multiplied.
    """
    mbarrier.wait(k_ready.index(slot), phase)
    b_k = k_smem.index(slot).reshape([BLOCK_N, D]).slice(FIRST, COLUMNS, 0)
    b_s = scores(b_q, b_k, COLUMNS)
    mbarrier.wait(v_ready.index(v_slot), v_phase)
    b_v = v_smem.index(v_slot).reshape([BLOCK_N, D])
    acc = last_values(acc, weights, shrink, b_v, OLD_FIRST, OLD_COLUMNS, D, DTYPE)
    b_s = warpgroup_mma_wait(1, deps=[b_s])
    mbarrier.arrive(k_free.index(slot), count=1)
${step_mask}    weights, row_max, row_sum, shrink = softmaxed(b_s, row_max, row_sum, scale, COLUMNS, BLOCK_N)
    # These values are there. The wait keeps ptxas from moving the next one up, before the powers of two.
    mbarrier.wait(v_ready.index(v_slot), v_phase)
    acc = warpgroup_mma_wait(0, deps=[acc])
    mbarrier.arrive(v_free.index(v_slot), count=1)
    return acc, weights, shrink, row_max, row_sum


@gluon.jit
def hopper_bring${p}(
    ${constants_first}q_desc, k_desc, v_desc, q_smem, k_smem, v_smem, q_ready, q_free, k_ready, k_free, v_ready,
    v_free, next_smem, next_ready, next_free, counter, k_len, q_start, first_row_tile, row_tiles, heads, group,
    works,${class_scalars}
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, DYNAMIC: gl.constexpr,
):
    """One warp: bring the tiles that the consumers read, in their order."""
    KEY_BYTES: gl.constexpr = BLOCK_N * D * 2
    V_STAGES: gl.constexpr = v_smem.shape[0]
    key_tiles = (k_len + BLOCK_N - 1) // BLOCK_N
    slot = 0
    phase = 1
    v_slot = 0
    v_phase = 1
    q_phase = 1
    next_phase = 1
    work = gl.program_id(0)
    while work < works:
${bring_work}
${kind}${open}        #<
${counts}
            # Without a first tile one past all keys is read: zeros, which the consumers forget.
            j = key_tiles + 1
${first_tile}
            bring(k_desc, [i_b, i_g, ${c}j * BLOCK_N, 0], k_ready, k_free, k_smem, slot, phase, KEY_BYTES)
            for w in gl.static_range(2):
                q_place = [i_b, i_h, ${c}i * BLOCK_M + w * 64 - q_start, 0]
                bring(q_desc, q_place, q_ready, q_free, q_smem, w, q_phase, 64 * D * 2)
            # The consumers read the values of a tile after the keys of the next.
            old_j = j
            slot, phase = next_slot(slot, phase, STAGES)
${bring_loops}
            bring(v_desc, [i_b, i_g, ${c}old_j * BLOCK_N, 0], v_ready, v_free, v_smem, v_slot, v_phase, KEY_BYTES)
            v_slot, v_phase = next_slot(v_slot, v_phase, V_STAGES)
            q_phase ^= 1
        #>
        if DYNAMIC:
            work = gl.atomic_add(counter, 1) + gl.num_programs(0)
            mbarrier.wait(next_free, next_phase)
            tell(next_smem, 0, work)
            mbarrier.arrive(next_ready, count=1)
            next_phase ^= 1
        else:
            work += gl.num_programs(0)


@gluon.jit
def hopper_attend${p}(
    ${constants_first}o_desc, o_ptr, o_head, o_token, lse_ptr, ${before}scale, q_smem, k_smem, v_smem, o_smem,
    q_ready, q_free, k_ready, k_free, v_ready, v_free, next_smem, next_ready, next_free, q_len, k_len, q_start,
    first_row_tile, row_tiles, heads, group, works,${class_scalars}
    W: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr,
    DYNAMIC: gl.constexpr, HEAD_DIM: gl.constexpr, O_BY_TMA: gl.constexpr,
):
    """One warpgroup: output and log-sum-exp of the rows W * 64 .. W * 64 + 63 of each query tile."""
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16])
    O_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    ROWS: gl.constexpr = gl.SliceLayout(1, S_LAYOUT)
    O_ROWS: gl.constexpr = gl.SliceLayout(1, O_LAYOUT)
    DTYPE: gl.constexpr = k_smem.dtype
    V_STAGES: gl.constexpr = v_smem.shape[0]
    key_tiles = (k_len + BLOCK_N - 1) // BLOCK_N
    slot = 0
    phase = 0
    v_slot = 0
    v_phase = 0
    q_phase = 0
    next_phase = 0
    work = gl.program_id(0)
    while work < works:
${work}
${kind}${open}        #<
            position = i * BLOCK_M + W * 64
${counts}
            # A finite stand-in for -inf: a row without a key yet must not give inf - inf.
            row_max = gl.full([64], -3.0e38, gl.float32, ROWS)
            row_sum = gl.zeros([64], gl.float32, ROWS)
            acc = gl.zeros([64, D], gl.float32, O_LAYOUT)
            b_q = q_smem.index(W).reshape([64, D])
            mbarrier.wait(q_ready.index(W), q_phase)
            mbarrier.wait(k_ready.index(slot), phase)
            b_s = scores(b_q, k_smem.index(slot).reshape([BLOCK_N, D]), BLOCK_N)
            b_s = warpgroup_mma_wait(0, deps=[b_s])
            mbarrier.arrive(k_free.index(slot), count=1)
${first_mask}            weights, row_max, row_sum, _ = softmaxed(b_s, row_max, row_sum, scale, BLOCK_N, BLOCK_N)
            # There was no first tile: forget the zeros. Their product with V is 0.
            row_max = gl.where(first > 0, row_max, -3.0e38)
            row_sum = gl.where(first > 0, row_sum, 0.0)
            shrink = gl.full([64], 1.0, gl.float32, ROWS)
            slot, phase = next_slot(slot, phase, STAGES)
${attend_loops}
            mbarrier.arrive(q_free.index(W), count=1)
            q_phase ^= 1
            mbarrier.wait(v_ready.index(v_slot), v_phase)
            b_v = v_smem.index(v_slot).reshape([BLOCK_N, D])
            acc = last_values(acc, weights, shrink, b_v, ${last_columns}, D, DTYPE)
            acc = warpgroup_mma_wait(0, deps=[acc])
            mbarrier.arrive(v_free.index(v_slot), count=1)
            v_slot, v_phase = next_slot(v_slot, v_phase, V_STAGES)

            total = gl.where(row_sum > 0, row_sum, 1.0)
            b_lse = gl.where(row_sum > 0, (row_max + log2(total)) * 0.6931471805599453, float("-inf"))
            gain = 1.0 / total
            o_m = position + gl.arange(0, 64, ROWS)
            inside = (o_m >= q_start) & (o_m - q_start < q_len)
            row = ${token_row}
${merge_lse}            gl.store(lse_ptr + row, b_lse, mask=inside)
            b_o = acc * gl.expand_dims(gl.convert_layout(gain, O_ROWS), 1)
            o_m = position + gl.arange(0, 64, O_ROWS)
            inside = (o_m >= q_start) & (o_m - q_start < q_len)
            o_d = gl.arange(0, D, gl.SliceLayout(0, O_LAYOUT))
            o_inside = gl.expand_dims(inside, 1) & gl.expand_dims(o_d < HEAD_DIM, 0)
${merge_out}            if O_BY_TMA:
                # The copy engine skips rows past the last of the tensor.
                tma.store_wait(0)
                o_smem.index(W).reshape([64, D]).store(b_o.to(DTYPE))
                fence_async_shared()
                o_at = [0, i_bh, ${c}position - q_start, 0]
                copy_out(o_desc, o_at, o_smem.index(W))
            else:
                row = ${out_row}
                o_place = gl.expand_dims(row, 1) * HEAD_DIM + gl.expand_dims(o_d, 0)
                gl.store(o_ptr + o_place, b_o.to(o_ptr.dtype.element_ty), mask=o_inside)
        #>
        if DYNAMIC:
            mbarrier.wait(next_ready, next_phase)
            work = told(next_smem, 0)
            mbarrier.arrive(next_free, count=1)
            next_phase ^= 1
        else:
            work += gl.num_programs(0)
    if O_BY_TMA:
        tma.store_wait(0)


@gluon.jit(do_not_specialize=[
    "o_head", "o_token", "q_len", "k_len", "q_start", "heads", "group", "works"${class_names}
])
def hopper_kernel${p}(
    ${constants_first}q_desc, k_desc, v_desc, o_desc, o_ptr, o_head, o_token, lse_ptr, ${before}counter, scale,
    q_len, k_len, q_start, heads, group, works,${class_scalars}
    HEAD_DIM: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, DYNAMIC: gl.constexpr, O_BY_TMA: gl.constexpr,
):
    """Output and log-sum-exp of query tiles${of_class}: two warpgroups multiply, a warp loads."""
    BLOCK_M: gl.constexpr = ${block_m}
    BLOCK_N: gl.constexpr = ${block_n}
    DTYPE: gl.constexpr = k_desc.dtype
    V_STAGES: gl.constexpr = ${v_stages}
    first_row_tile = max(q_start, 0) // BLOCK_M
    row_tiles = (q_start + q_len + BLOCK_M - 1) // BLOCK_M - first_row_tile
    q_smem = gl.allocate_shared_memory(DTYPE, [2, 1, 1, ${one}64, D], q_desc.layout)
    k_smem = gl.allocate_shared_memory(DTYPE, [STAGES, 1, 1, ${one}BLOCK_N, D], k_desc.layout)
    v_smem = gl.allocate_shared_memory(DTYPE, [V_STAGES, 1, 1, ${one}BLOCK_N, D], v_desc.layout)
    o_smem = q_smem
    if O_BY_TMA:
        o_smem = gl.allocate_shared_memory(DTYPE, [2, 1, 1, ${one}64, D], o_desc.layout)
    q_ready = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    q_free = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    k_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_ready = gl.allocate_shared_memory(gl.int64, [V_STAGES, 1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [V_STAGES, 1], mbarrier.MBarrierLayout())
    next_smem = gl.allocate_shared_memory(gl.int32, [1, 1], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    next_ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    next_free = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(next_ready, count=1)
    mbarrier.init(next_free, count=2)
    for w in gl.static_range(2):
        mbarrier.init(q_ready.index(w), count=1)
        mbarrier.init(q_free.index(w), count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(k_ready.index(stage), count=1)
        mbarrier.init(k_free.index(stage), count=2)
    for stage in gl.static_range(V_STAGES):
        mbarrier.init(v_ready.index(stage), count=1)
        mbarrier.init(v_free.index(stage), count=2)
    fence_async_shared()
    W_0: gl.constexpr = 0
    W_1: gl.constexpr = 1
    gl.warp_specialize(
        [
            (hopper_attend${p}, (
                ${constants_first}o_desc, o_ptr, o_head, o_token, lse_ptr, ${before}scale, q_smem, k_smem, v_smem,
                o_smem, q_ready, q_free, k_ready, k_free, v_ready, v_free, next_smem, next_ready, next_free, q_len,
                k_len, q_start, first_row_tile, row_tiles, heads, group, works,${class_given}
                W_0, BLOCK_M, BLOCK_N, D, STAGES, DYNAMIC, HEAD_DIM, O_BY_TMA,
            )),
            (hopper_attend${p}, (
                ${constants_first}o_desc, o_ptr, o_head, o_token, lse_ptr, ${before}scale, q_smem, k_smem, v_smem,
                o_smem, q_ready, q_free, k_ready, k_free, v_ready, v_free, next_smem, next_ready, next_free, q_len,
                k_len, q_start, first_row_tile, row_tiles, heads, group, works,${class_given}
                W_1, BLOCK_M, BLOCK_N, D, STAGES, DYNAMIC, HEAD_DIM, O_BY_TMA,
            )),
            (hopper_bring${p}, (
                ${constants_first}q_desc, k_desc, v_desc, q_smem, k_smem, v_smem, q_ready, q_free, k_ready, k_free,
                v_ready, v_free, next_smem, next_ready, next_free, counter, k_len, q_start, first_row_tile,
                row_tiles, heads, group, works,${class_given}
                BLOCK_M, BLOCK_N, D, STAGES, DYNAMIC,
            )),
        ],
        [4, 1],
        [240, 24],
    )
'''

LAUNCH = """

def hopper_part${p}(
    run: Callable[..., None],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    ${before_out}scale: float,
    q_start: int,
) -> bool:
    batch, heads, q_len, head_dim = q.shape
    k_len = k.shape[2]
    width = next_power_of_2(head_dim)
    by_tma = ${o_by_tma}
    works = batch * heads * tiles_in(q_start, q_len, ${block_m})
    if works:
        run(
            hopper_kernel${p},
            min(works, multiprocessors(q.device)),
${constants_given}            hopper_descriptor(q, 64),
            hopper_descriptor(k, ${block_n}),
            hopper_descriptor(v, ${block_n}),
            hopper_descriptor(${o_tensor}, 64),
            out,
            *rows_apart(out),
            lse,
${give_before}            ${counter},
            scale * LOG2_E,
            q_len,
            k_len,
            q_start,
            heads,
            heads // k.shape[1],
            works,
            HEAD_DIM=head_dim,
            D=width,
            STAGES=${stages},
            DYNAMIC=${dynamic},
            O_BY_TMA=by_tma,
            num_warps=4,
            maxnreg=168,
        )
    return works > 0
"""

LAUNCH_IN_CLASSES = """

def hopper_part${p}(
    run: Callable[..., None],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    ${before_out}scale: float,
    q_start: int,
) -> bool:
    ran = False
    batch, heads, rows, head_dim = q.shape
    width = next_power_of_2(head_dim)
    by_tma = ${o_by_tma}
    for each in class_ranges(${step}, q_start, rows, k.shape[2], False):
        q_start, q_len, k_len = each.q_start, each.queries, each.keys
        works = batch * heads * ${each_count}tiles_in(q_start, q_len, ${block_m})
        if not works:
            continue
        ran = True
        run(
            hopper_kernel${p},
            min(works, multiprocessors(q.device)),
${constants_given}            hopper_class_descriptor(q, ${step}, each.first_row, each.count, q_len, 64),
            hopper_class_descriptor(k, ${step}, each.first, each.count, k_len, ${block_n}),
            hopper_class_descriptor(v, ${step}, each.first, each.count, k_len, ${block_n}),
            hopper_class_descriptor(${o_tensor}, ${step}, each.first_row, each.count, q_len, 64),
            out,
            *rows_apart(out),
            lse,
${give_before}            ${counter},
            scale * LOG2_E,
            q_len,
            k_len,
            q_start,
            heads,
            heads // k.shape[1],
            works,
${give_classes}            HEAD_DIM=head_dim,
            D=width,
            STAGES=${stages},
            DYNAMIC=${dynamic},
            O_BY_TMA=by_tma,
            num_warps=4,
            maxnreg=168,
        )
    return ran
"""

HOST = '''

def hopper_stages(block_n: int, width: int) -> int:
    """How many key tiles of K and of V there is room for, V having one more at most; four are enough."""
    return max(2, min(4, 32768 // (block_n * width)))


@cache
def hopper_layout(block: tuple[int, ...], dtype: torch.dtype) -> Any:
    """How a block of this type lies in shared memory."""
    return gl.NVMMASharedLayout.get_default_for(list(block), gl.bfloat16 if dtype == torch.bfloat16 else gl.float16)


def hopper_described(
    tensor: Tensor, shape: Sequence[int], strides: Sequence[int], block: tuple[int, ...]
) -> HopperDescriptor:
    """A tensor as the copy engine reads it, in blocks laid out for the tensor cores."""
    layout = hopper_layout(block, tensor.dtype)
    return HopperDescriptor(tensor, list(shape), list(strides), list(block), layout)
'''

DESCRIPTOR = '''

def hopper_descriptor(tensor: Tensor, rows: int) -> HopperDescriptor:
    """The same as `tile_descriptor`, for the kernel for Hopper."""
    width = next_power_of_2(tensor.shape[3])
    return hopper_described(tensor, tensor.shape, tensor.stride(), (1, 1, rows, width))
'''

CLASS_DESCRIPTOR = '''

def hopper_class_descriptor(
    tensor: Tensor, step: int, first: int, classes: int, ranks: int, rows: int
) -> HopperDescriptor:
    """The same as `class_descriptor`, for the kernel for Hopper."""
    width = next_power_of_2(tensor.shape[3])
    base = tensor[:, :, first:] if ranks else tensor
    batch, heads, length, dim = tensor.stride()
    shape = [*tensor.shape[:2], classes if ranks else 1, max(ranks, 1), tensor.shape[3]]
    return hopper_described(base, shape, (batch, heads, length, step * length, dim), (1, 1, 1, rows, width))
'''
