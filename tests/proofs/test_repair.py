"""`repair` against every edit of its space, tried one by one on matrices."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from functools import reduce
from operator import or_
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import sparsedsl as sd
from sparsedsl.cli import main
from sparsedsl.errors import SparseDSLError, WrongValue
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.proofs.repair import Repair, repair
from sparsedsl.proofs.verdict import check
from sparsedsl.text import parse
from tests.proofs.brute_force import Matrix, graph
from tests.proofs.random_patterns import small

Layered = Pattern | PerHead | Stack


# --- the oracle


class Choice(NamedTuple):
    """The cheapest of a kind: its cost over all changed layers, and the amount."""

    cost: int
    amount: int


def added(kind: str, amount: int, unit: int, tokens: int) -> Matrix:
    """The pairs of an edit as a matrix of tokens, from its definition."""
    q, k = np.arange(tokens)[:, None], np.arange(tokens)[None, :]
    if kind == "distance":
        inside = q // unit - k // unit == amount
    elif kind == "sink":
        inside = np.broadcast_to(k // unit < amount, (tokens, tokens))
    else:
        inside = q // unit - k // unit < amount
    return np.asarray(inside & (k <= q))


def complete(edges: list[Matrix]) -> bool:
    """Whether the layers in their order join all pairs k <= q."""
    tokens = len(edges[0])
    joined: NDArray[np.bool_] = np.eye(tokens, dtype=np.bool_)
    for matrix in edges:
        joined = joined | ((matrix.astype(np.float32) @ joined.astype(np.float32)) > 0)
    return bool(joined[np.tril_indices(tokens)].all())


def heads_of(layer: Pattern | PerHead, tokens: int) -> list[Matrix]:
    return [head.dense(tokens) for head in (layer.heads if isinstance(layer, PerHead) else (layer,))]


def sets_of_layers(pattern: Layered) -> Iterator[tuple[int, ...]]:
    if not isinstance(pattern, Stack):
        yield (0,)
        return
    each = list(pattern)
    yield from ((place,) for place in range(len(each)))
    for one in each:
        yield tuple(place for place, layer in enumerate(each) if layer == one)
    yield tuple(range(len(each)))


def cheapest(pattern: Layered, tokens: int, layers: int, unit: int, kind: str) -> Choice | None:
    """Every amount in every set of layers."""
    each = list(pattern) if isinstance(pattern, Stack) else [pattern] * layers
    dense = {layer: (graph(layer, tokens), heads_of(layer, tokens)) for layer in each}
    edges = [dense[layer][0] for layer in each]
    units = -(-tokens // unit)
    best: Choice | None = None
    for positions in set(sets_of_layers(pattern)):
        for amount in range(units) if kind == "distance" else range(1, units + 1):
            extra = added(kind, amount, unit, tokens)
            changed = range(layers) if not isinstance(pattern, Stack) else positions
            cost = sum(min(int((extra & ~head).sum()) for head in dense[each[at]][1]) for at in changed)
            if best is not None and cost >= best.cost:
                continue
            if complete([matrix | extra if at in changed else matrix for at, matrix in enumerate(edges)]):
                best = Choice(cost, amount)
    return best


def pairs(pattern: Layered, tokens: int, layers: int) -> int:
    """Live pairs of all layers, head by head."""
    each = list(pattern) if isinstance(pattern, Stack) else [pattern] * layers
    counts = {layer: sum(int(head.sum()) for head in heads_of(layer, tokens)) for layer in each}
    return sum(counts[layer] for layer in each)


def joined_by_networkx(pattern: Layered, tokens: int, layers: int) -> bool:
    """Completeness once more, by paths on one copy of the tokens for each layer."""
    each = list(pattern) if isinstance(pattern, Stack) else [pattern] * layers
    dense = {layer: graph(layer, tokens) | np.eye(tokens, dtype=np.bool_) for layer in each}
    copies = nx.DiGraph()
    for layer, one in enumerate(each):
        for q, k in np.argwhere(dense[one]):
            copies.add_edge((layer + 1, int(q)), (layer, int(k)))
    top, bottom = len(each), 0
    return all(
        {key for at, key in nx.descendants(copies, (top, q)) if at == bottom} >= set(range(q + 1))
        for q in range(tokens)
    )


# --- patterns that look back only, many of them incomplete


def leaves() -> st.SearchStrategy[Pattern]:
    return st.one_of(
        st.builds(sd.sliding, small),
        st.builds(sd.dilated, small, small),
        st.builds(lambda base: sd.power(base=base), st.integers(3, 5)),
        st.builds(sd.sink, st.integers(1, 3)),
        st.builds(sd.strided, st.integers(2, 6)),
        st.builds(sd.chunked, small),
        st.builds(sd.offsets, st.sets(st.integers(0, 9), min_size=1, max_size=3)),
        st.builds(lambda block, seed: sd.random_blocks(block, 1, seed=seed), st.integers(1, 3), st.integers(0, 9)),
        st.sampled_from([sd.empty(), sd.where("k % 3 == 1"), sd.where("q >= 7"), sd.where("q * k < 40")]),
    )


def layer_patterns() -> st.SearchStrategy[Pattern]:
    either = leaves() | st.builds(or_, leaves(), leaves()) | st.builds(lambda a, b: a - b, leaves(), leaves())
    lifted = st.builds(lambda a, size: a.blocks(size), either, st.integers(2, 4))
    return st.builds(lambda a: a & sd.causal(), either | lifted)


def layered() -> st.SearchStrategy[Layered]:
    heads = st.builds(sd.per_head, st.lists(layer_patterns(), min_size=2, max_size=3))
    stacks = st.builds(
        lambda each, count: Stack(each, layers=count),
        st.lists(layer_patterns() | heads, min_size=1, max_size=3),
        st.integers(1, 4),
    )
    return st.one_of(layer_patterns(), layer_patterns(), heads, stacks, stacks)


def assert_minimal(pattern: Layered, tokens: int, layers: int) -> Repair:
    own = None if isinstance(pattern, Stack) else layers
    layers = len(pattern) if isinstance(pattern, Stack) else layers
    found = repair(pattern, seq_len=tokens, layers=own)
    verdict = check(pattern, seq_len=tokens, layers=own)
    assert found.complete == verdict.complete
    assert found.degree == verdict.degree
    if found.complete:
        assert found.edits == ()
        return found
    kinds = {edit.kind: edit for edit in found.edits}
    for kind in ("distance", "sink", "window"):
        best = cheapest(pattern, tokens, layers, found.unit, kind)
        edit = kinds.get(kind)
        assert (edit is None) == (best is None)
        if edit is not None and best is not None:
            assert edit.extra_pairs == best.cost
    assert [edit.extra_pairs for edit in found.edits] == sorted(edit.extra_pairs for edit in found.edits)
    for edit in found.edits:
        # What is printed is what was found: same pairs, complete, causal, and a text that reads back.
        assert pairs(edit.pattern, tokens, layers) - pairs(pattern, tokens, layers) == edit.extra_pairs
        assert joined_by_networkx(edit.pattern, tokens, layers)
        assert check(edit.pattern, seq_len=tokens, layers=own).complete
        assert parse(str(edit.pattern)) == edit.pattern
        changed = len(edit.layers) or layers
        assert edit.extra_keys == pytest.approx(edit.extra_pairs / changed / tokens)
    return found


@settings(max_examples=400)
@given(layered(), st.integers(2, 18), st.integers(1, 4))
def test_no_cheaper_edit_completes(pattern: Layered, tokens: int, layers: int) -> None:
    # Only incomplete patterns and stacks count as examples.
    assume(not assert_minimal(pattern, tokens, layers).complete)


@settings(max_examples=25)
@given(st.builds(lambda a: a & sd.causal(), leaves()), st.integers(40, 80), st.integers(2, 5))
def test_no_cheaper_edit_completes_on_longer_ones(pattern: Pattern, tokens: int, layers: int) -> None:
    assert_minimal(pattern, tokens, layers)


@settings(max_examples=40)
@given(layer_patterns(), st.integers(2, 14))
def test_as_many_layers_as_it_takes(pattern: Pattern, tokens: int) -> None:
    found = repair(pattern, seq_len=tokens)
    assume(not found.complete)
    # No path has more edges than there are tokens; the cost is that of one layer.
    for kind in ("distance", "sink", "window"):
        best = cheapest(pattern, tokens, tokens, found.unit, kind)
        edit = next((edit for edit in found.edits if edit.kind == kind), None)
        assert (edit is None) == (best is None)
        if edit is not None and best is not None:
            assert edit.extra_pairs * tokens == best.cost


# --- the form of the edits


def test_edits_keep_the_form() -> None:
    found = repair((sd.sliding(9) | sd.sink(1)).blocks(256) & sd.causal(), seq_len=16384, layers=4)
    assert (found.unit, found.units) == (256, 64)
    assert [str(edit.pattern) for edit in found.edits] == [
        "(sliding(9) | sink(1) | offsets({25})).blocks(256) & causal()",
        "(sliding(17) | sink(1)).blocks(256) & causal()",
        "(sliding(9) | sink(31)).blocks(256) & causal()",
    ]
    # The same in units of one token, where every amount can be tried.
    tokens = (sd.sliding(9) | sd.sink(1)) & sd.causal()
    for edit in found.edits:
        best = cheapest(tokens, 64, 4, 1, edit.kind)
        assert best is not None
        assert edit.amount == best.amount


def test_a_set_of_distances_grows() -> None:
    # 13, 13 + 1 and 13 + 2 are what is missing, and three pairs are the fewest.
    found = repair(sd.offsets({0, 1, 2, 3}), seq_len=16, layers=4)
    assert found.best is not None
    assert str(found.best.pattern) == "offsets({0, 1, 2, 3, 13})"
    assert found.best.extra_pairs == 4 * 3


def test_one_layer_of_a_stack_is_enough() -> None:
    found = repair(sd.cycle([sd.sliding(4), sd.sliding(2)], layers=4), seq_len=16, layers=None)
    best = found.best
    assert best is not None
    assert best.kind == "distance"
    assert len(best.layers) == 1
    assert isinstance(best.pattern, Stack)
    assert len(best.pattern) == 4
    assert sum(one != other for one, other in zip(best.pattern, found_layers(), strict=True)) == 1


def found_layers() -> list[Pattern | PerHead]:
    return list(sd.cycle([sd.sliding(4), sd.sliding(2)], layers=4))


def test_the_head_that_gains_least_is_edited() -> None:
    heads = sd.per_head([sd.sliding(1), sd.sliding(6), sd.sliding(2)])
    found = repair(heads, seq_len=40, layers=4)
    windows = next(edit for edit in found.edits if edit.kind == "window")
    assert windows.heads == (1,)
    assert isinstance(windows.pattern, PerHead)
    assert [str(head) for head in windows.pattern.heads] == ["sliding(1)", "sliding(11)", "sliding(2)"]


def test_sinks_have_a_limit() -> None:
    found = repair(sd.sliding(1024), seq_len=7000, layers=4)
    assert {edit.kind for edit in found.edits} == {"distance", "window"}
    assert "no sink of at most 1 024 tokens mends it" in str(found)


# --- errors and the command line


def test_patterns_that_look_ahead_are_refused() -> None:
    with pytest.raises(SparseDSLError) as caught:
        repair(sd.sliding(4, ahead=1), seq_len=64, layers=2)
    assert (
        str(caught.value)
        == """\
Unsupported: repair mends patterns that look back only
  where     repair(sliding(4, ahead=1), seq_len=64)
  got       a pattern that reads keys after the query
  expected  k <= q in every layer
  try       (...) & causal()"""
    )
    with pytest.raises(WrongValue, match="the stack has its own number of layers"):
        repair(sd.cycle([sd.sliding(4)], layers=3), seq_len=64, layers=2)


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    question = ["check", "(sliding(9) | sink(1)).blocks(256)&causal()", "--seq-len", "131072", "--layers", "28"]
    assert main(question) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("repair      --repair")
    assert main([*question, "--repair"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "pattern     (sliding(9) | sink(1)).blocks(256) & causal()",
        "asked       complete at 131 072 tokens, 512 blocks of 256 in 28 layers",
        "repair      add the distance of 217 blocks",
        "  costs     539 492 352 more live pairs, 147.0 keys a query on average, 2 560 -> 2 816 in the worst row; "
        "28 layers needed",
        "  pattern   (sliding(9) | sink(1) | offsets({217})).blocks(256) & causal()",
        "or else     widen the window to 20 blocks",
        "  costs     10 031 988 736 more live pairs, 2,733.5 keys a query on average, 2 560 -> 5 376 in the worst "
        "row; 27 layers needed",
        "  pattern   (sliding(20) | sink(1)).blocks(256) & causal()",
        "or else     add a sink of the first 287 blocks",
        "  costs     188 670 017 536 more live pairs, 51,408.5 keys a query on average, 2 560 -> 75 776 in the worst "
        "row; 28 layers needed",
        "  pattern   (sliding(9) | sink(287)).blocks(256) & causal()",
    ]
    mended = lines[4].removeprefix("  pattern   ")
    assert main(["check", mended, "--seq-len", "131072", "--layers", "28"]) == 0
    assert "repair" not in capsys.readouterr().out
    assert main([*question, "--repair", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert [edit["kind"] for edit in printed["edits"]] == ["distance", "window", "sink"]
    assert printed["edits"][0]["pattern"] == mended
    assert main(["check", mended, "--seq-len", "131072", "--layers", "28", "--repair"]) == 0
    assert "none needed" in capsys.readouterr().out


@pytest.mark.parametrize("other", [["--no-residual"], ["--path", "9", "3"]])
def test_repair_stands_alone(other: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "sliding(4)", "--seq-len", "64", "--layers", "2", "--repair", *other]) == 2
    assert f"--repair does not go with {other[0]}" in capsys.readouterr().err


def test_an_interrupt_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sparsedsl.proofs.repair.repair", interrupted)
    assert main(["check", "sliding(4)", "--seq-len", "64", "--layers", "2", "--repair"]) == 130
    assert capsys.readouterr() == ("", "sparsedsl: interrupted\n")


CATALOGUE_CASES = [
    "sliding_sink()",
    "sliding_window()",
    "streaming_llm()",
    "block_local()",
    "dilated_window()",
    "dilated_paper_baseline()",
    "longnet_paper_baseline()",
    "longformer()",
]


@pytest.mark.parametrize("text", CATALOGUE_CASES)
def test_the_library_is_mended_at_full_length(text: str) -> None:
    from sparsedsl.resolve import resolve

    found = repair(resolve(text), seq_len=131072, layers=28)
    assert found.best is not None
    verdict = check(found.best.pattern, seq_len=131072, layers=28)
    assert verdict.complete
    # One step less of the winner's window is not enough.
    for edit in found.edits:
        if edit.kind == "window":
            unit = found.unit
            narrower = sd.sliding(edit.amount - 1).blocks(unit) & sd.causal()
            layer = resolve(text)
            assert isinstance(layer, Pattern)
            assert not check(layer | narrower, seq_len=131072, layers=28).complete


def test_unions_are_the_graph_of_a_layer() -> None:
    # The oracle's own union, against the definition.
    heads = sd.per_head([sd.sliding(2), sd.strided(3) & sd.causal()])
    assert (graph(heads, 9) == reduce(or_, heads_of(heads, 9))).all()


def test_the_page_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "repair.md").read_text()
    command, _, output = page.split("```")[1].strip().partition("\n")
    main(shlex.split(command.removeprefix("$ sparsedsl ")))
    assert capsys.readouterr().out.strip() == output.strip()


def test_progress_is_told_on_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsedsl.progress.SILENT_FOR", 0.0)
    main(["check", "sliding(4)", "--seq-len", "64", "--layers", "9", "--repair"])
    printed = capsys.readouterr()
    assert "edits tried: " in printed.err
    assert printed.out.startswith("pattern  ")
