"""Influence against matrices, its figures in the literature's table, and its bound."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sparsedsl.proofs.quotient_influence import Layers, depth_of, influence_bound, influences, worst_influence


def adjacency(distances: tuple[int, ...], units: int, sink: int = 0) -> NDArray[np.float64]:
    q, k = np.arange(units)[:, None], np.arange(units)[None, :]
    edges = (np.isin(q - k, distances) | (k < sink)) & (k <= q)
    scaled: NDArray[np.float64] = edges / edges.sum(axis=1, keepdims=True)
    return scaled


def by_matrices(layers: Layers, units: int, count: int, alpha: float, sink: int = 0) -> NDArray[np.float64]:
    held = np.eye(units)
    for layer in range(count):
        step = alpha * np.eye(units) + (1 - alpha) * adjacency(layers[layer % len(layers)], units, sink)
        held = step @ held
    last: NDArray[np.float64] = held[-1]
    return last


sets = st.sets(st.integers(1, 30), max_size=8).map(lambda each: (0, *sorted(each)))


@settings(max_examples=200)
@given(
    st.lists(sets, min_size=1, max_size=4).map(tuple),
    st.integers(1, 25),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.5, 0.9]),
    st.integers(0, 3),
)
def test_influences_are_a_row_of_the_product(layers: Layers, units: int, count: int, alpha: float, sink: int) -> None:
    found = influences(layers, units=units, count=count, alpha=alpha, sink=sink)
    np.testing.assert_allclose(found, by_matrices(layers, units, count, alpha, sink), rtol=1e-12, atol=1e-300)


@settings(max_examples=200)
@given(st.lists(sets, min_size=1, max_size=3).map(tuple), st.integers(2, 25), st.integers(1, 7))
def test_depth_is_that_of_matrices(layers: Layers, units: int, most: int) -> None:
    joined: NDArray[np.bool_] = np.eye(units, dtype=np.bool_)
    depth = None
    for layer in range(most):
        joined = np.asarray((adjacency(layers[layer % len(layers)], units) + np.eye(units)) @ joined > 0)
        if depth is None and (joined == np.tri(units)).all():
            depth = layer + 1
    assert depth_of(layers, units, most) == depth


POWERS = (0, 1, 2, 3, 4, 8, 16, 32, 64)


@pytest.mark.parametrize(
    ("distances", "sink", "figures"),
    [
        (tuple(range(128)), 0, (5.2e-9, 1.6e-3, 3.1e-3)),
        (tuple(range(9)), 1, (1.8e-7, 8.1e-20, 3.3e-25)),
        ((0, 1, 2, 3, 4, 5, 32, 64, 96), 1, (5.1e-5, 3.3e-7, 2.1e-9)),
        (POWERS, 1, (5.0e-5, 2.5e-4, 7.3e-6)),
        (POWERS, 0, (1.3e-4, 4.5e-4, 1.5e-5)),
        ((0, 1, 2, 4, 8, 16, 32, 64), 0, (7.6e-5, 1.8e-4, 6.8e-6)),
    ],
    ids=["full", "sliding", "stride", "power", "power no sink", "power only"],
)
def test_known_figures(distances: tuple[int, ...], sink: int, figures: tuple[float, ...]) -> None:
    """128 blocks, 28 layers, the least over the keys 1 to 107, to two digits."""
    for alpha, figure in zip((0.5, 0.9, 0.95), figures, strict=True):
        found = influences((distances,), units=128, count=28, alpha=alpha, sink=sink)[1:108].min()
        assert f"{found:.1e}" == f"{figure:.1e}"


def test_no_set_has_more_than_the_bound() -> None:
    """Every distance set, and every schedule of two layers, at 6 units."""
    subsets = [(0, *(each + 1 for each in range(5) if word >> each & 1)) for word in range(32)]
    for alpha, count in product((0.5, 0.9), (1, 2, 5)):
        for same, stacks in ((True, [(each,) for each in subsets]), (False, list(product(subsets, repeat=2)))):
            for layers in stacks:
                degree = max(map(len, layers))
                bound = influence_bound(units=6, count=count, alpha=alpha, degree=degree, same=same)
                assert worst_influence(layers, units=6, count=count, alpha=alpha) <= bound
