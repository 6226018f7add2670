"""The fixed text of the warp-specialised backward kernel for Hopper GPUs; `${name}` marks what depends on the part."""

from __future__ import annotations

SHARED = '''
@gluon.jit
def bring_queries(
    q_desc, rows_desc, at, row, place, ready, free, phase, q_smem, rows_smem, row_smem, place_smem, slot,
    BYTES: gl.constexpr,
):
    """Q and the rows' numbers of one query tile into a slot of their ring, once its readers have left it: `free`.

    `row` is the tile's number among all, `place` tells its number in its head, and its mask.
    """
    mbarrier.wait(free, phase)
    tell(row_smem, slot, row)
    tell(place_smem, slot, place)
    mbarrier.arrive(ready.index(slot), count=1)
    mbarrier.expect(ready.index(slot), BYTES)
    copy_in(q_desc, at, ready.index(slot), q_smem.index(slot))
    copy_in(rows_desc, [row, 0, 0], ready.index(slot), rows_smem.index(slot))


@gluon.jit
def begun_dq(b_k, ds_smem, ds_ready, step, W: gl.constexpr, BLOCK_M: gl.constexpr, HALF: gl.constexpr):
    """Begin the product of the dS of a step, of all keys of the tile, with half the columns of K."""
    turn = step & 1
    mbarrier.wait(ds_ready.index(turn), (step >> 1) & 1)
    b_dq = gl.zeros([BLOCK_M, HALF], gl.float32, gl.NVMMADistributedLayout([3, 0], [4, 1], [16, HALF, 16]))
    for half in gl.static_range(2):
        b_ds = ds_smem.index(2 * half + turn).permute((1, 0))
        b_dq = warpgroup_mma(b_ds, b_k.slice(half * 64, 64, 0).slice(W * HALF, HALF, 1), b_dq, is_async=True)
    return b_dq


@gluon.jit
def add_block(blocks_ptr, row, W: gl.constexpr, b_dq, HALF: gl.constexpr):
    """Add a block [64, HALF] of a query tile's dq to memory, where it lies as the warpgroup's threads hold it.

    They add four numbers at a time. Thread t holds, of each 8 columns, two neighbours in each of two rows: they stand
    at 512 * (column // 8) + 4 * t.
    """
    EIGHTS: gl.constexpr = HALF // 8
    THREADS: gl.constexpr = gl.BlockedLayout([1, EIGHTS], [32, 1], [4, 1], [1, 0])
    # Warp, half of its rows, row, 8 columns, pair of columns, column.
    b_dq = gl.permute(gl.reshape(b_dq, [4, 2, 8, EIGHTS, 4, 2]), [0, 2, 4, 3, 1, 5])
    left, right = gl.split(b_dq)
    upper_left, lower_left = gl.split(left)
    upper_right, lower_right = gl.split(right)
    a = gl.convert_layout(gl.reshape(upper_left, [128, EIGHTS]), THREADS)
    b = gl.convert_layout(gl.reshape(upper_right, [128, EIGHTS]), THREADS)
    c = gl.convert_layout(gl.reshape(lower_left, [128, EIGHTS]), THREADS)
    d = gl.convert_layout(gl.reshape(lower_right, [128, EIGHTS]), THREADS)
    block = blocks_ptr + (row.to(gl.int64) * 2 + W) * (64 * HALF)
    thread = fresh(gl.arange(0, 128, gl.SliceLayout(1, THREADS)))
    place = gl.expand_dims(4 * thread, 1) + gl.expand_dims(512 * gl.arange(0, EIGHTS, gl.SliceLayout(0, THREADS)), 0)
    gl.inline_asm_elementwise(
        "red.relaxed.gpu.global.add.v4.f32 [$$1], {$$2, $$3, $$4, $$5}; mov.b32 $$0, 0;",
        "=r,l,f,f,f,f",
        [(block + place).to(gl.int64), a, b, c, d],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )
'''

# One pair for each loop of the transposed tile program.
WALK = '''
@gluon.jit
def hopper_row_count${s}(j, first_row_tile, row_tiles${constants}):
    """How many query tiles read key tile j here. ${what}"""
${count_lines}
    return ${count}


@gluon.jit
def hopper_row_tile${s}(u, j, first_row_tile, row_tiles${constants}):
    """The u-th of these tiles."""
${tile_lines}
    return i
'''

KERNELS = '''

@gluon.jit
def hopper_bring_gradients${p}(
    ${constants_first}q_desc, k_desc, v_desc, do_desc, rows_desc, q_smem, k_smem, v_smem, do_smem, rows_smem,
    row_smem, place_smem, many_smem, q_ready, do_ready, ${freed}k_ready, k_free, v_ready, v_free, next_smem,
    next_ready, next_free, counter, k_len, q_start, first_row_tile, row_tiles, heads, group, works,${key_scalars}
    BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, DYNAMIC: gl.constexpr,${more}
):
    """One warp: bring the tiles that the consumers read, and say how many and which they are."""
    QUERY_BYTES: gl.constexpr = BLOCK_M * D * 2 + BLOCK_M * 2 * 4
    key_heads = heads // group
    key_tiles = (k_len + BLOCK_N - 1) // BLOCK_N
    slot = 0
    phase = 1
    turn = 0
    turn_phase = 1
    next_phase = 1
    keys_slot = 0
    keys_phase = 1
    work = gl.program_id(0)
    while work < works:
${work}
${count_lines}
        at = [i_b, i_g, ${c}j * BLOCK_N, 0]
        # K has two slots, and so comes while the tile before is worked.
        bring(k_desc, at, k_ready, k_free, k_smem, keys_slot, keys_phase, BLOCK_N * D * 2)
        keys_slot, keys_phase = next_slot(keys_slot, keys_phase, 2)
        mbarrier.wait(v_free, next_phase)
        tell(many_smem, 0, total)
${tell_share}        mbarrier.arrive(v_ready, count=1)
        mbarrier.expect(v_ready, BLOCK_N * D * 2)
        copy_in(v_desc, at, v_ready, v_smem.index(0))
        for i_h in range(i_g * group, (i_g + 1) * group):
            head_row = ${head_row}
${bring_loops}
        if DYNAMIC:
            work = gl.atomic_add(counter, 1) + gl.num_programs(0)
            mbarrier.wait(next_free, next_phase)
            tell(next_smem, 0, work)
            mbarrier.arrive(next_ready, count=1)
        else:
            work += gl.num_programs(0)
        next_phase ^= 1


@gluon.jit
def hopper_add_gradients${p}(
    ${constants_first}${results}dq_blocks_ptr,
    scale, softmax_scale, q_smem, k_smem, v_smem, do_smem, rows_smem, ds_smem,
    ${staging_name}row_smem, place_smem, many_smem, q_ready, ${q_free}do_ready,
    ${do_free}ds_ready, ds_free, k_ready, k_free, v_ready, v_free, next_smem, next_ready, next_free, k_len,
    heads, group, works,${key_scalars}
    W: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr,
    DYNAMIC: gl.constexpr, HEAD_DIM: gl.constexpr,${more}
):
    """One warpgroup: dk and dv of the keys W * 64 .. W * 64 + 63 of each key tile, and half the columns of dq."""
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_M, 16])
    O_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    P_LAYOUT: gl.constexpr = gl.DotOperandLayout(0, O_LAYOUT, 2)
${dq_layout}    DTYPE: gl.constexpr = k_smem.dtype
${own_key_heads}    key_tiles = (k_len + BLOCK_N - 1) // BLOCK_N
    slot = 0
    phase = 0
    step = 0
    next_phase = 0  # of what comes once a key tile; and which of its two slots K is in
    keys_phase = 0
    work = gl.program_id(0)
    while work < works:
${own_work}
        dk = gl.zeros([64, D], gl.float32, O_LAYOUT)
        dv = gl.zeros([64, D], gl.float32, O_LAYOUT)
        mbarrier.wait(v_ready, next_phase)
        many = told(many_smem, 0)
        mbarrier.wait(k_ready.index(next_phase), keys_phase)
        if many > 0:
${column}        else:
${told_share}            mbarrier.arrive(v_free, count=1)
        mbarrier.arrive(k_free.index(next_phase), count=1)
${both_done}        dk *= softmax_scale
${store}
        keys_phase ^= next_phase
        if DYNAMIC:
            mbarrier.wait(next_ready, next_phase)
            work = told(next_smem, 0)
            mbarrier.arrive(next_free, count=1)
        else:
            work += gl.num_programs(0)
        next_phase ^= 1${last_wait}


@gluon.jit(do_not_specialize=["q_len", "k_len", "q_start", "heads", "group", "works"${key_names}])
def hopper_gradients_kernel${p}(
    ${constants_first}q_desc, k_desc, v_desc, do_desc, rows_desc, ${results}dq_blocks_ptr,
    counter, scale, softmax_scale, q_len, k_len, q_start, heads, group, works,${key_scalars}
    HEAD_DIM: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, DYNAMIC: gl.constexpr,${split_constant}
):
    """dk and dv of key tiles${of_class}, and sums for dq: two warpgroups multiply, a warp loads."""
    BLOCK_M: gl.constexpr = ${block_m}
    BLOCK_N: gl.constexpr = ${block_n}
    DTYPE: gl.constexpr = k_desc.dtype
    DS_LAYOUT: gl.constexpr = gl.NVMMASharedLayout.get_default_for([64, BLOCK_M], DTYPE)
    first_row_tile = max(q_start, 0) // BLOCK_M
    row_tiles = (q_start + q_len + BLOCK_M - 1) // BLOCK_M
    q_smem = gl.allocate_shared_memory(DTYPE, [STAGES, 1, 1, ${one}BLOCK_M, D], q_desc.layout)
    rows_smem = gl.allocate_shared_memory(gl.float32, [STAGES, 1, 2, BLOCK_M], rows_desc.layout)
    do_smem = gl.allocate_shared_memory(DTYPE, [2, 1, 1, ${one}BLOCK_M, D], do_desc.layout)
    ds_smem = gl.allocate_shared_memory(DTYPE, [4, 64, BLOCK_M], DS_LAYOUT)
    k_smem = gl.allocate_shared_memory(DTYPE, [2, 1, 1, ${one}BLOCK_N, D], k_desc.layout)
    v_smem = gl.allocate_shared_memory(DTYPE, [1, 1, 1, ${one}BLOCK_N, D], v_desc.layout)
${staging}    q_ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    do_ready = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
${allocate_free}    ds_ready = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    ds_free = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    k_ready = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    k_free = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    v_ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    v_free = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    NUMBER: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    row_smem = gl.allocate_shared_memory(gl.int32, [STAGES, 1], NUMBER)
    place_smem = gl.allocate_shared_memory(gl.int32, [STAGES, 1], NUMBER)
    many_smem = gl.allocate_shared_memory(gl.int32, [1, 1], NUMBER)
${allocate_share}    next_smem = gl.allocate_shared_memory(gl.int32, [1, 1], NUMBER)
    next_ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    next_free = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(next_ready, count=1)
    mbarrier.init(next_free, count=2)
    for stage in gl.static_range(STAGES):
        mbarrier.init(q_ready.index(stage), count=2)
${init_q_free}    for stage in gl.static_range(2):
        mbarrier.init(do_ready.index(stage), count=1)
${init_do_free}        mbarrier.init(ds_ready.index(stage), count=2)
        mbarrier.init(ds_free.index(stage), count=2)
        mbarrier.init(k_ready.index(stage), count=1)
        mbarrier.init(k_free.index(stage), count=2)
    mbarrier.init(v_ready, count=2)
    mbarrier.init(v_free, count=2)
    fence_async_shared()
    W_0: gl.constexpr = 0
    W_1: gl.constexpr = 1
    gl.warp_specialize(
        [
            (hopper_add_gradients${p}, (
                ${constants_first}${results}dq_blocks_ptr,
                scale, softmax_scale, q_smem, k_smem, v_smem, do_smem, rows_smem, ds_smem,
                ${staging_name}row_smem, place_smem, many_smem, q_ready, ${q_free}do_ready,
                ${do_free}ds_ready, ds_free, k_ready, k_free, v_ready, v_free, next_smem, next_ready, next_free, k_len,
                heads, group, works,${key_scalars}
                W_0, BLOCK_M, BLOCK_N, D, STAGES, DYNAMIC, HEAD_DIM,${split}
            )),
            (hopper_add_gradients${p}, (
                ${constants_first}${results}dq_blocks_ptr,
                scale, softmax_scale, q_smem, k_smem, v_smem, do_smem, rows_smem, ds_smem,
                ${staging_name}row_smem, place_smem, many_smem, q_ready, ${q_free}do_ready,
                ${do_free}ds_ready, ds_free, k_ready, k_free, v_ready, v_free, next_smem, next_ready, next_free, k_len,
                heads, group, works,${key_scalars}
                W_1, BLOCK_M, BLOCK_N, D, STAGES, DYNAMIC, HEAD_DIM,${split}
            )),
            (hopper_bring_gradients${p}, (
                ${constants_first}q_desc, k_desc, v_desc, do_desc, rows_desc, q_smem, k_smem, v_smem, do_smem,
                rows_smem, row_smem, place_smem, many_smem, q_ready, do_ready, ${freed}k_ready, k_free,
                v_ready, v_free, next_smem, next_ready, next_free, counter, k_len, q_start, first_row_tile, row_tiles,
                heads, group, works,${key_scalars}
                BLOCK_M, BLOCK_N, D, STAGES, DYNAMIC,${split}
            )),
        ],
        [4, 1],
        [240, 24],
    )
'''

# dk and dv go out through the memory of the warpgroup's own dS, of which they take all, or for narrow heads the start.
STAGING = """\
    o_smem = seen_as(ds_smem, DTYPE, [4 * BLOCK_M // D, 1, 1, ${one}64, D], dk_desc.layout)
"""

BOTH_DONE = """\
        # Both have multiplied all dS, whose memory dk and dv go out through.
        mbarrier.wait(k_free.index(next_phase), keys_phase)
"""

LAST_COPIED = """\
    if not OLD:
        tma.store_wait(0)
"""

STORE_TILE = """\
        staged = o_smem.index(W * (2 * BLOCK_M // D))
        at = [i_b, i_g, ${c}j * BLOCK_N + W * 64, 0]
        tma.store_wait(0)
        staged.reshape([64, D]).store(dv.to(DTYPE))
        fence_async_shared()
        copy_out(dv_desc, at, staged)
        tma.store_wait(0)
        staged.reshape([64, D]).store(dk.to(DTYPE))
        fence_async_shared()
        copy_out(dk_desc, at, staged)"""

STORE_ROWS = """\
        o_n = j * BLOCK_N + W * 64 + gl.arange(0, 64, gl.SliceLayout(1, O_LAYOUT))
        o_d = gl.arange(0, D, gl.SliceLayout(0, O_LAYOUT))
        row = ${key_row}
        place = gl.expand_dims(row, 1) * HEAD_DIM + gl.expand_dims(o_d, 0)
        here = gl.expand_dims(o_n < k_len, 1) & gl.expand_dims(o_d < HEAD_DIM, 0)"""

ADD_ROWS = """
        {0} += gl.load(before_{0}_ptr + place, mask=here, other=0.0)"""

PUT_ROWS = """
        gl.store({0}_ptr + place, {0}.to({0}_ptr.dtype.element_ty), mask=here)"""
