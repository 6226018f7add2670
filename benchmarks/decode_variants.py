"""Other ways to launch our kernel over caches: key splits, tile width, warps, pipeline stages.

python -m benchmarks.decode_variants        # what each takes, compiled for sm_90; needs no GPU
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache
from types import ModuleType
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget

import sparsedsl as sd
from benchmarks.decode_peers import CUDA, PATTERNS, Caches, Call, Settings
from sparsedsl.codegen.ahead import launches_compile
from sparsedsl.codegen.build import load
from sparsedsl.codegen.sass import machine_code
from sparsedsl.codegen.tiling import TILINGS


@dataclass(frozen=True, slots=True)
class Variant:
    """Splits of each position's keys, warps and stages of a program, keys of a tile; 0: as the module has it."""

    splits: int = 0
    warps: int = 0
    stages: int = 0
    block_n: int = 128

    def __str__(self) -> str:
        if self == Variant():
            return "as built"
        return f"{self.splits} splits, tiles of {self.block_n}, {self.warps} warps, {self.stages} stages"


# A program keeps (stages - 1) tiles of 512 bytes a key; a multiprocessor has 227 KB, and registers for four or five
# programs of four warps. With 128 programs to split: first those that all fit at once, then a few that do not.
VARIANTS = (
    Variant(),
    Variant(1, 8, 2),
    Variant(2, 8, 2),
    Variant(2, 8, 3),
    Variant(1, 4, 3),
    Variant(1, 16, 3),
    Variant(1, 8, 5, 64),
    Variant(2, 4, 3, 64),
    Variant(2, 4, 4, 64),
    Variant(4, 4, 2, 64),
)


@cache
def module_of(name: str, block_n: int) -> ModuleType:
    """The emitted module of a pattern, for 16-bit types and head dims up to 128, in tiles of so many keys."""
    tiling = TILINGS[0]
    if block_n != 2 * tiling.forward.block_n:
        tiling = replace(tiling, forward=replace(tiling.forward, block_n=block_n // 2), tall=None)
    return load(sd.compile(PATTERNS[name], tiles=tiling).source(tiling.name))


@contextmanager
def launched_as(module: ModuleType, variant: Variant) -> Iterator[None]:
    """Launches of the module inside are those of the variant."""
    before = module.DECODE_PARTS

    class Fixed(module.DecodePart):  # type: ignore[misc, name-defined]
        def splits(self, programs: int, capacity: int, many: bool, device: torch.device) -> int:
            return variant.splits

    def changed(part: Any) -> Any:
        own = {field.name: getattr(part, field.name) for field in fields(part)}
        return Fixed(**own | {"few_warps": variant.warps, "few_stages": variant.stages})

    try:
        if variant.splits:
            module.DECODE_PARTS = tuple(changed(part) for part in before)  # type: ignore[attr-defined]
        yield
    finally:
        module.DECODE_PARTS = before  # type: ignore[attr-defined]


def call_of(name: str, variant: Variant, caches: Caches) -> Call:
    """Our kernel over the contiguous caches, launched as the variant says."""
    module = module_of(name, variant.block_n)

    def attend(own: slice) -> Tensor:
        q, scale = caches.q[own], caches.q.shape[3] ** -0.5
        with launched_as(module, variant):
            out: Tensor = module.launch_cached(
                q, caches.k[own], caches.v[own], caches.lengths[: len(q)], None, scale, 0
            )[0]
        return out

    return attend


def small(settings: Settings) -> Caches:
    """Caches on the CPU for launches that only compile: sizes are no part of a kernel."""
    return Caches.random(replace(settings, device="cpu", tokens=4096, sequences=1))


def compile_ahead(settings: Settings, share: int, shares: int) -> None:
    """Compile one share of all variants, and of the kernels over pages, for compute capability 9.0; no GPU is asked."""
    caches = small(settings)
    jobs: list[tuple[str, Variant | None]] = [(name, each) for each in (None, *VARIANTS) for name in PATTERNS]
    with launches_compile(GPUTarget("cuda", 90, 32)):
        for name, variant in jobs[share::shares]:
            if variant is not None:
                call_of(name, variant, caches)(slice(0, 1))
                continue
            pages = (caches.k_pages, caches.v_pages, caches.lengths, caches.page_table)
            module_of(name, 128).launch_cached(caches.q, *pages, settings.head_dim**-0.5, 0)


def main() -> None:
    """A line for each pattern and variant."""
    caches = small(CUDA)
    print(f"Triton {triton.__version__}, sm_90, head dim {CUDA.head_dim}, bfloat16: nothing here was run or timed.")
    for name in PATTERNS:
        for variant in VARIANTS:
            with launches_compile(GPUTarget("cuda", 90, 32)) as kernels:
                call_of(name, variant, caches)(slice(0, 1))
            kernel = kernels[0]
            code, shared = machine_code(kernel.asm["cubin"]), kernel.metadata.shared
            copies = len(re.findall(r"cp\.async\.cg", kernel.asm["ptx"]))
            print(
                f"{name}, {variant}: {code.registers} registers, {code.spills} accesses to spilled ones, "
                f"{shared} bytes of shared memory, {copies} asynchronous copies of 16 bytes"
            )


if __name__ == "__main__":
    main()
