"""FlashAttention-4 and NATTEN, where they are installed and answer as we do; else a line for each that says why not.

Both want (batch, length, heads, head_dim), and are given tensors stored so. FlashAttention-4 (`flash-attn-4`, its CuTe
kernels) is asked for windows and dense causal attention by its own arguments; for every other pattern by its road for
block-sparse masks, with the same mask in CuTe and the same tiles of 128 x 128 as FlexAttention, forward and backward.
NATTEN is asked for windows and dilations. Whatever goes wrong, from an import to another result than ours, is an
absence and no failure of the run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.oracle import Inputs, Results, relative_distance
from benchmarks.peers import Attention, Peer, block_mask

FLASH4, NATTEN = "FlashAttention-4", "NATTEN"
FARTHEST = 1e-2
LONGEST = 160
# FlashAttention-4's tiles on compute capability 9.0 at head dim 128: forward 128 x 128, backward 64 x 128.
TILE = 128


class Unasked(Exception):
    """The peer has no such pattern."""


def flash4(case: Case, length: int, device: str) -> Attention:
    """FlashAttention-4's CuTe kernels."""
    # Compiled kernels are kept on disk only if this is set before the import.
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")
    attend = import_module("flash_attn.cute").flash_attn_func
    options: dict[str, Any]
    if case.keys is None or case.keys[1] != 1:
        options = _by_tiles(case, length, device)
    elif case.keys[0] is None:
        options = {"causal": True}
    else:
        # Its window counts the keys to the left of the query's own.
        options = {"window_size": (case.keys[0] - 1, 0)}
    return _by_length(lambda q, k, v: attend(q, k, v, **options))


def _by_tiles(case: Case, length: int, device: str) -> dict[str, Any]:
    """The mask, and which tiles it fills or cuts: for each tile of queries, and for backward for each tile of keys."""
    tensors = import_module("flash_attn.cute.block_sparsity").BlockSparseTensorsTorch
    found = block_mask(case, length, device)
    rows = (found.kv_num_blocks, found.kv_indices, found.full_kv_num_blocks, found.full_kv_indices)
    columns = (found.q_num_blocks, found.q_indices, found.full_q_num_blocks, found.full_q_indices)
    return {
        "mask_mod": cute_mask(case),
        "block_sparse_tensors": tensors(*rows, block_size=(TILE, TILE)),
        "block_sparse_tensors_bwd": tensors(*columns, block_size=(TILE, TILE)),
    }


def cute_mask(case: Case) -> Any:
    """The case's mask as FlashAttention-4 compiles it: its operators mean the same on CuTe's values as on tensors."""

    def mask(batch: Any, head: Any, q: Any, k: Any, lengths: Any, tensors: Any) -> Any:
        return case.mask(batch, head, q, k)

    # The name under which compiled kernels are kept: by default it would hold the address of case.mask.
    vars(mask)["__cute_hash__"] = f"sparsedsl benchmark, {case.name}"
    return import_module("cutlass.cute").jit(mask)


def natten(case: Case, length: int, device: str) -> Attention:
    """NATTEN's one-dimensional neighbourhood attention, causal."""
    if case.keys is None or case.keys[0] is None:
        raise Unasked("neither a window nor a dilation")
    window, dilation = case.keys
    attend = import_module("natten").na1d
    return _by_length(lambda q, k, v: attend(q, k, v, kernel_size=window, dilation=dilation, is_causal=True))


def _by_length(attend: Callable[[Tensor, Tensor, Tensor], Tensor | tuple[Tensor, ...]]) -> Attention:
    """A call in the layout of such libraries as one in ours; of several results the first is the output."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        found = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return (found if isinstance(found, Tensor) else found[0]).transpose(1, 2)

    return attention


def stored_by_length(inputs: Inputs) -> Inputs:
    """The same tensors, in memory as (batch, length, heads, head_dim)."""
    tensors = (inputs.q, inputs.k, inputs.v, inputs.d_out)
    return Inputs(*(each.transpose(1, 2).contiguous().transpose(1, 2) for each in tensors))


MAKERS: dict[str, Callable[[Case, int, str], Attention]] = {FLASH4: flash4, NATTEN: natten}


def optional_peer(name: str, case: Case, length: int, device: str) -> Peer:
    """One of the two, for one case and length.

    Raises
        ImportError: it is not installed. Unasked: it has no such pattern.
    """
    return Peer(name, MAKERS[name](case, length, device), stored_by_length)


def ready(
    case: Case, inputs: Inputs, ours: Results, failed: dict[str, str] | None = None
) -> tuple[list[Peer], list[str]]:
    """The peers whose output and gradients of these inputs are ours, and a line for each of the others.

    `failed` names those that are not to be tried, and why: a kernel that fails can take the process with it.
    """
    found, absences = [], []
    length = inputs.q.shape[2]
    place = f"{case.name}, {length} tokens: "
    for name in MAKERS:
        try:
            if failed and name in failed:
                absences.append(f"{place}{name} is not measured: {failed[name]}")
                continue
            peer = optional_peer(name, case, length, inputs.q.device.type)
            why = _difference(peer.results(inputs), ours)
            if inputs.q.is_cuda:
                torch.cuda.synchronize()
        except ImportError as error:  # the same for every case
            absences.append(f"{name} is not measured: not to be imported: {short(str(error))}")
            continue
        except Unasked as reason:
            absences.append(f"{case.name}: {name} is not measured: {reason}")
            continue
        # Two libraries that compile at the first call can fail in any way; none of them ends the run.
        except Exception as error:
            why = f"{type(error).__name__}: {short(str(error))}"
        if why:
            absences.append(f"{place}{name} is not measured: {why}")
        else:
            found.append(peer)
    return found, absences


def short(text: str) -> str:
    """On one line, and no more than a line."""
    return " ".join(text.split())[:LONGEST]


def _difference(got: Results, ours: Results) -> str:
    for name, want in ours.items():
        distance = relative_distance(got[name], want)
        if not distance < FARTHEST:
            return f"{name} is {distance:.1e} from ours, relative"
    return ""
