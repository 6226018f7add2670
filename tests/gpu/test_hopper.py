"""The kernels for Hopper against the plain ones on a GPU, and that the default backend runs them.

Each comparison is a process of its own: a kernel may hang.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import sparsedsl as sd
from benchmarks.hopper import CHECKS, complaint
from benchmarks.oracle import relative_distance
from sparsedsl.codegen.build import CompiledAttention
from sparsedsl.errors import Unsupported
from sparsedsl.patterns.power import power_attention
from tests.codegen.oracle import random_inputs

pytestmark = pytest.mark.gpu

PATTERNS = {
    "window": sd.sliding(1024),
    "power": power_attention(),
    "causal": sd.causal(),  # whose query tiles are handed out one by one
    "two parts": sd.sliding(256) | sd.dilated(256, 16),
}
GRADIENTS = {
    "window": sd.sliding(1000),
    "residue order": sd.dilated(500, 8),
    "two parts": sd.sliding(600) | sd.dilated(600, 16),
    "two short parts": sd.sliding(250) | sd.dilated(250, 16),
}


def is_hopper() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)


@pytest.mark.parametrize("number", range(len(CHECKS)), ids=[check.name for check in CHECKS])
def test_equals_the_plain_kernels(number: int) -> None:
    if not is_hopper():
        pytest.skip("no GPU of compute capability 9.0")
    assert complaint(number) is None


def tensors(head_dim: int = 128) -> list[Tensor]:
    return random_inputs(4, 2, 3001, 3001, head_dim, torch.bfloat16, "cuda")[:3]


def module_of(attention: CompiledAttention) -> ModuleType:
    return attention._modules["half128"]


def roads_of(attention: CompiledAttention, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[Any, ...], bool]:
    """What is settled about the kernels from now on: modules are shared by equal patterns, so by other tests too."""
    roads: dict[tuple[Any, ...], bool] = {}
    monkeypatch.setattr(module_of(attention), "HOPPER_ROADS", roads)
    return roads


@pytest.mark.parametrize("name", PATTERNS)
def test_the_default_runs_them_and_nothing_speaks_against_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning would be an error here."""
    if not is_hopper():
        pytest.skip("no GPU of compute capability 9.0")
    attention, forced = sd.compile(PATTERNS[name]), sd.compile(PATTERNS[name], backend="hopper")
    roads = roads_of(attention, monkeypatch)
    q, k, v = tensors()
    assert torch.equal(attention(q, k, v), forced(q, k, v))
    wanted = {"hopper_part_0", "hopper_part_1"} if name == "two parts" else {"hopper_part"}
    assert {part.__name__: runs for (part, *_), runs in roads.items()} == dict.fromkeys(wanted, True)


@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize("name", GRADIENTS)
def test_the_default_takes_gradients_by_them(name: str, head_dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward, each part; the gradients are those of the plain kernels."""
    if not is_hopper():
        pytest.skip("no GPU of compute capability 9.0")
    attention, plain = sd.compile(GRADIENTS[name]), sd.compile(GRADIENTS[name], backend="triton")
    roads = roads_of(attention, monkeypatch)
    leaves = [each.requires_grad_() for each in tensors(head_dim)]
    got, want = (torch.autograd.grad(each(*leaves).float().sin().sum(), leaves) for each in (attention, plain))
    for ours, theirs in zip(got, want, strict=True):
        assert relative_distance(ours, theirs) <= 1e-2
    kinds = ("hopper_part",) if name == "two short parts" else ("hopper_part", "hopper_backward_part")
    wanted = {f"{kind}{end}" for kind in kinds for end in (("_0", "_1") if "parts" in name else ("",))}
    assert {part.__name__: runs for (part, *_), runs in roads.items()} == dict.fromkeys(wanted, True)


def test_a_complaint_ends_in_a_warning_and_the_plain_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_hopper():
        pytest.skip("no GPU of compute capability 9.0")
    attention, plain = sd.compile(sd.sliding(1111)), sd.compile(sd.sliding(1111), backend="triton")
    q, k, v = tensors()
    module = module_of(attention)
    monkeypatch.setattr(module, "complaints", lambda kernel: ["invented"])
    with pytest.warns(RuntimeWarning, match="plain Triton runs instead: SlowKernel: hopper_kernel: invented"):
        first = attention(q, k, v)
    want = plain(q, k, v)
    assert torch.equal(first, want)
    assert torch.equal(attention(q, k, v), want)
    assert not any(module.HOPPER_ROADS.values())


@pytest.mark.parametrize("name", PATTERNS)
def test_captured_calls_are_replayed(name: str) -> None:
    attention, (q, k, v) = sd.compile(PATTERNS[name]), tensors()
    want = attention(q, k, v)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = attention(q, k, v)
    for _ in range(3):
        out.zero_()
        graph.replay()
        assert torch.equal(out, want)


def test_float32_on_a_gpu_is_refused() -> None:
    q = torch.randn(1, 1, 64, 64, device="cuda")
    with pytest.raises(Unsupported, match="no kernel for this type"):
        sd.compile(sd.sliding(9), backend="hopper")(q, q, q)


def test_another_gpu_is_refused() -> None:
    if is_hopper():
        pytest.skip("this GPU is taken")
    q = torch.randn(1, 1, 64, 64, device="cuda", dtype=torch.float16)
    with pytest.raises(ValueError, match="built for Hopper GPUs"):
        sd.compile(sd.sliding(9), backend="hopper")(q, q, q)
