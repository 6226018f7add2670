"""The forward kernel of the hopper backend, emulated, against dense attention; and that the emulator is strict."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

import sparsedsl as sd
from sparsedsl.codegen import plan as planning
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.hopper_choice import halves, usually_one
from sparsedsl.codegen.tiles import schedule
from sparsedsl.codegen.tiling import SMALL_TILINGS, TILINGS
from sparsedsl.errors import UnknownName, Unsupported
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.catalogue import CATALOGUE
from sparsedsl.patterns.longnet import longnet
from sparsedsl.patterns.power import power_attention
from tests.codegen.gluon_emulator import EmulationError, emulated
from tests.codegen.modules import imported
from tests.codegen.oracle import dense_attention, dense_mask, random_inputs
from tests.codegen.test_kernels import IN_PARTS, PATTERNS

BY_TABLE = ("random blocks", "random, both ways", "no period", "heads on both roads")
WALKED = {name: pattern for name, pattern in PATTERNS.items() if name not in BY_TABLE}
# Wide enough for FULL tiles of 128 x 128, which the patterns of the other tests have none of.
WIDE: dict[str, Pattern | PerHead] = {
    "window": sd.sliding(300),
    "power": power_attention(block=64, window=2),
    "window ahead": sd.sliding(200, ahead=270),
    "wide heads": sd.per_head([sd.sliding(280), sd.causal(), sd.power(), sd.sliding(9)]),
    "dilated far": sd.dilated(150, 2),
    "causal": sd.causal(),
}
ROOT = Path(__file__).resolve().parents[2]
BF16, FP16 = torch.bfloat16, torch.float16


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody wrote holds NaN."""
    monkeypatch.setattr(torch, "empty", lambda size, **options: torch.full(size, float("nan"), **options))


def hopper_module(pattern: Pattern | PerHead, change: Callable[[str], str] = str, tiling: int = 0) -> ModuleType:
    return emulated(imported(change(emit(pattern, TILINGS[tiling], "hopper"))))


def errors(
    module: ModuleType, pattern: Pattern | PerHead, tensors: list[Tensor], q_start: int | None = None
) -> dict[str, float]:
    """Errors against float64, each relative to what it may be; rows without a key must be exact."""
    q, k, v = tensors[:3]
    q_len, k_len, scale = q.shape[2], k.shape[2], 0.9 * q.shape[3] ** -0.5
    out, lse = module.launch_forward(q, k, v, scale, k_len - q_len if q_start is None else q_start)
    assert out.dtype == q.dtype
    assert out.shape == q.shape
    mask = dense_mask(pattern, q.shape[1], q_len, k_len, q_start)
    exact, exact_lse = dense_attention(q.double(), k.double(), v.double(), mask, scale)
    live = mask.any(-1).expand(q.shape[:3])
    assert (out[~live] == 0).all()
    assert (lse[~live] == float("-inf")).all()
    assert not out.isnan().any()
    # What rounding the weights and the result to the inputs' type may cost.
    allowed = 3 * torch.finfo(q.dtype).eps * max(exact.abs().max().item(), 1.0)
    found = {"out": (out - exact).abs().max().item() / allowed}
    if live.any():
        found["lse"] = (lse - exact_lse)[live].abs().max().item() / 1e-4
    return found


def assert_right(module: ModuleType, pattern: Pattern | PerHead, tensors: list[Tensor], **options: int) -> None:
    for name, error in errors(module, pattern, tensors, **options).items():
        assert error <= 1, (name, error)


@pytest.mark.parametrize("name", [*WALKED, *WIDE])
def test_equals_dense(name: str) -> None:
    pattern = {**WALKED, **WIDE}[name]
    module = hopper_module(pattern)
    sizes = ((517, 517, 4), (150, 400, 2)) if name in WIDE else ((260, 261, 2), (200, 130, 1))
    heads = 4 if isinstance(pattern, PerHead) else 2
    for number, (q_len, k_len, key_heads) in enumerate(sizes):
        dtype = (BF16, FP16)[number % 2]
        assert_right(module, pattern, random_inputs(heads, min(heads, key_heads), q_len, k_len, 32, dtype))


@pytest.mark.parametrize("name", IN_PARTS)
def test_parts_equal_dense(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "GAIN", float("inf"))
    pattern = IN_PARTS[name]
    (*_, last) = planning.plan(pattern).parts
    assert last.step > 1 or len(planning.plan(pattern).parts) > 1
    module = hopper_module(pattern)
    for q_len, k_len, key_heads in ((90, 700, 2), (400, 130, 1)):
        assert_right(module, pattern, random_inputs(4, key_heads, q_len, k_len, 32, FP16))


@pytest.mark.parametrize("head_dim", [16, 64, 80, 96, 128, 256])
def test_head_dims(head_dim: int) -> None:
    pattern = sd.sliding(300)
    module = hopper_module(pattern, tiling=0 if head_dim <= 128 else 1)
    assert_right(module, pattern, random_inputs(2, 1, 400, 531, head_dim, BF16))


def test_queries_that_start_anywhere_and_other_strides() -> None:
    pattern = sd.sliding(200) | sd.sink(5) & sd.causal()
    module = hopper_module(pattern)
    tensors = random_inputs(2, 2, 140, 500, 64, FP16)
    moved = [each.transpose(1, 2).contiguous().transpose(1, 2) for each in tensors]
    for q_start in (0, 1, 128, 129, 300, 360, -50):
        assert_right(module, pattern, moved, q_start=q_start)


def test_queries_past_the_last_key_in_a_part_that_looks_back() -> None:
    pattern = sd.strided(6) | sd.dilated(2, 3)
    assert len(planning.plan(pattern).parts) == 2
    assert_right(hopper_module(pattern), pattern, random_inputs(2, 2, 197, 145, 32, FP16), q_start=64)


def test_lists_of_tiles() -> None:
    """Distances too irregular for runs: a list that both sides search alike."""
    pattern = sd.offsets(203 * n * n + n for n in range(12))
    source = emit(pattern, TILINGS[0], "hopper")
    assert source.count("hopper_listed_below(") > 2
    module = emulated(imported(source))
    assert_right(module, pattern, random_inputs(2, 1, 300, 9000, 16, FP16))
    assert_right(module, pattern, random_inputs(2, 1, 900, 900, 16, BF16))


def test_rows_of_one_length_are_shared_out_others_handed_out() -> None:
    """With more programs than tiles, too; the counter is the queue."""
    for pattern, handed_out in ((sd.sliding(300), False), (sd.causal(), True)):
        source = emit(pattern, TILINGS[0], "hopper")
        assert f"DYNAMIC={handed_out}" in source
        assert f"DYNAMIC={not handed_out}" not in source
        tensors = random_inputs(2, 1, 400, 400, 32, BF16)
        for programs in (1, 3, 40):
            assert_right(emulated(imported(source), programs), pattern, tensors)


@pytest.mark.parametrize(
    "text", ["sliding(1024)", "sliding(1000)", "sliding(300)", "causal()", "sliding(200) | sink(5)"]
)
def test_halves_that_are_left_out_hold_no_pair(text: str) -> None:
    pattern = sd.parse(f"({text}) & causal()")
    assert isinstance(pattern, Pattern)
    program = schedule(pattern, 128, 128)
    length = 4096
    dense = pattern.dense(length, length)
    for group in program.groups:
        if group.full or not usually_one(program, group.mask, 1):
            continue
        live = np.zeros((2, 128), dtype=bool)
        for i in range(length // 128):
            for j, mask in program.row(i, length // 128):
                if mask == group.mask:
                    block = dense[128 * i : 128 * i + 128, 128 * j : 128 * j + 128]
                    live |= block.reshape(2, 64, 128).any(1)
        for own, (first, columns) in zip(live, halves(pattern, program, group.mask), strict=True):
            assert not own[:first].any()
            assert not own[first + columns :].any()


def test_halves_are_used_where_both_warpgroups_save_by_them() -> None:
    assert "64 if W == 0 else 128" in emit(sd.sliding(1024), TILINGS[0], "hopper")
    assert "if W == 0" not in emit(power_attention(), TILINGS[0], "hopper")


def test_tiles_are_narrow_where_masks_are_long_or_windows_short() -> None:
    for pattern, keys in ((sd.sliding(1024), 128), (sd.sliding(9), 64), (WALKED["squares"], 64)):
        assert f"    BLOCK_N: gl.constexpr = {keys}\n" in emit(pattern, TILINGS[0], "hopper")


def test_long_masks_beside_wide_heads_are_left_to_the_plain_kernel() -> None:
    """Compiled for head dim 256, the first three spill in their loops; the last two do not."""
    names = ("fibonacci", "ppa", "streaming_llm", "sliding_window", "power_attention")
    for name, special in zip(names, (False, False, False, True, True), strict=True):
        pattern = CATALOGUE[name]()
        pattern = pattern[0] if isinstance(pattern, sd.Stack) else pattern
        assert "hopper_kernel" in emit(pattern, TILINGS[0])
        assert ("hopper_kernel" in emit(pattern, TILINGS[1])) == special


def test_without_its_masks_the_comparison_fails() -> None:
    module = hopper_module(sd.sliding(200), _once("= until(b_s,", "= until(b_s, 1000 +"))
    assert errors(module, sd.sliding(200), random_inputs(2, 2, 300, 300, 32, FP16))["out"] > 10


def _once(old: str, new: str, times: int = 1) -> Callable[[str], str]:
    def change(source: str) -> str:
        assert source.count(old) >= times, old
        return source.replace(old, new)

    return change


# Which complaint comes first where threads race: any that names a wait, a barrier or a buffer.
RACE = "deadlock|overwr|filled|waited|missed|operand|too many|outstanding|in flight"
# What an error of the schedule would be, as a change of the text, and how the emulator tells it.
BROKEN = {
    "keys not waited for": (
        r"mbarrier\.wait\(k_ready\.index\(slot\), phase\)\n( +b_k = k_smem)",
        r"pass\n\1",
        RACE,
    ),
    "values not waited for": (
        r"mbarrier\.wait\(v_ready\.index\(v_slot\), v_phase\)",
        "pass",
        RACE,
    ),
    "keys never given back": (r"mbarrier\.arrive\(k_free\.index\(slot\), count=1\)", "pass", "deadlock"),
    "keys given back twice": (
        r"mbarrier\.arrive\(k_free\.index\(slot\), count=1\)",
        "mbarrier.arrive(k_free.index(slot), count=2)",
        RACE,
    ),
    "values given back early": (
        r"(acc = warpgroup_mma_wait\(0, deps=\[acc\]\)\n)( +)(mbarrier\.arrive\(v_free\.index\(v_slot.*\n)( +return)",
        r"\3\2\1\4",
        RACE,
    ),
    "queries given back early": (
        r"(mbarrier\.wait\(q_ready\.index\(W\), q_phase\)\n)( +)",
        r"\1\2mbarrier.arrive(q_free.index(W), count=1)\n\2",
        RACE,
    ),
    "too few bytes expected": (r"(KEY_BYTES: gl\.constexpr = BLOCK_N \* D) \* 2", r"\1", "before they are expected"),
    "too many bytes expected": (r"(KEY_BYTES: gl\.constexpr = BLOCK_N \* D) \* 2", r"\1 * 4", "deadlock"),
    "free slots not waited for": (r"mbarrier\.wait\(free\.index\(slot\), phase\)", "pass", "overwrites"),
    "a wrong first phase": (r"    slot = 0\n    phase = 1\n", "    slot = 0\n    phase = 0\n", "deadlock"),
    "a ring that never turns": (
        r"phase = gl\.where\(slot == STAGES, phase \^ 1, phase\)",
        "pass",
        RACE,
    ),
    "a product not waited for": (r"warpgroup_mma_wait\(1, deps", "warpgroup_mma_wait(2, deps", "still in flight"),
    "a tile too few brought": (r"for u in range\(1, first\)", "for u in range(2, first)", "deadlock"),
    "a tile too many brought": (
        r"for u in range\(1, first\)",
        "for u in range(0, first)",
        RACE,
    ),
    "no fence before the output is copied": (r"( {12,})fence_async_shared\(\)\n", "", "without a fence"),
    "the output's copy not waited for": (r" {12,}tma\.store_wait\(0\)\n", "", "still copies"),
    "the last copy not waited for": (r"\n        tma\.store_wait\(0\)\n", "\n        pass\n", "in flight"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_schedule_is_noticed(name: str) -> None:
    old, new, complaint = BROKEN[name]
    source, changed = re.subn(old, new, emit(sd.sliding(1000), TILINGS[0], "hopper"))
    assert changed
    module = emulated(imported(source), programs=1)
    tensors = random_inputs(2, 1, 1200, 1200, 32, FP16)
    with pytest.raises(EmulationError, match=complaint):
        module.launch_forward(*tensors[:3], 0.2, 0)


@pytest.mark.parametrize("name", BY_TABLE)
def test_a_pattern_that_needs_a_table_is_refused(name: str) -> None:
    with pytest.raises(Unsupported) as caught:
        emit(PATTERNS[name], TILINGS[0], "hopper")
    lines = str(caught.value).splitlines()
    assert lines[0] == "Unsupported: the hopper backend walks closed-form tile programs only"
    assert lines[2:] == [
        "  got       a pattern whose tiles a table tells",
        "  expected  a periodic pattern with a short form in tiles",
        "  try       the backend triton",
    ]


def test_a_type_of_four_bytes_is_refused() -> None:
    with pytest.raises(Unsupported) as caught:
        emit(sd.sliding(9), TILINGS[-1], "hopper")
    assert str(caught.value).splitlines() == [
        "Unsupported: the hopper backend has no kernel for this type",
        "  where     tiling single256",
        "  got       4 bytes an element",
        "  expected  float16 or bfloat16, 2 bytes an element",
        "  try       the backend triton, or the tiling half128",
    ]


def test_without_the_backend_the_text_has_none_of_it() -> None:
    for source in (
        emit(sd.sliding(300), TILINGS[0], "triton"),
        *(emit(PATTERNS[name], TILINGS[0]) for name in BY_TABLE),
        emit(sd.sliding(300), TILINGS[2]),
        emit(sd.sliding(300), SMALL_TILINGS[0]),
    ):
        assert "opper" not in source.replace("--backend triton", "")
        assert "gluon" not in source


LINTED = {
    **{name: pattern for name, pattern in WIDE.items() if name != "causal"},
    "lists": WALKED["squares"],
    "residue and identity": sd.sliding(256) | sd.dilated(256, 16),
    "one class of each head": longnet(),
}


def test_emitted_source_passes_the_linter(tmp_path: Path) -> None:
    """The project's own rules, as for the plain kernels."""
    for name, pattern in LINTED.items():
        (tmp_path / f"{name.replace(' ', '_')}.py").write_text(emit(pattern, TILINGS[0], "hopper"))
    rules = ["--config", str(ROOT / "pyproject.toml"), "--ignore", "T20,D1"]
    command = [str(Path(sys.executable).with_name("ruff")), "check", *rules, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_emission_repeats_to_the_byte() -> None:
    for pattern in LINTED.values():
        assert emit(pattern, TILINGS[0], "hopper") == emit(pattern, TILINGS[0], "hopper")


def test_the_option_is_kept_by_what_compile_returns() -> None:
    attention = sd.compile(sd.sliding(9), backend="hopper")
    assert repr(attention) == "compile(sliding(9), backend='hopper')"
    assert repr(pickle.loads(pickle.dumps(attention))) == repr(attention)
    assert "hopper_kernel" in attention.source("half256")
    assert "hopper_kernel" not in attention.source("single256")
    q, k, v, _ = random_inputs(2, 1, 40, 50, 16, torch.float32)
    assert torch.equal(attention(q, k, v), sd.compile(sd.sliding(9), backend="triton")(q, k, v))


def test_the_default_holds_the_plain_kernels_and_those_for_hopper() -> None:
    attention = sd.compile(sd.sliding(300))
    assert repr(attention) == "compile(sliding(300))"
    for name, special in (("half128", True), ("half256", True), ("single128", False), ("half128_small", False)):
        source = attention.source(name)
        assert "def forward_kernel(" in source
        assert ("def hopper_kernel(" in source) == special
        assert ("def hopper_gradients_kernel(" in source) == (name == "half128")
    many_conditions = sd.compile(sd.power()).source()
    assert "def hopper_kernel(" in many_conditions
    assert "def hopper_gradients_kernel(" not in many_conditions
    plain = sd.compile(sd.sliding(300), backend="triton")
    assert repr(plain) == "compile(sliding(300), backend='triton')"
    assert "hopper" not in plain.source()


def test_another_backend_is_no_backend() -> None:
    with pytest.raises(UnknownName) as caught:
        sd.compile(sd.sliding(9), backend="hoper")  # type: ignore[arg-type]
    assert str(caught.value).splitlines() == [
        "UnknownName: there is no backend of this name",
        "  where     backend='hoper'",
        "  got       hoper",
        "  expected  one of auto, triton, hopper",
        "  try       backend='auto'",
    ]
