"""How queries, outputs and their gradients lie in memory, as kernels may read and write them.

The text below the imports is part of every emitted module, so it uses nothing of this package.
"""

from __future__ import annotations

import torch
from torch import Tensor


def readable(tensor: Tensor) -> Tensor:
    """The tensor itself where tiles can be read from it: rows contiguous, every stride a multiple of 16 bytes."""
    strides = [stride * tensor.element_size() for stride in tensor.stride()[:3]]
    aligned = tensor.data_ptr() % 16 == 0 and all(stride % 16 == 0 and stride > 0 for stride in strides)
    return tensor if tensor.stride(3) == 1 and aligned else tensor.clone(memory_format=torch.contiguous_format)


def evenly_spaced(tensor: Tensor) -> bool:
    """Whether kernels can count a tensor's rows: all heads of the batch equally far apart, and so all tokens."""
    batch, heads, _, head_dim = tensor.shape
    each_batch, each_head, each_token, each_number = tensor.stride()
    whole = each_number == 1 and each_head % head_dim == 0 and each_token % head_dim == 0
    return whole and (batch == 1 or each_batch == heads * each_head)


def rows_apart(tensor: Tensor) -> tuple[int, int]:
    """How many rows lie from head to head, and from token to token."""
    if tensor.is_contiguous():
        return tensor.shape[2], 1
    return tensor.stride(1) // tensor.shape[3], tensor.stride(2) // tensor.shape[3]


def in_rows(tensor: Tensor) -> Tensor:
    """The tensor itself where kernels can count its rows and read tiles from it, else a copy."""
    tensor = readable(tensor)
    return tensor if evenly_spaced(tensor) else tensor.contiguous()


def output_strides(q: Tensor) -> tuple[int, ...]:
    """The strides of an output: in the order of q's where kernels can count such rows, else contiguous."""
    if not q.is_contiguous():
        like = torch.empty_like(q, device="meta")
        if evenly_spaced(like):
            return like.stride()
    _, heads, length, head_dim = (max(size, 1) for size in q.shape)
    return heads * length * head_dim, length * head_dim, head_dim, 1


def room_like(q: Tensor) -> Tensor:
    """Room for an output."""
    return torch.empty_strided(q.shape, output_strides(q), dtype=q.dtype, device=q.device)


def laid_out_like(q: Tensor, out: Tensor) -> Tensor:
    """The output in the strides of an output; a copy where it has others."""
    return out if out.stride() == output_strides(q) else room_like(q).copy_(out)
