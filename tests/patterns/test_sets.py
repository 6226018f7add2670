"""Every family against its set, told pair by pair in plain Python, in terms other than the library's own."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt, log2, sqrt

import numpy as np
import pytest

from sparsedsl.layers import Stack
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.bigbird import bigbird
from sparsedsl.patterns.catalogue import CATALOGUE
from sparsedsl.patterns.chunked import block_local
from sparsedsl.patterns.dilated import dilated_paper_baseline, dilated_window
from sparsedsl.patterns.fibonacci import fibonacci
from sparsedsl.patterns.logsparse import logsparse
from sparsedsl.patterns.longformer import longformer
from sparsedsl.patterns.longnet import longnet, longnet_paper_baseline
from sparsedsl.patterns.power import power_attention, power_theorem
from sparsedsl.patterns.ppa import ppa
from sparsedsl.patterns.sliding import sliding_sink, sliding_window
from sparsedsl.patterns.sparse_transformer import (
    sparse_transformer_fixed,
    sparse_transformer_strided,
    stride_slash,
)
from sparsedsl.patterns.streaming_llm import streaming_llm
from sparsedsl.patterns.wavenet import digits, wavenet

Pairs = Callable[[int, int], bool]

SHAPES = ((1, 1), (2, 2), (37, 37), (101, 101), (1, 53), (17, 41), (41, 17))


def told(pairs: Pairs, q_len: int, k_len: int) -> list[list[bool]]:
    """The matrix of a set; the last query sits on the last key, and no query stands before position 0."""
    start = k_len - q_len
    return [[q >= 0 and pairs(q, k) for k in range(k_len)] for q in range(start, start + q_len)]


def one_bit(distance: int) -> bool:
    return bin(distance).count("1") == 1


def longnet_levels(q: int, k: int, residue: int | None, levels: list[tuple[int, int]]) -> bool:
    """Segments as lists of the tokens that take part, as the authors slice them."""
    for segment, dilation in levels:
        start = q - q % segment
        offset = q % dilation if residue is None else residue % dilation
        kept = range(start + offset, start + segment, dilation)
        if q in kept and k in kept and k <= q:
            return True
    return False


GOLDEN_RATIO = (1 + sqrt(5)) / 2
FIBONACCI = {round(GOLDEN_RATIO**n / sqrt(5)) for n in range(2, 20)}

SETS: dict[str, tuple[Pattern, Pairs]] = {
    "power_attention": (
        power_attention(block=3, window=2, sink=1),
        lambda q, k: k <= q and (k < 3 or q // 3 - k // 3 < 2 or one_bit(q // 3 - k // 3)),
    ),
    "power_attention in tokens": (
        power_attention(block=1, window=5, sink=2),
        lambda q, k: k <= q and (k in (0, 1) or q < k + 5 or log2(q - k).is_integer()),
    ),
    "power_theorem": (power_theorem(), lambda q, k: q - k in {2**t for t in range(10)}),
    "logsparse": (logsparse(), lambda q, k: q == k or (q > k and one_bit(q - k))),
    "logsparse with a window": (
        logsparse(window=6),
        lambda q, k: k <= q <= k + 5 or (q > k and one_bit(q - k)),
    ),
    "logsparse with a restart": (
        logsparse(window=2, restart=12),
        lambda q, k: k <= q and ((q - k) % 12 in (0, 1, 2, 4, 8) or q - k == 1),
    ),
    "fibonacci": (fibonacci(window=4), lambda q, k: q - k in {0, 1, 2, 3} | FIBONACCI),
    "ppa, squares": (
        ppa(p=0.5, window=3),
        lambda q, k: 0 <= q - k < 3 or (q > k and isqrt(q - k) ** 2 == q - k),
    ),
    "ppa, p = 0.67": (
        ppa(p=0.67, window=1),
        lambda q, k: q == k or (q > k and int((q - k) ** 0.67) != int((q - k - 1) ** 0.67)),
    ),
    "ppa, p = 1": (ppa(p=1, window=1), lambda q, k: k <= q),
    "ppa, p = 1/3": (ppa(p=0.333333, window=1), lambda q, k: q - k in {t**3 for t in range(10)}),
    "ppa, short of the length": (ppa(p=0.5, window=1, reach=25), lambda q, k: q - k in {0, 1, 4, 9, 16}),
    "sliding_window": (sliding_window(window=5), lambda q, k: k in range(q - 4, q + 1)),
    "sliding_sink": (
        sliding_sink(block=4, window=2, sink=1),
        lambda q, k: k <= q and (k < 4 or k // 4 in (q // 4, q // 4 - 1)),
    ),
    "streaming_llm": (
        streaming_llm(sink=3, window=4),
        lambda q, k: k <= q and (k <= 2 or k >= q - 3),
    ),
    "block_local": (
        block_local(size=7),
        lambda q, k: any(c <= k <= q < c + 7 for c in range(0, 101, 7)),
    ),
    "dilated_window": (dilated_window(window=4, dilation=3), lambda q, k: k in (q, q - 3, q - 6, q - 9)),
    "dilated_paper_baseline": (
        dilated_paper_baseline(block=3),
        lambda q, k: k <= q and q // 3 - k // 3 in range(0, 20, 2),
    ),
    "sparse_transformer_strided": (
        sparse_transformer_strided(stride=6),
        lambda q, k: k in range(q - 6, q + 1) or k in range(q, -1, -6),
    ),
    "sparse_transformer_fixed": (
        sparse_transformer_fixed(stride=6, summary=2),
        lambda q, k: k <= q and (q // 6 == k // 6 or k % 6 in (4, 5)),
    ),
    "stride_slash": (
        stride_slash(block=2, window=3, stride=7, sink=2),
        lambda q, k: k <= q and (k < 4 or q // 2 - k // 2 in (0, 1, 2, 7, 14, 21, 28, 35, 42, 49)),
    ),
    "longformer": (
        longformer(window=3, dilation=4, global_tokens=(2, 30)),
        lambda q, k: k <= q and (q in (2, 30) or k in (2, 30) or q - k in (0, 4, 8)),
    ),
    "longformer without global tokens": (
        longformer(window=3, global_tokens=()),
        lambda q, k: q - k in (0, 1, 2),
    ),
    "longnet, the heads joined": (
        longnet(segments=(6, 12, 24), dilations=(1, 2, 4), heads=4).union(),
        lambda q, k: longnet_levels(q, k, None, [(6, 1), (12, 2), (24, 4)]),
    ),
    "longnet_paper_baseline": (
        longnet_paper_baseline(block=2),
        lambda q, k: (
            k <= q
            and any(
                (q // 2 ^ k // 2) < w and ((q // 2 | k // 2) & (r - 1)) == 0
                for w, r in ((8, 1), (16, 2), (32, 4), (64, 8), (128, 16))
            )
        ),
    ),
}


@pytest.mark.parametrize(("q_len", "k_len"), SHAPES)
@pytest.mark.parametrize("name", SETS)
def test_set(name: str, q_len: int, k_len: int) -> None:
    pattern, pairs = SETS[name]
    np.testing.assert_array_equal(pattern.dense(q_len, k_len), told(pairs, q_len, k_len))


@pytest.mark.parametrize(("q_len", "k_len"), SHAPES)
def test_longnet_heads(q_len: int, k_len: int) -> None:
    levels = [(6, 2), (12, 3), (24, 4)]
    heads = longnet(segments=[w for w, _ in levels], dilations=[r for _, r in levels], heads=5)
    expected = [told(lambda q, k, j=j: longnet_levels(q, k, j, levels), q_len, k_len) for j in range(5)]  # type: ignore[misc]
    np.testing.assert_array_equal(heads.dense(q_len, k_len), expected)


@pytest.mark.parametrize(
    ("stack", "base", "kernel"), [(wavenet(kernel=3, layers=4), 2, 3), (digits(base=3, layers=4), 3, 3)]
)
def test_schedules(stack: Stack, base: int, kernel: int) -> None:
    assert len(stack) == 4
    for layer in range(4):
        distances = [digit * base**layer for digit in range(kernel)]
        for q_len, k_len in SHAPES:
            expected = told(lambda q, k, seen=distances: q - k in seen, q_len, k_len)  # type: ignore[misc]
            np.testing.assert_array_equal(stack[layer].dense(q_len, k_len), expected)


class TestBigBird:
    """The random blocks are drawn, so the set is held to what the draw promises."""

    PATTERN = bigbird(block=2, window=2, random=3, global_blocks=1, seed=7)

    def blocks(self, pattern: Pattern, n: int) -> np.ndarray:
        return pattern.dense(2 * n)[1::2, ::2]

    def test_window_globals_and_causality(self) -> None:
        matrix = self.PATTERN.dense(101)
        q, k = np.indices(matrix.shape)
        assert matrix[(k <= q) & ((k < 2) | (q // 2 - k // 2 < 2))].all()
        assert not matrix[k > q].any()

    def test_a_block_is_seen_whole_or_not_at_all(self) -> None:
        matrix = self.PATTERN.dense(100)
        below = np.tril(np.ones((50, 50), dtype=bool), -1).repeat(2, 0).repeat(2, 1)
        whole = self.blocks(self.PATTERN, 50).repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(matrix & below, whole & below)

    def test_degree(self) -> None:
        degrees = self.blocks(self.PATTERN, 200).sum(1)
        assert degrees.max() == 2 + 1 + 3
        assert degrees[20:].mean() > 2 + 1 + 2.5, "most draws hit a block of their own"

    def test_same_seed_same_pattern_at_every_length(self) -> None:
        again = bigbird(block=2, window=2, random=3, global_blocks=1, seed=7)
        assert again == self.PATTERN
        np.testing.assert_array_equal(again.dense(101)[:60, :60], self.PATTERN.dense(60))

    def test_the_draw_is_the_same_on_every_machine(self) -> None:
        rows = self.blocks(bigbird(block=2, window=1, random=2, global_blocks=1, seed=0), 40)
        assert [np.flatnonzero(rows[row]).tolist() for row in (10, 23, 39)] == [
            [0, 5, 10],
            [0, 9, 18, 23],
            [0, 19, 25, 39],
        ]

    def test_another_seed_is_another_pattern(self) -> None:
        other = bigbird(block=2, window=2, random=3, global_blocks=1, seed=8)
        assert not np.array_equal(other.dense(100), self.PATTERN.dense(100))


def test_every_entry_of_the_catalogue_is_told_here() -> None:
    told_elsewhere = {"bigbird", "longnet", "wavenet", "digits"}
    assert {name.split()[0].strip(",") for name in SETS} | told_elsewhere == set(CATALOGUE)
