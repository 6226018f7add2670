"""Which kernels Triton would compile for calls of many lengths; nothing is compiled, and no GPU is asked.

    python -m tests.codegen.specialised      # a JSON object: for each pattern, a list of kernels for each call

A program of its own: where Triton was imported for its interpreter it specialises nothing.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
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
FEW = 16


def kernels(pattern: sd.Pattern, head_dim: int) -> list[list[str]]:
    """Of each call, forward and backward, the kernels that no call before it would have compiled."""
    module = load(emit(pattern, TILINGS[0]))
    found: set[tuple[str, str]] = set()
    new: list[list[str]] = []

    def told(*, key: str, fn: Any, **_: object) -> bool:
        if (fn.name, key) not in found:
            found.add((fn.name, key))
            new[-1].append(fn.name.rpartition(".")[2])
        return True  # and is not compiled

    knobs.runtime.jit_cache_hook = told
    with launches_compile(GPUTarget("cuda", 90, 32)):
        for q_len, k_len in CALLS:
            new.append([])
            q, k, v = (torch.zeros(1, 2, length, head_dim, dtype=torch.bfloat16) for length in (q_len, k_len, k_len))
            out, lse = torch.zeros_like(q), torch.zeros(1, 2, q_len)
            if q_len <= FEW:
                module.launch_cached(q, k, v, None, None, 1.0, k_len - q_len)
            else:
                module.launch_forward(q, k, v, 1.0, k_len - q_len)
            module.launch_backward(out, lse, q, k, v, out, lse, 1.0, k_len - q_len)
    return [sorted(each) for each in new]


if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: kernels(pattern, 64) for name, pattern in PATTERNS.items()}))
