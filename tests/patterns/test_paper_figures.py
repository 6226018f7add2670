"""The block counts of the PowerAttention family and its baselines: degree, edges, depth, share joined.

Every row is told twice: as a mask over block indices, the way the paper prints it, and by the library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from sparsedsl.constructors import causal, power, sliding
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.dilated import dilated_paper_baseline
from sparsedsl.patterns.fibonacci import fibonacci
from sparsedsl.patterns.logsparse import logsparse
from sparsedsl.patterns.longnet import longnet, longnet_paper_baseline
from sparsedsl.patterns.power import power_attention
from sparsedsl.patterns.sliding import sliding_sink
from sparsedsl.patterns.sparse_transformer import stride_slash
from tests.patterns.reach import Matrix, layers_until_still, past

Indices = NDArray[np.int64]

LENGTHS = (64, 128, 256, 512)
LEVELS = ((8, 1), (16, 2), (32, 4), (64, 8), (128, 16))


def union(*masks: Matrix) -> Matrix:
    joined: Matrix = np.logical_or.reduce(masks)
    return joined


class Row(NamedTuple):
    """One pattern in blocks, its printed mask, and (degree, edges, depth or share ever joined) by length."""

    pattern: Pattern
    mask: Callable[[Indices, Indices], Matrix]
    figures: tuple[tuple[int, int, int | float], ...]


ROWS = {
    "power, window 5, sink": Row(
        power_attention(block=1),
        lambda q, k: (q - k < 5) | ((q - k) & (q - k - 1) == 0) | (k == 0),
        ((9, 502, 5), (10, 1141, 6), (11, 2548, 7), (12, 5619, 8)),
    ),
    "power, window 5, no sink": Row(
        (sliding(5) | power()) & causal(),
        lambda q, k: (q - k < 5) | ((q - k) & (q - k - 1) == 0),
        ((8, 0, 5), (9, 1022, 6)),
    ),
    "power only": Row(
        logsparse(),
        lambda q, k: (q - k) & (q - k - 1) == 0,
        ((7, 385, 6), (8, 897, 7), (9, 2049, 8), (10, 4609, 9)),
    ),
    "sliding 9, sink": Row(
        sliding_sink(block=1),
        lambda q, k: (q - k < 9) | (k == 0),
        ((10, 595, 8), (10, 1235, 16), (10, 2515, 32), (10, 5075, 64)),
    ),
    "stride 32, window 6, sink": Row(
        stride_slash(block=1, stride=32),
        lambda q, k: (q - k < 6) | ((q - k) % 32 == 0) | (k == 0),
        ((8, 458, 7), (10, 1064, 8), (14, 2660, 8), (22, 7388, 8)),
    ),
    "stride 42, window 6, sink": Row(
        stride_slash(block=1, stride=42),
        lambda q, k: (q - k < 6) | ((q - k) % 42 == 0) | (k == 0),
        ((8, 448, 9), (10, 1004, 10), (13, 2419, 10), (19, 6419, 10)),
    ),
    "stride 26, window 6, sink": Row(
        stride_slash(block=1, stride=26),
        lambda q, k: (q - k < 6) | ((q - k) % 26 == 0) | (k == 0),
        ((9, 475, 6), (11, 1123, 6), (16, 2896, 6), (26, 8332, 6)),
    ),
    "dilated 20, step 2": Row(
        dilated_paper_baseline(block=1),
        lambda q, k: ((q - k) % 2 == 0) & (q - k < 20),
        ((10, 550, 50.77), (10, 1190, 50.39), (10, 2470, 50.19), (10, 5030, 50.10)),
    ),
    "LongNet, residue 0 only": Row(
        longnet_paper_baseline(block=1),
        lambda q, k: union(*(((q ^ k) < w) & ((q | k) & (r - 1) == 0) for w, r in LEVELS)),
        ((13, 400, 73.85), (13, 816, 62.79), (13, 1632, 31.52), (13, 3264, 15.79)),
    ),
    "LongNet, per-head offsets": Row(
        longnet(segments=[w for w, _ in LEVELS], dilations=[r for _, r in LEVELS], heads=16).union(),
        lambda q, k: union(*(((q ^ k) < w) & ((q ^ k) & (r - 1) == 0) for w, r in LEVELS)),
        ((20, 672, 97.79), (24, 1600, 97.27), (24, 3200, 48.83), (24, 6400, 24.46)),
    ),
    "Fibonacci": Row(
        fibonacci(window=1),
        lambda q, k: np.isin(q - k, [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377]),
        ((10, 0, 4), (11, 0, 5)),
    ),
}
CASES = [(name, n, *figures) for name, row in ROWS.items() for n, figures in zip(LENGTHS, row.figures, strict=False)]


def printed(name: str, n: int) -> Matrix:
    q, k = np.arange(n)[:, None], np.arange(n)[None, :]
    return ROWS[name].mask(q, k) & past(n)


@pytest.mark.parametrize(("name", "n"), [(name, n) for name, n, *_ in CASES])
def test_pattern_is_the_printed_mask(name: str, n: int) -> None:
    np.testing.assert_array_equal(ROWS[name].pattern.dense(n), printed(name, n))


@pytest.mark.parametrize(("name", "n", "degree", "edges", "depth"), CASES)
def test_degree_and_edges(name: str, n: int, degree: int, edges: int, depth: float) -> None:
    matrix = printed(name, n)
    assert matrix.sum(1).max() == degree
    if edges:
        assert matrix.sum() == edges


@pytest.mark.parametrize(("name", "n", "degree", "edges", "depth"), CASES)
def test_depth_or_share(name: str, n: int, degree: int, edges: int, depth: float) -> None:
    layers, seen = layers_until_still(printed(name, n))
    if isinstance(depth, float):
        assert round(100 * seen.sum() / past(n).sum(), 2) == depth
    else:
        assert layers == depth
        np.testing.assert_array_equal(seen, past(n))
