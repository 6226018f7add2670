"""Who is measured: our kernels, FlexAttention with the same mask, and PyTorch's dense causal attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch._functorch.config
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

import sparsedsl as sd
from benchmarks.cases import Case
from benchmarks.oracle import Inputs, Results

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]

OURS, PLAIN, FLEX, CUDNN, FLASH = "sparsedsl", "sparsedsl, plain", "FlexAttention", "cuDNN", "flash"


def as_they_are(inputs: Inputs) -> Inputs:
    """Of most peers the inputs are stored as they are shaped: (batch, heads, length, head_dim)."""
    return inputs


@dataclass(frozen=True, slots=True)
class Peer:
    """One implementation of a case, ready to call at the length it was prepared for.

    `stored` gives the inputs, of the same shape, in the order of memory that the implementation is made for; no clock
    runs meanwhile.
    """

    name: str
    attention: Attention
    stored: Callable[[Inputs], Inputs] = as_they_are

    def results(self, inputs: Inputs) -> Results:
        """Output and gradients. The output is that of the call without gradients: the one that is timed."""
        with torch.no_grad():
            output = self.forward(inputs)()
        gradients = self.backward(inputs)()
        return {"output": output, **dict(zip(("dq", "dk", "dv"), gradients, strict=True))}

    def forward(self, inputs: Inputs) -> Callable[[], Tensor]:
        """The forward pass as a call; run it without gradients."""
        own = self.stored(inputs)
        return partial(self.attention, own.q, own.k, own.v)

    def training_step(self, inputs: Inputs) -> Callable[[], tuple[Tensor, ...]]:
        """Forward and backward as one call."""
        own = self.stored(inputs)
        return lambda: self._backward(own)()

    def backward(self, inputs: Inputs) -> Callable[[], tuple[Tensor, ...]]:
        """The backward pass as a call, on an output that is computed here."""
        return self._backward(self.stored(inputs))

    def _backward(self, own: Inputs) -> Callable[[], tuple[Tensor, ...]]:
        leaves = own.leaves()
        output = self.attention(*leaves)
        return partial(torch.autograd.grad, output, leaves, own.d_out, retain_graph=True)


def ours(case: Case) -> Peer:
    """Our kernels as `compile` chooses them; one compilation serves every length."""
    return Peer(OURS, sd.compile(case.pattern))


def plain(case: Case) -> Peer | None:
    """Our kernels in plain Triton, where `compile` chooses others; else nobody."""
    attention = sd.compile(case.pattern, backend="triton")
    return None if sd.compile(case.pattern).backend == attention.backend else Peer(PLAIN, attention)


def flex(case: Case, length: int) -> Peer:
    """FlexAttention as its documentation advises: a compiled call, and a block mask made by a compiled call.

    Both are compiled for this length, which is faster than with dynamic shapes.
    """
    compiled = torch.compile(flex_attention, dynamic=False)
    return Peer(FLEX, partial(compiled, block_mask=block_mask(case, length, "cuda")))


def block_mask(case: Case, length: int, device: str) -> BlockMask:
    """The tiles of 128 x 128 that the case's mask leaves empty, fills, or cuts."""
    make = torch.compile(create_block_mask, dynamic=False) if device == "cuda" else create_block_mask
    return make(case.mask, None, None, length, length, device=device)


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
