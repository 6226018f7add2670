"""The memory of a pass: every tensor the host allocates, counted while kernels that do nothing are launched."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sparsedsl as sd
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.explain import explain
from sparsedsl.codegen.tiling import TILINGS
from sparsedsl.codegen.tune_gpu import Silent, only
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.power import power_attention
from tests.codegen.modules import imported

# Residue classes of one length keep their rows' two numbers until those of the next length are made.
SLACK = 1.005
HEADS, KEY_HEADS, LENGTH, HEAD_DIM = 4, 2, 4099, 128
ONE_PART: dict[str, Pattern | PerHead] = {
    "sliding": sd.sliding(1024),
    "power": power_attention(),
    "dilated": sd.dilated(64, 8),
    "random": (sd.random_blocks(64, 3, seed=0) | sd.sliding(128)) & sd.causal(),
    "per head": sd.per_head([sd.sliding(512), sd.sliding(512), sd.power(), sd.sink(64) & sd.causal()]),
}
PARTS: dict[str, Pattern | PerHead] = {"local and dilated": sd.sliding(256) | sd.dilated(256, 16)}


class Allocated(TorchDispatchMode):
    """Bytes of the storages that operators make, those that live at once at their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {id(each.untyped_storage()) for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and id(each.untyped_storage()) not in given:
                self._count(each.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known.add(storage)
        weakref.finalize(storage, self._freed, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _freed(self, size: int) -> None:
        self.now -= size


def test_the_count_sees_what_lives_together() -> None:
    with Allocated() as found:
        kept = torch.empty(1000, dtype=torch.float32)
        for _ in range(3):
            torch.empty(500, dtype=torch.float32)
        kept.view(10, 100).zero_()
    assert (found.now, found.peak) == (4000, 6000)


def inputs() -> list[Tensor]:
    shapes = ((HEADS, LENGTH), (KEY_HEADS, LENGTH), (KEY_HEADS, LENGTH), (HEADS, LENGTH))
    return [torch.zeros(1, *shape, HEAD_DIM, dtype=torch.bfloat16) for shape in shapes]


def launched(module: ModuleType) -> tuple[int, int]:
    """What the host of a module allocates forward and backward, its results included; no kernel runs."""
    q, k, v, d_out = inputs()
    found = []
    with ExitStack() as stack:
        for name in ("forward", "dq"):  # each silences the two others
            stack.enter_context(only(module, name))
        for name in vars(module):
            if name.startswith("rows_kernel"):
                setattr(module, name, Silent())
        # Tables and constants stay on the device between calls: made before.
        out, lse = module.launch_forward(q, k, v, 1.0, 0)
        module.launch_backward(d_out, torch.zeros_like(lse), q, k, v, out, lse, 1.0, 0)
        with Allocated() as forward:
            out, lse = module.launch_forward(q, k, v, 1.0, 0)
        found.append(forward.peak)
        d_lse = torch.zeros_like(lse)
        with Allocated() as backward:
            results = module.launch_backward(d_out, d_lse, q, k, v, out, lse, 1.0, 0)
        found.append(backward.peak)
        assert len(results) == 3
    return found[0], found[1]


@pytest.mark.parametrize("name", [*ONE_PART, *PARTS])
def test_a_pass_allocates_what_explain_says(name: str) -> None:
    pattern = {**ONE_PART, **PARTS}[name]
    layer = explain(pattern, seq_len=LENGTH, heads=HEADS, key_heads=KEY_HEADS, head_dim=HEAD_DIM).layers[0]
    forward, backward = launched(imported(emit(pattern, TILINGS[0])))
    given = ("q", "k", "v", "tables of tiles")
    kept = (*given, "output", "log-sum-exp", "output's gradient", "log-sum-exp's gradient")
    want = sum(each.bytes for each in layer.forward_memory if each.name not in given)
    assert want <= forward <= SLACK * want
    want = sum(each.bytes for each in layer.backward_memory if each.name not in kept)
    assert want <= backward <= SLACK * want


@pytest.mark.parametrize("name", ONE_PART)
def test_one_part_needs_five_percent_beside_its_tensors(name: str) -> None:
    """Tensors: q, k, v, output, log-sum-exp; backward also their gradients. The rows' two numbers are the rest."""
    rows, keys = HEADS * LENGTH, KEY_HEADS * LENGTH
    tensors = 2 * HEAD_DIM * (2 * rows + 2 * keys) + 4 * rows
    inner = (2 * HEAD_DIM * (rows + 2 * keys), 2 * HEAD_DIM * (2 * rows + 2 * keys) + 4 * rows)
    forward, backward = launched(imported(emit(ONE_PART[name], TILINGS[0])))
    assert inner[0] + forward <= SLACK * tensors
    given = inner[1] + 2 * HEAD_DIM * rows + 4 * rows  # and what came back for output and log-sum-exp
    assert given + backward <= 1.05 * 2 * tensors
