"""The calls whose kernels are compiled ahead: ordinary ones, packed documents, caches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

Calls = Literal["ordinary", "packed", "cached"]
CALLS: tuple[Calls, ...] = ("ordinary", "packed", "cached")
# Queries of the two kernels over caches: one token, and a chunk that is many in a residue class.
ONE, CHUNK = 1, 17


@dataclass(frozen=True, slots=True)
class Sample:
    """Inputs on the CPU that stand for all of one type and head dim, and the sizes of the pages that caches have."""

    q: Tensor
    k: Tensor
    v: Tensor
    page_sizes: Sequence[int]


def launch_ordinary(module: ModuleType, sample: Sample) -> None:
    """Forward and backward, as in training and in a prefill."""
    q, k, v = sample.q, sample.k, sample.v
    out, lse = module.launch_forward(q, k, v, 1.0, 0)
    module.launch_backward(out, lse, q, k, v, out, lse, 1.0, 0)
    # Queries that begin inside a tile: forward kernels for Hopper have a form for them.
    module.launch_forward(q[:, :, 1:], k, v, 1.0, 1)


def launch_packed(module: ModuleType, sample: Sample) -> None:
    """Forward and backward over documents in one row; how many there are is no part of a kernel."""
    q, k, v = sample.q, sample.k, sample.v
    bounds = torch.tensor([0, q.shape[2]], dtype=torch.int32)
    out, lse = module.launch_forward(q, k, v, 1.0, 0, bounds)
    module.launch_backward(out, lse, q, k, v, out, lse, 1.0, 0, bounds)


def launch_cached(module: ModuleType, sample: Sample) -> None:
    """One token and a chunk over a cache in one piece and in pages; few queries of ordinary calls.

    A kernel has two forms: the keys of a query are split over programs, or, as in a cache of one of its tiles, they are
    not.
    """
    parts = module.DECODE_PARTS
    chunks = {CHUNK * each.step for each in parts}
    in_one_tile = {min(each.step * each.few_keys for each in parts), min(each.step * each.many_keys for each in parts)}
    for keys in sorted({sample.k.shape[2], *in_one_tile}):
        k, v = sample.k[:, :, :keys], sample.v[:, :, :keys]
        lengths = torch.tensor([keys], dtype=torch.int32)
        module.launch_cached(sample.q[:, :, :ONE], k, v, None, None, 1.0, keys - ONE)
        for queries in sorted({ONE, *chunks}):
            q = sample.q[:, :, : min(queries, sample.q.shape[2])]
            module.launch_cached(q, k, v, lengths, None, 1.0, 0)
            for size in sample.page_sizes:
                pages = torch.zeros(1, max(keys // size, 1), dtype=torch.int32)
                k_pages, v_pages = (each[:, :, :size].contiguous() for each in (sample.k, sample.v))
                module.launch_cached(q, k_pages, v_pages, lengths, pages, 1.0, 0)


LAUNCHES: dict[Calls, Callable[[ModuleType, Sample], None]] = {
    "ordinary": launch_ordinary,
    "packed": launch_packed,
    "cached": launch_cached,
}
