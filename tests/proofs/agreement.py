"""Many random patterns and stacks: `check` against breadth-first searches of networkx, pair by pair.

    python -m tests.proofs.agreement --cases 5000 --seed 0 --out benchmarks/results/check_agreement.json

The graph of the search has a node for each token before each layer, and an edge for each pair of the layer's matrix;
with the residual connection and one pattern for all layers it has the tokens alone, and a pair is joined by as many
layers as it is edges apart. Compared are the verdict, the depth, reach and contiguous reach for each number of layers,
live and joined pairs, the first gap and the smallest length that fails. Hypothesis draws the cases and shrinks the
first one that fails; the default run of the tests draws a few (tests/proofs/test_agreement.py).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import networkx as nx
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from sparsedsl.layers import PerHead, Stack
from sparsedsl.normal import normalise
from sparsedsl.pattern import Pattern
from sparsedsl.proofs.verdict import Verdict, check
from tests import long_run
from tests.proofs.brute_force import Matrix, contiguous, first_gap, graph, scope
from tests.proofs.random_patterns import heads, patterns, stacks

LONGEST = 200
# A graph of every layer has so many times the edges: at most so many tokens times layers.
MOST_NODES = 600


@dataclass(frozen=True)
class Case:
    """What is checked."""

    pattern: Pattern | PerHead | Stack
    seq_len: int
    layers: int | None
    residual: bool


@dataclass(frozen=True)
class Searched:
    """What the searches found: the different layers as matrices, and which pairs are joined by 1, 2, ... layers.

    Either as many layers as were asked for, in `levels`; or the layers that each pair takes, -1 for none, in `apart`.
    """

    matrices: tuple[Matrix, ...]
    levels: tuple[Matrix, ...] = ()
    apart: NDArray[np.int64] | None = None

    def joined(self, layers: int) -> Matrix:
        """The pairs that so many layers join."""
        if self.apart is None:
            return self.levels[layers - 1]
        return np.asarray((self.apart >= 0) & (self.apart <= layers))

    def depth(self, needed: Matrix) -> int | None:
        """The layers that join all needed pairs."""
        if self.apart is None:
            return next((layers for layers, pairs in enumerate(self.levels, 1) if (pairs | ~needed).all()), None)
        apart = self.apart[needed]
        return None if apart.min() < 0 else max(1, int(apart.max()))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Patterns, patterns for each head and stacks; lengths up to 200, with and without the residual connection."""
    kinds: list[st.SearchStrategy[Pattern | PerHead | Stack]] = [patterns(), heads(), stacks()]
    pattern = draw(kinds[draw(st.integers(0, 2))])
    residual = draw(st.sampled_from([True, True, False]))
    if isinstance(pattern, Stack):
        layers, longest = None, MOST_NODES // len(pattern)
    elif residual:
        layers, longest = draw(st.none() | st.integers(1, 9)), LONGEST
    else:
        # More layers do not join more pairs, so their number is part of the question.
        layers = draw(st.integers(1, 9))
        longest = MOST_NODES // layers
    return Case(pattern, draw(st.integers(1, min(longest, LONGEST))), layers, residual)


def searched(case: Case, seq_len: int) -> Searched:
    """The pairs that layers join at a length, by breadth-first search."""
    different = case.pattern.patterns if isinstance(case.pattern, Stack) else (case.pattern,)
    matrices = tuple(graph(each, seq_len) for each in different)
    if isinstance(case.pattern, Stack):
        return Searched(matrices, _layer_by_layer(matrices, len(case.pattern), residual=case.residual))
    if not case.residual:
        return Searched(matrices, _layer_by_layer(matrices, case.layers or 1, residual=False))
    apart = np.full((seq_len, seq_len), -1)
    tokens = nx.from_numpy_array(matrices[0], create_using=nx.DiGraph)
    for query in tokens:
        for key, edges in nx.single_source_shortest_path_length(tokens, query).items():
            apart[query, key] = edges
    return Searched(matrices, apart=apart)


def _layer_by_layer(matrices: tuple[Matrix, ...], count: int, *, residual: bool) -> tuple[Matrix, ...]:
    """One search upwards from each key below all layers: it meets the queries of every layer on its way."""
    size = len(matrices[0])
    levels = nx.DiGraph()
    levels.add_nodes_from((layer, token) for layer in range(count + 1) for token in range(size))
    for layer in range(count):
        matrix = matrices[layer % len(matrices)]
        levels.add_edges_from(((layer, int(k)), (layer + 1, int(q))) for q, k in np.argwhere(matrix))
        if residual:
            levels.add_edges_from(((layer, token), (layer + 1, token)) for token in range(size))
    joined = np.zeros((count + 1, size, size), dtype=np.bool_)
    for key in range(size):
        for layer, query in nx.descendants(levels, (0, key)):
            joined[layer, query, key] = True
    return tuple(joined[1:])


def compare(case: Case, counts: Counter[str]) -> Verdict:
    """Raise AssertionError where the verdict and the searches differ."""
    pattern, seq_len = case.pattern, case.seq_len
    verdict = check(pattern, seq_len=seq_len, layers=case.layers, residual=case.residual)
    found = searched(case, seq_len)
    # With the residual connection as many layers as tokens join all that is ever joined.
    count = len(pattern) if isinstance(pattern, Stack) else case.layers or seq_len
    final = found.joined(count)
    course = [found.joined(layers) for layers in range(1, len(verdict.reach) + 1)]
    # A normal form knows that it looks ahead, even where the length is too short to show it.
    assert verdict.ahead or not any(np.triu(matrix, 1).any() for matrix in found.matrices)
    needed = scope(seq_len, ahead=verdict.ahead)

    assert verdict.live_pairs == max(int(matrix.sum()) for matrix in found.matrices)
    assert verdict.degree == max(int(matrix.sum(axis=1).max()) for matrix in found.matrices)
    assert verdict.reach == tuple(int(joined[-1].sum()) for joined in course)
    assert verdict.contiguous == tuple(contiguous(joined & needed, ahead=verdict.ahead) for joined in course)
    assert verdict.complete == bool((final | ~needed).all())
    assert verdict.joined_pairs == (final & needed).sum()
    assert verdict.pairs == needed.sum()
    assert verdict.settled
    depth = found.depth(needed)
    # Without the residual connection the search ends with the layers that were asked for; `check` goes on.
    beyond = depth is None and not case.residual and not isinstance(pattern, Stack)
    assert verdict.depth is None or verdict.depth > count if beyond else verdict.depth == depth
    gap = first_gap(final, ahead=verdict.ahead)
    counter = verdict.counterexample
    assert (counter and (counter.q, counter.k, counter.seq_len)) == (gap and (*gap, max(gap) + 1))
    if gap is not None and not verdict.ahead:
        # No shorter length fails; in a causal pattern no later token is part of a path.
        for length in {gap[0] + 1, gap[0]} - {0}:
            shorter = searched(case, length).joined(count) | ~scope(length, ahead=False)
            assert shorter.all() == (length == gap[0])

    counts.update(["cases", "complete" if verdict.complete else "incomplete"])
    counts.update(["with the residual connection" if case.residual else "without the residual connection"])
    counts.update([{Stack: "stacks", PerHead: "per head"}.get(type(pattern), "patterns")])
    counts.update(["look ahead"] * verdict.ahead + ["in blocks"] * (verdict.unit > 1))
    counts.update(["on a layer graph" if verdict.basis.startswith("layer graph") else "on sets of distances"])
    counts.update(["more than 100 tokens"] * (seq_len > 100))
    if counts["cases"] % 1000 == 0:
        normalise.cache_clear()  # thousands of forms that no other case asks for
    return verdict


def run(count: int, seed: int) -> Counter[str]:
    """Draw and compare so many cases."""
    counts: Counter[str] = Counter()
    long_run.check_all(cases(), lambda case: compare(case, counts), count, seed)
    return counts


def main() -> None:
    """Run, print and write the record; a failure ends in Hypothesis's report with the smallest case."""
    long_run.main(
        "tests.proofs.agreement",
        (__doc__ or "").splitlines()[0],
        "random patterns, heads and stacks of at most 200 tokens: `check` equals searches of networkx",
        run,
        cases=5_000,
        packages=("hypothesis", "networkx", "numpy"),
    )


if __name__ == "__main__":
    main()
