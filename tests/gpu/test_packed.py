"""Packed documents on the GPU: long ones to the bit as if alone, nothing read by the host, nothing leaked.

To the bit by the plain kernels with no column split; an ordinary call on Hopper runs other ones, and one of few heads
splits long columns, which packed documents do neither.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from random import Random
from typing import cast

import pytest
import torch
from torch import Tensor

import sparsedsl as sd
from benchmarks.timing import compilations
from sparsedsl.codegen.ahead import replaced
from sparsedsl.codegen.build import CompiledAttention, load
from sparsedsl.layers import PerHead
from sparsedsl.patterns.catalogue import CATALOGUE
from sparsedsl.patterns.power import power_attention
from tests.codegen.oracle import assert_within_rule, dense_mask
from tests.codegen.test_packed import Attend, bounds
from tests.gpu.test_catalogue import compiled, dense_results, layer_of

pytestmark = pytest.mark.gpu

POWER = power_attention(block=64)
# One token, whole tiles of 64 and 128, an empty document, ends inside a tile, padding behind 2900.
CUTS = (0, 1, 65, 193, 193, 900, 2900)
LENGTH = 3001


def inputs(length: int, heads: int, key_heads: int, head_dim: int, dtype: torch.dtype) -> list[Tensor]:
    """q, k, v and a weight for the output, in the layout of a projection: heads beside the head dimension."""
    torch.manual_seed(length)
    shapes = [(1, length, each, head_dim) for each in (heads, key_heads, key_heads, heads)]
    return [torch.randn(shape, device="cuda").to(dtype).transpose(1, 2) for shape in shapes]


def results(attn: Attend, tensors: list[Tensor], **documents: Tensor) -> list[Tensor]:
    """Output, dq, dk, dv; the log-sum-exp takes part in the loss."""
    *leaves, weight = (each.detach().requires_grad_() for each in tensors)
    out, lse = attn(*leaves, return_lse=True, **documents)
    finite = lse.masked_fill(lse == float("-inf"), 0.0)
    return [out.detach(), *torch.autograd.grad((out * weight).sum() + finite.sin().sum(), leaves)]


def assert_each_as_if_alone(
    pattern: sd.Pattern | PerHead, attn: Attend, tensors: list[Tensor], cuts: tuple[int, ...]
) -> None:
    """To the bit, but where an ordinary call runs kernels for few queries: there by the rule for errors."""
    module = load(cast(CompiledAttention, attn).source())
    few: int = module.FEW_QUERIES
    together = results(attn, tensors, cu_seqlens=bounds(cuts).cuda())
    for first, end in pairwise(cuts):
        one = [each[:, :, first:end] for each in tensors]
        ours = [each[:, :, first:end] for each in together]
        if end - first > few:
            with replaced(module, "column_shares", lambda *given: 1):
                alone = results(attn, one)
            for got, want in zip(ours, alone, strict=True):
                assert torch.equal(got, want), (first, end)
        elif first < end:
            assert_like_dense(pattern, ours, one)
    for each in together:
        assert (each[:, :, cuts[-1] :] == 0).all()


def assert_like_dense(pattern: sd.Pattern | PerHead, got: list[Tensor], tensors: list[Tensor]) -> None:
    _, heads, length, _ = tensors[0].shape
    mask = dense_mask(pattern, heads, length, length, None).cuda()
    assert_within_rule(got, dense_results(tensors, mask, torch.float64), dense_results(tensors, mask, got[0].dtype))


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_document_is_an_ordinary_call_to_the_bit(name: str) -> None:
    pattern = layer_of(name)
    heads = len(pattern.heads) if isinstance(pattern, PerHead) else 4
    tensors = inputs(LENGTH, heads, heads // 2, 128, torch.bfloat16)
    assert_each_as_if_alone(pattern, cast(Attend, compiled(name, "triton")), tensors, CUTS)


@pytest.mark.parametrize("head_dim", [64, 80, 128, 256])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=["bf16", "fp16", "fp32"])
def test_equals_dense(head_dim: int, dtype: torch.dtype) -> None:
    attn, tensors = cast(Attend, sd.compile(POWER)), inputs(LENGTH, 4, 2, head_dim, dtype)
    together = results(attn, tensors, cu_seqlens=bounds(CUTS).cuda())
    chosen = ((0, 1), (193, 900), (900, 2900))

    def dense(of_type: torch.dtype) -> list[Tensor]:
        """Output and gradients of the chosen documents, one behind the other."""
        found = []
        for first, end in chosen:
            mask = dense_mask(POWER, 4, end - first, end - first, None).cuda()
            found.append(dense_results([each[:, :, first:end] for each in tensors], mask, of_type))
        return [torch.cat(each, 2) for each in zip(*found, strict=True)]

    # By the rule over all of them: alone, the document of one key has an eager dq that is exact, since p - p * p is 0
    # there, while kernels take delta, a sum in another order, off a score of the size of head_dim ** 0.5.
    got = [torch.cat([each[:, :, first:end] for first, end in chosen], 2) for each in together]
    assert_within_rule(got, dense(torch.float64), dense(dtype))


@pytest.mark.parametrize("pattern", [POWER, sd.sliding(100, ahead=60), sd.dilated(64, 8)], ids=str)
def test_random_cuts(pattern: sd.Pattern) -> None:
    draw, attn = Random(7), cast(Attend, sd.compile(pattern, backend="triton"))
    for documents in (1, 2, 40, 300):
        cuts = (0, *sorted(draw.choices(range(LENGTH + 1), k=documents - 1)), LENGTH)
        assert_each_as_if_alone(pattern, attn, inputs(LENGTH, 2, 1, 64, torch.float16), cuts)


@pytest.mark.parametrize("pattern", [POWER, sd.sliding(100, ahead=60), sd.dilated(64, 8)], ids=str)
def test_another_documents_nan_does_not_leak(pattern: sd.Pattern) -> None:
    attn, tensors = cast(Attend, sd.compile(pattern)), inputs(LENGTH, 2, 1, 128, torch.bfloat16)
    clean = results(attn, tensors, cu_seqlens=bounds(CUTS).cuda())
    for each in tensors:
        each[:, :, 193:900] = float("nan")
        each[:, :, 2900:] = float("inf")
    dirty = results(attn, tensors, cu_seqlens=bounds(CUTS).cuda())
    for rows in (slice(0, 193), slice(900, 2900)):
        for ours, want in zip(dirty, clean, strict=True):
            assert torch.equal(ours[:, :, rows], want[:, :, rows])


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature:UserWarning")
def test_with_bounds_the_host_reads_nothing_and_a_new_number_of_documents_compiles_nothing() -> None:
    attn = cast(Attend, sd.compile(POWER))
    counted: list[int] = []
    for cuts, length in (((0, 500, 900), 1000), ((0, 3, 60, 61, 700), 1313), ((0, 64), 64)):
        tensors, documents = inputs(length, 2, 1, 64, torch.bfloat16), bounds(cuts).cuda()
        ids = torch.searchsorted(documents, torch.arange(length, device="cuda"), right=True)[None]
        if counted:
            torch.cuda.set_sync_debug_mode("error")
        try:
            results(attn, tensors, cu_seqlens=documents)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        results(attn, tensors, document_ids=ids)
        counted.append(compilations())
    assert counted == counted[:1] * len(counted)


def test_document_ids_equal_bounds_and_take_a_batch() -> None:
    attn, tensors = cast(Attend, sd.compile(POWER)), inputs(2 * 1000, 2, 1, 64, torch.bfloat16)
    cuts = (0, 300, 1000, 1001, 2000)
    want = results(attn, tensors, cu_seqlens=bounds(cuts).cuda())
    ids = torch.tensor([[3] * 300 + [9] * 700, [9] + [4] * 999], device="cuda")
    batch = [each[0].unflatten(1, (2, 1000)).transpose(0, 1) for each in tensors]
    for ours, one in zip(results(attn, batch, document_ids=ids), want, strict=True):
        assert torch.equal(ours.transpose(0, 1).flatten(1, 2)[None], one)


def test_compiled_whole_graph_and_captured() -> None:
    attn, tensors = sd.compile(POWER), inputs(1000, 2, 1, 64, torch.bfloat16)[:3]
    documents = bounds((0, 400, 1000)).cuda()
    whole = torch.compile(attn, fullgraph=True)
    assert torch.equal(whole(*tensors, cu_seqlens=documents), attn(*tensors, cu_seqlens=documents))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = attn(*tensors, cu_seqlens=documents)
    # A captured launch follows the bounds that stand in the tensor when it is replayed.
    documents.copy_(bounds((0, 70, 1000)))
    graph.replay()
    assert torch.equal(out, attn(*tensors, cu_seqlens=documents))


def test_bounds_that_make_no_sense_stay_inside_memory() -> None:
    tensors = inputs(1000, 2, 1, 64, torch.bfloat16)
    for cuts in ((0, 5000, 10), (-3000, 10, 2_000_000_000), (900, 100, 800)):
        results(cast(Attend, sd.compile(POWER)), tensors, cu_seqlens=bounds(cuts).cuda())
    torch.cuda.synchronize()


RETURNS = """
import torch, sparsedsl as sd
q = torch.zeros(1, 1, 64, 64, device="cuda", dtype=torch.bfloat16)
ids = torch.tensor([[1] * 20 + [2] * 20 + [1] * 24], device="cuda")
sd.compile(sd.sliding(16))(q, q, q, document_ids=ids)
torch.cuda.synchronize()
"""


def test_an_id_that_comes_back_ends_in_an_error() -> None:
    done = subprocess.run([sys.executable, "-c", RETURNS], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "assert" in done.stderr


def test_addresses_past_31_bits() -> None:
    heads, length, window = 17, 1_000_003, 200
    assert heads * length * 128 > 1 << 31
    torch.manual_seed(0)
    tensors = [torch.randn(1, heads, length, 128, device="cuda", dtype=torch.bfloat16) for _ in range(4)]
    cuts = (0, 999_000, length - 2)
    attn = cast(Attend, sd.compile(sd.sliding(window), backend="triton"))
    together = results(attn, tensors, cu_seqlens=bounds(cuts).cuda())
    alone = results(attn, [each[:, -1:, 999_000:-2] for each in tensors])
    for ours, want in zip(together, alone, strict=True):
        assert torch.equal(ours[:, -1:, 999_000:-2], want)
