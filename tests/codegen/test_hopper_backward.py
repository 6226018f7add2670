"""The backward kernel of the hopper backend, emulated, against dense attention in float64."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random
from time import sleep
from types import ModuleType

import pytest
import torch
from torch import Tensor

import sparsedsl as sd
from sparsedsl.codegen import hopper_backward
from sparsedsl.codegen import plan as planning
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.hopper_choice import gradient_programs, scores_ahead
from sparsedsl.codegen.tiling import TILINGS
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from tests.codegen.gluon_emulator import EmulationError, Program, emulated, partition
from tests.codegen.modules import imported
from tests.codegen.oracle import dense_attention, dense_mask, random_inputs
from tests.codegen.test_hopper import BF16, FP16, RACE, WALKED, WIDE, hopper_module
from tests.codegen.test_hopper import assert_right as forward_is_right
from tests.codegen.test_kernels import IN_PARTS

# The kernel computes these as heads of 128 and of 64.
HEAD_DIM, NARROW = 72, 40


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody wrote holds NaN."""
    monkeypatch.setattr(torch, "empty", lambda size, **options: torch.full(_shape(size), float("nan"), **options))


def _shape(size: int | Sequence[int]) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)


def errors(
    module: ModuleType, pattern: Pattern | PerHead, tensors: list[Tensor], q_start: int | None = None
) -> dict[str, float]:
    """Errors of dq, dk and dv against float64, each relative to what rounding to the inputs' type may cost."""
    q, k, v, d_out = tensors
    dtype, scale = q.dtype, 0.9 * q.shape[3] ** -0.5
    mask = dense_mask(pattern, q.shape[1], q.shape[2], k.shape[2], q_start)
    live = mask.any(-1).expand(q.shape[:3])
    d_lse = torch.randn(q.shape[:3]) * live
    leaves = [each.double().requires_grad_() for each in (q, k, v)]
    out, lse = dense_attention(leaves[0], leaves[1], leaves[2], mask, scale)
    loss = (out * d_out.double()).sum() + (lse.masked_fill(~live, 0.0) * d_lse.double()).sum()
    exact = torch.autograd.grad(loss, leaves)
    given = (out.detach().to(dtype), lse.detach().float())
    start = k.shape[2] - q.shape[2] if q_start is None else q_start
    found = module.launch_backward(d_out, d_lse, q, k, v, *given, scale, start)
    errors = {}
    for name, ours, want in zip(("dq", "dk", "dv"), found, exact, strict=True):
        assert ours.dtype == dtype
        assert not ours.isnan().any(), name
        allowed = 6 * torch.finfo(dtype).eps * max(want.abs().max().item(), 1.0)
        errors[name] = (ours.double() - want).abs().max().item() / allowed
    return errors


def assert_right(module: ModuleType, pattern: Pattern | PerHead, tensors: list[Tensor], **options: int) -> None:
    for name, error in errors(module, pattern, tensors, **options).items():
        assert error <= 1, (name, error)


@pytest.mark.parametrize("name", [*WALKED, *WIDE])
def test_equals_dense(name: str) -> None:
    pattern = {**WALKED, **WIDE}[name]
    module = hopper_module(pattern)
    if not hasattr(module, "hopper_gradients"):
        assert None in [gradient_programs(part) for part in planning.plan(pattern).parts]
        return
    q_len, k_len = (333, 401) if name in WIDE else (200, 130)
    heads = 4 if isinstance(pattern, PerHead) else 2
    head_dim = NARROW if name in WIDE else HEAD_DIM
    assert_right(module, pattern, random_inputs(heads, heads // 2, q_len, k_len, head_dim, BF16))


@pytest.mark.parametrize("head_dim", [NARROW, HEAD_DIM])
@pytest.mark.parametrize("name", IN_PARTS)
def test_parts_equal_dense(name: str, head_dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "GAIN", float("inf"))
    pattern = IN_PARTS[name]
    module = hopper_module(pattern)
    assert_right(module, pattern, random_inputs(4, 2, 150, 330, head_dim, FP16))


@pytest.mark.parametrize("head_dim", [24, 32, 40, 64, 72, 96, 128])
def test_head_dims(head_dim: int) -> None:
    pattern = sd.sliding(300)
    assert_right(hopper_module(pattern), pattern, random_inputs(2, 1, 200, 331, head_dim, BF16))


def test_queries_that_start_anywhere_and_other_strides() -> None:
    pattern = sd.sliding(200) | sd.sink(5) & sd.causal()
    module = hopper_module(pattern)
    tensors = random_inputs(2, 2, 140, 500, HEAD_DIM, FP16)
    moved = [each.transpose(1, 2).contiguous().transpose(1, 2) for each in tensors]
    for q_start in (0, 63, 129, 360, -50):
        assert_right(module, pattern, moved, q_start=q_start)


def test_lists_of_tiles() -> None:
    pattern = sd.offsets(203 * n * n + n for n in range(12))
    module = hopper_module(pattern)
    assert_right(module, pattern, random_inputs(2, 1, 300, 2000, HEAD_DIM, FP16))


def test_columns_of_one_length_are_shared_out_others_handed_out() -> None:
    for pattern, handed_out in ((sd.sliding(300), False), (sd.causal(), True)):
        source = emit(pattern, TILINGS[0], "hopper")
        launch = source[source.index("def hopper_backward_part(") :]
        assert f"DYNAMIC={handed_out}" in launch
        tensors = random_inputs(2, 1, 260, 260, HEAD_DIM, BF16)
        for programs in (1, 20):
            assert_right(emulated(imported(source), programs), pattern, tensors)


def test_other_heads_and_deterministic_runs_take_the_plain_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    module = hopper_module(sd.sliding(30))
    q = torch.zeros(1, 1, 4, 128, dtype=FP16)
    assert [width for width in (16, 24, 32, 64, 72, 128) if module.hopper_gradients(q[..., :width])] == [
        24, 32, 64, 72, 128
    ]  # fmt: skip
    assert not module.hopper_gradients(torch.zeros(1, 1, 4, 136, dtype=FP16))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert not module.hopper_gradients(q)


# What an error of the schedule would be, as a change of the text, and how the emulator tells it.
BROKEN = {
    "queries brought early": (r"mbarrier\.wait\(free, phase\)", "pass", RACE),
    "dO not waited for": (r"mbarrier\.wait\(do_ready\.index\(turn\), turn_phase\)", "pass", RACE),
    "dO given back early": (
        r"dv = warpgroup_mma_wait\(2, deps=\[dv\]\)",
        "dv = warpgroup_mma_wait(3, deps=[dv])",
        RACE,
    ),
    "the other half not waited for": (r"mbarrier\.wait\(ds_ready\.index\(turn\), \(step >> 1\) & 1\)", "pass", RACE),
    "no fence before dS is multiplied": (
        r"(store\(b_ds.*\n) +fence_async_shared\(\)\n",
        r"\1",
        "without a fence",
    ),
    "keys not waited for": (r"mbarrier\.wait\(k_ready\.index\(next_phase\), keys_phase\)", "pass", RACE),
    "keys never given back": (r"mbarrier\.arrive\(k_free\.index\(next_phase\), count=1\)", "pass", "deadlock"),
    "keys read from the other slot": (r"k_smem\.index\(keys_slot \+ never\)", "k_smem.index(1 - keys_slot)", RACE),
    "values not waited for": (r"mbarrier\.wait\(v_ready, next_phase\)", "pass", RACE),
    "values given back early": (
        r"(        many = told\(many_smem, 0\)\n)",
        r"\1        mbarrier.arrive(v_free, count=1)\n",
        RACE,
    ),
    "dv stored over dS that the other half multiplies": (
        r"mbarrier\.wait\(k_free\.index\(next_phase\), keys_phase\)",
        "pass",
        RACE,
    ),
    "dS stored over the copy of dk": (r"    if not OLD:\n +tma\.store_wait\(0\)\n", "", "still copies"),
    "no fence before dv is copied": (r"(store\(dv.*\n) +fence_async_shared\(\)\n", r"\1", "without a fence"),
    "the copy of dv not waited for": (
        r"(dv_desc, at, staged\)\n) +tma\.store_wait\(0\)\n",
        r"\1",
        "still copies",
    ),
    "the last copy not waited for": (r"\n    tma\.store_wait\(0\)\n\n\n@gluon", "\n\n\n@gluon", "in flight"),
}
# Each order of a step, by a pattern that has it, and errors of its own.
ORDERS = {
    "own scores": (
        sd.causal(),
        {
            "queries not waited for": (r"mbarrier\.wait\(q_ready\.index\(slot\), phase\)", "pass", RACE),
            "queries never given back": (r"mbarrier\.arrive\(q_free\.index\(old_slot\), count=1\)", "pass", "deadlock"),
            "queries given back early": (r"dk = warpgroup_mma_wait\(1, deps=\[dk\]\)", "pass", RACE),
            "scores not waited for": (
                r"warpgroup_mma_wait\(LEFT, deps=\[b_s\]\)",
                "warpgroup_mma_wait(3, deps=[b_s])",
                RACE,
            ),
            "dS overwritten early": (r"mbarrier\.wait\(ds_free\.index\(turn\), turn_phase \^ 1\)", "pass", RACE),
        },
    ),
    "scores ahead": (
        sd.sliding(300),
        {
            "the first queries not waited for": (r"mbarrier\.wait\(q_ready\.index\(slot\), phase\)", "pass", RACE),
            "the next queries not waited for": (
                r"mbarrier\.wait\(q_ready\.index\(new_slot\), new_phase\)",
                "pass",
                RACE,
            ),
            "nothing given back": (r"mbarrier\.arrive\(ds_free\.index\(turn\), count=1\)", "pass", "deadlock"),
            "dS given back early": (
                r"b_dq = warpgroup_mma_wait\(1 if NEXT else 0, deps=\[b_dq\]\)\n",
                "b_dq = warpgroup_mma_wait(2, deps=[b_dq])\n",
                RACE,
            ),
            "the first dO given back early": (
                r"dv = warpgroup_mma_wait\(1 if NEXT else 0, deps=\[dv\]\)\n",
                "dv = warpgroup_mma_wait(2, deps=[dv])\n",
                RACE,
            ),
            "scores not waited for": (
                r"warpgroup_mma_wait\(0, deps=\[b_s\]\)",
                "warpgroup_mma_wait(1, deps=[b_s])",
                RACE,
            ),
            "dP not waited for": (
                r"warpgroup_mma_wait\(1, deps=\[b_dp\]\)",
                "warpgroup_mma_wait(2, deps=[b_dp])",
                RACE,
            ),
            "dS overwritten early": (
                r"mbarrier\.wait\(ds_free\.index\(turn \^ 1\), \(\(step - 1\) >> 1\) & 1\)",
                "pass",
                RACE,
            ),
        },
    ),
}


@pytest.mark.parametrize(
    ("order", "name"), [(order, name) for order, (_, own) in ORDERS.items() for name in (*BROKEN, *own)]
)
def test_a_broken_schedule_is_noticed(order: str, name: str) -> None:
    pattern, own = ORDERS[order]
    old, new, complaint = (BROKEN | own)[name]
    source, changed = re.subn(old, new, emit(pattern, TILINGS[0], "hopper"))
    assert changed
    module = emulated(imported(source), programs=1)
    with pytest.raises(EmulationError, match=complaint):
        errors(module, pattern, random_inputs(1, 1, 500, 500, HEAD_DIM, FP16))


SLOW = [
    sd.sliding(90) & sd.where("q % 3 == 1"),
    sd.sliding(300),
    sd.causal(),
    sd.sliding(40) | sd.sink(5) & sd.causal(),
]


@pytest.mark.parametrize("pattern", SLOW, ids=str)
def test_slow_partitions_change_nothing(pattern: Pattern, monkeypatch: pytest.MonkeyPatch) -> None:
    """Partitions that are held up, for a while and at random, find every barrier as they left it, both ways."""
    random = Random(0)
    delays: dict[str, float] = {}

    def held_up(call: Callable[..., object]) -> Callable[..., object]:
        def later(*given: object, **options: object) -> object:
            name = partition().name
            if random.random() < 0.02:
                delays[name] = random.choice([0.0, 2e-4, 1e-3])
            sleep(delays.get(name, 0.0))
            return call(*given, **options)

        return later

    for name in ("wait", "arrive"):
        monkeypatch.setattr(Program, name, held_up(getattr(Program, name)))
    module, tensors = hopper_module(pattern), random_inputs(2, 1, 300, 517, HEAD_DIM, BF16)
    forward_is_right(module, pattern, tensors)
    assert_right(module, pattern, tensors)


ONE_RUN = [sd.sliding(1024), sd.sliding(1000, ahead=77), sd.dilated(512, 8), sd.chunked(512)]
OTHERS = [
    sd.causal(),
    sd.sliding(1024) | sd.sink(1) & sd.causal(),
    (sd.sliding(5) | sd.power() | sd.sink(1)).blocks(256) & sd.causal(),
    sd.sliding(1024) & sd.where("k >= 1000"),
    sd.chunked(512) & sd.causal(),
    sd.empty(),
]


def test_windows_begin_scores_ahead_others_do_not() -> None:
    for pattern in (*ONE_RUN, *OTHERS):
        parts = [gradient_programs(part) for part in planning.plan(pattern).parts]
        found = [scores_ahead(programs) for programs in parts if programs]
        assert found == [pattern in ONE_RUN], pattern


@pytest.mark.parametrize(("window", "by_them"), [(256, False), (600, True)])
def test_several_short_parts_are_left_to_the_plain_kernels(window: int, by_them: bool) -> None:
    pattern = sd.sliding(window) | sd.dilated(window, 16)
    (tiling,) = (each for each in TILINGS if each.name == "half128")
    assert ("hopper_gradients_kernel" in emit(pattern, tiling)) == by_them
    assert "hopper_gradients_kernel" in emit(pattern, tiling, "hopper")


def test_the_orders_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window in the order of the others, and the others in that of windows."""
    for pattern in (sd.sliding(300), sd.causal(), sd.sliding(40) | sd.sink(5) & sd.causal()):
        ahead = pattern == sd.sliding(300)
        monkeypatch.setattr(hopper_backward, "scores_ahead", lambda programs, ahead=ahead: not ahead)
        source = emit(pattern, TILINGS[0], "hopper")
        assert ("NEXT: gl.constexpr" in source) == (not ahead)
        for q_len, k_len in ((200, 130), (330, 330)):
            module = emulated(imported(source), programs=1)
            assert_right(module, pattern, random_inputs(2, 1, q_len, k_len, HEAD_DIM, BF16))
