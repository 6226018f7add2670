"""Compile the kernels of the hopper backend for compute capability 9.0, with no GPU, and look at their machine code.

    python -m tests.codegen.hopper_compiled "sliding(1024)" "power()"      # one JSON object a kernel

A program of its own: where Triton was imported for its interpreter it compiles nothing.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from types import ModuleType
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource

import sparsedsl as sd
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.hopper_choice import gradients_run
from sparsedsl.codegen.sass import MachineCode, machine_code
from sparsedsl.codegen.tiling import TILINGS
from tests.codegen.modules import imported

TARGET = GPUTarget("cuda", 90, 32)
TYPES = {"bf16": gl.bfloat16, "fp16": gl.float16}


def tensor(kernel: Any, width: int, dtype: str, rows: int, *, halves: bool = False) -> str:
    """The type of a descriptor of one head's tiles of so many rows; of one class's where the kernel walks classes."""
    block = [1, 1, *([1] if "classes" in kernel.arg_names else []), rows, width]
    layout = gl.NVMMASharedLayout.get_default_for(block, TYPES[dtype])
    if halves:  # `hopper_keys_in_halves` of an emitted module
        layout = gl.NVMMASharedLayout(swizzle_byte_width=width, element_bitwidth=16, rank=len(block))
    return f"tensordesc<{dtype}[{','.join(map(str, block))}],{layout!r}>"


def cubin_of(kernel: Any, types: dict[str, str], chosen: dict[str, int]) -> bytes:
    """The machine code of a kernel for arguments of these types and these constants; the other arguments are int32."""
    names = kernel.arg_names
    types = types | dict.fromkeys(chosen, "constexpr")
    source = GluonASTSource(
        kernel,
        {name: types.get(name, "i32") for name in names},
        {(names.index(name),): value for name, value in chosen.items()},
        {},
    )
    found = triton.compile(source, target=TARGET, options={"num_warps": 4, "maxnreg": 168})
    cubin: bytes = found.asm["cubin"]
    return cubin


def compiled(
    module: ModuleType, suffix: str, last: bool, head_dim: int, dtype: str, *, whole_tiles: bool = True
) -> bytes:
    """The cubin of one part's kernel; all but the last part write float32.

    `whole_tiles`: the form for queries that do not begin inside a tile.
    """
    kernel = getattr(module, f"hopper_kernel{suffix}")
    width = triton.next_power_of_2(head_dim)
    (block_n,) = {int(value) for value in _constants_of(kernel.src, "BLOCK_N")}
    descriptor = partial(tensor, kernel, width, dtype)

    chosen = {
        "HEAD_DIM": head_dim,
        "D": width,
        "STAGES": module.hopper_stages(block_n, width),
        "DYNAMIC": "DYNAMIC=True" in _launch_of(module, suffix),
        "O_BY_TMA": last and width <= 128 and whole_tiles,
    }
    types = {
        **dict.fromkeys(("q_desc", "o_desc"), descriptor(64)),
        **dict.fromkeys(("k_desc", "v_desc"), descriptor(block_n)),
        "constants": "*i32",
        "counter": "*i32",
        "o_ptr": f"*{dtype}" if last else "*fp32",
        "before_ptr": "*fp32",
        "lse_ptr": "*fp32",
        "scale": "fp32",
    }
    return cubin_of(kernel, types, chosen)


def compiled_backward(
    module: ModuleType, suffix: str, single: bool, head_dim: int, dtype: str, *, split: bool = False
) -> bytes:
    """The cubin of one part's backward kernel; where there is more than one part, results are float32.

    `split`: the form that works long columns in shares.
    """
    kernel = getattr(module, f"hopper_gradients_kernel{suffix}")
    width = triton.next_power_of_2(head_dim)
    descriptor = partial(tensor, kernel, width, dtype)

    plain = gl.NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=32, rank=3)
    chosen = {
        "HEAD_DIM": head_dim,
        "D": width,
        "STAGES": 3,
        "DYNAMIC": "DYNAMIC=True" in inspect.getsource(getattr(module, f"hopper_backward_part{suffix}")),
    }
    if "SPLIT" in kernel.arg_names:
        chosen["SPLIT"] = split
    result = f"*{dtype}" if single else "*fp32"
    types = {
        **dict.fromkeys(("q_desc", "do_desc", "dk_desc", "dv_desc"), descriptor(64)),
        "k_desc": tensor(kernel, width, dtype, 128, halves=True),
        "v_desc": descriptor(128),
        "rows_desc": f"tensordesc<fp32[1,2,64],{plain!r}>",
        "constants": "*i32",
        "counter": "*i32",
        **dict.fromkeys(("dk_ptr", "dv_ptr"), result),
        **dict.fromkeys(("before_dk_ptr", "before_dv_ptr", "dq_blocks_ptr"), "*fp32"),
        "scale": "fp32",
        "softmax_scale": "fp32",
    }
    return cubin_of(kernel, types, chosen)


def _constants_of(source: str, name: str) -> Iterator[str]:
    for line in source.splitlines():
        if line.strip().startswith(f"{name}: gl.constexpr = "):
            yield line.rpartition("=")[2]


def _launch_of(module: ModuleType, suffix: str) -> str:
    return inspect.getsource(getattr(module, f"hopper_part{suffix}"))


def kernels_of(pattern: str, head_dim: int = 128, dtype: str = "bf16") -> Iterator[tuple[str, MachineCode]]:
    """The kernels of a pattern, part by part."""
    tiling = TILINGS[0] if head_dim <= TILINGS[0].head_dim else TILINGS[1]
    parsed = sd.parse(pattern)
    assert not isinstance(parsed, sd.Stack)
    module = imported(emit(parsed, tiling, "hopper"))
    suffixes = [name.removeprefix("hopper_kernel") for name in vars(module) if name.startswith("hopper_kernel")]
    for suffix in suffixes:
        cubin = compiled(module, suffix, suffix == suffixes[-1], head_dim, dtype)
        yield f"hopper_kernel{suffix}", machine_code(cubin)
        if gradients_run(head_dim):
            for split in (False, True)[: 1 + hasattr(module, f"hopper_split_part{suffix}")]:
                cubin = compiled_backward(module, suffix, len(suffixes) == 1, head_dim, dtype, split=split)
                yield f"hopper_gradients_kernel{suffix}{' in shares' if split else ''}", machine_code(cubin)


def main(patterns: Sequence[str]) -> None:
    """Print what was found; `D=64` and `T=fp16` among the words hold for the patterns after them."""
    head_dim, dtype = 128, "bf16"
    for word in patterns:
        if word.startswith("D="):
            head_dim = int(word[2:])
        elif word.startswith("T="):
            dtype = word[2:]
        else:
            for name, code in kernels_of(word, head_dim, dtype):
                found = {"pattern": word, "kernel": name, "head_dim": head_dim, "dtype": dtype}
                sys.stdout.write(json.dumps(found | asdict(code) | {"complaints": code.complaints}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
