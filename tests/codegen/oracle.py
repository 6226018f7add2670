"""Dense attention, the oracle of every kernel test, and the rule for errors."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern


def dense_mask(pattern: Pattern | PerHead, heads: int, q_len: int, k_len: int, q_start: int | None) -> Tensor:
    """(heads, q_len, k_len)."""
    mask = torch.from_numpy(pattern.dense(q_len, k_len, q_start=q_start))
    return mask if mask.dim() == 3 else mask.expand(heads, q_len, k_len)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(output, log-sum-exp) over a mask; a row without a key gives 0 and -inf."""
    share = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
    scores = ((q @ k.mT) * scale).masked_fill(~mask, float("-inf"))
    live = mask.any(-1, keepdim=True)
    weights = torch.softmax(scores.masked_fill(~live, 0.0), -1).masked_fill(~mask, 0.0)
    return weights @ v, torch.logsumexp(scores, -1)


def random_inputs(
    heads: int, key_heads: int, q_len: int, k_len: int, head_dim: int, dtype: torch.dtype, device: str = "cpu"
) -> list[Tensor]:
    """q, k, v and a gradient for the output."""
    torch.manual_seed(q_len * 1000 + k_len)
    shapes = ((heads, q_len), (key_heads, k_len), (key_heads, k_len), (heads, q_len))
    return [torch.randn(2, h, n, head_dim).to(dtype).to(device) for h, n in shapes]


def assert_within_rule(got: list[Tensor], exact: list[Tensor], eager: list[Tensor]) -> None:
    """Max error <= 2x (output) and 3x (gradients) of the same-type eager implementation's own, plus a floor."""
    for name, factor, ours, want, usual in zip(("out", "dq", "dk", "dv"), (2, 3, 3, 3), got, exact, eager, strict=True):
        assert not ours.isnan().any(), name
        error, allowed = (ours - want).abs().max().item(), (usual - want).abs().max().item()
        floor = 4 * torch.finfo(ours.dtype).eps * max(want.abs().max().item(), 1.0)
        assert error <= factor * allowed + floor, (name, error, allowed)
