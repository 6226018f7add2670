"""The output lies in memory as the queries do, on the GPU: by tokens or by heads, the numbers are the same bits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sparsedsl as sd
from benchmarks.oracle import relative_distance
from sparsedsl.codegen.build import CompiledAttention
from sparsedsl.patterns.power import power_attention
from tests.codegen.oracle import random_inputs
from tests.codegen.test_output_layout import by_token

pytestmark = pytest.mark.gpu

PATTERNS = {
    "sliding": sd.sliding(300),
    "power": power_attention(block=64),
    "dilated": sd.dilated(200, 8),
    "two parts": sd.sliding(256) | sd.dilated(256, 16),
    "table": (sd.sliding(200) | sd.random_blocks(64, 2, seed=1)) & sd.causal(),
}


def outcome(attention: CompiledAttention, tensors: list[Tensor], q_start: int) -> list[Tensor]:
    *leaves, d_out = (each.detach() for each in tensors)
    leaves = [each.requires_grad_() for each in leaves]
    out = attention(*leaves, q_start=q_start)
    return [out.detach(), *torch.autograd.grad(out, leaves, d_out)]


@pytest.mark.parametrize(("head_dim", "dtype"), [(128, torch.bfloat16), (64, torch.float16), (256, torch.bfloat16)])
@pytest.mark.parametrize("name", PATTERNS)
def test_no_number_depends_on_it(name: str, head_dim: int, dtype: torch.dtype) -> None:
    attention = sd.compile(PATTERNS[name])
    tensors = [each[:1] for each in random_inputs(4, 2, 1030, 2090, head_dim, dtype, "cuda")]
    # At the end of the keys; where tiles of all residue classes begin with a query; before position 0.
    for q_start in (1060, 1024, -7):
        want = outcome(attention, tensors, q_start)
        got = outcome(attention, [by_token(each) for each in tensors], q_start)
        assert got[0].transpose(1, 2).is_contiguous()
        for ours, theirs, sums_in_any_order in zip(got, want, (False, True, False, False), strict=True):
            if sums_in_any_order:
                assert relative_distance(ours, theirs) < 1e-3
            else:
                assert torch.equal(ours, theirs)
