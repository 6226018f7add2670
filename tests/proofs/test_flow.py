"""`flow` against the paper's figures, and against paths, sums and cuts found another way."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from functools import reduce
from itertools import combinations
from math import comb, factorial, log10
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import sparsedsl as sd
from sparsedsl.cli import main
from sparsedsl.errors import SparseDSLError, Unsupported, WrongType, WrongValue
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.power import power_attention, power_theorem
from sparsedsl.patterns.sliding import sliding_sink
from sparsedsl.patterns.sparse_transformer import stride_slash
from sparsedsl.proofs.flow import Flow, flow
from tests.proofs.brute_force import graph
from tests.proofs.random_patterns import layered

ALPHAS = (0.5, 0.9, 0.95)
# 128 blocks, 28 layers, the last query, the least influence over the keys 1, ..., 107; as printed.
TABLE = {
    "full causal": (sd.causal(), ("5.2e-09", "1.6e-03", "3.1e-03")),
    "sliding 9, sink": (sliding_sink(block=1), ("1.8e-07", "8.1e-20", "3.3e-25")),
    "stride 32, window 6, sink": (stride_slash(block=1, stride=32), ("5.1e-05", "3.3e-07", "2.1e-09")),
    "power, window 5, sink": (power_attention(block=1), ("5.0e-05", "2.5e-04", "7.3e-06")),
    "power, window 5, no sink": ((sd.sliding(5) | sd.power()) & sd.causal(), ("1.3e-04", "4.5e-04", "1.5e-05")),
    "power only": (sd.power(), ("7.6e-05", "1.8e-04", "6.8e-06")),
}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_influence_is_the_printed_one(name: str, alpha: float) -> None:
    pattern, printed = TABLE[name]
    found = flow(pattern, seq_len=128, layers=28, alpha=alpha)
    least = min(each.influence for each in found.distances if 1 <= 127 - each.distance <= 107)
    assert f"{least:.1e}" == printed[ALPHAS.index(alpha)]


@pytest.mark.parametrize("name", TABLE)
def test_without_the_residual_connection_the_first_block_takes_all(name: str) -> None:
    assert 0.95 <= flow(TABLE[name][0], seq_len=128, layers=28, alpha=0).sink_share <= 1.0


def test_without_the_residual_connection_and_without_a_sink_a_window_does_not() -> None:
    assert round(flow(sd.sliding(9), seq_len=128, layers=28, alpha=0).sink_share, 2) == 0.09


def test_blocks_are_the_units() -> None:
    blocks = flow(power_attention(), seq_len=32768, layers=28, alpha=0.9)
    units = flow(power_attention(block=1), seq_len=128, layers=28, alpha=0.9)
    assert (blocks.unit, blocks.units, blocks.exact) == (256, 128, True)
    assert blocks.distances == units.distances
    assert blocks.depths == units.depths


@pytest.mark.parametrize("layers", range(1, 8))
def test_shortest_paths_of_powers_are_orders_of_their_digits(layers: int) -> None:
    found = flow(power_theorem(), seq_len=128, layers=layers)
    for each in found.distances:
        assert each.hops == (each.distance.bit_count() if each.distance.bit_count() <= layers else None)
        if each.distance.bit_count() == layers:
            assert each.paths == factorial(layers)


# --- against other ways to compute the same, on tokens


def steps(pattern: Pattern | PerHead | Stack, tokens: int, layers: int) -> list[NDArray[np.bool_]]:
    each = list(pattern) if isinstance(pattern, Stack) else [pattern] * layers
    return [graph(layer, tokens) for layer in each]


def shortest(edges: list[NDArray[np.bool_]]) -> dict[tuple[int, int], int]:
    """The least number of edges for each pair, by networkx on one copy of the tokens for each layer."""
    tokens, layers = len(edges[0]), len(edges)
    copies = nx.DiGraph()
    for layer, matrix in enumerate(edges):
        for token in range(tokens):
            copies.add_edge((layer + 1, token), (layer, token), weight=0)
        for q, k in np.argwhere(matrix):
            if q != k:
                copies.add_edge((layer + 1, int(q)), (layer, int(k)), weight=1)
    found: dict[tuple[int, int], int] = {}
    for q in range(tokens):
        lengths = nx.single_source_dijkstra_path_length(copies, (layers, q))
        found |= {(q, k): int(lengths[0, k]) for k in range(tokens) if (0, k) in lengths}
    return found


def mean_of_heads(layer: Pattern | PerHead, tokens: int) -> NDArray[np.float64]:
    heads = layer.heads if isinstance(layer, PerHead) else (layer,)
    matrices = []
    for head in heads:
        rows = head.dense(tokens).astype(float)
        matrices.append(np.array([row / row.sum() if row.sum() else row for row in rows]))
    return np.asarray(np.mean(matrices, axis=0))


def on_tokens(found: Flow) -> bool:
    return found.unit == 1


@settings(max_examples=300)
@given(layered(), st.integers(1, 20), st.integers(1, 6), st.sampled_from([0.0, 0.3, 0.9, 1.0]))
def test_hops_paths_and_influence(pattern: Pattern | PerHead | Stack, tokens: int, layers: int, alpha: float) -> None:
    layers = len(pattern) if isinstance(pattern, Stack) else layers
    found = flow(pattern, seq_len=tokens, layers=layers, alpha=alpha)
    if not on_tokens(found):
        return
    edges = steps(pattern, tokens, layers)
    hops = shortest(edges)
    identity = np.eye(tokens, dtype=int).astype(object)
    paths = reduce(lambda below, matrix: (identity + matrix.astype(int).astype(object)) @ below, edges, identity)
    each = list(pattern) if isinstance(pattern, Stack) else [pattern] * layers
    weights = [mean_of_heads(layer, tokens) for layer in each]
    influence = reduce(lambda m, a: (alpha * np.eye(tokens) + (1 - alpha) * a) @ m, weights, np.eye(tokens))
    for at in found.distances:
        pairs = [(q, q - at.distance) for q in range(at.distance, tokens)]
        joined = [hops[pair] for pair in pairs if pair in hops]
        assert at.unjoined == len(pairs) - len(joined)
        assert at.hops == (None if at.unjoined else max(joined))
        assert at.mean_hops == (pytest.approx(sum(joined) / len(joined)) if joined else None)
        assert at.paths == paths[tokens - 1, tokens - 1 - at.distance]
        assert at.influence == pytest.approx(influence[tokens - 1, tokens - 1 - at.distance], rel=1e-9, abs=1e-15)
        assert at.least_influence == pytest.approx(min(influence[pair] for pair in pairs), rel=1e-9, abs=1e-15)
    assert found.sink_share == pytest.approx(influence[-1, 0], rel=1e-9, abs=1e-15)
    assert found.lost == pytest.approx(1 - influence[-1].sum(), abs=1e-9)


def test_influence_is_a_sum_over_numbers_of_edges() -> None:
    tokens, layers, alpha = 24, 7, 0.8
    rows = (sd.sliding(3) | sd.power()).dense(tokens).astype(float)
    rows /= rows.sum(axis=1, keepdims=True)
    terms = [
        comb(layers, h) * alpha ** (layers - h) * (1 - alpha) ** h * np.linalg.matrix_power(rows, h)
        for h in range(layers + 1)
    ]
    expected = np.sum(terms, axis=0)[-1]
    found = flow(sd.sliding(3) | sd.power(), seq_len=tokens, layers=layers, alpha=alpha)
    assert [each.influence for each in found.distances] == pytest.approx(list(expected[::-1]))


@settings(max_examples=60)
@given(layered(), st.integers(2, 30), st.integers(1, 5))
def test_a_depth_is_the_flow_of_its_layers(pattern: Pattern | PerHead | Stack, tokens: int, layers: int) -> None:
    whole = flow(pattern, seq_len=tokens, layers=None if isinstance(pattern, Stack) else layers)
    for depth in whole.depths:
        lower = Stack(list(pattern)[: depth.layers]) if isinstance(pattern, Stack) else pattern
        alone = flow(lower, seq_len=tokens, layers=depth.layers)
        if alone.unit != whole.unit:
            continue
        assert depth == alone.depths[-1]
        assert depth.contiguous == next((d.distance for d in alone.distances if d.unjoined), alone.units) - 1
        for each in depth.ranges:
            inside = alone.distances[each.first : each.last + 1]
            never = any(one.hops is None for one in inside)
            assert each.hops == (None if never else max(one.hops or 0 for one in inside))
            assert each.paths == min(one.paths for one in inside)
            assert each.influence == min(one.influence for one in inside)


# --- cuts, reach, quotients


def cut_size(edges: NDArray[np.bool_]) -> int:
    """The size of a least vertex cut from the last token to the first, by trying all sets."""
    tokens = len(edges)
    inner = range(1, tokens - 1)
    for size in range(tokens):
        for cut in combinations(inner, size):
            kept = [token for token in range(tokens) if token not in cut]
            joined = np.linalg.matrix_power(np.eye(len(kept)) + edges[np.ix_(kept, kept)], tokens)
            if not joined[-1, 0]:
                return size
    raise AssertionError("a cut exists once the direct edge is left out")


@settings(max_examples=120)
@given(layered(), st.integers(3, 8))
def test_bottleneck_is_a_least_cut(pattern: Pattern | PerHead | Stack, tokens: int) -> None:
    found = flow(pattern, seq_len=tokens, layers=None if isinstance(pattern, Stack) else 3)
    if not on_tokens(found):
        return
    edges = np.logical_or.reduce(steps(pattern, tokens, 3))
    assert found.bottleneck.direct == edges[-1, 0]
    edges[-1, 0] = False
    cut = found.bottleneck.cut
    assert cut is not None
    assert len(cut) == cut_size(edges)
    kept = [token for token in range(tokens) if token not in cut]
    assert not np.linalg.matrix_power(np.eye(len(kept)) + edges[np.ix_(kept, kept)], tokens)[-1, 0]


def test_effective_reach() -> None:
    found = flow(sd.sliding(4), seq_len=60, layers=12, alpha=0.9, fraction=0.05)
    influence = [each.influence for each in found.distances]
    below = [d for d in range(1, 60) if influence[d] < 0.05 * influence[1]]
    assert found.effective_reach == below[0] - 1
    assert 3 < found.effective_reach < 36
    # Distance 1 has no influence at all; one token has no distance 1; nothing falls below under full attention.
    assert flow(sd.dilated(4, 2), seq_len=60, layers=12).effective_reach == 0
    assert flow(sd.sliding(4), seq_len=1, layers=2).effective_reach == 0
    assert flow(sd.causal(), seq_len=40, layers=1).effective_reach == 39


@settings(max_examples=60)
@given(layered(), st.integers(1, 40), st.integers(2, 7))
def test_a_block_reads_what_one_of_its_tokens_reads(
    pattern: Pattern | PerHead | Stack, tokens: int, block: int
) -> None:
    if isinstance(pattern, Stack):
        pattern = pattern[0]
    unit = flow(pattern, seq_len=tokens, layers=1).unit
    if block % unit:
        with pytest.raises(WrongValue, match="the block does not fit"):
            flow(pattern, seq_len=tokens, layers=1, block=block)
        return
    found = flow(pattern, seq_len=tokens, layers=1, alpha=0, block=block)
    edges = graph(pattern, tokens)
    blocks = -(-tokens // block)
    padded = np.zeros((blocks * block, blocks * block), dtype=np.bool_)
    padded[:tokens, :tokens] = edges
    coarse = np.asarray(padded.reshape(blocks, block, blocks, block).any(axis=(1, 3)))
    assert found.units == blocks
    for each in found.distances:
        queries = range(each.distance, blocks)
        missing = sum(not coarse[q, q - each.distance] for q in queries) if each.distance else 0
        assert each.unjoined == missing


def test_coarse_blocks_say_so() -> None:
    found = flow(sd.sliding(300) | sd.sink(4) & sd.causal(), seq_len=131072, layers=28, block=256)
    assert not found.exact
    assert found.absolute_units == 1
    assert found.distances[2].hops == 1
    assert "a block reads all that one of its tokens reads" in str(found)
    assert flow(power_attention(), seq_len=4096, layers=2, block=256).exact


def test_absolute_keys_take_their_share() -> None:
    found = flow((sd.sliding(4) | sd.sink(3)) & sd.causal(), seq_len=64, layers=8, alpha=0.5)
    assert found.absolute_units == 3
    first_three = sum(each.influence for each in found.distances if 63 - each.distance < 3)
    assert found.absolute_share == pytest.approx(first_three)
    assert found.sink_share == pytest.approx(found.distances[63].influence)
    # Keys named in the middle; residues name none, though no odd key comes before the first one.
    named = flow((sd.sliding(4) | sd.where("(k >= 8) & (k < 10)")) & sd.causal(), seq_len=64, layers=8)
    assert named.absolute_units == 2
    assert named.absolute_share == pytest.approx(named.distances[55].influence + named.distances[54].influence)
    assert flow(sd.strided(2) & sd.where("k % 2 == 1") & sd.causal(), seq_len=64, layers=8).absolute_units == 0
    unknown = flow(sd.random_blocks(4, 2) & sd.causal() | sd.sliding(2), seq_len=64, layers=8)
    assert unknown.absolute_units is unknown.absolute_share is None


# --- what is refused, and how the results are shown

ERRORS: dict[str, tuple[Callable[[], Flow], str]] = {
    "tokens": (
        lambda: flow(sd.sliding(1024), layers=28),
        """\
Unsupported: flow keeps a number for each pair of units, and there are too many units
  where     flow(sliding(1024), seq_len=131072)
  got       seq_len = 131072: 131072 tokens
  expected  at most 2048 tokens or blocks
  try       block=64 (--block 64), which lets a block read all that any of its tokens reads""",
    ),
    "layers": (
        lambda: flow(sd.sliding(8), seq_len=64),
        """\
WrongValue: flow needs a number of layers
  where     flow(sliding(8), seq_len=64)
  got       layers = None
  expected  layers >= 1; a stack brings its own
  try       layers=28 (--layers 28)""",
    ),
    "alpha": (
        lambda: flow(sd.sliding(8), seq_len=64, layers=2, alpha=1.5),
        """\
WrongValue: alpha is out of range
  where     flow(sliding(8), seq_len=64)
  got       alpha = 1.5
  expected  0 <= alpha <= 1, the weight of the residual connection""",
    ),
    "fraction": (
        lambda: flow(sd.sliding(8), seq_len=64, layers=2, fraction=0),
        """\
WrongValue: fraction is out of range
  where     flow(sliding(8), seq_len=64)
  got       fraction = 0
  expected  0 < fraction <= 1, a share of the influence at distance 1""",
    ),
    "block": (
        lambda: flow(sd.sliding(2).blocks(64) & sd.causal(), seq_len=4096, layers=2, block=96),
        """\
WrongValue: the block does not fit the pattern's own blocks
  where     flow(sliding(2).blocks(64) & causal(), seq_len=4096)
  got       block = 96, a pattern in blocks of 64
  expected  a multiple of 64
  try       block=128 (--block 128)""",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_to_type(name: str) -> None:
    call, text = ERRORS[name]
    with pytest.raises(SparseDSLError) as caught:
        call()
    assert str(caught.value) == text


def test_wrong_types_are_refused() -> None:
    with pytest.raises(WrongType, match="alpha must be a number"):
        flow(sd.sliding(8), seq_len=64, layers=2, alpha="0.9")  # type: ignore[arg-type]
    with pytest.raises(WrongValue, match="alpha is out of range"):
        flow(sd.sliding(8), seq_len=64, layers=2, alpha=float("nan"))
    with pytest.raises(Unsupported, match="too fine to be folded"):
        flow(sd.strided(2048) & sd.causal() & sd.chunked(4096), seq_len=1 << 21, layers=2, block=4096 * 1024)


def test_json_has_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["flow", "sliding(3)", "--seq-len", "40", "--layers", "9", "--alpha", "0.5", "--json"]
    assert main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    found = flow(sd.sliding(3), seq_len=40, layers=9, alpha=0.5)
    assert printed["alpha"] == 0.5
    assert [each["paths"] for each in printed["distances"]] == [each.paths for each in found.distances]
    assert printed["distances"][39]["log10_paths"] is None
    assert printed["distances"][1]["log10_paths"] == pytest.approx(log10(found.distances[1].paths))
    assert printed["depths"][8]["contiguous"] == 18
    assert printed["effective_reach"] == found.effective_reach
    assert printed["bottleneck"] == {"direct": False, "cut": list(found.bottleneck.cut or ())}


def test_endless_numbers_of_paths_have_a_logarithm() -> None:
    found = flow(sd.causal(), seq_len=16, layers=1500)
    each = json.loads(found.to_json())["distances"][15]
    assert found.distances[15].paths > 10**451
    assert each["paths"] is None
    assert each["log10_paths"] == pytest.approx(log10(found.distances[15].paths))
    assert "e+4" in str(found)


def test_the_text_of_a_stack(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flow", "cycle([sliding(4), dilated(2, 8)], layers=4)", "--seq-len", "32", "--alpha", "0.9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pattern     cycle([sliding(4), dilated(window=2, dilation=8)], layers=4)"
    assert lines[2] == "layers      4, with the residual connection at alpha = 0.9"
    # Two windows and two jumps of 8 reach distance 22: distance 16 in 2 hops, 17 to 19 in 3, 20 to 22 in 4;
    # (16 * 2 + 42 * 3 + 33 * 4) / 91 over all queries.
    row = next(line.split() for line in lines if line.strip().startswith("16-31"))
    assert row[:5] == ["16-31", "31", "never", "3.19", "0"]
    assert any(line.startswith("bottleneck  ") for line in lines)


def test_bad_usage_has_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flow", "sliding(1024)", "--layers", "28"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[0].startswith("Unsupported: flow keeps a number")
    assert len(error) == 5


def test_the_page_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "flow.md").read_text()
    command, _, output = page.split("```")[1].strip().partition("\n")
    main(shlex.split(command.removeprefix("$ sparsedsl ")))
    assert capsys.readouterr().out.strip() == output.strip()


def test_progress_is_told_on_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsedsl.progress.SILENT_FOR", 0.0)
    main(["flow", "sliding(4)", "--seq-len", "64", "--layers", "9"])
    printed = capsys.readouterr()
    assert "flow, layers done of 9: " in printed.err
    assert printed.out.startswith("pattern  ")
