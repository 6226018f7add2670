"""Long columns of backward split over programs, on the GPU: against float64, and run to run."""

from __future__ import annotations

import warnings
from types import ModuleType

import pytest
import torch

import sparsedsl as sd
from sparsedsl.codegen.build import load
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.hopper_choice import Backend
from sparsedsl.codegen.tiling import tilings_here
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.power import power_attention
from tests.codegen.oracle import assert_within_rule, random_inputs
from tests.codegen.test_kernels import expected, outcome

pytestmark = pytest.mark.gpu

PATTERNS: dict[str, Pattern | PerHead] = {
    "power": power_attention(block=64, window=3),
    "sink alone": sd.sink(64) & sd.causal(),
    "window and sink": sd.sliding(300) | sd.sink(64) & sd.causal(),
    "per head": sd.per_head([sd.sliding(200), sd.sink(200) & sd.causal()] * 2),
}


def split_module(name: str, backend: Backend, shares: int, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The pattern's module, every column that can be split in so many shares."""
    module = load(emit(PATTERNS[name], tilings_here()[0], backend))
    monkeypatch.setattr(module, "column_shares", lambda *given: shares)
    return module


@pytest.fixture(params=["auto", "triton"])
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.param
    return found


@pytest.mark.parametrize("shares", [2, 17])
@pytest.mark.parametrize("name", PATTERNS)
def test_equals_dense(name: str, backend: Backend, shares: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = split_module(name, backend, shares, monkeypatch)
    for q_len, k_len in ((2049, 2049), (700, 1500)):
        tensors = random_inputs(4, 2, q_len, k_len, 128, torch.bfloat16, "cuda")
        on_cpu = [each.cpu() for each in tensors]
        exact, eager = (expected(PATTERNS[name], on_cpu, dtype) for dtype in (torch.float64, torch.bfloat16))
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # what speaks against a kernel for Hopper
            assert_within_rule([each.cpu() for each in outcome(module, tensors)], exact, eager)


@pytest.mark.parametrize("name", PATTERNS)
def test_bits_of_dk_and_dv_repeat(name: str, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    module = split_module(name, backend, 9, monkeypatch)
    tensors = random_inputs(4, 2, 8191, 8191, 128, torch.bfloat16, "cuda")
    first = outcome(module, tensors)
    for _ in range(5):
        again = outcome(module, tensors)
        kept = zip(first[2:], again[2:], strict=True)
        assert all(torch.equal(a, b) for a, b in kept)
        if backend == "triton":
            assert torch.equal(first[1], again[1])


def test_few_heads_are_split_and_many_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(emit(power_attention(), tilings_here()[0], "triton"))
    asked: list[int] = []
    usual = module.column_shares

    def told(*given: float) -> int:
        asked.append(usual(*given))
        return int(asked[-1])

    monkeypatch.setattr(module, "column_shares", told)
    for heads in (1, 64):
        outcome(module, random_inputs(heads, heads, 32768, 32768, 128, torch.bfloat16, "cuda"))
    assert asked[0] > 1
    assert asked[-1] == 1
