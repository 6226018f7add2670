"""The machine code of the hopper backend's kernels for compute capability 9.0, compiled with no GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparsedsl.codegen.machine_code import complaints_about
from sparsedsl.codegen.sass import read_code

ROOT = Path(__file__).resolve().parents[2]
POWER = "(sliding(5) | power() | sink(1)).blocks(256) & causal()"
LISTED = "offsets({203, 814, 1831, 3252, 5080, 7314, 9954, 13000, 16452, 20309})"
PARTS = "sliding(256) | dilated(256, 16)"
ODD_PARTS = "sliding(250) | dilated(250, 16)"  # the second has three tiles in its one loop
# What goes through the compiler in one process: patterns, and the head dim and type of those after them.
WORDS = [
    "sliding(1024)",
    POWER,
    "dilated(512, 8)",
    ODD_PARTS,
    "per_head([sliding(512), sliding(100, ahead=300)])",
    "D=64",
    "T=fp16",
    LISTED,
    PARTS,
    "D=32",
    "sliding(1024)",
    "D=256",
    "sliding(1024)",
]


def test_no_kernel_is_serialised_and_no_loop_spills() -> None:
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.codegen.hopper_compiled", *WORDS]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    forward, backward = (
        [each["pattern"] for each in found if each["kernel"].startswith(name)]
        for name in ("hopper_kernel", "hopper_gradients_kernel")
    )
    narrow = [LISTED, *[PARTS] * 2, "sliding(1024)"]
    assert forward == [*WORDS[:3], *[ODD_PARTS] * 2, WORDS[4], *narrow, "sliding(1024)"]
    # Of heads up to 128; with a sink, a form that splits its column beside the usual one.
    assert backward == [WORDS[0], *[POWER] * 2, WORDS[2], *[ODD_PARTS] * 2, WORDS[4], *narrow]
    for each in found:
        assert each["products"] > 0
        assert each["loops"], each
        assert each["registers"] == 168
        assert each["complaints"] == [], each


GOOD = """
.L_x_1:
        /*0010*/                   WARPGROUP.ARRIVE ;
        /*0020*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR12], R24 ;
        /*0030*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR16], R24 ;
        /*0040*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
        /*0050*/              @!P1 BRA `(.L_x_1) ;
        /*0060*/                   STL [R1], R2 ;
        /*0070*/                   EXIT ;
"""
SERIALISED = """
        /*0010*/                   WARPGROUP.ARRIVE ;
        /*0020*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR12], R24 ;
        /*0030*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
        /*0040*/                   WARPGROUP.ARRIVE ;
        /*0050*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR16], R24 ;
        /*0060*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
"""


def test_what_is_read_from_a_disassembly() -> None:
    good = read_code(GOOD, 168)
    assert (good.products, good.fences, good.spills, good.complaints) == (2, 2, 1, ())
    (loop,) = good.loops
    assert (loop.instructions, loop.products, loop.spills) == (5, 2, 0)


def test_serialised_products_and_spills_are_told() -> None:
    assert read_code(SERIALISED, 168).complaints == ("warpgroup products are serialised: 4 fences for 2 products",)
    spill = "LDL R2, [R1] ;\n        /*0015*/    "
    assert read_code(GOOD.replace("WARPGROUP.ARRIVE ;", 24 * spill + "WARPGROUP.ARRIVE ;"), 168).complaints == ()
    spilling = read_code(GOOD.replace("WARPGROUP.ARRIVE ;", 25 * spill + "WARPGROUP.ARRIVE ;"), 168)
    assert spilling.complaints == ("registers are spilled in a loop: 25 accesses to local memory",)
    assert complaints_about(48, 0, [(48, 72)]) == []
    assert complaints_about(48, 0, [(48, 73), (16, 0)]) == [spilling.complaints[0].replace("25", "73")]
