"""Compile the kernels of an emitted module for a GPU that need not be there, by way of the module's own launches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from sparsedsl.codegen.ahead_calls import LAUNCHES, Calls, Sample
from sparsedsl.codegen.build import imported

# Enough queries and keys for every kernel of a module to have a tile, in every residue class too.
LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Ahead:
    """Kernels to compile ahead: for a compute capability (90 for sm_90), a type and a head dimension.

    `calls` are those whose kernels are wanted, `page_sizes` those of the caches among them that come in pages.
    """

    arch: int
    dtype: torch.dtype
    head_dim: int
    calls: tuple[Calls, ...] = ("ordinary",)
    page_sizes: tuple[int, ...] = ()


def compile_into(folder: Path, wanted: Ahead, file: Path) -> None:
    """Compile the kernels of the emitted module in `file` into the folder, which has the form of Triton's cache.

    Raises
        What Triton raises where a kernel can't be compiled.
    """
    module = imported(f"sparsedsl_ahead_{file.stem}", file)
    folder.mkdir(exist_ok=True)
    with cached_in(folder):
        compiled_ahead(
            module,
            wanted.arch,
            dtype=wanted.dtype,
            head_dim=wanted.head_dim,
            calls=wanted.calls,
            page_sizes=wanted.page_sizes,
        )


def compiled_ahead(
    module: ModuleType,
    arch: int,
    *,
    dtype: torch.dtype,
    head_dim: int,
    calls: Sequence[Calls] = ("ordinary",),
    page_sizes: Sequence[int] = (),
) -> list[Any]:
    """The kernels that these calls launch on a GPU of compute capability `arch` (90 for sm_90).

    On 90 those for Hopper come with the plain ones, which packed documents need there too. Machine code that speaks
    against one is a RuntimeWarning, and will be where it should run.

    They are Triton's own CompiledKernel objects, with metadata and machine code. Triton keeps them in its cache, where
    a run on such a GPU finds them: nothing of a key depends on the GPU but its architecture.

    Cost
        Triton's compile time: seconds a kernel.
    Raises
        What Triton raises where a kernel can't be compiled.
    """
    q, k, v = (torch.zeros(1, heads, LENGTH, head_dim, dtype=dtype) for heads in (module.HEADS or 2, 1, 1))
    with launches_compile(GPUTarget("cuda", arch, 32)) as kernels:
        for call in calls:
            for shares in (1, 2) if call == "ordinary" and hasattr(module, "column_shares") else (1,):
                with replaced(module, "column_shares", partial(_always, shares)):
                    LAUNCHES[call](module, Sample(q, k, v, page_sizes))
                    if call == "ordinary" and arch == 90:
                        with replaced(module, "is_hopper", partial(_always, True)):
                            LAUNCHES[call](module, Sample(q, k, v, page_sizes))
    return kernels


def _always(answer: object, *given: object) -> object:
    return answer


@contextmanager
def replaced(module: ModuleType, name: str, function: Callable[..., object]) -> Iterator[None]:
    """The module calls another function by this name, if it has one: `is_hopper`, `column_shares`."""
    usual = getattr(module, name, None)
    if usual is None:
        yield
        return
    vars(module)[name] = function
    try:
        yield
    finally:
        vars(module)[name] = usual


@contextmanager
def launches_compile(target: GPUTarget) -> Iterator[list[Any]]:
    """A launch inside compiles for the target and runs nothing; gives the list of the kernels, as they come."""
    kernels: list[Any] = []
    before, launch = driver._active, JITFunction.run  # `driver.active` would look for a GPU

    def only_compile(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = launch(self, *args, grid=grid, warmup=True, **options)
        if kernel not in kernels:
            kernels.append(kernel)
        return kernel

    driver.set_active(_Absent(target))
    JITFunction.run = only_compile
    try:
        yield kernels
    finally:
        JITFunction.run = launch
        driver._active = before


class _Absent:
    """What Triton asks a driver while it compiles."""

    def __init__(self, target: GPUTarget) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> str:
        # Triton keeps compiled kernels by device: a name that no device has, one for each target.
        return f"{self.target.backend} {self.target.arch}"

    def get_current_stream(self, device: object) -> int:
        return 0


@contextmanager
def cached_in(folder: Path) -> Iterator[None]:
    """Triton's cache is the folder, and keeps what a run needs: for each kernel, its machine code and its metadata.

    Nothing in it names a folder of this machine: it can be moved, and is the same each time.
    """
    propagate, knobs.propagate_env = knobs.propagate_env, False
    try:
        with knobs.cache.scope(), knobs.compilation.scope():
            knobs.cache.dir = str(folder)
            knobs.compilation.store_binary_only = True
            # Lines name files. Not by the environment, which would be part of the key.
            knobs.compilation.disable_line_info = True
            yield
    finally:
        knobs.propagate_env = propagate
    for group in sorted(folder.glob("*/__grp__*.json")):
        names = sorted(json.loads(group.read_text("utf-8"))["child_paths"])
        kept = [name for name in names if name.endswith((".cubin", ".json"))]
        for name in set(names) - {*kept}:
            (group.parent / name).unlink()
        (described,) = (group.parent / name for name in kept if name.endswith(".json"))
        metadata = json.loads(described.read_text("utf-8")) | {"extern_libs": []}
        described.write_text(json.dumps(metadata), "utf-8")
        group.write_text(json.dumps({"child_paths": {name: name for name in kept}}), "utf-8")
