"""Generation with the cache equals attention over the whole sequence, and memory stays at the window."""

from __future__ import annotations

import pytest
import torch

import sparsedsl as sd
from sparsedsl.errors import HeadMismatch, OutOfRange, ShapeMismatch, Unsupported
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from tests.codegen.oracle import dense_attention, dense_mask

TEXTS = [
    "streaming_llm(window=9, sink=2)",
    "sliding_sink(block=8, window=2)",
    "power_attention(block=4)",
    "sparse_transformer_fixed(stride=16, summary=3)",
    "sparse_transformer_strided(stride=7)",
    "dilated_window(window=5, dilation=3)",
    "block_local(size=11)",
    "longformer(window=4, global_tokens=[0, 20])",
    "random_blocks(block=16, count=2) & causal()",
    "offsets({2, 5})",  # the first rows have no key
    "per_head([sliding(3), power(), chunked(6) & causal(), sliding(3) | sink(1) & causal()])",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("key_heads", [4, 2])
def test_token_by_token_equals_the_whole_sequence(text: str, key_heads: int) -> None:
    from sparsedsl.resolve import resolve

    pattern = resolve(text)
    assert isinstance(pattern, Pattern | PerHead)
    length = 150
    torch.manual_seed(0)
    q = torch.randn(2, 4, length, 8, dtype=torch.float64)
    k, v = (torch.randn(2, key_heads, length, 8, dtype=torch.float64) for _ in range(2))
    want = sd.compile(pattern)(q, k, v)
    exact, _ = dense_attention(q, k, v, dense_mask(pattern, 4, length, length, None), 8**-0.5)
    cache = sd.PatternCache(pattern)
    outs, at = [], 0
    for count in (13, 1, 1, 5, *[1] * (length - 20)):  # a prompt, tokens, a few at once
        rows = slice(at, at + count)
        keys, values, positions = cache.append(k[:, :, rows], v[:, :, rows])
        assert torch.equal(keys, k[:, :, positions])
        assert torch.equal(values, v[:, :, positions])
        outs.append(cache.attend(q[:, :, rows]))
        at += count
        assert cache.capacity <= max(64, -(-2 * (cache.live + 13) // 64) * 64 + 64)
    torch.testing.assert_close(torch.cat(outs, 2), want)
    torch.testing.assert_close(torch.cat(outs, 2), exact)


@pytest.mark.parametrize(
    ("text", "live"),
    [
        ("sliding(40)", 40),
        ("sliding(40) | sink(4) & causal()", 44),
        ("power()", 3000),
        ("where(k % 8 == 0) & causal()", 375),
    ],
)
def test_memory_follows_the_live_keys(text: str, live: int) -> None:
    pattern = sd.parse(text)
    assert isinstance(pattern, Pattern)
    cache = sd.PatternCache(pattern)
    for token in range(3000):
        k = torch.full((1, 1, 1, 2), float(token))
        cache.append(k, k)
        if text.startswith("sliding"):
            assert cache.capacity <= 128
    assert cache.live == live == sd.liveness(pattern, seq_len=3000, key_heads=1).peak
    assert cache.capacity <= 4 * live + 64
    assert {*cache.positions.tolist()} >= {
        key for key in range(3000) if pattern.dense(1, key + 1, q_start=2999)[0, key]
    }


def test_one_append_of_a_long_prompt_then_tokens() -> None:
    pattern = sd.sliding(6) | sd.sink(2) & sd.causal()
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 301, 4, dtype=torch.float64) for _ in range(3))
    cache = sd.PatternCache(pattern)
    cache.append(k[:, :, :300], v[:, :, :300])
    last_of_prompt = cache.attend(q[:, :, 295:300])
    cache.append(k[:, :, 300:], v[:, :, 300:])
    got = torch.cat([last_of_prompt, cache.attend(q[:, :, 300:], scale=0.5)], 2)
    want = torch.cat(
        [sd.compile(pattern)(q, k, v)[:, :, 295:300], sd.compile(pattern)(q, k, v, scale=0.5)[:, :, 300:]], 2
    )
    torch.testing.assert_close(got, want)
    assert cache.live == 8


def test_mistakes() -> None:
    with pytest.raises(Unsupported) as found:
        sd.PatternCache(sd.sliding(4, ahead=2))
    assert found.value.hint == "PatternCache((sliding(4, ahead=2)) & causal())"
    cache = sd.PatternCache(sd.per_head([sd.sliding(4), sd.power()]))
    k = torch.ones(1, 1, 1, 4)
    with pytest.raises(OutOfRange, match="a query needs the keys of its own step"):
        cache.attend(k)
    cache.append(k, k)
    with pytest.raises(OutOfRange, match="a query needs the keys of its own step"):
        cache.attend(torch.ones(1, 2, 2, 4))
    with pytest.raises(HeadMismatch, match="the query heads do not fit"):
        cache.attend(torch.ones(1, 3, 1, 4))
    for wrong in (torch.ones(2, 1, 1, 4), torch.ones(1, 1, 0, 4), torch.ones(1, 1, 1, 4).half(), torch.ones(1, 4)):
        with pytest.raises(ShapeMismatch, match="the new keys and values do not fit"):
            cache.append(wrong, wrong)
