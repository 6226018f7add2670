"""Run to run, bits repeat on the GPU: of all but dq by default, of all in torch's deterministic mode."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import sparsedsl as sd
from benchmarks.oracle import relative_distance
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.longnet import longnet
from sparsedsl.patterns.power import power_attention
from tests.codegen.oracle import random_inputs

pytestmark = pytest.mark.gpu

PATTERNS: dict[str, Pattern | PerHead] = {
    "sliding": sd.sliding(1024),
    "power": power_attention(),
    "dilated": sd.dilated(512, 8),
    "local and dilated": sd.sliding(256) | sd.dilated(256, 16),
    "random": (sd.random_blocks(64, 3, seed=0) | sd.sliding(128)) & sd.causal(),
    "longnet": longnet(),
}


@pytest.fixture
def torch_s_mode() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", PATTERNS)
def test_bits_repeat(name: str, torch_s_mode: None) -> None:
    pattern = PATTERNS[name]
    heads = len(pattern.heads) if isinstance(pattern, PerHead) else 8
    attention = sd.compile(pattern)
    *leaves, weight = random_inputs(heads, heads // 2, 16381, 16381, 128, torch.bfloat16, "cuda")
    leaves = [each.requires_grad_() for each in leaves]

    def results() -> list[Tensor]:
        out, lse = attention(*leaves, return_lse=True)
        return [out.detach(), lse.detach(), *torch.autograd.grad((out * weight).sum(), leaves)]

    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        first = results()
        for _ in range(3):
            for name, ours, again in zip(("out", "lse", "dq", "dk", "dv"), first, results(), strict=True):
                if name == "dq" and not deterministic:  # on Hopper its sums may take any order
                    assert relative_distance(ours, again) < 1e-3
                else:
                    assert torch.equal(ours, again), name
