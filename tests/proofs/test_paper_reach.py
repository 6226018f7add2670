"""`check` on the PowerAttention paper's patterns: every figure in blocks, and in tokens with blocks of 256.

The figures were computed outside this project, twice; test_paper_figures holds the same ones to matrices.
"""

from __future__ import annotations

from math import floor, log2
from typing import NamedTuple

import pytest

from sparsedsl.constructors import causal, offsets, power, sliding, strided
from sparsedsl.constructors import sink as first_keys
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.dilated import dilated_paper_baseline
from sparsedsl.patterns.longnet import longnet, longnet_paper_baseline
from sparsedsl.patterns.power import power_attention, power_theorem
from sparsedsl.patterns.sliding import sliding_sink
from sparsedsl.patterns.sparse_transformer import stride_slash
from sparsedsl.proofs.verdict import check

BLOCK = 256


class Figures(NamedTuple):
    """One pattern at one number of blocks; `joined` is the depth, or the share of pairs ever joined in percent."""

    degree: int
    edges: int
    joined: int | float
    reach: tuple[int, ...] = ()
    density: tuple[float, float] = (0.0, 0.0)


def lifted(pattern: Pattern | PerHead) -> dict[int, Pattern | PerHead]:
    return {block: pattern.blocks(block) & causal() for block in (1, BLOCK)}


def family(make: object, **arguments: int) -> dict[int, Pattern | PerHead]:
    return {block: make(block=block, **arguments) for block in (1, BLOCK)}  # type: ignore[operator]


PATTERNS: dict[str, dict[int, Pattern | PerHead]] = {
    "power, window 5, sink": family(power_attention),
    "power, window 5, no sink": lifted(sliding(5) | power()),
    "power only": lifted(power()),
    "sliding 9, sink": family(sliding_sink),
    "stride 32, window 6, sink": family(stride_slash, stride=32),
    "stride 42, window 6, sink": lifted(sliding(6) | strided(42) | first_keys(1)),
    "stride 26, window 6, sink": family(stride_slash, stride=26),
    "dilated 20, step 2": family(dilated_paper_baseline),
    "LongNet, residue 0 only": family(longnet_paper_baseline),
    "LongNet, per-head offsets": lifted(longnet(segments=[8, 16, 32, 64, 128], dilations=[1, 2, 4, 8, 16], heads=16)),
}

# By blocks: 64, 128, 256, 512. Reach and density are known where they stand.
FIGURES: dict[str, dict[int, Figures]] = {
    "power, window 5, sink": {
        64: Figures(9, 502, 5, (9, 27, 49, 62, 64)),
        128: Figures(10, 1141, 6, (10, 35, 75, 110, 126, 128), (0.138, 0.070)),
        256: Figures(11, 2548, 7, (11, 44, 109, 184, 235, 254, 256)),
        512: Figures(12, 5619, 8, (12, 54, 152, 292, 418, 488, 510, 512)),
    },
    "power, window 5, no sink": {128: Figures(9, 1022, 6, (9, 34, 74, 109, 125, 128), (0.124, 0.062))},
    "power only": {
        64: Figures(7, 385, 6),
        128: Figures(8, 897, 7, (8, 29, 64, 99, 120, 127, 128), (0.109, 0.055)),
        256: Figures(9, 2049, 8),
        512: Figures(10, 4609, 9),
    },
    "sliding 9, sink": {
        64: Figures(10, 595, 8),
        128: Figures(10, 1235, 16, (*range(10, 123, 8), 128), (0.150, 0.075)),
        256: Figures(10, 2515, 32),
        512: Figures(10, 5075, 64),
    },
    "stride 32, window 6, sink": {
        64: Figures(8, 458, 7),
        128: Figures(10, 1064, 8, (10, 30, 50, 70, 90, 110, 126, 128), (0.129, 0.065)),
        256: Figures(14, 2660, 8),
        512: Figures(22, 7388, 8),
    },
    "stride 42, window 6, sink": {
        64: Figures(8, 448, 9),
        128: Figures(10, 1004, 10, (10, 25, 40, 55, 70, 85, 100, 115, 126, 128), (0.122, 0.061)),
        256: Figures(13, 2419, 10),
        512: Figures(19, 6419, 10),
    },
    "stride 26, window 6, sink": {
        64: Figures(9, 475, 6),
        128: Figures(11, 1123, 6, (11, 36, 61, 86, 111, 128), (0.136, 0.069)),
        256: Figures(16, 2896, 6),
        512: Figures(26, 8332, 6),
    },
    "dilated 20, step 2": {
        64: Figures(10, 550, 50.77),
        128: Figures(10, 1190, 50.39, (10, 19, 28, 37, 46, 55, 64), (0.144, 0.073)),
        256: Figures(10, 2470, 50.19),
        512: Figures(10, 5030, 50.10),
    },
    "LongNet, residue 0 only": {
        64: Figures(13, 400, 73.85),
        128: Figures(13, 816, 62.79, (8, 20, 41, 58, 75, 80), (0.099, 0.050)),
        256: Figures(13, 1632, 31.52),
        512: Figures(13, 3264, 15.79),
    },
    "LongNet, per-head offsets": {
        64: Figures(20, 672, 97.79),
        128: Figures(24, 1600, 97.27, (24, 112, 128), (0.194, 0.098)),
        256: Figures(24, 3200, 48.83),
        512: Figures(24, 6400, 24.46),
    },
}
CASES = [(name, blocks) for name, by_blocks in FIGURES.items() for blocks in by_blocks]


def triangle(n: int) -> int:
    return n * (n + 1) // 2


@pytest.mark.parametrize(("name", "blocks"), CASES)
def test_in_blocks(name: str, blocks: int) -> None:
    figures = FIGURES[name][blocks]
    verdict = check(PATTERNS[name][1], seq_len=blocks)
    assert (verdict.degree, verdict.live_pairs) == (figures.degree, figures.edges)
    assert verdict.settled
    if isinstance(figures.joined, int):
        assert (verdict.complete, verdict.depth, verdict.joined_pairs) == (True, figures.joined, triangle(blocks))
    else:
        assert (verdict.complete, verdict.depth) == (False, None)
        assert round(100 * verdict.joined_pairs / triangle(blocks), 2) == figures.joined
    if figures.reach:
        known, rest = verdict.reach[: len(figures.reach)], verdict.reach[len(figures.reach) :]
        assert known == figures.reach
        # Other blocks may take more layers than the last.
        assert set(rest) <= {figures.reach[-1]}
    if figures.density[0]:
        assert round(verdict.density, 3) == figures.density[0]
        # Half of a thousandth more: 1235 / 128**2 is .07538, 1600 / 128**2 is .09766.
        assert abs(verdict.live_pairs / blocks**2 - figures.density[1]) <= 0.0005 + 1e-9


@pytest.mark.parametrize(("name", "blocks"), CASES)
def test_in_tokens(name: str, blocks: int) -> None:
    figures = FIGURES[name][blocks]
    length = BLOCK * blocks
    in_blocks = check(PATTERNS[name][1], seq_len=blocks)
    verdict = check(PATTERNS[name][BLOCK], seq_len=length)
    assert (verdict.seq_len, verdict.unit) == (length, BLOCK)
    assert verdict.degree == BLOCK * figures.degree
    # Every pattern reads its own block, up to the query: half of a diagonal block.
    assert verdict.live_pairs == (figures.edges - blocks) * BLOCK**2 + blocks * triangle(BLOCK)
    assert verdict.density == verdict.live_pairs / triangle(length)
    assert verdict.complete == isinstance(figures.joined, int)
    assert verdict.depth == (figures.joined if isinstance(figures.joined, int) else None)
    assert verdict.joined_pairs == (in_blocks.joined_pairs - blocks) * BLOCK**2 + blocks * triangle(BLOCK)
    assert verdict.reach == tuple(BLOCK * seen for seen in in_blocks.reach)
    if figures.reach:
        assert verdict.reach[: len(figures.reach)] == tuple(BLOCK * seen for seen in figures.reach)


@pytest.mark.parametrize("name", [name for name, by in FIGURES.items() if isinstance(by[128].joined, int)])
def test_one_layer_less_does_not_do(name: str) -> None:
    depth = FIGURES[name][128].joined
    assert isinstance(depth, int)
    for block in (1, BLOCK):
        verdict = check(PATTERNS[name][block], seq_len=128 * block, layers=depth - 1)
        assert (verdict.complete, verdict.depth) == (False, depth)
        gap = verdict.counterexample
        assert gap is not None
        assert verdict.joined_pairs < verdict.pairs
        # The counterexample is the first: one token less, and the same layers do.
        assert gap.seq_len == gap.q + 1
        assert check(PATTERNS[name][block], seq_len=gap.q, layers=depth - 1).complete


def test_longnet_never_joins_neighbours_across_a_border() -> None:
    gap = check(PATTERNS["LongNet, per-head offsets"][1], seq_len=128).counterexample
    assert gap is not None
    assert (gap.q, gap.k) == (8, 7)


@pytest.mark.parametrize(
    ("blocks", "in_blocks", "in_pairs"), [(64, 4.14, 4.36), (128, 7.24, 7.60), (256, 12.9, 13.5), (512, 23.4, 24.4)]
)
def test_ceilings_against_dense_causal(blocks: int, in_blocks: float, in_pairs: float) -> None:
    digits = 2 if in_blocks < 10 else 1
    edges = check(power_attention(block=1), seq_len=blocks).live_pairs
    assert round(triangle(blocks) / edges, digits) == in_blocks
    assert round(1 / check(power_attention(), seq_len=BLOCK * blocks).density, digits) == in_pairs


def test_live_pairs_at_131072_tokens() -> None:
    verdict = check(power_attention(), seq_len=131072)
    assert (verdict.live_pairs, verdict.pairs) == (351_535_104, 8_590_000_128)


# --- the theorem and its corrections


@pytest.mark.parametrize("n", [2, 3, 4, 5, 31, 32, 33, 127, 128, 129, 1000, 4999])
def test_the_theorem_s_graph(n: int) -> None:
    verdict = check(power_theorem(), seq_len=n)
    assert verdict.degree == floor(log2(n - 1)) + 1 if n > 2 else verdict.degree == 1
    assert (verdict.complete, verdict.depth) == (True, floor(log2(n)))


def test_without_the_residual_connection_exactly_so_many_edges() -> None:
    # Distance d by exactly L edges iff popcount(d) <= L <= d; the last query of n tokens stands at distance n - 1.
    for layers in range(1, 8):
        verdict = check(power_theorem(), seq_len=100, layers=layers, residual=False)
        assert verdict.reach[layers - 1] == sum(d.bit_count() <= layers <= d for d in range(100))


@pytest.mark.parametrize("m", [2, 3, 5, 7])
def test_contiguous_reach_of_powers(m: int) -> None:
    verdict = check(offsets({0, *(1 << t for t in range(m))}), seq_len=1 << (m + 2), layers=m)
    assert verdict.contiguous == (*((1 << (h + 1)) - 2 for h in range(1, m)), 3 * (1 << (m - 1)) - 2)


@pytest.mark.parametrize(
    ("distances", "layers", "reach"),
    [
        ((1, 5), 7, 23),
        ((1, 15), 28, 238),
        ((1, 4, 5), 3, 15),
        ((1, 5, 8), 4, 26),
        ((1, 6, 7), 5, 35),
        ((1, 7, 12), 6, 52),
        ((1, 8, 13), 7, 69),
        ((1, 21, 154), 28, 1678),
        ((1, 4, 7, 8), 3, 24),
        ((1, 3, 11, 18), 4, 44),
        ((1, 4, 12, 21), 5, 71),
        ((1, 4, 19, 33), 6, 114),
        ((1, 5, 24, 37), 7, 165),
        ((1, 4, 6, 14, 15), 3, 36),
        ((1, 3, 11, 15, 32), 4, 70),
        ((1, 4, 9, 31, 51), 5, 126),
        ((1, 7, 12, 43, 52), 6, 216),
        ((1, 3, 7, 9, 19, 24), 3, 52),
    ],
)
def test_contiguous_reach_of_postage_stamps(distances: tuple[int, ...], layers: int, reach: int) -> None:
    verdict = check(offsets({0, *distances}), seq_len=4 * reach, layers=layers)
    assert verdict.contiguous[layers - 1] == reach
