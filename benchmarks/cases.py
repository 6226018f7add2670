"""What is measured: a pattern, and the same mask written by hand, as a FlexAttention user would write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import torch
from torch import Tensor

import sparsedsl as sd
from sparsedsl.patterns.power import power_attention

# (batch, head, query position, key position) -> whether the query reads the key; tensors that broadcast.
MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

MASK_CHECK = (96, 9001)  # queries, keys; the keys reach over every distance of the cases


@dataclass(frozen=True, slots=True)
class Case:
    """One pattern to measure; `mask` states it a second time, independently.

    `keys` says it for libraries with few patterns: how many keys a row has, and how far apart; None for all keys.
    """

    name: str
    pattern: sd.Pattern
    mask: MaskMod
    keys: tuple[int | None, int] | None = None

    @property
    def dense(self) -> bool:
        """Whether it is what PyTorch's dense kernels compute."""
        return self.mask is causal_mask

    def mask_agrees(self) -> bool:
        """Whether mask and pattern are the same set, on a rectangle of pairs with all the keys in its past."""
        q_len, k_len = MASK_CHECK
        q, k = torch.arange(k_len - q_len, k_len)[:, None], torch.arange(k_len)[None, :]
        zero = torch.zeros((), dtype=torch.int64)
        return torch.equal(self.mask(zero, zero, q, k), torch.from_numpy(self.pattern.dense(q_len, k_len)))


def window_mask(window: int) -> MaskMod:
    """0 <= q - k < window."""

    def mask(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (q - k < window)

    return mask


def dilated_mask(window: int, dilation: int) -> MaskMod:
    """q - k is one of 0, dilation, ..., (window - 1) * dilation."""

    def mask(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (q - k < window * dilation) & ((q - k) % dilation == 0)

    return mask


def power_mask(block: int, window: int) -> MaskMod:
    """In blocks: a window, powers of two, and the first block; the form of PowerAttention's Algorithm 1."""

    def mask(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        distance = q // block - k // block
        return (q >= k) & ((distance < window) | ((distance & (distance - 1)) == 0) | (k < block))

    return mask


def causal_mask(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """k <= q: what the dense kernels compute."""
    return q >= k


def local_and_dilated_mask(window: int, keys: int, dilation: int) -> MaskMod:
    """A window, and `keys` keys at every `dilation`-th position."""

    def mask(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        distance = q - k
        return (q >= k) & ((distance < window) | ((distance < keys * dilation) & (distance % dilation == 0)))

    return mask


def longnet_mask(segments: Sequence[int], dilations: Sequence[int]) -> MaskMod:
    """LongNet's levels (w, r): one segment of w, and the residue modulo r that the head owns."""

    def mask(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        levels = [
            (q // w == k // w) & (q % r == h % r) & (k % r == h % r) for w, r in zip(segments, dilations, strict=True)
        ]
        return (q >= k) & reduce(or_, levels)

    return mask


CASES = (
    Case("sliding 1024", sd.sliding(1024), window_mask(1024), (1024, 1)),
    Case("sliding 4096", sd.sliding(4096), window_mask(4096), (4096, 1)),
    Case("power 128", power_attention(block=128, window=4), power_mask(128, 4)),
    Case("power 256", power_attention(), power_mask(256, 5)),
    Case("dilated 512 x 8", sd.dilated(512, dilation=8), dilated_mask(512, 8), (512, 8)),
    Case("local and dilated", sd.sliding(256) | sd.dilated(256, dilation=16), local_and_dilated_mask(256, 256, 16)),
)
DENSE = Case("dense causal", sd.causal(), causal_mask, (None, 1))
ALL_CASES = (*CASES, DENSE)
