"""FlashAttention-4 and NATTEN, where they are installed and answer as we do; else a line for each that says why not.

Both want (batch, length, heads, head_dim): they are given transposed views, and a copy that they make counts as theirs.
FlashAttention-4 is asked for windows and dense causal attention; its other masks are in a language of its own. NATTEN
is asked for windows and dilations. Their interfaces were not run here: whatever goes wrong, from an import to another
result than ours, is an absence and no failure of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.oracle import Inputs, Results, relative_distance
from benchmarks.peers import Attention, Peer

FLASH4, NATTEN = "FlashAttention-4", "NATTEN"
FARTHEST = 1e-2
LONGEST = 160


class Unasked(Exception):
    """The peer has no such pattern, or nobody wrote it for the peer."""


def flash4(case: Case) -> Attention:
    """FlashAttention-4's CuTe kernels."""
    options: dict[str, object]
    if case.keys is None:
        raise Unasked("neither a window nor dense")
    window, dilation = case.keys
    if dilation != 1:
        raise Unasked("it has no dilation")
    # Its window counts the keys to the left of the query's own.
    options = {"causal": True} if window is None else {"window_size": (window - 1, 0)}
    attend = import_module("flash_attn.cute").flash_attn_func
    return _by_length(lambda q, k, v: attend(q, k, v, **options))


def natten(case: Case) -> Attention:
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


MAKERS: dict[str, Callable[[Case], Attention]] = {FLASH4: flash4, NATTEN: natten}


def ready(case: Case, inputs: Inputs, ours: Results) -> tuple[list[Peer], list[str]]:
    """The peers whose output and gradients of these inputs are ours, and a line for each of the others."""
    found, absences = [], []
    place = f"{case.name}, {inputs.q.shape[2]} tokens: "
    for name, make in MAKERS.items():
        try:
            peer = Peer(name, make(case))
            why = _difference(peer.results(inputs), ours)
            if inputs.q.is_cuda:
                torch.cuda.synchronize()
        except ImportError as error:  # the same for every case
            absences.append(f"{name} is not measured: not to be imported: {_short(error)}")
            continue
        except Unasked as reason:
            absences.append(f"{case.name}: {name} is not measured: {reason}")
            continue
        # Two libraries that compile at the first call can fail in any way; none of them ends the run.
        except Exception as error:
            why = f"{type(error).__name__}: {_short(error)}"
        if why:
            absences.append(f"{place}{name} is not measured: {why}")
        else:
            found.append(peer)
    return found, absences


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:LONGEST]


def _difference(got: Results, ours: Results) -> str:
    for name, want in ours.items():
        distance = relative_distance(got[name], want)
        if not distance < FARTHEST:
            return f"{name} is {distance:.1e} from ours, relative"
    return ""
