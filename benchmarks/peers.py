"""Who is measured: our kernels, FlexAttention with the same mask, and PyTorch's dense causal attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch._functorch.config
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

import sparsedsl as sd
from benchmarks.cases import Case
from benchmarks.oracle import Inputs, Results

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]

OURS, FLEX, CUDNN, FLASH = "sparsedsl", "FlexAttention", "cuDNN", "flash"


@dataclass(frozen=True, slots=True)
class Peer:
    """One implementation of a case, ready to call at the length it was prepared for."""

    name: str
    attention: Attention

    def results(self, inputs: Inputs) -> Results:
        """Output and gradients. The output is that of the call without gradients: the one that is timed."""
        with torch.no_grad():
            output = self.attention(inputs.q, inputs.k, inputs.v)
        gradients = self.backward(inputs)()
        return {"output": output, **dict(zip(("dq", "dk", "dv"), gradients, strict=True))}

    def forward(self, inputs: Inputs) -> Callable[[], Tensor]:
        """The forward pass as a call; run it without gradients."""
        return partial(self.attention, inputs.q, inputs.k, inputs.v)

    def training_step(self, inputs: Inputs) -> Callable[[], tuple[Tensor, ...]]:
        """Forward and backward as one call."""
        return lambda: self.backward(inputs)()

    def backward(self, inputs: Inputs) -> Callable[[], tuple[Tensor, ...]]:
        """The backward pass as a call, on an output that is computed here."""
        leaves = inputs.leaves()
        output = self.attention(*leaves)
        return partial(torch.autograd.grad, output, leaves, inputs.d_out, retain_graph=True)


def ours(case: Case) -> Peer:
    """Our kernels; one compilation serves every length."""
    return Peer(OURS, sd.compile(case.pattern))


def flex(case: Case, length: int) -> Peer:
    """FlexAttention as its documentation advises: a compiled call, and a block mask made by a compiled call.

    Both are compiled for this length, which is faster than with dynamic shapes.
    """
    make = torch.compile(create_block_mask, dynamic=False)
    block_mask = make(case.mask, None, None, length, length, device="cuda")
    return Peer(FLEX, partial(torch.compile(flex_attention, dynamic=False), block_mask=block_mask))


def dense_causal(name: str) -> Peer:
    """Dense causal attention through one backend of PyTorch, and no other."""
    backend = {CUDNN: SDPBackend.CUDNN_ATTENTION, FLASH: SDPBackend.FLASH_ATTENTION}[name]

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v, is_causal=True)

    return Peer(name, attention)


def allow_repeated_backward() -> None:
    """Let a compiled graph run backward more than once: by default it hands its buffers over to the first."""
    torch._functorch.config.donated_buffer = False
