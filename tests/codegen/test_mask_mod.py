"""The mask_mod and the boolean mask equal `dense`, eager and traced."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sparsedsl as sd
from sparsedsl.errors import SparseDSLError, Unsupported, WrongType
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from tests.strategies import head_patterns, periodic_patterns


def positions(q_len: int, k_len: int) -> tuple[Tensor, Tensor]:
    return torch.arange(q_len, dtype=torch.int32)[:, None], torch.arange(k_len, dtype=torch.int32)[None, :]


def evaluated(pattern: Pattern | PerHead, q_len: int, k_len: int, q_start: int) -> Tensor:
    """(heads, q_len, k_len) or (q_len, k_len), as `dense` has it."""
    mask_mod = sd.to_mask_mod(pattern, q_start=q_start, length=max(k_len, q_start + q_len, 1))
    q, k = positions(q_len, k_len)
    zero = torch.zeros_like(q)
    if isinstance(pattern, Pattern):
        return mask_mod(zero, zero, q, k).expand(q_len, k_len)
    return torch.stack([mask_mod(zero, zero + head, q, k).expand(q_len, k_len) for head in range(len(pattern.heads))])


@settings(max_examples=60)
@given(st.one_of(periodic_patterns(), head_patterns()), st.integers(-4, 40), st.integers(1, 23), st.integers(1, 41))
def test_mask_mod_equals_dense(pattern: Pattern | PerHead, q_start: int, q_len: int, k_len: int) -> None:
    want = torch.from_numpy(pattern.dense(q_len, k_len, q_start=q_start))
    assert torch.equal(evaluated(pattern, q_len, k_len, q_start), want)


@pytest.mark.parametrize(
    "text",
    [
        "power(base=3)",  # looked up near, compared far
        "offsets({0, 3, 7, 12, 20, 31, 33, 40, 64, 80, 3000000})",
        "chunked(5) | where(k % 7 >= 3) | where((q // 2) * k % 9 == 4)",
        "random_blocks(block=8, count=3, seed=1) & causal()",
        "~random_blocks(block=8, count=2, seed=5)",
        "where(q * k < 9000)",  # products beyond int32
    ],
)
@pytest.mark.parametrize("q_start", [0, 17, -3])
def test_mask_mod_of_every_kind_of_set(text: str, q_start: int) -> None:
    pattern = sd.parse(text)
    assert isinstance(pattern, Pattern)
    want = torch.from_numpy(pattern.dense(150, 170, q_start=q_start))
    assert torch.equal(evaluated(pattern, 150, 170, q_start), want)


def test_far_positions() -> None:
    far = torch.tensor([3**13, 3**13 + 1, 2_000_000_000], dtype=torch.int32)
    zero = torch.zeros_like(far)
    assert sd.to_mask_mod(sd.power(base=3))(zero, zero, far, zero).tolist() == [True, False, False]
    cubes = sd.to_mask_mod(sd.where("q * q > 4000000000000000000 - k"))
    assert cubes(zero, zero, far, zero).tolist() == [False, False, False]
    assert cubes(zero, zero, far, zero + 1).tolist() == [False, False, True]


def test_traced_without_a_break() -> None:
    pattern = sd.per_head([(sd.sliding(9) | sd.power()).blocks(4) & sd.causal(), sd.chunked(7), sd.power(base=3)])
    mask_mod = sd.to_mask_mod(pattern, q_start=3)
    q, k = positions(40, 50)
    heads = torch.arange(3, dtype=torch.int32)[:, None, None]
    compiled = torch.compile(mask_mod, fullgraph=True, backend="aot_eager")
    want = torch.from_numpy(pattern.dense(40, 50, q_start=3))
    assert torch.equal(compiled(heads * 0, heads, q, k), want)


@given(st.one_of(periodic_patterns(), head_patterns()), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=20)
def test_to_mask_equals_dense(pattern: Pattern | PerHead, q_len: int, k_len: int) -> None:
    mask = sd.to_mask(pattern, q_len, k_len)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, torch.from_numpy(pattern.dense(q_len, k_len)))


def test_to_mask_serves_torch_attention() -> None:
    pattern = sd.per_head([sd.sliding(5), sd.power() | sd.sink(2) & sd.causal()])
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, n, 8, dtype=torch.float64) for n in (21, 34, 34))
    got = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=sd.to_mask(pattern, 21, 34))
    torch.testing.assert_close(got, sd.compile(pattern)(q, k, v))


def test_mistakes() -> None:
    with pytest.raises(Unsupported) as found:
        sd.to_mask_mod(sd.random_blocks(16, 2))
    assert str(found.value).splitlines()[0] == "Unsupported: a random choice needs the number of positions"
    assert found.value.hint == "to_mask_mod(pattern, length=k_len)"
    with pytest.raises(Unsupported, match="a stack has a pattern for each layer"):
        sd.to_mask_mod(sd.cycle([sd.sliding(4)], layers=2))  # type: ignore[arg-type]
    with pytest.raises(WrongType, match="to_mask takes a pattern"):
        sd.to_mask("sliding(4)", 4)  # type: ignore[arg-type]
    with pytest.raises(SparseDSLError, match="q_start must be a whole number"):
        sd.to_mask_mod(sd.sliding(4), q_start=0.5)  # type: ignore[arg-type]
