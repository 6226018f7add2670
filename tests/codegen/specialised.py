"""Which kernels Triton would compile for calls of many lengths; nothing is compiled, and no GPU is asked.

    python -m tests.codegen.specialised      # a JSON object: for each pattern, lists of kernels, call by call

A program of its own: where Triton was imported for its interpreter it specialises nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget

import sparsedsl as sd
from sparsedsl.codegen.ahead import launches_compile
from sparsedsl.codegen.build import load
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.tiling import TILINGS
from sparsedsl.patterns.power import power_attention

PATTERNS = {
    "window and sink": sd.sliding(777) | sd.sink(5) & sd.causal(),
    "local and dilated": sd.sliding(256) | sd.dilated(256, 16),
    "classes": sd.dilated(64, 8),
    "power": power_attention(block=64),
    "random": (sd.random_blocks(64, 3) | sd.sliding(128)) & sd.causal(),
    "both ways": sd.sliding(100, ahead=60),
}
# (queries, keys). The first three are the three forms of a call: many queries, few over split keys, few over all keys.
CALLS = ((1024, 1024), (1, 5003), (1, 1), (4096, 4096), (5003, 5003), (17, 17), (64, 64), (3, 3), (16, 16), (2, 4099))
# Documents in one row, by their bounds; a call of them has one form.
PACKED = ((0, 500, 900, 1000), (0, 1), (0, 3, 60, 61, 700, 1313), (0, 0, 64), (0, 4096))
# (queries, keys, shares): the last numbers are multiples of 16, and 1.
SPLIT = ((1024, 1024, 1), (1024, 1024, 3), (5003, 5003, 16), (64, 64, 2), (2, 4099, 5), (4096, 4096, 64), (700, 700, 1))
FEW = 16


def newly_compiled(calls: Iterable[Callable[[], object]]) -> list[list[str]]:
    """Of each call, the kernels that no call before it would have compiled."""
    found: set[tuple[str, str]] = set()
    new: list[list[str]] = []

    def told(*, key: str, fn: Any, **_: object) -> bool:
        if (fn.name, key) not in found:
            found.add((fn.name, key))
            new[-1].append(fn.name.rpartition(".")[2])
        return True  # and is not compiled

    knobs.runtime.jit_cache_hook = told
    with launches_compile(GPUTarget("cuda", 90, 32)):
        for call in calls:
            new.append([])
            call()
    return [sorted(each) for each in new]


def step(module: ModuleType, q_len: int, k_len: int, documents: Tensor | None = None) -> None:
    """The launches of a forward and a backward call."""
    q, k, v = (torch.zeros(1, 2, length, 64, dtype=torch.bfloat16) for length in (q_len, k_len, k_len))
    out, lse = torch.zeros_like(q), torch.zeros(1, 2, q_len)
    if q_len <= FEW and documents is None:
        module.launch_cached(q, k, v, None, None, 1.0, k_len - q_len)
    else:
        module.launch_forward(q, k, v, 1.0, k_len - q_len, documents)
    module.launch_backward(out, lse, q, k, v, out, lse, 1.0, k_len - q_len, documents)


def split_step(module: ModuleType, q_len: int, k_len: int, shares: int) -> None:
    """The launches of a backward call whose long columns, if there are any, are in so many shares."""
    vars(module).update(column_shares=lambda *given: shares)
    q, k, v = (torch.zeros(1, 2, length, 64, dtype=torch.bfloat16) for length in (q_len, k_len, k_len))
    module.launch_backward(q, torch.zeros(1, 2, q_len), q, k, v, q, torch.zeros(1, 2, q_len), 1.0, k_len - q_len)


def kernels(pattern: sd.Pattern) -> dict[str, list[list[str]]]:
    module = load(emit(pattern, TILINGS[0]))
    packed = (torch.tensor(bounds, dtype=torch.int32) for bounds in PACKED)
    return {
        "calls": newly_compiled(partial(step, module, *lengths) for lengths in CALLS),
        "split": newly_compiled(partial(split_step, module, *each) for each in SPLIT),
        "packed": newly_compiled(partial(step, module, int(each[-1]), int(each[-1]), each) for each in packed),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: kernels(pattern) for name, pattern in PATTERNS.items()}))
