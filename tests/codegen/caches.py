"""Caches for tests: every slot that holds no key in use is NaN, pages are shuffled, unused entries name no page."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from tests.codegen.oracle import dense_attention, dense_mask

NOWHERE = -(1 << 30)


@dataclass(frozen=True, slots=True)
class Cache:
    """Queries, and the keys and values of sequences of different lengths, as one tensor and as arguments of a call."""

    q: Tensor
    k: Tensor
    v: Tensor
    lengths: tuple[int, ...]

    @staticmethod
    def random(
        heads: int,
        key_heads: int,
        q_len: int,
        lengths: tuple[int, ...],
        capacity: int,
        head_dim: int = 16,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> Cache:
        torch.manual_seed(sum(lengths) + q_len)
        shapes = ((heads, q_len), (key_heads, capacity), (key_heads, capacity))
        q, k, v = (torch.randn(len(lengths), h, n, head_dim).to(dtype).to(device) for h, n in shapes)
        for number, length in enumerate(lengths):
            k[number, :, length:] = v[number, :, length:] = float("nan")
        return Cache(q, k, v, lengths)

    def seqlens(self) -> Tensor:
        return torch.tensor(self.lengths, dtype=torch.int32, device=self.q.device)

    def contiguous(self) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Tensor]]:
        """The arguments of a call over a contiguous cache, its heads inside its rows."""
        k, v = (each.transpose(1, 2).contiguous().transpose(1, 2) for each in (self.k, self.v))
        return (self.q, k, v), {"cache_seqlens": self.seqlens()}

    def paged(self, page_size: int) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Tensor]]:
        """The arguments of a call over pages in random order; the ones not in use are NaN."""
        batch, key_heads, capacity, head_dim = self.k.shape
        columns = -(-capacity // page_size)
        order = torch.randperm(batch * columns + 3).tolist()
        table = torch.full((batch, columns), NOWHERE, dtype=torch.int32)
        shape = (len(order), page_size, key_heads, head_dim)
        pages = [torch.full(shape, float("nan"), dtype=self.k.dtype, device=self.k.device) for _ in range(2)]
        for number, length in enumerate(self.lengths):
            for column in range(-(-length // page_size)):
                table[number, column] = page = order.pop()
                for target, source in zip(pages, (self.k, self.v), strict=True):
                    keys = source[number, :, column * page_size : (column + 1) * page_size].transpose(0, 1)
                    target[page, : len(keys)] = keys
        k, v = (each.transpose(1, 2) for each in pages)
        return (self.q, k, v), {"cache_seqlens": self.seqlens(), "page_table": table.to(self.q.device)}

    def expected(
        self, pattern: Pattern | PerHead, dtype: torch.dtype = torch.float64, scale: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """(output, log-sum-exp) of dense attention over each sequence by itself."""
        heads, q_len, head_dim = self.q.shape[1:]
        found = []
        for number, length in enumerate(self.lengths):
            q, k, v = (each[number : number + 1].to(dtype) for each in (self.q, self.k, self.v))
            mask = dense_mask(pattern, heads, q_len, length, None).to(q.device)
            factor = head_dim**-0.5 if scale is None else scale
            found.append(dense_attention(q, k[:, :, :length], v[:, :, :length], mask, factor))
        outs, lses = zip(*found, strict=True)
        return torch.cat(outs), torch.cat(lses)


def assert_like_dense(
    got: tuple[Tensor, Tensor], cache: Cache, pattern: Pattern | PerHead, scale: float | None = None
) -> None:
    """The error of the output within twice that of eager attention in the same type; empty rows exactly empty."""
    out, lse = got
    exact, exact_lse = cache.expected(pattern, scale=scale)
    eager, _ = cache.expected(pattern, cache.q.dtype, scale)
    assert not out.isnan().any()
    error, allowed = (out - exact).abs().max().item(), (eager - exact).abs().max().item()
    assert error <= 2 * allowed + 4 * torch.finfo(out.dtype).eps * max(exact.abs().max().item(), 1.0)
    dead = exact_lse == float("-inf")
    assert torch.equal(lse == float("-inf"), dead)
    assert (out[dead] == 0).all()
    room = 1e-4 if cache.q.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(lse[~dead].double(), exact_lse[~dead], rtol=room, atol=room)
