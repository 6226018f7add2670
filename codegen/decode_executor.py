"""The CPU road over a cache: each sequence by itself, as long as it is, its pages gathered where they are read.

The text below the imports is part of every emitted module, so it uses nothing of this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sparsedsl.codegen.executor import CpuPart, forward_parts


@dataclass(frozen=True)
class PagedRows:
    """The keys or values of one sequence in its pages: (1, heads, keys, head_dim), gathered where it is indexed.

    It takes the three forms of index that the CPU road uses: [:, heads], [:, heads, keys] and [..., start:stop, :].
    """

    pages: Tensor
    table: Tensor
    heads: range
    keys: range

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return 1, len(self.heads), len(self.keys), self.pages.shape[3]

    def __getitem__(self, index: tuple[object, ...]) -> PagedRows | Tensor:
        match index:
            case (slice(), slice() as heads):
                return replace(self, heads=self.heads[heads])
            case (slice(), slice() as heads, slice() as keys):
                return replace(self, heads=self.heads[heads], keys=self.keys[keys])
            case (_, slice() as keys, slice()):
                return self.gathered(self.keys[keys])
        raise AssertionError(index)

    def gathered(self, keys: range) -> Tensor:
        """These keys side by side; no other page of the cache is touched."""
        places = torch.arange(keys.start, keys.stop, keys.step)
        size = self.pages.shape[2]
        heads = slice(self.heads.start, self.heads.stop)
        return self.pages[self.table[places // size].long(), heads, places % size].transpose(0, 1)[None]


def forward_cached(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor,
    page_table: Tensor | None,
    *,
    scale: float,
    parts: Sequence[CpuPart],
    block_m: int,
    block_n: int,
) -> tuple[Tensor, Tensor]:
    """Output and natural log-sum-exp over a cache; the last query of a sequence stands on its last key."""
    out = torch.zeros(q.shape, dtype=q.dtype)
    lse = torch.full(q.shape[:3], float("-inf"), dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)
    for number, length in enumerate(lengths.tolist()):
        one, key_heads, keys = slice(number, number + 1), range(k.shape[1]), range(length)
        rows: Sequence[Any]
        if page_table is None:
            rows = [each[one, :, :length] for each in (k, v)]
        else:
            rows = [PagedRows(each, page_table[number], key_heads, keys) for each in (k, v)]
        out[one], lse[one] = forward_parts(
            q[one],
            *rows,
            scale=scale,
            q_start=length - q.shape[2],
            parts=parts,
            block_m=block_m,
            block_n=block_n,
        )
    return out, lse
