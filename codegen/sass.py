"""Look at a kernel's machine code: whether its products are serialised, whether its loops spill registers.

A kernel with that is right and slow. `codegen/machine_code.py` finds it, in emitted modules too; this adds what else a
record of a kernel tells.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from triton import knobs

from sparsedsl.codegen.machine_code import code_and_loops, complaints_about, disassembled, tally


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
    def complaints(self) -> tuple[str, ...]:
        """What makes the kernel slow, in words; nothing for good code."""
        loops = [(loop.products, loop.spills) for loop in self.loops]
        return tuple(complaints_about(self.products, self.fences, loops))


def machine_code(cubin: bytes) -> MachineCode:
    """Read the machine code of a compiled kernel, with the tools that Triton ships.

    Cost
        About half a second.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers = max(int(each) for each in re.findall(r"REG:(\d+)", usage))
    return read_code(disassembled(cubin), registers)


def read_code(text: str, registers: int) -> MachineCode:
    """The same from the text of a disassembly."""
    code, loops = code_and_loops(text)
    return MachineCode(
        registers,
        tally(code, "HGMMA"),
        tally(code, r"WARPGROUP\."),
        tally(code, "LDL|STL"),
        tuple(LoopCode(len(each), tally(each, "HGMMA"), tally(each, "LDL|STL")) for each in loops),
    )
