"""The fixed text of what the kernels for Hopper GPUs share: rings of tiles, masks, the softmax."""

from __future__ import annotations

SHARED = '''
@gluon.jit
def next_slot(slot, phase, STAGES: gl.constexpr):
    """The ring's next slot; the phase turns where the ring begins again."""
    slot += 1
    phase = gl.where(slot == STAGES, phase ^ 1, phase)
    slot = gl.where(slot == STAGES, 0, slot)
    return slot, phase


@gluon.jit
def bring(desc, place, ready, free, smem, slot, phase, BYTES: gl.constexpr):
    """One tile from memory into a slot of a ring, once its readers have left it."""
    mbarrier.wait(free.index(slot), phase)
    mbarrier.expect(ready.index(slot), BYTES)
    copy_in(desc, place, ready.index(slot), smem.index(slot))


@gluon.jit
def tell(smem, slot, value):
    """One warp: leave a number for the consumers."""
    smem.index(slot).store(gl.full([1], 0, gl.int32, gl.BlockedLayout([1], [32], [1], [0])) + value)


@gluon.jit
def told(smem, slot):
    """A warpgroup: the number that was left."""
    return gl.max(smem.index(slot).load(gl.BlockedLayout([1], [32], [4], [0])), 0)


@gluon.jit
def packed(b_p, BLOCK_N: gl.constexpr, dtype: gl.constexpr):
    """Weights [64, BLOCK_N] as int32 [64, BLOCK_N / 2], two 16-bit numbers each.

    As 16-bit numbers, ptxas would serialise the products that read them.
    """
    low, high = gl.split(gl.reshape(b_p, [64, BLOCK_N // 2, 2]))
    if dtype == gl.bfloat16:
        return gl.inline_asm_elementwise(
            "cvt.rn.bf16x2.f32 $$0, $$2, $$1;", "=r,r,r", [low, high], dtype=gl.int32, is_pure=True, pack=1
        )
    else:
        return gl.inline_asm_elementwise(
            "cvt.rn.f16x2.f32 $$0, $$2, $$1;", "=r,r,r", [low, high], dtype=gl.int32, is_pure=True, pack=1
        )


@gluon.jit
def unpacked(pairs, BLOCK_N: gl.constexpr, dtype: gl.constexpr, LAYOUT: gl.constexpr):
    """The weights again, as the left operand of a product."""
    low = pairs.to(gl.int16).to(dtype, bitcast=True)
    high = (pairs >> 16).to(gl.int16).to(dtype, bitcast=True)
    return gl.convert_layout(gl.reshape(gl.join(low, high), [64, BLOCK_N]), LAYOUT)


@gluon.jit
def fresh(offsets):
    """The same offsets, made anew in each tile: held in registers through the loop they would crowd it."""
    return gl.inline_asm_elementwise("mov.b32 $$0, $$1;", "=r,r", [offsets], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def scores(b_q, b_k, BLOCK_N: gl.constexpr):
    """Begin the product of queries and keys; `warpgroup_mma_wait` gives it."""
    S_LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16])
    zeros = gl.zeros([64, BLOCK_N], gl.float32, S_LAYOUT)
    return warpgroup_mma(b_q, b_k.permute((1, 0)), zeros, use_acc=False, is_async=True)


@gluon.constexpr_function
def shrinking(count):
    """Assembly: the `count` numbers of O that a thread has, times theirs; skipped where all of a warp's are 1.

    A thread has two rows, two columns of the one and two of the other in turn: numbers 0 and 2 stand for both.
    """
    either = f"setp.neu.f32 p, $${2 * count}, 0f3F800000; setp.neu.or.f32 p, $${2 * count + 2}, 0f3F800000, p;"
    products = " ".join([f"mul.f32 $${k}, $${k}, $${2 * count + k};" for k in range(count)])
    return (
        f"{{ .reg .pred p, q; {either} vote.sync.any.pred q, p, 0xffffffff; @!q bra.uni done; {products} done: }}"
    )


@gluon.constexpr_function
def in_place(count, kind):
    """Operands of such assembly: what comes out, which is what went in, and as many more of a kind."""
    return ",".join(["=f"] * count + [str(k) for k in range(count)] + [kind] * count)


@gluon.jit
def shrunk(acc, shrink, D: gl.constexpr):
    """O [64, D], each row times its number."""
    LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    by_row = gl.expand_dims(gl.convert_layout(shrink, gl.SliceLayout(1, LAYOUT)), 1)
    COUNT: gl.constexpr = D // 2
    return gl.inline_asm_elementwise(
        shrinking(COUNT), in_place(COUNT, "f"), [acc, by_row], dtype=gl.float32, is_pure=False, pack=COUNT
    )


@gluon.jit
def last_values(
    acc, weights, shrink, b_v, FIRST: gl.constexpr, COLUMNS: gl.constexpr, D: gl.constexpr, dtype: gl.constexpr
):
    """Begin the product of the last tile's weights and values."""
    P_LAYOUT: gl.constexpr = gl.DotOperandLayout(0, gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16]), 2)
    acc = shrunk(acc, shrink, D)
    b_p = unpacked(packed(weights, COLUMNS, dtype), COLUMNS, dtype, P_LAYOUT)
    return warpgroup_mma(b_p, b_v.slice(FIRST, COLUMNS, 0), acc, is_async=True)


@gluon.jit
def log2(numbers):
    """Their logarithms to base 2, as exact as the powers of two of the softmax."""
    return gl.inline_asm_elementwise(
        "lg2.approx.f32 $$0, $$1;", "=f,f", [numbers], dtype=gl.float32, is_pure=True, pack=1
    )


@gluon.constexpr_function
def cutting(count, holds, filling):
    """Assembly: of the `count` numbers that a thread has, those whose column does not hold become 0 or -inf.

    A thread has columns 2 * (lane % 4) and the next of each eight, of the one row and of the other in turn: numbers 0
    and 2 of what is compared stand for both. With an immediate number for each column nothing is held in registers.
    """
    fill = {"0": "0f00000000", "-inf": "0fFF800000"}[filling]
    own = "mov.u32 t, %laneid; and.b32 t, t, 3; shl.b32 t, t, 1;"
    rows = f"sub.s32 a, $${2 * count}, t; sub.s32 b, $${2 * count + 2}, t;"
    each = " ".join(
        [
            f"setp.{holds}.s32 p, {'ab'[k // 2 % 2]}, {k // 4 * 8 + k % 2}; selp.f32 $${k}, $${k}, {fill}, p;"
            for k in range(count)
        ]
    )
    return f"{{ .reg .pred p; .reg .b32 t, a, b; {own} {rows} {each} }}"


@gluon.jit
def cut(numbers, bound, HOLDS: gl.constexpr, FILLING: gl.constexpr, COLUMNS: gl.constexpr):
    """Numbers [64, COLUMNS], filled where a row's own column does not hold."""
    COUNT: gl.constexpr = COLUMNS // 2
    return gl.inline_asm_elementwise(
        cutting(COUNT, HOLDS, FILLING),
        in_place(COUNT, "r"),
        [numbers, gl.expand_dims(bound, 1)],
        dtype=gl.float32,
        is_pure=True,
        pack=COUNT,
    )


@gluon.jit
def until(numbers, end, FILLING: gl.constexpr, COLUMNS: gl.constexpr):
    """Numbers [64, COLUMNS], filled from each row's own column on."""
    return cut(numbers, end, "gt", FILLING, COLUMNS)


@gluon.jit
def since(numbers, first, FILLING: gl.constexpr, COLUMNS: gl.constexpr):
    """Numbers [64, COLUMNS], filled before each row's own column."""
    return cut(numbers, first, "le", FILLING, COLUMNS)


@gluon.jit
def softmaxed(b_s, row_max, row_sum, scale, COLUMNS: gl.constexpr, BLOCK_N: gl.constexpr):
    """One tile of the running softmax in base 2: its weights, the new maximum and sum, what shrinks the rest.

    The maximum follows the scores only where they pass it by more than 8: weights of up to 256 do no harm, since the
    sum has them too, and most tiles leave the rest as it is.
    """
    ROWS: gl.constexpr = gl.SliceLayout(1, gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_N, 16]))
    S_ROWS: gl.constexpr = gl.SliceLayout(1, gl.NVMMADistributedLayout([3, 0], [4, 1], [16, COLUMNS, 16]))
    highest = gl.convert_layout(gl.max(b_s, 1), ROWS) * scale
    new_max = gl.where(highest > row_max + 8.0, highest, row_max)
    b_p = gl.exp2(b_s * scale - gl.expand_dims(gl.convert_layout(new_max, S_ROWS), 1))
    shrink = gl.exp2(row_max - new_max)
    row_sum = row_sum * shrink + gl.convert_layout(gl.sum(b_p, 1), ROWS)
    return b_p, new_max, row_sum, shrink
'''
