"""Every pattern of the library on the GPU, forward and backward, against dense attention in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsedsl.codegen.build import CompiledAttention
from sparsedsl.codegen.build import compile as compile_attention
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.catalogue import CATALOGUE
from tests.codegen.oracle import assert_within_rule, dense_attention, dense_mask, random_inputs

pytestmark = pytest.mark.gpu

# Queries, keys, query heads to a key head, head dim: odd lengths, more keys than queries, one query.
SHAPES = ((2311, 2311, 1, 64), (517, 4099, 4, 128), (1, 3001, 2, 128))
# A layer of a stack deep enough to look far.
LAYER = 9
_compiled: dict[str, CompiledAttention] = {}


def layer_of(name: str) -> Pattern | PerHead:
    pattern = CATALOGUE[name]()
    return pattern[min(LAYER, len(pattern) - 1)] if isinstance(pattern, Stack) else pattern


def compiled(name: str) -> CompiledAttention:
    return _compiled.setdefault(name, compile_attention(layer_of(name)))


def results(outcome: tuple[Tensor, Tensor], leaves: list[Tensor], weight: Tensor, live: Tensor) -> list[Tensor]:
    """Output, dq, dk, dv; the log-sum-exp takes part in the loss."""
    out, lse = outcome
    loss = (out * weight).sum() + torch.where(live, lse, 0.0).sin().sum()
    return [out.detach(), *torch.autograd.grad(loss, leaves)]


def dense_results(tensors: list[Tensor], mask: Tensor, dtype: torch.dtype) -> list[Tensor]:
    q, k, v, weight = (each.detach().to(dtype).requires_grad_() for each in tensors)
    return results(dense_attention(q, k, v, mask, q.shape[-1] ** -0.5), [q, k, v], weight, mask.any(-1))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", CATALOGUE)
def test_equals_dense(name: str, dtype: torch.dtype, shape: tuple[int, int, int, int]) -> None:
    q_len, k_len, share, head_dim = shape
    pattern = layer_of(name)
    heads = len(pattern.heads) if isinstance(pattern, PerHead) else 4
    tensors = random_inputs(heads, heads // share, q_len, k_len, head_dim, dtype, "cuda")
    mask = dense_mask(pattern, heads, q_len, k_len, None).cuda()
    *leaves, weight = (each.detach().requires_grad_() for each in tensors)
    got = results(compiled(name)(*leaves, return_lse=True), leaves, weight, mask.any(-1))
    assert_within_rule(got, dense_results(tensors, mask, torch.float64), dense_results(tensors, mask, dtype))
