"""Synthesis: every pattern by breadth-first search or by `check`, every proof by enumeration, resuming by bytes."""

from __future__ import annotations

import json
from itertools import combinations, product
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

import sparsedsl
from sparsedsl.errors import SparseDSLError, StateMismatch, WrongType, WrongValue
from sparsedsl.layers import Stack
from sparsedsl.pattern import Pattern
from sparsedsl.progress import Progress
from sparsedsl.proofs.front import Front, Point, pareto
from sparsedsl.proofs.synthesis import synthesise
from sparsedsl.proofs.verdict import check
from sparsedsl.text import parse
from tests.proofs.short_limits import shorten


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps with less patience: for what does not depend on how much is found."""
    shorten(monkeypatch)


def complete_at(pattern: Pattern | Stack, tokens: int, depth: int) -> bool:
    """Whether `depth` layers and their residual connections join all pairs, on a graph of (token, layer)."""
    graph = nx.DiGraph()
    for layer in range(depth):
        edges = (pattern[layer] if isinstance(pattern, Stack) else pattern).dense(tokens)
        graph.add_edges_from(
            ((q, layer + 1), (k, layer)) for q in range(tokens) for k in range(tokens) if edges[q, k] or q == k
        )
    return all(
        {k for k, layer in nx.descendants(graph, (q, depth)) if layer == 0} == set(range(q + 1)) for q in range(tokens)
    )


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize(("tokens", "block", "layers"), [(29, 1, 5), (40, 3, 4), (37, 4, 9), (13, 13, 2), (2, 1, 3)])
def test_every_pattern_is_complete_at_its_depth_and_not_before(tokens: int, block: int, layers: int) -> None:
    front = synthesise(seq_len=tokens, layers=layers, block=block, schedule=True, max_depth=5)
    assert {each.space for each in front.points} == {"distance set", "schedule"}
    for point in (*front.points, *front.given):
        pattern = parse(point.pattern)
        assert isinstance(pattern, Pattern | Stack)
        assert complete_at(pattern, tokens, point.depth), point
        assert point.depth == 1 or not complete_at(pattern, tokens, point.depth - 1), point
        per_layer = list(pattern) if isinstance(pattern, Stack) else [pattern]
        # The last row of whole blocks is the worst one; its own block counts whole.
        in_blocks = (
            set(map(tuple, (each.dense(tokens).nonzero()[1][:, None] // block).tolist())) for each in per_layer
        )
        assert point.keys == point.blocks * block
        assert all(in_blocks)
        # Keys of the worst row, any block that it touches counted whole.
        rows = [[len({int(k) // block for k in row.nonzero()[0]}) for row in each.dense(tokens)] for each in per_layer]
        assert max(map(max, rows)) == point.blocks
        assert point.keys == point.blocks * block


def sums(layers: tuple[tuple[int, ...], ...]) -> set[int]:
    return {sum(each) for each in product(*layers)}


@pytest.mark.parametrize("units", [2, 3, 5, 8, 11])
def test_optimal_sets_are_those_of_plain_enumeration(units: int) -> None:
    front = synthesise(seq_len=units, layers=4, block=1, max_depth=4)
    best = {
        depth: min(
            len(chosen) + 1
            for size in range(units)
            for chosen in combinations(range(1, units), size)
            if sums(((0, *chosen),) * depth) >= set(range(units))
        )
        for depth in (1, 2, 3, 4)
    }
    assert {each.depth: (each.at_least, each.found) for each in front.bounds} == {
        depth: (blocks, blocks) for depth, blocks in best.items()
    }
    expected = {(blocks, depth) for depth, blocks in best.items() if depth == 1 or best[depth - 1] > blocks}
    assert {(each.blocks, each.depth) for each in front.points if each.status == "optimal"} == expected


@pytest.mark.parametrize("units", [2, 4, 5, 7])
def test_optimal_schedules_are_those_of_plain_enumeration(units: int) -> None:
    front = synthesise(seq_len=units, layers=2, block=1, schedule=True)
    subsets = [(0, *each) for size in range(units) for each in combinations(range(1, units), size)]
    best = min(max(map(len, pair)) for pair in product(subsets, repeat=2) if sums(pair) >= set(range(units)))
    (bound,) = (each for each in front.bounds if each.space == "schedule" and each.depth == 2)
    assert (bound.at_least, bound.found) == (best, best)


def test_the_published_length() -> None:
    """512 blocks, 28 layers, depth 8: half the keys of PowerAttention, and a quarter with a schedule."""
    front = synthesise(seq_len=131072, layers=28, max_depth=8, budget=7 * 256, schedule=True)
    (power,) = front.given
    assert (power.keys, power.blocks, power.depth) == (3072, 12, 8)
    proved = {(each.space, each.blocks, each.depth) for each in front.points if each.status == "optimal"}
    sets = {("distance set", 6, 8), ("distance set", 7, 7)}
    assert proved == {*sets, ("schedule", 3, 6), ("schedule", 4, 5), ("schedule", 5, 4)}
    for point in front.points:
        verdict = check(parse(point.pattern), seq_len=131072, layers=28)
        assert (verdict.complete, verdict.depth, verdict.degree) == (True, point.depth, point.keys)
        assert point.blocks < power.blocks
        assert point.influence_limit is not None
        assert 0 < point.influence <= point.influence_limit
    # Cheap is not good: the leanest set has less influence than PowerAttention by far, some lean ones have more.
    (leanest,) = (each for each in front.points if each.blocks == 6 and each.space == "distance set")
    assert leanest.influence < power.influence / 100
    assert any(each.beats(power) for each in front.points if each.space == "distance set")
    assert any(each.beats(power) for each in front.points if each.space == "schedule")


def test_a_point_beats_another_only_if_it_is_worse_in_nothing() -> None:
    def point(blocks: int, depth: int, influence: float) -> Point:
        return Point("distance set", f"{blocks}", blocks, blocks, depth, influence, 1.0, "heuristic", 1)

    a, b, c, d = point(4, 3, 0.1), point(5, 3, 0.2), point(5, 2, 0.1), point(5, 3, 0.1)
    assert set(pareto([d, c, b, a])) == {a, b, c}
    assert pareto([d, a, a]) == (a,)
    assert not a.beats(a)


@pytest.mark.usefixtures("short_limits")
def test_the_same_seed_gives_the_same_bytes() -> None:
    first, again = (synthesise(seq_len=60, layers=6, block=1, schedule=True, seed=3) for _ in range(2))
    assert first == again
    assert first.to_json() == again.to_json()
    assert str(first) == str(again)


class Stopping(Progress):
    """Ctrl-C at the n-th look at the clock."""

    def __init__(self, steps: int) -> None:
        super().__init__("stopping")
        self.steps = steps

    def at(self, done: int | None, what: str | None = None) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise KeyboardInterrupt


def asked(file: Path | None, progress: Progress | None = None, *, seed: int = 1) -> Front:
    return synthesise(
        seq_len=3000,
        layers=8,
        block=10,
        max_depth=5,
        budget=110,
        schedule=True,
        seed=seed,
        resume=file,
        progress=progress,
    )


@pytest.mark.usefixtures("short_limits")
def test_interrupted_and_resumed_is_uninterrupted(tmp_path: Path) -> None:
    uninterrupted = asked(None).to_json()
    file = tmp_path / "state.json"
    stops = 0
    while True:
        try:
            front = asked(file, Stopping(4))
        except KeyboardInterrupt:
            stops += 1
            saved = json.loads(file.read_text())
            assert list(tmp_path.iterdir()) == [file]
            if stops == 2:
                # In the middle of a search: its place is saved.
                assert saved["current"][1]["nodes"] > 0
        else:
            break
    assert stops > 3
    assert front.to_json() == uninterrupted
    # A finished state gives the front again, with nothing left to search.
    assert asked(file, Stopping(0)).to_json() == uninterrupted


@pytest.mark.usefixtures("short_limits")
def test_states_that_do_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    with pytest.raises(KeyboardInterrupt):
        asked(file, Stopping(6))
    saved = json.loads(file.read_text())

    def refused(text: str) -> str:
        file.write_text(text)
        with pytest.raises(StateMismatch) as caught:
            asked(file)
        assert caught.value.where.startswith("synthesise(resume=") or "never stands" in caught.value.what
        return str(caught.value)

    assert "can't be read" in refused("{")
    assert "is not the state of a synthesis" in refused("[]")
    assert "is not the state of a synthesis" in refused('{"format": "another"}')
    assert "another version" in refused(json.dumps({**saved, "version": 2}))
    assert "damaged" in refused(json.dumps({**saved, "request": {}}))
    assert "damaged" in refused(json.dumps({**saved, "outcomes": []}))
    assert "damaged" in refused(json.dumps({**saved, "current": 3}))
    for layers in ([], [[1, 2]], [[0, 2, 1]], [[0, 900]], [["0"]], "none", [[0, 1], 4]):
        outcome = {"layers": layers, "nodes": 0, "exhausted": False}
        assert "damaged" in refused(json.dumps({**saved, "outcomes": {"prove 5 5": outcome}}))
    name = saved["current"][0]
    assert "never stands" in refused(json.dumps({**saved, "current": [name, {"members": [5]}]}))
    file.write_text(json.dumps(saved))
    with pytest.raises(StateMismatch) as caught:
        asked(file, seed=2)
    assert str(caught.value).splitlines() == [
        "StateMismatch: the state belongs to another request",
        f"  where     synthesise(resume={str(file)!r})" if len(str(file)) < 50 else f"  where     {caught.value.where}",
        f"  got       seed = 1 in {file}",
        "  expected  seed = 2, as asked for now",
        "  try       the options that the file was written with, or another file",
    ]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"seq_len": 0}, WrongValue, "seq_len is out of range"),
        ({"layers": 0}, WrongValue, "layers is out of range"),
        ({"block": 0}, WrongValue, "block is out of range"),
        ({"max_depth": 0}, WrongValue, "max_depth is out of range"),
        ({"budget": 0}, WrongValue, "budget is out of range"),
        ({"seed": -1}, WrongValue, "seed is out of range"),
        ({"seq_len": 2.5}, WrongType, "seq_len must be a whole number"),
        ({"alpha": 1.0}, WrongValue, "alpha is out of range"),
        ({"alpha": "0.9"}, WrongType, "alpha must be a number"),
        ({"seq_len": 1 << 30, "block": 1}, WrongValue, "too many blocks"),
    ],
)
def test_mistakes(options: dict[str, Any], error: type[SparseDSLError], text: str) -> None:
    with pytest.raises(error, match=text):
        synthesise(**{"seq_len": 100, "layers": 4, **options})


def test_it_is_a_name_of_the_package() -> None:
    assert sparsedsl.synthesise is synthesise
