"""A kernel of two partitions that pass numbers as our kernels for Hopper do, and nothing else, below racecheck.

    compute-sanitizer --tool racecheck python -m benchmarks.racecheck_control

One warp leaves a number in shared memory, four read it; mbarriers say when it is there and when it was read. What
racecheck finds here, it also finds in every kernel for Hopper: the numbers themselves, for the reason that
racecheck_control.cu shows, and the first instructions of a partition, where Triton's own code reads which one it is.
benchmarks/results/racecheck_h200.txt has what it said.
"""

from __future__ import annotations

import sys

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

TURNS = 64


@gluon.jit  # type: ignore[untyped-decorator]
def teller(sum_ptr, number, ready, free, TURNS: gl.constexpr):  # type: ignore[no-untyped-def]
    """One warp: 0, 1, 2, ..."""
    phase = 1
    for turn in range(TURNS):
        mbarrier.wait(free.index(0), phase)
        number.index(0).store(gl.full([1], 0, gl.int32, gl.BlockedLayout([1], [32], [1], [0])) + turn)
        mbarrier.arrive(ready.index(0), count=1)
        phase ^= 1


@gluon.jit  # type: ignore[untyped-decorator]
def listener(sum_ptr, number, ready, free, TURNS: gl.constexpr):  # type: ignore[no-untyped-def]
    """Four warps: the sum of what was told."""
    phase = 0
    total = 0
    for _ in range(TURNS):
        mbarrier.wait(ready.index(0), phase)
        total += gl.max(number.index(0).load(gl.BlockedLayout([1], [32], [4], [0])), 0)
        mbarrier.arrive(free.index(0), count=1)
        phase ^= 1
    gl.store(sum_ptr, total)


@gluon.jit  # type: ignore[untyped-decorator]
def control_kernel(sum_ptr, TURNS: gl.constexpr):  # type: ignore[no-untyped-def]
    """Two partitions and one number."""
    number = gl.allocate_shared_memory(gl.int32, [1, 1], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    ready = gl.allocate_shared_memory(gl.int64, [1, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [1, 1], mbarrier.MBarrierLayout())
    mbarrier.init(ready.index(0), count=1)
    mbarrier.init(free.index(0), count=1)
    gl.warp_specialize(
        [(listener, (sum_ptr, number, ready, free, TURNS)), (teller, (sum_ptr, number, ready, free, TURNS))], [1], [24]
    )


def main() -> int:
    """Run it; the exit status is 1 where the sum is wrong."""
    if not torch.cuda.is_available():
        print("There is no CUDA device.", file=sys.stderr)
        return 2
    total = torch.zeros(1, dtype=torch.int32, device="cuda")
    control_kernel[(4,)](total, TURNS, num_warps=4)
    found, right = int(total), TURNS * (TURNS - 1) // 2
    print(f"sum {found}, {right} is right")
    return 0 if found == right else 1


if __name__ == "__main__":
    sys.exit(main())
