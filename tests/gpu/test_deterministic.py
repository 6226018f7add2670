"""Run to run, bits repeat on the GPU; torch's deterministic mode changes none and refuses nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import sparsedsl as sd
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

    first = results()
    for number in range(6):
        torch.use_deterministic_algorithms(number >= 3)
        for ours, again in zip(first, results(), strict=True):
            assert torch.equal(ours, again)
