"""What the docstrings say of degree and depth, counted on small matrices."""

from __future__ import annotations

from functools import reduce
from itertools import accumulate
from math import ceil, floor, log2

import numpy as np
import pytest

from sparsedsl.layers import Stack
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.bigbird import bigbird
from sparsedsl.patterns.chunked import block_local
from sparsedsl.patterns.dilated import dilated_paper_baseline, dilated_window
from sparsedsl.patterns.fibonacci import fibonacci
from sparsedsl.patterns.logsparse import logsparse
from sparsedsl.patterns.longformer import longformer
from sparsedsl.patterns.longnet import longnet, longnet_paper_baseline
from sparsedsl.patterns.power import power_attention, power_theorem
from sparsedsl.patterns.ppa import ppa
from sparsedsl.patterns.sliding import sliding_sink, sliding_window
from sparsedsl.patterns.sparse_transformer import sparse_transformer_fixed, sparse_transformer_strided
from sparsedsl.patterns.streaming_llm import streaming_llm
from sparsedsl.patterns.wavenet import digits, wavenet
from tests.patterns.reach import Matrix, joined, layers_until_still, past

LENGTHS = pytest.mark.parametrize("n", [30, 64, 89, 97])


def depth(pattern: Pattern, n: int) -> int:
    """The least number of layers that joins all pairs."""
    layers, seen = layers_until_still(pattern.dense(n))
    np.testing.assert_array_equal(seen, past(n))
    return layers


def degree(pattern: Pattern, n: int) -> int:
    return int(pattern.dense(n).sum(1).max())


@LENGTHS
class TestWindows:
    @pytest.mark.parametrize("window", [2, 5, 8])
    def test_sliding_window(self, n: int, window: int) -> None:
        assert depth(sliding_window(window=window), n) == ceil((n - 1) / (window - 1))
        assert degree(sliding_window(window=window), n) == window

    @pytest.mark.parametrize(("window", "sink"), [(2, 1), (5, 3)])
    def test_sinks_add_no_reach(self, n: int, window: int, sink: int) -> None:
        for pattern in (
            streaming_llm(sink=sink, window=window),
            sliding_sink(block=1, window=window, sink=sink),
        ):
            assert depth(pattern, n) == ceil((n - 1 - sink) / (window - 1))
            assert degree(pattern, n) == window + sink

    def test_dilated_window(self, n: int) -> None:
        layers, seen = layers_until_still(dilated_window(window=4, dilation=3).dense(n))
        q, k = np.indices((n, n))
        np.testing.assert_array_equal(seen, past(n) & ((q - k) % 3 == 0))
        assert layers == ceil((n - 1) // 3 / 3)

    def test_block_local(self, n: int) -> None:
        layers, seen = layers_until_still(block_local(size=7).dense(n))
        assert layers == 1
        assert not seen[7, 6]

    def test_bigbird_is_no_deeper_than_its_window(self, n: int) -> None:
        pattern = bigbird(block=1, window=3, random=2, global_blocks=2)
        assert depth(pattern, n) <= ceil((n - 1 - 2) / 2)
        assert degree(pattern, n) <= 3 + 2 + 2


@LENGTHS
class TestJumps:
    def test_power_theorem(self, n: int) -> None:
        assert degree(power_theorem(), n) == floor(log2(n - 1)) + 1 == ceil(log2(n))
        assert depth(power_theorem(), n) == floor(log2(n))

    def test_logsparse(self, n: int) -> None:
        assert degree(logsparse(), n) == floor(log2(n - 1)) + 2
        assert depth(logsparse(), n) == floor(log2(n))

    @pytest.mark.parametrize("restart", [2, 8, 11, 16])
    def test_logsparse_restarted(self, n: int, restart: int) -> None:
        assert depth(logsparse(restart=restart), n) == floor(log2(restart))

    def test_fibonacci(self, n: int) -> None:
        odd = [1, 2, 5, 13, 34, 89, 233]  # F(1), F(3), F(5), ...
        assert depth(fibonacci(window=1), n) == sum(f <= n for f in odd) - 1

    def test_squares(self, n: int) -> None:
        assert depth(ppa(p=0.5, window=1), n) == 4
        assert depth(ppa(p=1, window=1), n) == 1

    def test_sparse_transformer(self, n: int) -> None:
        strided = sparse_transformer_strided(stride=9)
        assert depth(strided, n) == 2
        assert degree(strided, n) == 9 + (n - 1) // 9
        fixed = sparse_transformer_fixed(stride=9, summary=2)
        assert depth(fixed, n) == 2
        assert degree(fixed, n) <= 9 + 2 * ((n - 1) // 9)


def test_squares_at_the_default_length() -> None:
    n, squares = 131072, [j * j for j in range(1, 363)]
    first = (1 << 64) - 1 | reduce(lambda bits, square: bits | 1 << square, squares, 0)
    everything = (1 << n) - 1
    # Bit d of `reached`: distance d takes at most so many layers.
    reached = [first]
    for _ in range(2):
        seen = reached[-1]
        for distance in [*range(1, 64), *squares]:
            seen |= reached[-1] << distance
        reached.append(seen & everything)
    assert [bits == everything for bits in reached] == [False, False, True]


def test_power_attention_pairs_at_131072_tokens() -> None:
    blocks = power_attention(block=1).dense(512)
    pairs = 256 * 256 * int(blocks.sum() - 512) + 512 * 256 * 257 // 2
    assert pairs == 351_535_104
    assert round(100 * pairs / (131072 * 131073 // 2), 1) == 4.1


def test_dilated_paper_baseline_takes_seven_layers() -> None:
    assert layers_until_still(dilated_paper_baseline(block=1).dense(128))[0] == 7


def test_longnet_stops_at_a_border() -> None:
    heads = longnet(segments=[8, 16, 32, 64, 128], dilations=[1, 2, 4, 8, 16], heads=16)
    layers, seen = layers_until_still(heads.union().dense(128))
    assert layers == 5
    edges = heads.union().dense(128)
    assert joined(joined(edges, edges), edges)[127].all()
    assert not seen[8, 7]
    assert layers_until_still(longnet_paper_baseline(block=1).dense(128))[0] == 6


def test_longformer_pairs_around_a_global_token() -> None:
    edges = longformer(window=4, global_tokens=[0, 20, 50]).dense(61)
    twice = joined(edges, edges)
    assert all(twice[q, k] for g in (0, 20, 50) for q in range(g, 61) for k in range(g + 1))
    # The widest gap between global tokens is 21..49, a distance of 28 in steps of 3.
    assert layers_until_still(edges)[0] == 10
    assert layers_until_still(edges)[1].sum() == past(61).sum()


def test_longformer_dilated() -> None:
    _, seen = layers_until_still(longformer(window=4, dilation=3, global_tokens=[20]).dense(61))
    q, k = np.indices((61, 61))
    np.testing.assert_array_equal(seen, past(61) & (((q - k) % 3 == 0) | ((k <= 20) & (q >= 20))))


def through(stack: Stack, n: int) -> list[Matrix]:
    """What is joined after layers 1, 2, ...: the later layer reads what the earlier ones passed on."""
    matrices = [stack[layer].dense(n) for layer in range(len(stack))]
    return list(accumulate(matrices, lambda seen, layer: joined(layer, seen)))


@pytest.mark.parametrize(
    ("stack", "sees"),
    [
        (wavenet(layers=5), 2**5),
        (wavenet(kernel=3, layers=4), 1 + 2 * 15),
        (digits(base=3, layers=3), 27),
        (digits(base=4, layers=3), 64),
    ],
)
def test_schedules_see_this_far_and_no_farther(stack: Stack, sees: int) -> None:
    seen = through(stack, sees + 5)[-1]
    q, k = np.indices(seen.shape)
    np.testing.assert_array_equal(seen, past(sees + 5) & (q - k < sees))
    assert not np.array_equal(through(stack, sees)[-2], past(sees)), "every layer is needed"
