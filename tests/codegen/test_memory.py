"""The memory of a pass: every tensor the host allocates, counted while kernels that do nothing are launched."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
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
from sparsedsl.codegen.explanation import Bytes
from sparsedsl.codegen.gpus import H200
from sparsedsl.codegen.tiling import TILINGS, tiling_for
from sparsedsl.codegen.tune_gpu import Silent, only
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.longnet import longnet
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
    "windows per head": sd.per_head([sd.sliding(512), sd.sliding(512), sd.sliding(64), sd.sliding(512) | sd.sink(64)]),
}
PARTS: dict[str, Pattern | PerHead] = {
    "local and dilated": sd.sliding(600) | sd.dilated(600, 16),
    "short parts": sd.sliding(256) | sd.dilated(256, 16),
    "own classes": longnet(segments=[2048, 8192], dilations=[1, 4], heads=HEADS),
}
# What has no backward kernel for Hopper: tiles that a table tells, a mask with a set in it, several short parts.
WITHOUT = {"random", "per head", "short parts"}
# Whose long columns are split at this length.
SPLIT = {"power", "per head", "windows per head"}


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


def on_hopper(module: ModuleType) -> list[str]:
    """Let the module take its device for a Hopper GPU on which every launch does nothing; names of what it launches."""
    names: list[str] = []

    def launch(kernel: Any, programs: int, *given: Any, **options: Any) -> None:
        names.append(getattr(kernel, "__name__", "silenced"))

    vars(module).update(
        is_hopper=lambda device: True,
        launched=launch,
        examined=lambda *given, **options: None,
    )
    return names


def allocated(module: ModuleType) -> tuple[int, int]:
    """What the host of a module allocates forward and backward, its results included; no kernel runs."""
    q, k, v, d_out = inputs()
    found = []
    vars(module).update(multiprocessors=lambda device: H200.multiprocessors)
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


def stated(held: Sequence[Bytes], direction: str) -> int:
    """What `explain` says of a pass, less what was there before it."""
    given = {"q", "k", "v", "tables of tiles"}
    if direction == "backward":
        given |= {"output", "log-sum-exp", "output's gradient", "log-sum-exp's gradient"}
    return sum(each.bytes for each in held if each.name not in given)


@pytest.mark.parametrize("name", [*ONE_PART, *PARTS])
def test_a_pass_allocates_what_explain_says(name: str) -> None:
    pattern = {**ONE_PART, **PARTS}[name]
    layer = explain(pattern, seq_len=LENGTH, heads=HEADS, key_heads=KEY_HEADS, head_dim=HEAD_DIM).layers[0]
    forward, backward = allocated(imported(emit(pattern, TILINGS[0])))
    want = stated(layer.forward_memory, "forward")
    assert want <= forward <= SLACK * want
    want = stated(layer.backward_memory, "backward")
    assert want <= backward <= SLACK * want


@pytest.mark.parametrize("name", [*ONE_PART, *PARTS])
def test_a_pass_on_hopper_allocates_what_explain_says(name: str) -> None:
    """Without a backward kernel for Hopper as much as elsewhere; forward in any case."""
    pattern = {**ONE_PART, **PARTS}[name]
    layer = explain(pattern, seq_len=LENGTH, heads=HEADS, key_heads=KEY_HEADS, head_dim=HEAD_DIM).layers[0]
    assert (name in WITHOUT) == (not layer.hopper_backward_memory)
    module = imported(emit(pattern, TILINGS[0]))
    launched = on_hopper(module)
    forward, backward = allocated(module)
    assert any(each.startswith("hopper_gradients_kernel") for each in launched) == (name not in WITHOUT)
    want = stated(layer.forward_memory, "forward")
    assert want <= forward <= SLACK * want
    want = stated(layer.hopper_backward_memory or layer.backward_memory, "backward")
    assert want <= backward <= SLACK * want


def tensors_of(heads: int, key_heads: int, length: int) -> int:
    """Bytes of q, k, v, output and log-sum-exp."""
    return 2 * HEAD_DIM * (2 * heads + 2 * key_heads) * length + 4 * heads * length


@pytest.mark.parametrize("road", ["plain", "hopper"])
@pytest.mark.parametrize("name", ONE_PART)
def test_one_part_needs_five_percent_beside_its_tensors(name: str, road: str) -> None:
    """Tensors: q, k, v, output, log-sum-exp; backward also their gradients. The rows' two numbers are the rest.

    The backward kernel for Hopper has float32 sums for dq beside them, in whole query tiles of 64: stated, and counted.
    So are dk and dv of columns that are split: at a length as short as this they weigh.
    """
    pattern = ONE_PART[name]
    module = imported(emit(pattern, TILINGS[0]))
    sums = 0
    if road == "hopper":
        on_hopper(module)
        # The lengths of the classes that a launch takes: of the eight classes of dilated three have a rank more.
        classes = [len(range(each, LENGTH, 8)) for each in range(8)] if name == "dilated" else [LENGTH]
        sums = 0 if name in WITHOUT else 4 * HEADS * 128 * 64 * sum(-(-each // 64) for each in classes)
    layer = explain(pattern, seq_len=LENGTH, heads=HEADS, key_heads=KEY_HEADS, head_dim=HEAD_DIM).layers[0]
    held = (road == "hopper" and layer.hopper_backward_memory) or layer.backward_memory
    of_shares = [each.bytes for each in held if each.name == "dk and dv of shares, float32"]
    assert bool(of_shares) == (name in SPLIT)
    sums += sum(of_shares)
    forward, backward = allocated(module)
    tensors = tensors_of(HEADS, KEY_HEADS, LENGTH)
    rows, keys = HEADS * LENGTH, KEY_HEADS * LENGTH
    inner = (2 * HEAD_DIM * (rows + 2 * keys), 2 * HEAD_DIM * (2 * rows + 2 * keys) + 4 * rows)
    assert inner[0] + forward <= SLACK * tensors
    given = inner[1] + 2 * HEAD_DIM * rows + 4 * rows  # and what came back for output and log-sum-exp
    assert sums <= backward
    assert given + backward <= 1.05 * 2 * tensors + sums


@pytest.mark.parametrize(
    ("head_dim", "width"), [(16, 0), (24, 32), (64, 64), (72, 128), (96, 128), (128, 128), (136, 0)]
)
def test_explain_knows_for_which_heads_the_kernel_for_hopper_runs(head_dim: int, width: int) -> None:
    """Sums are as wide as the next power of two."""
    tiling = tiling_for(head_dim, 2)
    assert tiling is not None
    module = imported(emit(sd.sliding(1024), tiling))
    layer = explain(sd.sliding(1024), seq_len=LENGTH, heads=2, head_dim=head_dim).layers[0]
    # A tiling of wider heads has no such kernel at all.
    runs = tiling.head_dim <= 128 and module.hopper_gradients(torch.empty(1, 2, 1, head_dim))
    assert runs == (layer.parts[0].hopper_backward is not None) == bool(layer.hopper_backward_memory)
    sums = [each.bytes for each in layer.hopper_backward_memory if each.name == "sums for dq, float32"]
    assert sums == ([2 * -(-LENGTH // 64) * 64 * width * 4] if width else [])
