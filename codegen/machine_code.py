"""What makes a kernel slow though right, read off its machine code. Emitted modules hold this file's text.

ptxas serialises warpgroup products in silence where it can't prove that their registers are left alone: each product
instruction then stands between a fence and a wait of its own. Local memory in a loop that multiplies is where registers
are spilled to.
"""

from __future__ import annotations

import json
import re
import subprocess
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from triton import knobs
from triton.runtime.cache import get_cache_manager


def code_and_loops(text: str) -> tuple[list[str], list[list[str]]]:
    """The instructions of a disassembly, and those of each innermost loop that multiplies."""
    places: dict[str, int] = {}
    code: list[str] = []
    for line in text.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            places[label[1]] = len(code)
        if found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            code.append(found[1])
    branches = [re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", each) for each in code]
    spans = []
    for place, branch in enumerate(branches):
        # A lone branch behind another ends a block that stands aside, not a loop.
        aside = branch and not code[place].startswith("@") and branches[place - 1]
        if branch and not aside and places.get(branch[1], len(code)) <= place:
            spans.append((places[branch[1]], place + 1))
    spans = [(start, end) for start, end in spans if tally(code[start:end], "HGMMA")]
    inner = [
        (start, end)
        for start, end in spans
        if not any(start <= a and b <= end and (a, b) != (start, end) for a, b in spans)
    ]
    return code, [code[start:end] for start, end in inner]


def tally(code: Sequence[str], what: str) -> int:
    """How many instructions have an opcode that begins so."""
    return sum(re.search(rf"\b(?:{what})", each) is not None for each in code)


def complaints_about(products: int, fences: int, loops: Sequence[tuple[int, int]]) -> list[str]:
    """What is slow, in words; nothing for good code. Of each loop: its products, its accesses to local memory.

    A few accesses in a loop are those of tiles with a mask; a loop over several tiles, of 16 products each, may have as
    many for each.
    """
    found = []
    if products and fences >= 2 * products:
        found.append(f"warpgroup products are serialised: {fences} fences for {products} products")
    spilled = [spills for inside, spills in loops if spills > max(24, 24 * inside // 16)]
    if spilled:
        found.append(f"registers are spilled in a loop: {max(spilled)} accesses to local memory")
    return found


def disassembled(cubin: bytes) -> str:
    """The machine code of a compiled kernel as text, by the disassembler that Triton ships."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [knobs.nvidia.nvdisasm.path, "-c", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@cache
def not_looked_at(why: str) -> None:
    """Say once that kernels run without the look at their machine code."""
    warnings.warn(f"the machine code of kernels for Hopper can't be looked at: {why}", RuntimeWarning, stacklevel=3)


def complaints(kernel: Any) -> list[str]:
    """What is slow in a compiled kernel. Kept beside it in Triton's cache: another process need not look again."""
    try:
        beside = get_cache_manager(kernel.hash)
        kept = beside.get_file("complaints.json")
        if kept is not None:
            return list(json.loads(Path(kept).read_text(encoding="utf-8")))
        code, loops = code_and_loops(disassembled(kernel.asm["cubin"]))
        products = tally(code, "HGMMA")
        if not products:
            raise ValueError("no warpgroup product was found in it")
    # No tool, another Triton: none of it makes the kernel wrong.
    except Exception as error:
        not_looked_at(f"{type(error).__name__}: {error}")
        return []
    counts = [(tally(loop, "HGMMA"), tally(loop, "LDL|STL")) for loop in loops]
    found = complaints_about(products, tally(code, r"WARPGROUP\."), counts)
    with suppress(OSError):  # a cache that can't be written
        beside.put(json.dumps(found), "complaints.json", binary=False)
    return found
