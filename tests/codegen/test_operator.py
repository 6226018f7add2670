"""The torch operator of an emitted module on the CPU road: contract, gradients, compilation, log-sum-exp."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import sparsedsl as sd
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from tests.codegen.modules import module_of
from tests.codegen.oracle import dense_attention, dense_mask

PATTERNS: dict[str, Pattern | PerHead] = {
    "sliding": sd.sliding(7),
    "power blocks": (sd.sliding(2) | sd.power() | sd.sink(1)).blocks(4) & sd.causal(),
    "both ways": sd.sliding(3, ahead=2) | sd.sink(2),
    "rows without keys": sd.sliding(5) & sd.where("q % 3 == 1"),
    "residues": sd.strided(3) & sd.causal(),
    "two orders": (sd.sliding(4) | sd.strided(8)) & sd.causal(),
    "no period": (sd.sliding(3) | sd.where("q * k < 90")) & sd.causal(),
    "random": (sd.random_blocks(16, 1, seed=3) | sd.sliding(4)) & sd.causal(),
    "per head": sd.per_head([sd.sliding(4), sd.dilated(3, 3), sd.causal(), sd.sink(2) & sd.causal()]),
}
Attend = Callable[..., tuple[Tensor, Tensor]]
EVERY = pytest.mark.parametrize("name", PATTERNS)


def inputs(
    heads: int, key_heads: int, q_len: int, k_len: int, head_dim: int, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    torch.manual_seed(heads + 7 * q_len + 31 * k_len)
    shapes = ((heads, q_len), (key_heads, k_len), (key_heads, k_len))
    return [torch.randn(1, h, n, head_dim, dtype=dtype).requires_grad_() for h, n in shapes]


def finite(lse: Tensor) -> Tensor:
    """-inf as 0: a row without a key has nothing to differentiate."""
    return torch.where(lse == float("-inf"), 0.0, lse)


# --- the operator's contract with torch


LIGHT = ("test_schema", "test_autograd_registration", "test_faketensor")


@pytest.mark.parametrize(
    ("name", "q_len", "k_len", "tests"),
    [
        ("sliding", 21, 37, (*LIGHT, "test_aot_dispatch_dynamic")),
        ("rows without keys", 37, 21, (*LIGHT, "test_aot_dispatch_dynamic")),
        ("power blocks", 40, 40, LIGHT),
        ("random", 21, 37, LIGHT),
        ("two orders", 33, 45, LIGHT),
        ("per head", 1, 33, LIGHT),
    ],
)
def test_opcheck(name: str, q_len: int, k_len: int, tests: tuple[str, ...]) -> None:
    module = module_of(PATTERNS[name])
    q, k, v = inputs(4, 2, q_len, k_len, 8, torch.float32)
    torch.library.opcheck(module.attention_op, (q, k, v, 0.5, k_len - q_len), test_utils=tests)
    out, lse = module.attention_op(q, k, v, 0.5, k_len - q_len)
    parts = [each.detach() for each in (torch.randn_like(out), torch.randn_like(lse), q, k, v, out, lse)]
    torch.library.opcheck(module.attention_backward_op, (*parts, 0.5, k_len - q_len), test_utils=tests)


# --- gradients, against differences of the function itself


@EVERY
@pytest.mark.parametrize(("key_heads", "q_len", "k_len"), [(4, 9, 9), (2, 5, 11), (1, 11, 5), (2, 1, 8)])
def test_gradcheck(name: str, key_heads: int, q_len: int, k_len: int) -> None:
    # Every entry of the Jacobian for a few, a random projection of it for the others.
    fast = (q_len, k_len) != (1, 8) or name not in ("sliding", "rows without keys", "per head")
    module = module_of(PATTERNS[name])

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        out, lse = module.attention(q, k, v, return_lse=True)
        return out, finite(lse)

    assert torch.autograd.gradcheck(attend, inputs(4, key_heads, q_len, k_len, 2), fast_mode=fast)


def test_gradcheck_over_several_tiles_and_places() -> None:
    module = module_of(PATTERNS["power blocks"])
    q, k, v = inputs(2, 1, 40, 50, 1)
    for q_start in (None, 3):
        for scale in (0.7, -0.7, 0.0):

            def attend(q: Tensor, k: Tensor, v: Tensor, s: float = scale, p: int | None = q_start) -> Tensor:
                out: Tensor = module.attention(q, k, v, scale=s, q_start=p)
                return out

            assert torch.autograd.gradcheck(attend, (q, k, v), fast_mode=True)


# --- torch.compile


def both(attend: Attend, tensors: list[Tensor]) -> list[Tensor]:
    """Output, log-sum-exp, and the gradients of q, k, v."""
    leaves = [each.detach().requires_grad_() for each in tensors]
    out, lse = attend(*leaves, return_lse=True)
    return [out.detach(), lse.detach(), *torch.autograd.grad(out.square().sum() + finite(lse).sum(), leaves)]


@pytest.mark.parametrize("name", ["rows without keys", "two orders", "per head"])
def test_compiled_equals_eager_and_compiles_once_for_all_lengths(name: str) -> None:
    torch._dynamo.reset()
    attn = cast(Attend, sd.compile(PATTERNS[name]))
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(attn, fullgraph=True, backend=counter)
    for q_len, k_len in ((70, 90), (33, 34), (300, 417), (5, 256)):
        tensors = inputs(4, 2, q_len, k_len, 16, torch.float32)
        plain = both(attn, tensors)
        leaves = [each.detach().requires_grad_() for each in tensors]
        for each in leaves:
            torch._dynamo.mark_dynamic(each, 2)
        out, lse = compiled(*leaves, return_lse=True)
        got = [out.detach(), lse.detach(), *torch.autograd.grad(out.square().sum() + finite(lse).sum(), leaves)]
        for ours, want in zip(got, plain, strict=True):
            assert torch.equal(ours, want)
    assert counter.frame_count == 1


def test_compiled_inside_a_model() -> None:
    torch._dynamo.reset()
    attn = sd.compile(sd.sliding(16) | sd.sink(2) & sd.causal())

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        q, k, v = (x @ weight).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        out = attn(q, k, v)
        assert isinstance(out, Tensor)
        return x + out.transpose(1, 2).flatten(2)

    torch.manual_seed(0)
    x, weight = torch.randn(2, 50, 32, requires_grad=True), torch.randn(32, 96, requires_grad=True)
    want = layer(x, weight)
    got = torch.compile(layer, fullgraph=True, backend="aot_eager")(x, weight)
    torch.testing.assert_close(got, want)
    for ours, theirs in zip(
        torch.autograd.grad(got.sum(), (x, weight)), torch.autograd.grad(want.sum(), (x, weight)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_meta_tensors_give_shapes() -> None:
    attn = sd.compile(sd.sliding(16))
    q, k = (
        torch.empty(2, 8, 100, 64, device="meta", dtype=torch.bfloat16),
        torch.empty(2, 2, 300, 64, device="meta", dtype=torch.bfloat16),
    )
    out, lse = attn(q, k, k, return_lse=True)
    assert (out.shape, out.dtype, out.device.type) == (q.shape, torch.bfloat16, "meta")
    assert (lse.shape, lse.dtype) == ((2, 8, 100), torch.float32)


# --- log-sum-exp


@EVERY
def test_log_sum_exp_of_equal_scores_is_the_logarithm_of_the_number_of_keys(name: str) -> None:
    pattern = PATTERNS[name]
    module = module_of(pattern)
    _, k, v = inputs(4, 2, 45, 61, 8)
    out, lse = module.attention(torch.zeros(1, 4, 45, 8, dtype=torch.float64), k, v, return_lse=True)
    mask = dense_mask(pattern, 4, 45, 61, None)
    torch.testing.assert_close(lse[0], mask.sum(-1).double().log())
    values = v.repeat_interleave(2, 1)
    mean = (mask.double() @ values) / mask.sum(-1, keepdim=True).clamp_min(1)
    torch.testing.assert_close(out, mean)


def test_one_key_passes_its_value_on() -> None:
    module = module_of(sd.sliding(1))
    q, k, v = inputs(2, 2, 40, 40, 8)
    out, lse = module.attention(q, k, v, return_lse=True)
    assert torch.equal(out, v)
    torch.testing.assert_close(lse, (q * k).sum(-1) / math.sqrt(8))


@pytest.mark.parametrize("part", ["k % 2 == 0", "k < 20", "k // 8 % 2 == 0", "q - k < 2", "q < 11"])
def test_two_halves_merge_by_log_sum_exp(part: str) -> None:
    whole = sd.sliding(9) | (sd.sink(3) & sd.causal()) | (sd.strided(8) & sd.causal())
    tensors = inputs(4, 2, 45, 61, 8)
    halves = [
        module_of(half).attention(*tensors, return_lse=True)
        for half in (whole & sd.where(part), whole - sd.where(part))
    ]
    want_out, want_lse = module_of(whole).attention(*tensors, return_lse=True)
    lse = torch.logaddexp(halves[0][1], halves[1][1])
    out = sum(o * torch.exp(own - lse)[..., None] for o, own in halves)
    assert isinstance(out, Tensor)
    torch.testing.assert_close(lse, want_lse)
    torch.testing.assert_close(out, want_out)


# --- a pattern for each query head, key heads shared


@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_each_query_head_has_its_own_pattern_inside_a_shared_key_head(key_heads: int) -> None:
    heads = PATTERNS["per head"]
    assert isinstance(heads, PerHead)
    q, k, v = inputs(4, key_heads, 45, 61, 8)
    weight = torch.randn(1, 4, 45, 8, dtype=torch.float64)
    out = module_of(heads).attention(q, k, v)
    got = torch.autograd.grad((out * weight).sum(), (q, k, v))
    want = [torch.zeros_like(each) for each in (q, k, v)]
    for head, pattern in enumerate(heads.heads):
        shared = head // (4 // key_heads)
        one = [q[:, head : head + 1], k[:, shared : shared + 1], v[:, shared : shared + 1]]
        leaves = [each.detach().requires_grad_() for each in one]
        alone = module_of(pattern).attention(*leaves)
        torch.testing.assert_close(out[:, head : head + 1], alone)
        parts = torch.autograd.grad((alone * weight[:, head : head + 1]).sum(), leaves)
        for total, gradient, place in zip(want, parts, (head, shared, shared), strict=True):
            total[:, place : place + 1] += gradient
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_swapped_heads_are_noticed() -> None:
    heads = PATTERNS["per head"]
    assert isinstance(heads, PerHead)
    q, k, v = inputs(4, 2, 45, 61, 8)
    swapped = module_of(sd.per_head([heads.heads[1], heads.heads[0], *heads.heads[2:]])).attention(q, k, v)
    right = module_of(heads).attention(q, k, v)
    assert not torch.allclose(swapped[:, 0], right[:, 0])
    assert not torch.allclose(swapped[:, 1], right[:, 1])
    assert torch.equal(swapped[:, 2:], right[:, 2:])


# --- the oracle of these tests is not the code under test


def test_the_oracle_is_softmax_by_hand() -> None:
    q, k, v = (each.detach() for each in inputs(1, 1, 3, 3, 2))
    out, lse = dense_attention(q, k, v, torch.tensor([[[True, False, False], [True, True, False], [False] * 3]]), 1.0)
    a, b = (q[0, 0, 1] @ k[0, 0, :2].T).tolist()
    share = math.exp(a) / (math.exp(a) + math.exp(b))
    torch.testing.assert_close(out[0, 0, 1], share * v[0, 0, 0] + (1 - share) * v[0, 0, 1])
    assert lse[0, 0, 1].item() == pytest.approx(math.log(math.exp(a) + math.exp(b)))
    assert torch.equal(out[0, 0, 0], v[0, 0, 0])
    assert (out[0, 0, 2] == 0).all()
    assert lse[0, 0, 2] == float("-inf")
