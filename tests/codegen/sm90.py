"""Compile the kernels over caches for an sm_90 GPU, which need not be there, and say what they take.

    python -m tests.codegen.sm90 half128 "sliding(4096)" "power()"

One line a kernel: registers a thread, bytes of stack (where spilled registers go), shared memory, and the widths of its
global reads. It needs nothing but Triton, whose wheel holds the assembler; not under TRITON_INTERPRET.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import triton
from triton.backends.compiler import GPUTarget

from sparsedsl.codegen.build import compile as compile_attention
from sparsedsl.codegen.build import load, tiling_named
from sparsedsl.text import parse

ALIGNED = re.compile(r"\w+_ptr|constants|starts|tiles|[qkv]_(batch|head|row|page)")


def compiled(part: Any, *, few: bool, page_size: int, lengths: bool, head_dim: int, size: int) -> Any:
    """One kernel of a part, for 16-bit types or float32."""
    kernel, stages = (part.few, part.few_stages) if few else (part.many, 2)
    types = {"lengths": "*i32", "page_table": "*i32", "scale": "fp32", "starts": "*i32", "tiles": "*i32"}
    types |= {"constants": "*i32", **dict.fromkeys(("q_ptr", "k_ptr", "v_ptr"), "*bf16" if size == 2 else "*fp32")}
    types |= dict.fromkeys(("o_ptr", "lse_ptr"), "*fp32")
    fixed: dict[str, Any] = {"ROWS": 16, "PAGE_SIZE": page_size, "head_dim": head_dim}
    fixed |= {"D": triton.next_power_of_2(head_dim), "PRECISION": "tf32" if size == 2 else "ieee"}
    fixed |= ({} if page_size else {"page_table": None}) | ({} if lengths else {"lengths": None})
    names = kernel.arg_names
    signature = {name: "constexpr" if name in fixed else types.get(name, "i32") for name in names}
    constants = {(names.index(name),): value for name, value in fixed.items() if name in names}
    aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if ALIGNED.fullmatch(name)}
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {
        "num_warps": part.few_warps if few else part.many_warps,
        "num_stages": 2 * stages - 1 if page_size else stages,
    }
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def account(kernel: Any) -> str:
    """What the assembler says of a kernel."""
    tool = next(Path(triton.__file__).parent.rglob("cuobjdump"))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(kernel.asm["cubin"])
        command = [str(tool), "--dump-resource-usage", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (registers,), (stack,) = re.findall(r"REG:(\d+)", text), re.findall(r"STACK:(\d+)", text)
    ptx = kernel.asm["ptx"]
    widths = sorted(set(re.findall(r"cp\.async\.c[ag]\.shared\.global [^;]*?, (0x\w+|\d+)", ptx)))
    plain = sorted(set(re.findall(r"ld\.global[\w.]*", ptx)))
    return (
        f"{registers} registers, stack {stack}, shared {kernel.metadata.shared}, "
        f"asynchronous copies of {' '.join(str(int(width, 0)) for width in widths) or 'no'} bytes, {' '.join(plain)}"
    )


def main(tiling: str, *patterns: str) -> None:
    """Compile every kernel of the patterns, over contiguous caches and over pages."""
    chosen = tiling_named(tiling)
    for text in patterns:
        module = load(compile_attention(parse(text)).source(tiling))
        for part in module.DECODE_PARTS:
            for few, page_size, lengths in (
                (True, 0, False), (True, 0, True), (True, 16, True), (False, 0, True), (False, 64, True),
            ):  # fmt: skip
                kernel = compiled(
                    part, few=few, page_size=page_size, lengths=lengths, head_dim=chosen.head_dim, size=chosen.bytes
                )
                name = f"{text}, step {part.step}, {'few' if few else 'many'}, page {page_size}, lengths {lengths}"
                print(f"{name}: {account(kernel)}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
