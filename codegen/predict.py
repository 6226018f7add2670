"""Times from what was measured of a GPU: floors of any kernel, and what ours should take."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

from sparsedsl.codegen.explanation import Kernel
from sparsedsl.codegen.gpus import Gpu
from sparsedsl.codegen.work import Inputs, useful_flops

# The shape that dense attention was measured at.
DENSE_HEAD_DIM, DENSE_BYTES = 128, 2


def matrix_ms(gpu: Gpu, dtype: str, flops: int) -> float | None:
    """These FLOPs at the rate of a large matrix product."""
    rate = dict(gpu.matrix).get(dtype)
    return None if rate is None else flops / rate / 1e9


def memory_ms(gpu: Gpu, moved: int) -> float:
    """These bytes at the rate of a large copy."""
    return moved / gpu.copy / 1e9


def predicted_ms(
    gpu: Gpu, direction: str, kernels: Sequence[Kernel], parts: int, merged: int, inputs: Inputs
) -> float | None:
    """What our kernels should take: so long a visited tile, so long an own one, and merging at the rate of a copy.

    The direction is forward or backward, or hopper or hopper_backward: the same by the kernels for Hopper, which the
    host is taken to launch as fast. Never less than the host needs for its launches. None where no kernel of this
    shape was measured.
    """
    # Both plain backward kernels visit the same tiles; they were measured together.
    costs = {
        "forward": gpu.forward,
        "backward": gpu.backward,
        "hopper": gpu.hopper,
        "hopper_backward": gpu.hopper_backward,
    }[direction]
    known = dict(costs)
    total = memory_ms(gpu, merged)
    for kernel in kernels:
        if kernel.name == "dkdv":
            continue
        cost = known.get((inputs.width, kernel.block_m, kernel.block_n))
        if cost is None or inputs.element != 2:
            return None
        total += ((kernel.full + kernel.partial) * cost.visited + kernel.own * cost.own) / 1e6
    return max(total, launch_ms(gpu, "backward" if direction in ("backward", "hopper_backward") else "forward", parts))


def launch_ms(gpu: Gpu, direction: str, parts: int) -> float:
    """What the host takes for a call, however short the sequence."""
    return parts * gpu.call[direction == "backward"]


def dense_ms(gpu: Gpu, direction: str, pairs: int, inputs: Inputs) -> float | None:
    """Dense causal attention at the rate measured at the nearest length; None for shapes that were not measured."""
    if (inputs.head_dim, inputs.element) != (DENSE_HEAD_DIM, DENSE_BYTES):
        return None
    near = min(gpu.dense, key=lambda each: abs(log(each.tokens / inputs.seq_len)))
    rate = near.forward if direction == "forward" else near.backward
    return useful_flops(direction, pairs, inputs) / rate / 1e9
