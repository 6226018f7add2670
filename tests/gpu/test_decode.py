"""Attention over caches on the GPU: patterns, shapes, types against dense attention; captured graphs; long caches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sparsedsl as sd
from sparsedsl.layers import PerHead
from sparsedsl.patterns.catalogue import CATALOGUE
from sparsedsl.patterns.power import power_attention
from tests.codegen.caches import NOWHERE, Cache, assert_like_dense
from tests.gpu.test_catalogue import compiled, layer_of

pytestmark = pytest.mark.gpu

POWER = power_attention(block=64)


def ready(pattern: sd.Pattern | PerHead) -> Callable[..., Any]:
    """Compiled, for calls whose options are a dictionary."""
    return sd.compile(pattern)


def assert_cached(
    cache: Cache, pattern: sd.Pattern | PerHead, attention: Callable[..., Any], page_size: int | None
) -> None:
    arguments, options = cache.contiguous() if page_size is None else cache.paged(page_size)
    assert_like_dense(attention(*arguments, return_lse=True, **options), cache, pattern)


@pytest.mark.parametrize("q_len", [1, 3, 130])
@pytest.mark.parametrize("name", CATALOGUE)
def test_the_catalogue(name: str, q_len: int) -> None:
    pattern = layer_of(name)
    heads = len(pattern.heads) if isinstance(pattern, PerHead) else 8
    cache = Cache.random(heads, heads // 2, q_len, (2311, 517, 0, 1), 2400, 64, torch.bfloat16, "cuda")
    for page_size in (None, 64):
        assert_cached(cache, pattern, compiled(name), page_size)


@pytest.mark.parametrize("page_size", [None, 16, 64, 256])
@pytest.mark.parametrize(("heads", "key_heads"), [(28, 4), (8, 2), (16, 1), (4, 4), (64, 2)])
def test_groups_of_heads_and_pages(heads: int, key_heads: int, page_size: int | None) -> None:
    for q_len in (1, 2, 16, 17, 300):
        cache = Cache.random(heads, key_heads, q_len, (1, 4097, 700), 4200, 128, torch.bfloat16, "cuda")
        assert_cached(cache, POWER, ready(POWER), page_size)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("head_dim", [32, 64, 80, 96, 128, 256])
def test_types_and_head_dims(head_dim: int, dtype: torch.dtype) -> None:
    for q_len in (1, 40):
        cache = Cache.random(8, 2, q_len, (1103, 64), 1200, head_dim, dtype, "cuda")
        for page_size in (None, 16):
            assert_cached(cache, POWER, ready(POWER), page_size)


def test_a_position_reads_live_keys_only() -> None:
    """Dead keys are NaN, also those inside live tiles."""
    pattern = sd.power()
    cache = Cache.random(4, 4, 1, (3001,), 3008, 128, torch.bfloat16, "cuda")
    dead = ~torch.from_numpy(pattern.dense(1, 3001))[0].cuda()
    for each in (cache.k, cache.v):
        each[0, :, :3001][:, dead] = float("nan")
    (q, k, v), options = cache.paged(16)
    got = ready(pattern)(q, k, v, return_lse=True, **options)
    assert_like_dense(got, Cache(q, cache.k.nan_to_num(0.0), cache.v.nan_to_num(0.0), (3001,)), pattern)


@pytest.mark.parametrize("pattern", [POWER, (sd.random_blocks(64, 3) | sd.sliding(128)) & sd.causal()], ids=str)
@pytest.mark.parametrize("paged", [False, True], ids=["contiguous", "paged"])
def test_a_captured_graph_follows_lengths_and_pages(pattern: sd.Pattern, paged: bool) -> None:
    attention = ready(pattern)

    def arguments(lengths: tuple[int, ...]) -> tuple[Cache, tuple[Tensor, ...], dict[str, Tensor]]:
        cache = Cache.random(28, 4, 1, lengths, 4096, 128, torch.bfloat16, "cuda")
        return cache, *(cache.paged(64) if paged else cache.contiguous())

    _, inputs, options = arguments((100, 4096, 7))
    attention(*inputs, return_lse=True, **options)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, lse = attention(*inputs, return_lse=True, **options)
    for lengths in ((100, 4096, 7), (4000, 0, 65), (1, 1, 4095)):
        cache, values, others = arguments(lengths)
        for target, source in zip((*inputs, *options.values()), (*values, *others.values()), strict=True):
            target.copy_(source)
        graph.replay()
        torch.cuda.synchronize()
        assert_like_dense((out, lse), cache, pattern)


@pytest.mark.parametrize("pattern", [power_attention(), sd.sliding(4096)], ids=["power", "sliding"])
@pytest.mark.parametrize("page_size", [None, 64])
def test_131072_cached_tokens(pattern: sd.Pattern, page_size: int | None) -> None:
    cache = Cache.random(28, 4, 1, (131072, 70001), 131072, 128, torch.bfloat16, "cuda")
    assert_cached(cache, pattern, ready(pattern), page_size)


def test_token_by_token_equals_one_pass() -> None:
    attention = ready(POWER)
    cache = Cache.random(8, 2, 300, (300,), 300, 64, torch.float16, "cuda")
    whole = attention(cache.q, cache.k, cache.v)
    length = torch.zeros(1, dtype=torch.int32, device="cuda")
    for row in range(300):
        length += 1
        one = attention(cache.q[:, :, row : row + 1], cache.k, cache.v, cache_seqlens=length)
        torch.testing.assert_close(one[:, :, 0], whole[:, :, row], rtol=2e-3, atol=2e-3)


def test_values_out_of_range_stay_inside_the_cache() -> None:
    cache = Cache.random(8, 2, 1, (1024, 1024), 1024, 64, torch.float16, "cuda")
    (q, k, v), options = cache.paged(16)
    options["cache_seqlens"] += torch.tensor([1 << 29, -(1 << 29)], dtype=torch.int32, device="cuda")
    options["page_table"][0, ::2] = NOWHERE
    k, v = k.nan_to_num(0.0), v.nan_to_num(0.0)
    out = ready(POWER)(q, k, v, **options)
    torch.cuda.synchronize()
    assert not out.isnan().any()
    assert (out[1] == 0).all()


# Inductor captures an empty graph first, to have a pool of memory.
@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty:UserWarning")
def test_compiled_with_changing_lengths() -> None:
    torch._dynamo.reset()
    attention = ready(POWER)
    compiled_call: Callable[..., Any] = torch.compile(attention, fullgraph=True, mode="reduce-overhead")
    for lengths in ((5, 900), (6, 901), (7, 902), (8, 903)):
        cache = Cache.random(8, 2, 1, lengths, 1024, 64, torch.float16, "cuda")
        arguments, options = cache.paged(64)
        got = compiled_call(*arguments, return_lse=True, **options)
        assert_like_dense((got[0].clone(), got[1].clone()), cache, POWER)


@pytest.mark.parametrize("q_len", [1, 40])
@pytest.mark.parametrize("where", ["q", "k", "v"])
def test_a_number_that_is_none_reaches_the_output(where: str, q_len: int) -> None:
    cache = Cache.random(8, 2, q_len, (1000,), 1024, 64, torch.float16, "cuda")
    getattr(cache, where)[0, 0, -1 if where == "q" else 999, 3] = float("nan")
    (q, k, v), _ = cache.contiguous()
    out, lse = sd.compile(POWER)(q, k, v, return_lse=True, cache_seqlens=cache.seqlens())
    assert out[0, 0, -1].isnan().any()
    assert where == "v" or lse[0, 0, -1].isnan()
    assert not out[0, 4:].isnan().any()


@pytest.mark.parametrize("q_len", [1, 40])
def test_a_scale_of_zero_is_the_mean(q_len: int) -> None:
    cache = Cache.random(8, 2, q_len, (1000,), 1024, 64, torch.float16, "cuda")
    (q, k, v), _ = cache.contiguous()
    got = sd.compile(POWER)(q, k, v, scale=0.0, return_lse=True, cache_seqlens=cache.seqlens())
    assert_like_dense(got, cache, POWER, 0.0)
