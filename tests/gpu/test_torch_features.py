"""What torch does with functions, done with the Triton road: graphs, export, ahead-of-time code, autocast, transforms.

The CPU twins are in tests/codegen/test_torch_features.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import sparsedsl as sd
from sparsedsl.integrations.nn import SparseAttention

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]  # inductor warns in many ways

POWER = (sd.sliding(2) | sd.power() | sd.sink(1)).blocks(64) & sd.causal()
DILATED = sd.sliding(32) | sd.dilated(16, 8)
LENGTHS = (700, 333, 1500)
ROOT = Path(__file__).resolve().parents[2]


def layer_of(pattern: sd.Pattern = POWER) -> SparseAttention:
    torch.manual_seed(3)
    return SparseAttention(128, 4, pattern, key_heads=2).cuda()


def tokens(length: int) -> Tensor:
    torch.manual_seed(length)
    return torch.randn(2, length, 128, device="cuda")


def gradients(call: Callable[[Tensor], Tensor], weights: torch.nn.Module, x: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    torch._dynamo.maybe_mark_dynamic(x, 1)
    out = call(x)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), [x, *weights.parameters()])]


def near(got: list[Tensor], want: list[Tensor], bound: float = 1e-3) -> None:
    for ours, theirs in zip(got, want, strict=True):
        assert (ours - theirs).norm() <= bound * theirs.norm() + 1e-6


@pytest.mark.parametrize("pattern", [POWER, DILATED], ids=["power blocks", "residue classes"])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_one_graph_and_one_compilation_for_all_lengths(pattern: sd.Pattern, backend: str) -> None:
    torch._dynamo.reset()
    layer = layer_of(pattern)
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(layer, fullgraph=True, backend=counter)
    for length in LENGTHS:
        near(gradients(compiled, layer, tokens(length)), gradients(layer, layer, tokens(length)))
    assert counter.frame_count == 1


def exported(layer: torch.nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(
        layer, (tokens(400),), dynamic_shapes=({1: torch.export.Dim("length", min=2, max=1 << 16)},)
    )


def test_export_saves_loads_and_takes_every_length(tmp_path: Path) -> None:
    layer = layer_of()
    torch.export.save(exported(layer), tmp_path / "layer.pt2")
    loaded = torch.export.load(tmp_path / "layer.pt2").module()
    for length in LENGTHS:
        near([loaded(tokens(length))], [layer(tokens(length))])


def ahead_of_time(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.gpu.ahead_of_time", name, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def test_ahead_of_time_code_takes_every_length(tmp_path: Path) -> None:
    done = ahead_of_time("attention", tmp_path)
    if done.returncode < 0:  # ended by a signal: by ours, or also without it?
        for control in ("linear", "operator"):
            if (without := ahead_of_time(control, tmp_path)).returncode < 0:
                pytest.xfail(f"loading {control}, which has nothing of ours, ends too\n{without.stderr[-20000:]}")
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-20000:]}"


@pytest.mark.parametrize("pattern", [POWER, DILATED], ids=["power blocks", "residue classes"])
def test_cuda_graphs_replay_forward_and_backward(pattern: sd.Pattern) -> None:
    attn = sd.compile(pattern)
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(1, heads, 900, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for heads in (4, 2, 2)
    )
    weight = torch.randn_like(q)

    def both() -> tuple[Tensor, ...]:
        out = attn(q, k, v)
        return out, *torch.autograd.grad(out, (q, k, v), weight)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # the first calls compile and fill caches
        for _ in range(3):
            both()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = both()
    with torch.no_grad():
        for each in (q, k, v):
            each.copy_(torch.randn_like(each))
    graph.replay()
    for name, got, want in zip(("out", "dq", "dk", "dv"), captured, both(), strict=True):
        if name == "dq":  # on Hopper its sums may take any order
            near([got.float()], [want.float()])
        else:
            assert torch.equal(got, want), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_inside_a_compiled_module(dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    layer, x = layer_of(), tokens(500)
    with torch.autocast("cuda", dtype):
        want = gradients(layer, layer, x)
        got = gradients(torch.compile(layer, fullgraph=True), layer, x)
    assert want[0].dtype == dtype
    near(got, want, 2e-2)
    near(want, gradients(layer, layer, x), 5e-2)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_changes_nothing(reentrant: bool) -> None:
    layer, x = layer_of(), tokens(500)
    want = gradients(layer, layer, x)
    out = cast(Tensor, checkpoint(layer, x.requires_grad_(), use_reentrant=reentrant))
    out.square().sum().backward()
    assert x.grad is not None
    near([out.detach(), x.grad], want[:2])


def test_grad_and_vmap_of_torch_func() -> None:
    attn = sd.compile(POWER)
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 1, heads, 300, 64, device="cuda", dtype=torch.bfloat16) for heads in (4, 2, 2))

    def loss(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attn(q, k, v).float().square().sum()

    got = torch.func.vmap(torch.func.grad(loss, (0, 1, 2)))(q, k, v)
    for entry in range(3):
        inputs = [each[entry].detach().requires_grad_() for each in (q, k, v)]
        near(
            [each[entry].float() for each in got], [g.float() for g in torch.autograd.grad(loss(*inputs), inputs)], 2e-2
        )
