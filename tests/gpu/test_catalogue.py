"""Every pattern of the library on the GPU, forward and backward, against dense attention in float64.

On Hopper the default backend runs the kernels for it; the plain ones are tested beside them.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsedsl.codegen.build import CompiledAttention
from sparsedsl.codegen.build import compile as compile_attention
from sparsedsl.codegen.hopper_choice import Backend
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.catalogue import CATALOGUE
from tests.codegen.oracle import assert_within_rule, dense_attention, dense_mask, random_inputs

pytestmark = pytest.mark.gpu

# Queries, keys, query heads to a key head, head dim: odd lengths, more keys than queries, one query.
SHAPES = ((2311, 2311, 1, 64), (517, 4099, 4, 128), (1, 3001, 2, 128))
# A layer of a stack deep enough to look far.
LAYER = 9
_compiled: dict[tuple[str, Backend], CompiledAttention] = {}


def layer_of(name: str) -> Pattern | PerHead:
    pattern = CATALOGUE[name]()
    return pattern[min(LAYER, len(pattern) - 1)] if isinstance(pattern, Stack) else pattern


def compiled(name: str, backend: Backend = "auto") -> CompiledAttention:
    if (name, backend) not in _compiled:
        _compiled[name, backend] = compile_attention(layer_of(name), backend=backend)
    return _compiled[name, backend]


def results(outcome: tuple[Tensor, Tensor], leaves: list[Tensor], weight: Tensor, live: Tensor) -> list[Tensor]:
    """Output, dq, dk, dv; the log-sum-exp takes part in the loss."""
    out, lse = outcome
    loss = (out * weight).sum() + torch.where(live, lse, 0.0).sin().sum()
    return [out.detach(), *torch.autograd.grad(loss, leaves)]


def dense_results(tensors: list[Tensor], mask: Tensor, dtype: torch.dtype) -> list[Tensor]:
    q, k, v, weight = (each.detach().to(dtype).requires_grad_() for each in tensors)
    return results(dense_attention(q, k, v, mask, q.shape[-1] ** -0.5), [q, k, v], weight, mask.any(-1))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize(
    ("dtype", "backend"),
    [(torch.bfloat16, "auto"), (torch.float16, "auto"), (torch.bfloat16, "triton")],
    ids=["bf16", "fp16", "bf16, plain"],
)
@pytest.mark.parametrize("name", CATALOGUE)
def test_equals_dense(name: str, dtype: torch.dtype, backend: Backend, shape: tuple[int, int, int, int]) -> None:
    if backend == "triton" and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("the default is the plain kernels here")
    q_len, k_len, share, head_dim = shape
    pattern = layer_of(name)
    heads = len(pattern.heads) if isinstance(pattern, PerHead) else 4
    tensors = random_inputs(heads, heads // share, q_len, k_len, head_dim, dtype, "cuda")
    mask = dense_mask(pattern, heads, q_len, k_len, None).cuda()
    *leaves, weight = (each.detach().requires_grad_() for each in tensors)
    got = results(compiled(name, backend)(*leaves, return_lse=True), leaves, weight, mask.any(-1))
    assert_within_rule(got, dense_results(tensors, mask, torch.float64), dense_results(tensors, mask, dtype))
