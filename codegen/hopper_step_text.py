"""The fixed text of a step of the backward kernel for Hopper, in its two orders of products.

A step works one query tile of a key tile: scores, dP, dv and dS of the tile, and dk and dq of the tile before, whose dS
it still holds. Where `hopper_choice.scores_ahead` says so, the scores of the next tile begin within the step already.
"""

from __future__ import annotations

from dataclasses import dataclass

START = '''

@gluon.jit
def hopper_gradient_step${p}(
    dk, dv, pairs, keys_slot, k_smem, v_smem, q_smem, do_smem, rows_smem, ds_smem, row_smem, place_smem, q_ready,
    ${q_free}do_ready, ${do_free}ds_ready, ds_free, slot, phase, step, dq_ptr, ${carried}, old_row, j,
    scale${constants},
    OLD: gl.constexpr, ${next}W: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr,
    D: gl.constexpr, STAGES: gl.constexpr, DTYPE: gl.constexpr,
):
    """${what}

    Scores stand transposed, 64 keys down, queries across. dS also goes to shared memory: each warpgroup multiplies
    that of all keys with half the columns of K. ${when}
    """
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_M, 16])
    O_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    P_LAYOUT: gl.constexpr = gl.DotOperandLayout(0, O_LAYOUT, 2)
    # Always 0, which the compiler can't know: hoisted, all addresses in K and V would crowd the registers.
    never = step >> 30
    b_k = k_smem.index(keys_slot + never).reshape([BLOCK_N, D])
    b_v = v_smem.index(never).reshape([BLOCK_N, D]).slice(W * 64, 64, 0)
    # dO and dS have two slots each.
    turn = step & 1
    turn_phase = (step >> 1) & 1
    old_slot = gl.where(slot == 0, STAGES, slot) - 1
    b_do = do_smem.index(turn).reshape([BLOCK_M, D])
    rows = rows_smem.index(slot).reshape([2, BLOCK_M])
    zeros = gl.zeros([64, BLOCK_M], gl.float32, S_LAYOUT)
'''

# What a key tile begins with, and what it ends with before the orders part.
COLUMN = """\
            pairs = packed(gl.zeros([64, BLOCK_M], gl.float32, S_LAYOUT), BLOCK_M, DTYPE)
"""

LAST_DK = """\
            # V is read no more; dk and dq of the last query tile.
${told_share}            mbarrier.arrive(v_free, count=1)
            old_slot = gl.where(slot == 0, STAGES, slot) - 1
            b_k = k_smem.index(next_phase).reshape([BLOCK_N, D])
            b_old = q_smem.index(old_slot).reshape([BLOCK_M, D])
            dk = warpgroup_mma(unpacked(pairs, BLOCK_M, DTYPE, P_LAYOUT), b_old, dk, is_async=True)
"""

LAST_DQ = """\
            b_dq = begun_dq(b_k, ds_smem, ds_ready, step - 1, W, BLOCK_M, D // 2)
            dk = warpgroup_mma_wait(2, deps=[dk])
"""

# --- own scores: a step begins with the scores of its tile

OWN_STEP = (
    START
    + """\
    LEFT: gl.constexpr = 2 if OLD else 1
    mbarrier.wait(q_ready.index(slot), phase)
    row = told(row_smem, slot)
${place}    b_q = q_smem.index(slot).reshape([BLOCK_M, D])
    b_s = warpgroup_mma(b_k.slice(W * 64, 64, 0), b_q.permute((1, 0)), zeros, use_acc=False, is_async=True)
    if OLD:
        b_old = q_smem.index(old_slot).reshape([BLOCK_M, D])
        dk = warpgroup_mma(unpacked(pairs, BLOCK_M, DTYPE, P_LAYOUT), b_old, dk, is_async=True)
        if dq_row >= 0:
            add_block(dq_ptr, dq_row, W, b_dq, D // 2)
    # dP begins at what its rows take off: loaded into the product's registers while dO is waited for.
    b_dp = gl.broadcast(rows.slice(1, 1, 0).load(S_LAYOUT), zeros)[0]
    mbarrier.wait(do_ready.index(turn), turn_phase)
    b_dp = warpgroup_mma(b_v, b_do.permute((1, 0)), b_dp, is_async=True)
    b_lse = rows.slice(0, 1, 0).load(S_LAYOUT)
    b_s = warpgroup_mma_wait(LEFT, deps=[b_s])
    b_p = gl.exp2(b_s * scale - b_lse)
${step_mask}    if OLD:
        dk = warpgroup_mma_wait(1, deps=[dk])
        mbarrier.arrive(q_free.index(old_slot), count=1)
    b_dp = warpgroup_mma_wait(0, deps=[b_dp])
    dv = warpgroup_mma(gl.convert_layout(b_p.to(DTYPE), P_LAYOUT), b_do, dv, is_async=True)
    b_ds = b_p * b_dp
    mbarrier.wait(ds_free.index(turn), turn_phase ^ 1)
${last_copied}    ds_smem.index(2 * W + turn).store(b_ds.to(DTYPE))
    fence_async_shared()
    mbarrier.arrive(ds_ready.index(turn), count=1)
    if OLD:
        b_dq = begun_dq(b_k, ds_smem, ds_ready, step - 1, W, BLOCK_M, D // 2)
        dv = warpgroup_mma_wait(2, deps=[dv])
        mbarrier.arrive(do_free.index(turn), count=1)
        b_dq = warpgroup_mma_wait(0, deps=[b_dq])
        mbarrier.arrive(ds_free.index(turn ^ 1), count=1)
        dq_row = old_row
    else:
        dv = warpgroup_mma_wait(0, deps=[dv])
        mbarrier.arrive(do_free.index(turn), count=1)
    return dk, dv, packed(b_ds, BLOCK_M, DTYPE), row, b_dq, dq_row
"""
)

OWN_COLUMN = (
    COLUMN
    + """\
            b_dq = gl.zeros([BLOCK_M, D // 2], gl.float32, DQ_LAYOUT)
            dq_row = work - works  # negative: there is none yet
${first}
            for _ in range(1, many):
${next}
"""
    + LAST_DK
    + """\
            if dq_row >= 0:
                add_block(dq_blocks_ptr, dq_row, W, b_dq, D // 2)
"""
    + LAST_DQ
    + """\
            mbarrier.arrive(q_free.index(old_slot), count=1)
            b_dq = warpgroup_mma_wait(0, deps=[b_dq])
            mbarrier.arrive(ds_free.index((step - 1) & 1), count=1)
            add_block(dq_blocks_ptr, row, W, b_dq, D // 2)
"""
)

# --- scores ahead: a step has the scores of its tile, and begins those of the next before dq is waited for

AHEAD_STEP = (
    START
    + """\
    # As `next_slot` has it, in a register less.
    new_slot = gl.where(slot == STAGES - 1, 0, slot + 1)
    new_phase = gl.where(slot == STAGES - 1, phase ^ 1, phase)
    mbarrier.wait(do_ready.index(turn), turn_phase)
    if OLD:
        b_old = q_smem.index(old_slot).reshape([BLOCK_M, D])
        dk = warpgroup_mma(unpacked(pairs, BLOCK_M, DTYPE, P_LAYOUT), b_old, dk, is_async=True)
    b_dp = warpgroup_mma(b_v, b_do.permute((1, 0)), zeros, use_acc=False, is_async=True)
    b_lse = rows.slice(0, 1, 0).load(S_LAYOUT)
    b_p = gl.exp2(b_s * scale - b_lse)
${step_mask}    if OLD:
        dk = warpgroup_mma_wait(1, deps=[dk])
    dv = warpgroup_mma(gl.convert_layout(b_p.to(DTYPE), P_LAYOUT), b_do, dv, is_async=True)
    b_dp = warpgroup_mma_wait(1, deps=[b_dp])
    b_ds = b_p * (b_dp + rows.slice(1, 1, 0).load(S_LAYOUT))
    # dS of the tile two before: the step before this one arrived once its product was there.
    mbarrier.wait(ds_free.index(turn ^ 1), ((step - 1) >> 1) & 1)
${last_copied}    ds_smem.index(2 * W + turn).store(b_ds.to(DTYPE))
    fence_async_shared()
    mbarrier.arrive(ds_ready.index(turn), count=1)
    if OLD:
        b_dq = begun_dq(b_k, ds_smem, ds_ready, step - 1, W, BLOCK_M, D // 2)
        dv = warpgroup_mma_wait(2, deps=[dv])
    new_row = row
    new_place = place
    if NEXT:
        mbarrier.wait(q_ready.index(new_slot), new_phase)
        new_row = told(row_smem, new_slot)
        new_place = told(place_smem, new_slot)
        b_q = q_smem.index(new_slot).reshape([BLOCK_M, D])
        b_s = warpgroup_mma(b_k.slice(W * 64, 64, 0), b_q.permute((1, 0)), zeros, use_acc=False, is_async=True)
    if OLD:
        b_dq = warpgroup_mma_wait(1 if NEXT else 0, deps=[b_dq])
    else:
        dv = warpgroup_mma_wait(1 if NEXT else 0, deps=[dv])
    # Gives back Q and dS of the tile before, of which no product is left, and dO of this one.
    mbarrier.arrive(ds_free.index(turn), count=1)
    if OLD:
        add_block(dq_ptr, old_row, W, b_dq, D // 2)
    if NEXT:
        b_s = warpgroup_mma_wait(0, deps=[b_s])
    return dk, dv, packed(b_ds, BLOCK_M, DTYPE), row, b_s, new_row, new_place
"""
)

AHEAD_COLUMN = (
    COLUMN
    + """\
            mbarrier.wait(q_ready.index(slot), phase)
            row = told(row_smem, slot)
            place = told(place_smem, slot)
            b_k = k_smem.index(next_phase).reshape([BLOCK_N, D]).slice(W * 64, 64, 0)
            b_q = q_smem.index(slot).reshape([BLOCK_M, D])
            zeros = gl.zeros([64, BLOCK_M], gl.float32, S_LAYOUT)
            b_s = warpgroup_mma(b_k, b_q.permute((1, 0)), zeros, use_acc=False, is_async=True)
            b_s = warpgroup_mma_wait(0, deps=[b_s])
            old_row = row
            if many == 1:
${only}
            else:
${first}
                for _ in range(2, many):
${next}
${last}
"""
    + LAST_DK
    + LAST_DQ
    + """\
            b_dq = warpgroup_mma_wait(0, deps=[b_dq])
            add_block(dq_blocks_ptr, old_row, W, b_dq, D // 2)
"""
)


@dataclass(frozen=True, slots=True)
class StepOrder:
    """An order of products: the texts of a step and of a key tile's steps, and what stands around them."""

    step: str
    column: str
    # What a step gives; the calls of a column: their place in it, spaces before them, what they carry on, OLD and NEXT.
    results: str
    calls: tuple[tuple[str, int, str, str], ...]
    # The barrier and phase that the loading warp waits for before it brings Q; the barriers before dO.
    freed: str
    do_freed: str
    holes: dict[str, str]


OWN_SCORES = StepOrder(
    OWN_STEP,
    OWN_COLUMN,
    "dk, dv, pairs, row, b_dq, dq_row",
    (("first", 12, "b_dq, dq_row, 0", "False"), ("next", 16, "b_dq, dq_row, row", "True")),
    "q_free.index(slot), phase",
    "do_free",
    {
        "carried": "b_dq, dq_row",
        "next": "",
        "what": "Scores, dP, dv and dS of one query tile; where OLD, dk and dq of the one before, whose dS is `pairs`.",
        "when": "What comes of it is added to memory in the next step, under products.",
        "q_free": "q_free, ",
        "do_free": "do_free, ",
        "freed": "q_free, do_free, ",
        "dq_layout": "    DQ_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D // 2, 16])\n",
        "allocate_free": """\
    q_free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    do_free = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
""",
        "init_q_free": "        mbarrier.init(q_free.index(stage), count=2)\n",
        "init_do_free": "        mbarrier.init(do_free.index(stage), count=2)\n",
    },
)
SCORES_AHEAD = StepOrder(
    AHEAD_STEP,
    AHEAD_COLUMN,
    "dk, dv, pairs, old_row, b_s, row, place",
    (
        ("only", 16, "b_s, row, place, old_row", "False, False"),
        ("first", 16, "b_s, row, place, old_row", "False, True"),
        ("next", 20, "b_s, row, place, old_row", "True, True"),
        ("last", 16, "b_s, row, place, old_row", "True, False"),
    ),
    "ds_free.index(turn), turn_phase",
    "ds_free",
    {
        "carried": "b_s, row, place",
        "next": "NEXT: gl.constexpr, ",
        "what": "dP, dv, dS of a query tile; where OLD, dk and dq of the one before; where NEXT, scores of the next.",
        "when": "What comes of it is added to memory under the next tile's scores.",
        "freed": "ds_free, ",
        **dict.fromkeys(("q_free", "do_free", "dq_layout", "allocate_free", "init_q_free", "init_do_free"), ""),
    },
)
