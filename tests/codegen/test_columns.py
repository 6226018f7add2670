"""Backward with its long columns split over programs: the plain kernel interpreted, that for Hopper emulated."""

from __future__ import annotations

import re
from types import ModuleType

import pytest
import torch

import sparsedsl as sd
from sparsedsl.codegen import plan as planning
from sparsedsl.codegen.columns import LEAST_SHARE, column_shares
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.part_source import early_tiles
from sparsedsl.codegen.plan import plan
from sparsedsl.codegen.programs import program_of
from sparsedsl.codegen.split_text import LongColumns, long_columns
from sparsedsl.codegen.tiling import TILINGS
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from tests.codegen.gluon_emulator import EmulationError, emulated
from tests.codegen.modules import SMALL, imported
from tests.codegen.oracle import assert_within_rule, random_inputs
from tests.codegen.test_deterministic import order_of_programs, quiet, same
from tests.codegen.test_hopper import BF16, FP16, RACE, hopper_module
from tests.codegen.test_hopper_backward import HEAD_DIM, assert_right, poisoned
from tests.codegen.test_kernels import expected, outcome

__all__ = ["poisoned"]  # memory that nobody wrote holds NaN

SPLIT: dict[str, Pattern | PerHead] = {
    "sink alone": sd.sink(64) & sd.causal(),
    "window and sink": sd.sliding(40) | sd.sink(5) & sd.causal(),
    "power blocks": (sd.sliding(2) | sd.power() | sd.sink(1)).blocks(32) & sd.causal(),
    "sink, both ways": sd.sliding(9, ahead=5) | sd.sink(7),
    "per head": sd.per_head([sd.sliding(9), sd.sink(20) & sd.causal()]),
    "powers behind a sink": (sd.power() | sd.sink(50)) & sd.where("(k < 40) | (k > 80)") & sd.causal(),
}
IN_PARTS = {
    "dilated behind a sink": (sd.dilated(30, 6) | sd.sink(3)) & sd.causal(),
}


def forced(module: ModuleType, shares: int) -> list[tuple[int, int, float, int]]:
    """Let every call of the module split its columns into so many shares; what they were asked for."""
    asked = []

    def told(*given: object) -> int:
        asked.append(given)
        return shares

    vars(module).update(column_shares=told)
    return asked  # type: ignore[return-value]


@quiet
@pytest.mark.parametrize("name", [*SPLIT, *IN_PARTS])
def test_plain_equals_dense(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries that stand later, or that are more than the keys; some shares hold nothing."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    if name in IN_PARTS:
        monkeypatch.setattr(planning, "GAIN", float("inf"))
    pattern = {**SPLIT, **IN_PARTS}[name]
    module = imported(emit(pattern, SMALL))
    for shares, (q_len, k_len), key_heads in ((3, (31, 83), 1), (5, (53, 20), 2))[: 1 + (name == "window and sink")]:
        asked = forced(module, shares)
        tensors = random_inputs(2, key_heads, q_len, k_len, 16, torch.float32)
        exact, eager = (expected(pattern, tensors, dtype) for dtype in (torch.float64, torch.float32))
        assert_within_rule(outcome(module, tensors), exact, eager)
        assert asked


@quiet
def test_a_share_that_is_left_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    pattern = SPLIT["window and sink"]
    source = emit(pattern, SMALL)
    source, changed = re.subn(r"for first in range\(0, shares, 16\)", "for first in range(1, shares, 16)", source)
    assert changed == 1
    module = imported(source)
    forced(module, 3)
    tensors = random_inputs(2, 1, 60, 60, 16, torch.float32)
    exact, got = expected(pattern, tensors, torch.float64), outcome(module, tensors)
    wrong = [(ours - want).abs().max() > 1e-2 for ours, want in zip(got, exact, strict=True)]
    assert wrong == [False, False, True, True]


@quiet
@pytest.mark.parametrize("name", ["power blocks", *IN_PARTS])
def test_the_order_of_programs_changes_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    if name in IN_PARTS:
        monkeypatch.setattr(planning, "GAIN", float("inf"))
    module = imported(emit({**SPLIT, **IN_PARTS}[name], SMALL))
    forced(module, 3)
    found = []
    for backwards in (False, True):
        order_of_programs(monkeypatch, backwards)
        found.append(outcome(module, random_inputs(2, 1, 60, 60, 16, torch.float32)))
    assert same(*found)


@quiet
def test_a_large_card_splits_and_a_small_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The results differ in the last bits of dk and dv only."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    pattern = SPLIT["sink, both ways"]
    module = imported(emit(pattern, SMALL))
    launched: list[int] = []
    kernel = module.dkdv_kernel_of_shares

    class Noted:
        def __getitem__(self, grid: tuple[int]) -> object:
            launched.append(grid[0])
            return kernel[grid]

    vars(module).update(dkdv_kernel_of_shares=Noted())
    length = 16 * 2 * LEAST_SHARE + 5
    tensors = [each[:1] for each in random_inputs(1, 1, length, length, 16, torch.float32)]
    found = []
    for processors in (1, 1000):
        monkeypatch.setattr(module, "multiprocessors", lambda device, many=processors: many)
        found.append(outcome(module, tensors))
        assert bool(launched) == (processors == 1000)
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert not same(*found)
    assert torch.equal(found[0][1], found[1][1])  # dq


@quiet
def test_packed_documents_are_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a column is stands on the device."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    module = imported(emit(SPLIT["window and sink"], SMALL))
    asked = forced(module, 3)
    q, k, v, d_out = (each[:1] for each in random_inputs(2, 2, 64, 64, 16, torch.float32))
    bounds = torch.tensor([0, 40, 64], dtype=torch.int32)
    out, lse = module.launch_forward(q, k, v, 1.0, 0, bounds)
    module.launch_backward(d_out, torch.zeros_like(lse), q, k, v, out, lse, 1.0, 0, bounds)
    assert not asked


@pytest.mark.parametrize("name", SPLIT)
def test_hopper_equals_dense(name: str) -> None:
    pattern = SPLIT[name]
    module = hopper_module(pattern)
    for shares, (q_len, k_len), dtype in ((3, (130, 200), BF16), (2, (200, 130), FP16)):
        asked = forced(module, shares)
        assert_right(module, pattern, random_inputs(2, 1, q_len, k_len, HEAD_DIM, dtype))
        assert asked


def test_a_share_s_place_that_is_read_late_is_noticed() -> None:
    told = r"( +if SPLIT:\n +block = told.*\n +if block >= 0:\n.*\n)( +mbarrier\.arrive\(v_free, count=1\)\n)"
    source, changed = re.subn(told, r"\2\1", emit(SPLIT["window and sink"], TILINGS[0], "hopper"))
    assert changed == 2
    module = emulated(imported(source), programs=1)
    forced(module, 3)
    with pytest.raises(EmulationError, match=RACE):
        assert_right(module, SPLIT["window and sink"], random_inputs(1, 1, 200, 200, HEAD_DIM, FP16))


@pytest.mark.parametrize("name", IN_PARTS)
def test_parts_on_hopper_equal_dense(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "GAIN", float("inf"))
    module = hopper_module(IN_PARTS[name])
    asked = forced(module, 4)
    assert_right(module, IN_PARTS[name], random_inputs(2, 1, 150, 200, HEAD_DIM, FP16))
    assert asked


def test_the_form_for_hopper_with_split_columns_is_looked_at_by_itself() -> None:
    """Else its machine code would never be: a module looks once at each of its functions that launch."""
    module = imported(emit(SPLIT["sink alone"], TILINGS[0]))
    looked: list[tuple[str, bool]] = []

    def noted(kind: str) -> object:
        def run(kernel: object, programs: int, *given: object, **options: object) -> None:
            looked.append((kind, bool(options.get("SPLIT"))))

        return run

    vars(module).update(is_hopper=lambda device: True, examined=noted("looked at"), launched=noted("launched"))
    q, k, v, d_out = random_inputs(2, 2, 300, 300, 128, BF16)
    lse = torch.zeros(q.shape[:3])
    for shares in (1, 3, 1, 3):
        forced(module, shares)
        looked.clear()
        module.launch_backward(d_out, lse, q, k, v, q, lse, 1.0, 0)
        assert ("launched", shares > 1) in looked
        roads = len(module.HOPPER_ROADS)
    assert roads == 2


def long_of(pattern: Pattern | PerHead, number: int = 0) -> LongColumns | None:
    part = plan(pattern).parts[number]
    programs = [program_of(kind, TILINGS[0].dkdv) for kind in part.kinds]
    return long_columns(part, programs, early_tiles(programs))


def test_which_columns_are_long() -> None:
    assert long_of(sd.sink(64) & sd.causal()) == LongColumns(1, 1.0)
    assert long_of(sd.sliding(1024) | sd.sink(65) & sd.causal()).early == 2  # type: ignore[union-attr]
    assert long_of(sd.sliding(1024)) is None
    assert long_of(sd.causal()) is None
    assert long_of(sd.sink(64) & sd.where("q % 1024 == 0")) is None, "few queries read them"
    assert long_of(sd.sliding(64) | sd.where("k == 5000") & sd.causal()) is None, "short columns before it"
    assert long_of((sd.random_blocks(64, 3) | sd.sink(64)) & sd.causal()) is None, "a table tells the tiles"


def test_into_how_many_shares() -> None:
    """Never a share below the least; not where the other columns take longer than the longest one anyway."""
    assert column_shares(2048, 1, 27.0, 264) == 39
    assert column_shares(2048, 4, 27.0, 264) == 9
    assert column_shares(2048, 16, 27.0, 264) == 1
    assert column_shares(0, 1, 27.0, 264) == column_shares(LEAST_SHARE, 1, 27.0, 264) == 1
    for longest in range(0, 3000, 7):
        shares = column_shares(longest, 1, 1.0, 264)
        assert shares == 1 or longest // shares >= LEAST_SHARE


def test_others_emit_no_word_of_it() -> None:
    for pattern in (sd.sliding(1024), sd.causal(), sd.dilated(512, 8)):
        source = emit(pattern, TILINGS[0])
        assert "share_of(" not in source
        assert "column_shares" not in source
