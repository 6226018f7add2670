"""Look at a kernel's machine code: whether its products are serialised, whether its loops spill registers.

ptxas serialises warpgroup products in silence where it can't prove that their registers are left alone: each product
instruction then stands between a fence and a wait of its own. A kernel with that, or with local memory in a loop that
multiplies, is right and slow.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from triton import knobs

_LABEL = re.compile(r"^\s*(\.L_x_\d+):")
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(.*?);")
_BRANCH = re.compile(r"\bBRA\b.*`\((\.L_x_\d+)\)")


@dataclass(frozen=True, slots=True)
class LoopCode:
    """An innermost loop that multiplies: its instructions, its product instructions, its accesses to local memory."""

    instructions: int
    products: int
    spills: int


@dataclass(frozen=True, slots=True)
class MachineCode:
    """What counts of a kernel's machine code.

    `products` are warpgroup product instructions, `fences` the instructions that order them, `spills` the accesses to
    local memory, inside and outside loops.
    """

    registers: int
    products: int
    fences: int
    spills: int
    loops: tuple[LoopCode, ...]

    @property
    def serialised(self) -> bool:
        """Whether every product instruction is fenced by itself."""
        return self.products > 0 and self.fences >= 2 * self.products

    @property
    def loop_spills(self) -> int:
        """Accesses to local memory in loops that multiply."""
        return sum(loop.spills for loop in self.loops)

    @property
    def complaints(self) -> tuple[str, ...]:
        """What makes the kernel slow, in words; nothing for good code."""
        found = []
        if self.serialised:
            found.append(f"warpgroup products are serialised: {self.fences} fences for {self.products} products")
        if self.loop_spills:
            found.append(f"registers are spilled in loops: {self.loop_spills} accesses to local memory")
        return tuple(found)


def machine_code(cubin: bytes) -> MachineCode:
    """Read the machine code of a compiled kernel, with the disassembler that Triton ships.

    Cost
        About half a second.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        code = _output(knobs.nvidia.nvdisasm.path, "-c", str(path))
        usage = _output(knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path))
    registers = max(int(each) for each in re.findall(r"REG:(\d+)", usage))
    return read_code(code.splitlines(), registers)


def read_code(lines: Sequence[str], registers: int) -> MachineCode:
    """The same from the text of a disassembly."""
    places: dict[str, int] = {}
    code: list[str] = []
    for line in lines:
        label, found = _LABEL.match(line), _INSTRUCTION.search(line)
        if label:
            places[label[1]] = len(code)
        if found:
            code.append(found[1])
    spans = []
    for place, instruction in enumerate(code):
        branch = _BRANCH.search(instruction)
        # A lone branch behind another ends a block that stands aside, not a loop.
        aside = not instruction.startswith("@") and _BRANCH.search(code[place - 1])
        if branch and not aside and places.get(branch[1], len(code)) <= place:
            spans.append((places[branch[1]], place + 1))
    loops = []
    for start, end in spans:
        inner = any(start <= a and b <= end and (a, b) != (start, end) and _count(code[a:b], "HGMMA") for a, b in spans)
        products = _count(code[start:end], "HGMMA")
        if products and not inner:
            loops.append(LoopCode(end - start, products, _count(code[start:end], r"LDL|STL")))
    fences = _count(code, r"WARPGROUP\.")
    return MachineCode(registers, _count(code, "HGMMA"), fences, _count(code, r"LDL|STL"), tuple(loops))


def _count(code: Sequence[str], what: str) -> int:
    return sum(re.search(rf"\b(?:{what})", each) is not None for each in code)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
