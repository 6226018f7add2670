"""BlockMask to pattern: equal on the mask's lengths, short where it can be, one error where it can't be told."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

import sparsedsl as sd
from sparsedsl.errors import Unsupported, WrongType
from sparsedsl.pattern import Pattern
from tests.strategies import periodic_patterns


@pytest.mark.parametrize(
    ("given_text", "text"),
    [
        ("causal()", "causal()"),
        ("full()", "full()"),
        ("empty()", "empty()"),
        ("sliding(4).blocks(8) & causal()", "sliding(4).blocks(8) & causal()"),
        ("sliding(2, ahead=1).blocks(8)", "sliding(2, ahead=1).blocks(8)"),
        ("(sliding(3) | sink(1)).blocks(8) & causal()", "(sliding(3) | sink(1)).blocks(8) & causal()"),
        ("(sliding(2) | power()).blocks(8) & causal()", "offsets({0, 1, 2, 4, 8, 16}).blocks(8) & causal()"),
        (
            "chunked(16)",
            "(where(q % 2 == 0) & sliding(1, ahead=1) | where(q % 2 == 1) & sliding(2)).blocks(8)",
        ),
    ],
)
def test_short_forms(given_text: str, text: str) -> None:
    pattern = sd.parse(given_text)
    assert isinstance(pattern, Pattern)
    found = sd.from_block_mask(sd.to_block_mask(pattern, 160, block_size=8))
    assert str(found) == text
    # What is told by distances goes on beyond the mask, unless the mask was too short to show them.
    length = 160 if "power" in given_text else 300
    assert (found.dense(length) == pattern.dense(length)).all()


@settings(max_examples=40)
@given(periodic_patterns(3), st.booleans(), st.integers(0, 3), st.integers(1, 40), st.integers(1, 40))
def test_equal_on_the_masks_lengths(pattern: Pattern, cut: bool, first: int, q_len: int, k_len: int) -> None:
    blocks = pattern.blocks(4) & sd.causal() if cut else pattern.blocks(4)
    mask = sd.to_block_mask(blocks, q_len, k_len, block_size=4, q_start=4 * first)
    found = sd.from_block_mask(mask, q_start=4 * first)
    want = blocks.dense(q_len, k_len, q_start=4 * first)
    assert (found.dense(q_len, k_len, q_start=4 * first) == want).all()


def test_of_torch_s_own_masks() -> None:
    causal = create_block_mask(lambda b, h, q, k: q >= k, None, None, 512, 512, device="cpu")
    assert sd.from_block_mask(causal) == sd.causal()
    counts, tiles = torch.tensor([[[1, 2, 1]]]), torch.tensor([[[[0, 0, 0], [1, 2, 0], [0, 0, 0]]]])
    blocks = BlockMask.from_kv_blocks(counts.int(), tiles.int(), BLOCK_SIZE=(32, 16))
    found = sd.from_block_mask(blocks)
    want = torch.tensor([[1, 0, 0], [0, 1, 1], [1, 0, 0]]).bool().repeat_interleave(32, 0).repeat_interleave(16, 1)
    assert torch.equal(torch.from_numpy(found.dense(96, 48, q_start=0)), want)


def test_heads() -> None:
    pattern = sd.per_head([sd.sliding(2), sd.dilated(2, 2)]).blocks(16) & sd.causal()
    assert str(sd.from_block_mask(sd.to_block_mask(pattern, 128, block_size=16))) == (
        "per_head([sliding(2).blocks(16) & causal(), offsets({0, 2}).blocks(16) & causal()])"
    )


def test_mistakes() -> None:
    with pytest.raises(Unsupported) as found:
        sd.from_block_mask(sd.to_block_mask(sd.sliding(5), 64, block_size=16))
    assert str(found.value) == (
        "Unsupported: the mask_mod says more than the blocks\n"
        "  where     from_block_mask(block_mask)\n"
        "  got       block (0, 0) with 70 of 256 pairs, not those with k <= q\n"
        "  expected  PARTIAL blocks that are full, or cut by k <= q\n"
        "  try       the pattern written in this language, and to_block_mask(pattern, ...) to go the other way"
    )
    with pytest.raises(WrongType, match="from_block_mask takes a BlockMask"):
        sd.from_block_mask(torch.ones(4, 4))  # type: ignore[arg-type]
    batch = create_block_mask(lambda b, h, q, k: q >= k * (b + 1), 2, None, 256, 256, device="cpu")
    with pytest.raises(Unsupported, match="the masks of the batch differ"):
        sd.from_block_mask(batch)
    noise = torch.rand(20, 20, generator=torch.manual_seed(0)) < 0.5
    order = torch.argsort(noise.int(), dim=1, descending=True, stable=True).int()
    scattered = BlockMask.from_kv_blocks(noise.sum(1)[None, None].int(), order[None, None], BLOCK_SIZE=16)
    found_pattern = sd.from_block_mask(scattered)
    want = noise.repeat_interleave(16, 0).repeat_interleave(16, 1)
    assert torch.equal(torch.from_numpy(found_pattern.dense(320)), want)
