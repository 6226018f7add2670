"""The emitted kernels in Triton's interpreter, and the CPU road, against dense attention in float64."""

from __future__ import annotations

import inspect
import re
from types import ModuleType

import pytest
import torch
from torch import Tensor

from sparsedsl.arithmetic import where
from sparsedsl.codegen import plan as planning
from sparsedsl.codegen.emit import emit
from sparsedsl.constructors import (
    causal,
    chunked,
    dilated,
    empty,
    full,
    offsets,
    per_head,
    power,
    random_blocks,
    sink,
    sliding,
    strided,
)
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.longnet import longnet
from tests.codegen.modules import SMALL, first_function, imported
from tests.codegen.oracle import assert_within_rule, dense_attention, dense_mask, random_inputs

PATTERNS: dict[str, Pattern | PerHead] = {
    "sliding": sliding(20),
    "power blocks": (sliding(2) | power() | sink(1)).blocks(32) & causal(),
    "power tokens": power(),
    "dilated": dilated(9, 3),
    "strided": strided(5) & causal(),
    "chunked": chunked(40) & causal(),
    "full": full(),
    "both ways": sliding(5, ahead=7),
    "empty": empty(),
    "global": (sliding(8) | sink(3) | where("q < 3")) & causal(),
    "rows without keys": sliding(8) & where("q % 3 == 1"),
    "strided and local": (strided(8) | sliding(4)) & causal(),
    "squares": sliding(3) | offsets(n * n for n in range(2, 15)),
    "uneven steps": where("(q - k) % 56 < 2") & causal(),
    "uneven steps ahead": where("(q - k) % 104 < 3"),
    "powers behind a sink": (power() | sink(50)) & where("(k < 40) | (k > 80)") & causal(),
    "random blocks": (sliding(20) | random_blocks(16, 2, seed=1)) & causal(),
    "random, both ways": sliding(5, ahead=5) | random_blocks(32, 1),
    "no period": where("(q * q % 7 == k % 3) & (k <= q)") & where("(q + k) // 30 < 5"),
    "heads on both roads": per_head([sliding(9), random_blocks(16, 1) & causal(), power(), random_blocks(16, 2)]),
    "per head": per_head([sliding(9), dilated(4, 5), causal(), sink(2) & causal()]),
}
# Too short for their own good: these are planned in parts only where any gain will do.
IN_PARTS: dict[str, Pattern | PerHead] = {
    "local and dilated": sliding(9) | dilated(20, 4),
    "dilated behind a sink": (dilated(30, 6) | sink(3)) & causal(),
    "dilated both ways": strided(3) & sliding(40, ahead=30),
    "longnet": longnet(segments=[16, 32, 64], dilations=[1, 2, 4], heads=4),
}
SHAPES = ((1, 1, 4), (97, 97, 4), (31, 83, 2), (53, 20, 1), (1, 77, 1), (20, 210, 2))


def outcome(module: ModuleType, tensors: list[Tensor], **options: object) -> list[Tensor]:
    """Output, dq, dk, dv; the log-sum-exp takes part in the loss."""
    *leaves, weight = (each.detach().requires_grad_() for each in tensors)
    out, lse = module.attention(*leaves, return_lse=True, **options)
    finite = lse.masked_fill(lse == float("-inf"), 0.0)
    return [out.detach(), *torch.autograd.grad((out * weight).sum() + finite.sin().sum(), leaves)]


def expected(
    pattern: Pattern | PerHead, tensors: list[Tensor], dtype: torch.dtype, q_start: int | None = None
) -> list[Tensor]:
    q, k, v, weight = (each.detach().to(dtype).requires_grad_() for each in tensors)
    mask = dense_mask(pattern, q.shape[1], q.shape[2], k.shape[2], q_start)
    out, lse = dense_attention(q, k, v, mask, q.shape[-1] ** -0.5)
    finite = torch.where(mask.any(-1), lse, 0.0)
    return [out.detach(), *torch.autograd.grad((out * weight).sum() + finite.sin().sum(), (q, k, v))]


@pytest.fixture(params=["interpreter", "cpu"])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "interpreter":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    new = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **o: new(*a, **o).fill_(float("nan")))
    return str(request.param)


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("name", PATTERNS)
def test_equals_dense(name: str, road: str) -> None:
    assert_equals_dense(PATTERNS[name], road)


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("name", IN_PARTS)
def test_parts_equal_dense(name: str, road: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "GAIN", float("inf"))
    (*_, last) = planning.plan(IN_PARTS[name]).parts
    assert last.step > 1 or len(planning.plan(IN_PARTS[name]).parts) > 1
    assert_equals_dense(IN_PARTS[name], road)


def assert_equals_dense(pattern: Pattern | PerHead, road: str) -> None:
    module = imported(emit(pattern, SMALL))
    # The interpreter is slow: three shapes, among them more queries than keys.
    for q_len, k_len, key_heads in SHAPES if road == "cpu" else SHAPES[2:5]:
        tensors = random_inputs(4, key_heads, q_len, k_len, 32 if q_len == 97 else 16, torch.float32)
        exact, eager = (expected(pattern, tensors, dtype) for dtype in (torch.float64, torch.float32))
        assert_within_rule(outcome(module, tensors), exact, eager)


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_layouts_scale_start_and_odd_head_dims(road: str) -> None:
    pattern = sliding(20)
    module = imported(emit(pattern, SMALL))
    tensors = random_inputs(2, 2, 40, 64, 80, torch.float32)
    exact, eager = (expected(pattern, tensors, dtype, 7) for dtype in (torch.float64, torch.float32))
    moved = [each.transpose(1, 2).contiguous().transpose(1, 2) for each in tensors]
    assert_within_rule(outcome(module, moved, q_start=7), exact, eager)
    flipped = [-tensors[0], *tensors[1:]]
    got = outcome(module, flipped, q_start=7, scale=-(80**-0.5))
    got[1] = -got[1]
    assert_within_rule(got, exact, eager)


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_queries_past_the_last_key_in_a_part_that_looks_back(road: str) -> None:
    """The other part looks ahead, so that queries may stand there at all."""
    pattern = strided(6) | dilated(2, 3)
    assert len(planning.plan(pattern).parts) == 2
    module = imported(emit(pattern, SMALL))
    tensors = random_inputs(2, 2, 30, 45, 16, torch.float32)
    exact, eager = (expected(pattern, tensors, dtype, 40) for dtype in (torch.float64, torch.float32))
    assert_within_rule(outcome(module, tensors, q_start=40), exact, eager)


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_rows_without_a_key_are_exactly_empty(road: str) -> None:
    pattern = PATTERNS["rows without keys"]
    module = imported(emit(pattern, SMALL))
    q, k, v, _ = (each.requires_grad_() for each in random_inputs(2, 2, 40, 40, 16, torch.float32))
    out, lse = module.attention(q, k, v, return_lse=True)
    dead = torch.arange(40) % 3 != 1
    (dq,) = torch.autograd.grad(out.sum(), q)
    assert (out[:, :, dead] == 0).all()
    assert (lse[:, :, dead] == float("-inf")).all()
    assert (dq[:, :, dead] == 0).all()
    assert (lse[:, :, ~dead] > float("-inf")).all()


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_without_its_masks_the_comparison_fails(road: str) -> None:
    pattern = sliding(20)
    mask = r"(def mask_\d+\(q, k\):\n    return ).*"
    source, changed = re.subn(mask, r"\g<1>(q == q) & (k == k)", emit(pattern, SMALL))
    assert changed
    module = imported(source)
    tensors = random_inputs(2, 2, 97, 97, 16, torch.float32)
    exact, got = expected(pattern, tensors, torch.float64), outcome(module, tensors)
    for ours, want in zip(got, exact, strict=True):
        assert (ours - want).abs().max() > 1e-2


def test_kernels_are_found_in_their_text_as_inspect_finds_them() -> None:
    lines = emit(PATTERNS["sliding"], SMALL).splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if line.startswith("@")]
    assert len(starts) > 20
    assert all(first_function(lines[start:]) == inspect.getblock(lines[start:]) for start in starts)


def test_emission_repeats_to_the_byte() -> None:
    for pattern in PATTERNS.values():
        assert emit(pattern, SMALL) == emit(pattern, SMALL)
