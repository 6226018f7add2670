"""The oracle: dense attention in float64, and the error that the same computation makes in the inputs' type."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.cases import MaskMod

NAMES = ("output", "dq", "dk", "dv")
# How many times the eager error is allowed: gradients pass through more roundings than the output.
FACTORS = {"output": 2.0, "dq": 3.0, "dk": 3.0, "dv": 3.0}
FLOOR = 1e-5
SCORES_AT_ONCE = 1 << 28


@dataclass(frozen=True, slots=True)
class Inputs:
    """q, k, v (batch, heads, length, head_dim) and the gradient of the output."""

    q: Tensor
    k: Tensor
    v: Tensor
    d_out: Tensor

    @staticmethod
    def random(heads: int, length: int, head_dim: int, *, dtype: torch.dtype, device: str) -> Inputs:
        """Standard normal numbers, the same for every run."""
        made = torch.Generator(device).manual_seed(0)
        shape = (1, heads, length, head_dim)
        return Inputs(*(torch.randn(shape, generator=made, dtype=dtype, device=device) for _ in range(4)))

    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v as inputs of a graph of their own."""
        return (
            self.q.detach().requires_grad_(),
            self.k.detach().requires_grad_(),
            self.v.detach().requires_grad_(),
        )


Results = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Oracle:
    """The float64 results of one case, the eager errors against them, and the live pairs of its mask."""

    exact: Results
    eager_errors: dict[str, float]
    pairs: int

    @staticmethod
    def of(inputs: Inputs, mask: MaskMod) -> Oracle:
        """Two dense computations. O(heads · length²) time, a fixed number of scores at a time."""
        exact, pairs = dense(inputs, mask, torch.float64)
        eager, _ = dense(inputs, mask, inputs.q.dtype)
        return Oracle(exact, {name: largest_error(eager[name], exact[name]) for name in NAMES}, pairs)


def dense(inputs: Inputs, mask: MaskMod, dtype: torch.dtype) -> tuple[Results, int]:
    """Output and gradients of masked dense attention computed in `dtype`, and the live pairs of one head.

    A chunk of queries at a time; what the chunks add to dk and dv is summed in float64.
    """
    q, k, v, d_out = (each.to(dtype) for each in (inputs.q, inputs.k, inputs.v, inputs.d_out))
    results = {"output": torch.empty_like(q), "dq": torch.empty_like(q)}
    results |= {name: torch.zeros_like(k, dtype=torch.float64) for name in ("dk", "dv")}
    heads, length = q.shape[1], q.shape[2]
    positions = torch.arange(length, device=q.device)
    zero = torch.zeros((), dtype=torch.int64, device=q.device)
    pairs = 0
    for rows in positions.split(max(1, SCORES_AT_ONCE // (heads * length))):
        chunk = slice(int(rows[0]), int(rows[-1]) + 1)
        leaves = [each.detach().requires_grad_() for each in (q[:, :, chunk], k, v)]
        live = mask(zero, zero, rows[:, None], positions[None, :])
        pairs += int(live.sum())
        scores = (leaves[0] @ leaves[1].mT * q.shape[3] ** -0.5).masked_fill(~live, float("-inf"))
        output = torch.softmax(scores, -1) @ leaves[2]
        dq, dk, dv = torch.autograd.grad(output, leaves, d_out[:, :, chunk])
        results["output"][:, :, chunk], results["dq"][:, :, chunk] = output.detach(), dq
        results["dk"] += dk
        results["dv"] += dv
    return results, pairs


def largest_error(got: Tensor, exact: Tensor) -> float:
    """The largest absolute difference; infinite where a number is missing."""
    error = (got.double() - exact.double()).abs().amax().item()
    return error if error == error else float("inf")


def relative_distance(got: Tensor, other: Tensor) -> float:
    """|got - other| / |other| in the Euclidean norm, summed head by head in float32 or better."""
    squares = [
        torch.stack(
            [(a.float() - b.float()).square().sum(dtype=torch.float64), b.float().square().sum(dtype=torch.float64)]
        )
        for a, b in zip(got.flatten(0, 1), other.flatten(0, 1), strict=True)
    ]
    difference, norm = torch.stack(squares).sum(0).tolist()
    return float((difference / norm) ** 0.5)
