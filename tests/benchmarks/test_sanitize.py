"""The program that compute-sanitizer watches: its cases find a wrong kernel, and its report is read."""

from __future__ import annotations

import re
import stat
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sparsedsl as sd
from benchmarks import sanitize, sanitize_cases
from benchmarks.sanitize import apart, findings, of_the_controls, told
from benchmarks.sanitize_cases import CASES, checked
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.hopper_choice import gradients_run
from sparsedsl.codegen.tiling import TILINGS

REPORT = """========= COMPUTE-SANITIZER
========= Invalid __global__ read of size 2 bytes
=========     at forward_kernel+0x1a0 in emitted.py:12
========= Invalid __global__ read of size 2 bytes
=========     at forward_kernel+0x1a0 in emitted.py:12
========= ERROR SUMMARY: 2 errors
"""


RACES = """========= COMPUTE-SANITIZER
========= Error: Race reported between Read access at hopper_kernel+0x180 in file.py:1691
=========     and Write access at hopper_kernel+0xa0 in file.py:1500 [64 hazards]
=========     and Write access at hopper_kernel+0xb0 in file.py:1502 [32 hazards]
=========
========= Error: Race reported between Read access at hopper_kernel+0x180 in file.py:1691
=========     and Write access at hopper_kernel+0xc0 in file.py:1510 [8 hazards]
=========
========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)
"""


@pytest.mark.parametrize("name", ["one part", "packed: one part", "cached: one part", "paged: one part"])
def test_another_result_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU road, which answers all the calls: right as it is, and wrong where a wider window is compiled."""
    monkeypatch.setattr(sanitize_cases, "SHAPES", ((77, 140),))
    assert checked(CASES[name], "cpu") == ""
    attention = sd.compile(sd.sliding(101) | sd.sink(3) & sd.causal(), backend="triton")
    monkeypatch.setattr(sd, "compile", lambda pattern, backend: attention)
    assert "output" in checked(CASES[name], "cpu")


def test_every_case_is_planned_as_its_name_says() -> None:
    assert {case.call for case in CASES.values()} == {"plain", "packed", "cached", "paged"}
    assert {case.backend for case in CASES.values()} == {"triton", "hopper"}
    wrong = sanitize_cases.Case(sd.dilated(30, 8))
    assert checked(wrong, "cpu") == "planned as [8]"


def test_a_report_is_cut_to_its_findings() -> None:
    assert told(REPORT, 3).splitlines() == [
        "exit status 3",
        "    ERROR SUMMARY: 2 errors",
        "    Invalid __global__ read of size 2 bytes",
        "    at forward_kernel+0x1a0 in emitted.py:12",
    ]
    assert told("Traceback\nValueError: no", 1).splitlines()[-1] == "    ValueError: no"


def test_races_of_the_controls_kinds_are_told_from_others(tmp_path: Path) -> None:
    module = """def tell(smem, slot, value):
    smem.store(value)


def told(smem, slot):
    return smem.load()


def hopper_kernel(
    q_desc,
):
    q_smem.store(1)
    gl.warp_specialize(
"""
    (tmp_path / "file.py").write_text(module)

    def found(*lines: int) -> bool:
        report = "Error: Race reported between Read access at k+0x1 in file.py:{}\n"
        report += "and Write access at k+0x2 in file.py:{} [4 hazards]\n" * (len(lines) - 1)
        (race,) = findings(report.format(*lines))
        return of_the_controls(race, tmp_path)

    assert found(2, 6)
    assert found(6, 2, 2)
    assert found(9, 13, 9)
    assert not found(2, 9)
    assert not found(2, 12)
    assert not found(12, 12)
    assert not of_the_controls("Error: Race reported between Read access at k+0x1 in other.py:2", tmp_path)


def test_both_sides_of_a_race_are_shown_together() -> None:
    assert told(RACES, 3).splitlines() == [
        "exit status 3",
        "    RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)",
        "    Error: Race reported between Read access at hopper_kernel+0x180 in file.py:1691",
        "        and Write access at hopper_kernel+0xa0 in file.py:1500 [64 hazards]",
        "        and Write access at hopper_kernel+0xb0 in file.py:1502 [32 hazards]",
        "    Error: Race reported between Read access at hopper_kernel+0x180 in file.py:1691",
        "        and Write access at hopper_kernel+0xc0 in file.py:1510 [8 hazards]",
    ]


HOPPER = [name for name, case in CASES.items() if case.backend == "hopper"]


@pytest.mark.parametrize("name", HOPPER)
def test_every_case_for_hopper_runs_its_gradients_kernel(name: str) -> None:
    case = CASES[name]
    source = emit(case.pattern, TILINGS[0], "hopper")
    # A kernel for each part.
    assert len(re.findall(r"^def hopper_gradients_kernel\w*\(", source, re.MULTILINE)) == case.parts
    assert gradients_run(case.head_dim)


def test_cases_for_hopper_have_every_order_and_every_width() -> None:
    orders = {name.removeprefix("Hopper: ") for name in HOPPER if CASES[name].head_dim == 128}
    assert orders == {
        "one part", "both ways", "rows without keys", "residue order", "parts", "classes of heads", "lists", "by head"
    }  # fmt: skip
    assert {1 << (CASES[name].head_dim - 1).bit_length() for name in HOPPER} == {32, 64, 128}


def test_a_case_is_checked_at_its_head_dim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitize_cases, "SHAPES", ((77, 140),))
    seen = []
    attention = sd.compile(CASES["one part"].pattern, backend="triton")

    def spied(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.append(q.shape[3])
        return attention(q, k, v)

    monkeypatch.setattr(sd, "compile", lambda pattern, backend: spied)
    assert checked(CASES["Hopper: one part"], "cpu") == ""
    assert seen == [128]


def test_each_process_has_ports_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "compute-sanitizer"
    tool.write_text('#!/bin/sh\necho "Error $*"\nexit 3\n')
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = [apart(name, "racecheck", 20.0) for name in CASES]
    assert all("--tool racecheck --error-exitcode 3" in each for each in found)
    ports = [int(each.split("--port ")[1].split()[0]) for each in found]
    assert all(b - a > 10 for a, b in pairwise(ports))
    assert max(ports) + sanitize.PORTS < 2**16


def test_pages_hold_the_cache() -> None:
    cache = torch.randn(2, 3, sanitize_cases.ROOM, 4)
    order = torch.randperm(2 * sanitize_cases.ROOM // sanitize_cases.PAGE)
    pages = sanitize_cases._pages(cache, order)
    rows: list[Tensor] = [pages[int(page)] for page in order]
    assert torch.equal(torch.cat(rows, 1)[:, : sanitize_cases.ROOM], cache[0])
