"""What torch does with functions, done with compiled attention: export, autocast, transforms, several processes."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import sparsedsl as sd
from sparsedsl import errors
from sparsedsl.integrations.nn import SparseAttention
from tests.codegen.oracle import dense_attention, dense_mask
from tests.codegen.ranks import run_on_two_ranks

POWER = (sd.sliding(2) | sd.power() | sd.sink(1)).blocks(4) & sd.causal()
HEADS = sd.per_head([sd.sliding(4), sd.dilated(3, 3), sd.causal(), sd.sink(2) & sd.causal() | sd.sliding(1)])


def layer_of(pattern: sd.Pattern | sd.PerHead = POWER) -> SparseAttention:
    torch.manual_seed(3)
    return SparseAttention(32, 4, pattern, key_heads=2)


def tokens(length: int, batch: int = 2) -> Tensor:
    torch.manual_seed(length)
    return torch.randn(batch, length, 32)


def gradients(call: Callable[[Tensor], Tensor], weights: torch.nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and the weights."""
    x = x.detach().requires_grad_()
    torch._dynamo.maybe_mark_dynamic(x, 1)
    out = call(x)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), [x, *weights.parameters()])]


# --- the module itself


@pytest.mark.parametrize("pattern", [POWER, HEADS], ids=["power blocks", "per head"])
def test_the_module_is_projections_around_dense_attention(pattern: sd.Pattern | sd.PerHead) -> None:
    layer, x = layer_of(pattern).double(), tokens(37).double()
    q, k, v = (each(x).unflatten(-1, (-1, 8)).transpose(1, 2) for each in (layer.q, layer.k, layer.v))
    want, _ = dense_attention(q, k, v, dense_mask(pattern, 4, 37, 37, None), 8**-0.5)
    torch.testing.assert_close(layer(x), layer.o(want.transpose(1, 2).flatten(2)))


def test_extending_token_by_token_equals_one_pass() -> None:
    layer, x, past, parts = layer_of(HEADS), tokens(23), None, []
    for each in x.split([9, 1, 1, 12], 1):
        out, past = layer.extend(each, past)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), layer(x))


def test_modules_are_copied_pickled_and_saved(tmp_path: Path) -> None:
    layer, x = layer_of(HEADS), tokens(19)
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    loaded = SparseAttention(32, 4, HEADS, key_heads=2)
    loaded.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        assert torch.equal(other(x), layer(x))


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((32, 4, POWER), {"key_heads": 3}, errors.HeadMismatch),
        ((32, 2, HEADS), {}, errors.HeadMismatch),
        ((33, 4, POWER), {}, errors.ShapeMismatch),
        ((32, 0, POWER), {}, errors.WrongValue),
        ((32, 4, POWER), {"key_heads": 0}, errors.WrongValue),
        ((32, 4, POWER), {"head_dim": -8}, errors.WrongValue),
        ((32.0, 4, POWER), {}, errors.WrongType),
        ((32, 4, "sliding(4)"), {}, errors.WrongType),
        ((32, 4, sd.cycle([POWER], layers=2)), {}, errors.Unsupported),
    ],
)
def test_mistakes(arguments: tuple[object, ...], options: dict[str, int], error: type[Exception]) -> None:
    with pytest.raises(error):
        SparseAttention(*arguments, **options)  # type: ignore[arg-type]


def test_inputs_of_other_shapes_and_foreign_pasts_are_refused() -> None:
    layer, x = layer_of(), tokens(9)
    _, past = layer.extend(x)
    k, v = past
    nested = torch.nested.nested_tensor([x[0], x[1, :4]], layout=torch.jagged)
    for wrong in (x[0], x[..., :16], nested):
        with pytest.raises(errors.ShapeMismatch, match="sequences of one length"):
            layer(wrong)
    for foreign in ((k[:1], v[:1]), (k[:, :1], v[:, :1]), (k, v[..., :4]), (k[0], v[0])):
        with pytest.raises(errors.ShapeMismatch, match="the past is not this module's"):
            layer.extend(x, foreign)
    ahead = layer_of(sd.sliding(3, ahead=1))
    _, past = ahead.extend(x)
    with pytest.raises(errors.Unsupported, match="the pattern looks ahead"):
        ahead.extend(x, past)


# --- torch.compile, torch.export, AOTInductor


def test_the_module_compiles_once_for_all_lengths() -> None:
    torch._dynamo.reset()
    layer = layer_of()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, backend=counter)
    for length in (70, 33, 300):
        for ours, want in zip(
            gradients(compiled, layer, tokens(length)), gradients(layer, layer, tokens(length)), strict=True
        ):
            torch.testing.assert_close(ours, want)
    assert counter.frame_count == 1


def exported(layer: SparseAttention) -> torch.export.ExportedProgram:
    length = torch.export.Dim("length", min=2, max=4096)
    return torch.export.export(layer, (tokens(40),), dynamic_shapes=({1: length},))


@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")  # torch 2.11's own loading
def test_export_saves_loads_and_takes_every_length(tmp_path: Path) -> None:
    layer = layer_of()
    torch.export.save(exported(layer), tmp_path / "layer.pt2")
    loaded = torch.export.load(tmp_path / "layer.pt2").module()
    for length in (40, 7, 129):
        torch.testing.assert_close(loaded(tokens(length)), layer(tokens(length)))


@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler; none is on the path")
@pytest.mark.filterwarnings("ignore")  # the packager warns about its own temporary files
def test_ahead_of_time_code_takes_every_length(tmp_path: Path) -> None:
    layer, quick = layer_of(), {"compile_threads": 1, "aot_inductor.compile_wrapper_opt_level": "O0"}
    with torch.no_grad():
        path = torch._inductor.aoti_compile_and_package(
            exported(layer), package_path=str(tmp_path / "layer.pt2"), inductor_configs=quick
        )
        loaded = torch._inductor.aoti_load_package(path)
        for length in (40, 7, 129):
            torch.testing.assert_close(loaded(tokens(length)), layer(tokens(length)), rtol=1e-4, atol=1e-5)


# --- autocast, checkpointing, function transforms


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_the_types_of_torchs_own_attention(dtype: torch.dtype) -> None:
    attn = sd.compile(POWER)
    q, k, v = (torch.randn(1, 2, 30, 8, dtype=each, requires_grad=True) for each in (torch.float32, dtype, dtype))
    with torch.autocast("cpu", dtype):
        out, lse = attn(q, k, v, return_lse=True)
        theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert (out.dtype, lse.dtype) == (theirs.dtype, torch.float32) == (dtype, torch.float32)
    dq, dk, dv = torch.autograd.grad(out.float().square().sum(), (q, k, v))
    assert (dq.dtype, dk.dtype, dv.dtype) == (torch.float32, dtype, dtype)
    plain = attn(q.to(dtype), k, v)
    assert torch.equal(out, plain)


def test_autocast_leaves_double_alone_and_mixed_types_raise_without_it() -> None:
    attn = sd.compile(POWER)
    q = torch.randn(1, 2, 30, 8, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert attn(q, q, q).dtype == torch.float64
    with pytest.raises(ValueError, match="DtypeMismatch"):
        attn(q.float(), q, q)


def test_autocast_inside_a_compiled_module() -> None:
    torch._dynamo.reset()
    layer, x = layer_of(), tokens(30)
    with torch.autocast("cpu", torch.bfloat16):
        want = gradients(layer, layer, x)
        got = gradients(torch.compile(layer, fullgraph=True, backend="aot_eager"), layer, x)
    assert want[0].dtype == torch.bfloat16
    for ours, theirs in zip(got, want, strict=True):
        assert (ours - theirs).norm() < 2e-2 * theirs.norm()


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_changes_nothing(reentrant: bool) -> None:
    layer, x = layer_of(), tokens(30)

    class Saving(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return cast(Tensor, checkpoint(layer, x, use_reentrant=reentrant))

    if reentrant:  # that kind has no torch.autograd.grad
        out = Saving()(x.requires_grad_())
        out.square().sum().backward()
        got = [out.detach(), x.grad, *(weight.grad for weight in layer.parameters())]
    else:
        got = [*gradients(Saving(), layer, x)]
    for ours, theirs in zip(got, gradients(layer, layer, x), strict=True):
        assert ours is not None
        torch.testing.assert_close(ours, theirs)


def test_grad_of_torch_func() -> None:
    layer, x = layer_of(), tokens(30)
    weights: dict[str, Tensor] = dict(layer.named_parameters())

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return cast(Tensor, torch.func.functional_call(layer, weights, (x,)).square().sum())

    got = torch.func.grad(loss)(weights)
    want = torch.autograd.grad(loss(weights), list(weights.values()))
    for name, theirs in zip(weights, want, strict=True):
        torch.testing.assert_close(got[name], theirs)


def test_vmap_is_a_larger_batch() -> None:
    attn = sd.compile(HEADS)
    torch.manual_seed(0)
    q, k = torch.randn(3, 1, 4, 20, 8), torch.randn(1, 3, 2, 20, 8)

    def loss(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attn(q, k, v).square().sum()

    shared = k[:, 0]
    each = [(q[entry], k[:, entry], shared) for entry in range(3)]
    dims = (0, 1, None)
    out = torch.func.vmap(attn, in_dims=dims)(q, k, shared)
    torch.testing.assert_close(out, torch.stack([attn(*one) for one in each]))
    got = torch.func.vmap(torch.func.grad(loss, (0, 1, 2)), in_dims=dims)(q, k, shared)
    for number, ours in enumerate(got):
        want = torch.stack([torch.func.grad(loss, (0, 1, 2))(*one)[number] for one in each])
        torch.testing.assert_close(ours, want)


def test_second_derivatives_raise() -> None:
    attn, q = sd.compile(POWER), torch.randn(1, 2, 20, 8, requires_grad=True)
    (first,) = torch.autograd.grad(attn(q, q, q).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        first.sum().backward()
    twice = torch.func.grad(lambda x: torch.func.grad(lambda y: attn(y, y, y).square().sum())(x).sum())
    with pytest.raises(RuntimeError, match="no second derivative"):
        twice(q.detach())


# --- several processes


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_ranks_train_as_one_does(kind: str, tmp_path: Path) -> None:
    layer, x = layer_of(), tokens(21, batch=4)
    run_on_two_ranks(kind, x, tmp_path)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        optimizer.step()
    trained = torch.load(tmp_path / "trained.pt", weights_only=True)
    for name, weight in layer.state_dict().items():
        torch.testing.assert_close(trained[name], weight)
