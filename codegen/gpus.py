"""What was measured of a GPU, as data: its ceilings, and what our kernels and dense attention take on it.

Where the numbers come from, and how far they can be trusted, is told in docs/explain.md; tests derive them again from
the recorded runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsedsl.errors import UnknownName, nearest, one_of, shown

# Padded head dim, query rows and keys of a tile.
Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class KernelCost:
    """What a kernel takes with the whole GPU busy: nanoseconds a visited tile, and a tile that it owns."""

    visited: float
    own: float


@dataclass(frozen=True, slots=True)
class DenseRate:
    """Useful TFLOP/s of dense causal attention through cuDNN at one length: 16 heads, head dim 128, bfloat16."""

    tokens: int
    forward: float
    backward: float


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    `multiprocessors` is as its maker states it, all else was measured:
    `matrix` gives TFLOP/s of a matrix product by type, `copy` TB/s, bytes read and written; `forward` the cost of the
    plain forward kernel, `backward` that of both backward kernels together, `hopper` and `hopper_backward` those of the
    kernels for Hopper, 16-bit types, by (padded head dim, query rows and keys of a tile); `call` milliseconds that a
    call of one part takes the host, forward and backward, with the plain kernels.
    """

    name: str
    multiprocessors: int
    matrix: tuple[tuple[str, float], ...]
    copy: float
    forward: tuple[tuple[Shape, KernelCost], ...]
    backward: tuple[tuple[Shape, KernelCost], ...]
    call: tuple[float, float]
    dense: tuple[DenseRate, ...]
    hopper: tuple[tuple[Shape, KernelCost], ...] = ()
    hopper_backward: tuple[tuple[Shape, KernelCost], ...] = ()


# In benchmarks/results/: ceilings_h200.json; attention_h200.json, 2026-11-29.
H200 = Gpu(
    name="h200",
    multiprocessors=132,
    matrix=(("bf16", 697.0), ("fp16", 657.1), ("fp32", 50.8)),
    copy=4.295,
    forward=(
        ((64, 64, 64), KernelCost(2.352, 12.12)),
        ((64, 128, 64), KernelCost(5.179, 26.14)),
        ((128, 64, 64), KernelCost(4.581, 14.22)),
        ((128, 128, 64), KernelCost(9.286, 0.0)),
        ((256, 128, 64), KernelCost(14.02, 67.12)),
    ),
    backward=(
        ((64, 64, 64), KernelCost(7.095, 28.87)),
        ((128, 64, 64), KernelCost(13.04, 45.62)),
        ((256, 64, 64), KernelCost(45.03, 126.3)),
    ),
    call=(0.284, 0.601),
    dense=(DenseRate(32768, 585.55, 535.15), DenseRate(131072, 563.9, 527.61)),
    hopper=(((128, 128, 128), KernelCost(12.15, 8.716)),),
    hopper_backward=(((128, 64, 128), KernelCost(17.51, 104.7)),),
)

GPUS = (H200,)


def gpu_named(name: object) -> Gpu:
    """The measured GPU of this name.

    Raises
        UnknownName: none of this name was measured.
    """
    for gpu in GPUS:
        if gpu.name == name:
            return gpu
    known = [gpu.name for gpu in GPUS]
    closest = nearest(name.lower(), known) if isinstance(name, str) else ""
    raise UnknownName(
        "no GPU of this name was measured",
        where=f"explain(..., gpu={shown(name)})",
        got=shown(name),
        expected=one_of(known),
        hint=f"gpu={closest or known[0]!r}",
    )
