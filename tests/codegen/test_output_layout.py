"""The output lies in memory as the queries do, so that a model need not copy it, and as torch foresees."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sparsedsl as sd
from sparsedsl.codegen import plan as planning
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.tiling import TILINGS
from sparsedsl.pattern import Pattern
from tests.codegen.gluon_emulator import emulated
from tests.codegen.modules import imported, module_of
from tests.codegen.oracle import random_inputs

PATTERNS: dict[str, Pattern] = {
    "sliding": sd.sliding(20),
    "dilated": sd.dilated(9, 3),
    "two parts": sd.sliding(9) | sd.dilated(20, 4),
    "table": (sd.sliding(20) | sd.random_blocks(16, 2, seed=1)) & sd.causal(),
}
# Layouts of (batch, heads, length, head_dim) queries, and the strides of the output.
BY_TOKEN = torch.empty(1, 40, 4, 16).transpose(1, 2)
LAYOUTS = {
    "contiguous": (torch.empty(1, 4, 40, 16), (2560, 640, 16, 1)),
    "tokens before heads": (BY_TOKEN, (2560, 16, 64, 1)),
    "inside a projection": (torch.empty(1, 40, 3, 4, 16)[:, :, 1].transpose(1, 2), (2560, 16, 64, 1)),
    "tokens before heads, a batch": (torch.empty(2, 40, 4, 16).transpose(1, 2), (2560, 640, 16, 1)),
    "heads before the batch": (torch.empty(4, 2, 40, 16).transpose(0, 1), (2560, 640, 16, 1)),
    "tokens before both": (torch.empty(40, 2, 4, 16).permute(1, 2, 0, 3), (64, 16, 128, 1)),
    "rows across": (torch.empty(1, 4, 16, 40).transpose(2, 3), (2560, 640, 16, 1)),
    "one token": (torch.empty(2, 1, 4, 16).transpose(1, 2), (64, 16, 16, 1)),
    "one head": (torch.empty(2, 40, 1, 16).transpose(1, 2), (640, 640, 16, 1)),
    "no token": (torch.empty(1, 0, 4, 16).transpose(1, 2), None),
}


def inputs(q_len: int, k_len: int, head_dim: int, dtype: torch.dtype) -> list[Tensor]:
    return [each[:1] for each in random_inputs(4, 2, q_len, k_len, head_dim, dtype)]


def by_token(each: Tensor) -> Tensor:
    return each.transpose(1, 2).contiguous().transpose(1, 2)


def outcome(module: object, tensors: list[Tensor], q_start: int) -> list[Tensor]:
    *leaves, d_out = (each.detach() for each in tensors)
    leaves = [each.requires_grad_() for each in leaves]
    out = module.attention(*leaves, q_start=q_start)  # type: ignore[attr-defined]
    return [out.detach(), *torch.autograd.grad(out, leaves, d_out)]


@pytest.mark.parametrize("road", ["cpu", "interpreter"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides(layout: str, road: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if road == "interpreter":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    module = module_of(PATTERNS["sliding"])
    q, strides = LAYOUTS[layout]
    k = torch.randn(q.shape[0], 1, 40, 16)
    out = module.attention(q.normal_(), k, k)
    assert strides is None or out.stride() == strides
    assert module.attention(q.to("meta"), k.to("meta"), k.to("meta")).stride() == out.stride() or not q.numel()
    torch.library.opcheck(module.attention_op, (q, k, k, 0.5, 40 - q.shape[2]), test_utils="test_faketensor")


@pytest.mark.parametrize("road", ["cpu", "interpreter"])
@pytest.mark.parametrize("name", PATTERNS)
def test_no_number_depends_on_it(name: str, road: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Output and gradients to the bit; rows before position 0 are among them."""
    monkeypatch.setattr(planning, "GAIN", float("inf"))
    if road == "interpreter":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    module = module_of(PATTERNS[name])
    tensors = inputs(61, 90, 16, torch.float32)
    for q_start in (29, -7):
        want = outcome(module, tensors, q_start)
        got = outcome(module, [by_token(each) for each in tensors], q_start)
        assert got[0].transpose(1, 2).is_contiguous()
        for ours, theirs in zip(got, want, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("spread", [1, 2])
def test_gradients_of_any_layout(spread: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One number for all rows, as of a sum, and rows that are no whole rows apart."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    module = module_of(PATTERNS["sliding"])
    *leaves, _ = (each.requires_grad_() for each in inputs(61, 90, 16, torch.float32))
    d_out = torch.ones(1).expand(1, 4, 61, 16) if spread == 1 else torch.randn(1, 4, 61, 17)[..., :16]
    out = module.attention(*leaves)
    want = torch.autograd.grad(out, leaves, d_out.contiguous(), retain_graph=True)
    for ours, theirs in zip(torch.autograd.grad(out, leaves, d_out), want, strict=True):
        assert torch.equal(ours, theirs)


def test_packed_documents() -> None:
    """Rows of a batch stand side by side for document_ids, which by tokens is no copy, nor is the way back."""
    module = module_of(PATTERNS["sliding"])
    q, k, v, _ = random_inputs(4, 2, 60, 60, 16, torch.float32)
    ids = torch.arange(60).expand(2, 60) // 25
    got = module.attention(*map(by_token, (q, k, v)), document_ids=ids)
    assert got.transpose(1, 2).is_contiguous()
    assert torch.equal(got, module.attention(q, k, v, document_ids=ids))


@pytest.mark.parametrize("name", ["sliding", "dilated"])
def test_kernel_for_hopper(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy engine writes whole tiles in any layout; rows are written where a tile begins before the first query."""
    monkeypatch.setattr(planning, "GAIN", float("inf"))
    module = emulated(imported(emit(PATTERNS[name], TILINGS[0], "hopper")))
    step = 3 if name == "dilated" else 1
    q, k, v, _ = inputs(150, 150 + 128 * step, 32, torch.bfloat16)
    for q_start in (0, 128 * step, 64 * step, -5, 7):
        want, _ = module.launch_forward(q, k, v, 0.1, q_start)
        got, _ = module.launch_forward(*map(by_token, (q, k, v)), 0.1, q_start)
        assert torch.equal(got, want)
        assert got.transpose(1, 2).is_contiguous()


def test_a_compiled_layer_copies_nothing() -> None:
    """What the compiler foresees is what it gets, for any length."""
    torch._dynamo.reset()
    attn = sd.compile(PATTERNS["sliding"])

    def layer(x: Tensor) -> Tensor:
        q = x.unflatten(-1, (4, 16)).transpose(1, 2)
        out = attn(q, q, q).transpose(1, 2)
        assert out.is_contiguous()
        return out.flatten(2)

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for length in (50, 70):
        x = torch.randn(1, length, 64)
        torch.testing.assert_close(compiled(x), layer(x))
