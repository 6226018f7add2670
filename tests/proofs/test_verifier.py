"""The verifier accepts no certificate that was changed, forged or made to hurt it."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections import Counter
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedsl.constructors import causal, chunked, cycle, dilated, power, random_blocks, sink, sliding
from sparsedsl.errors import Rejected
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.catalogue import CATALOGUE
from sparsedsl.proofs import verifier
from sparsedsl.proofs.certificate import certify
from sparsedsl.proofs.verifier import LARGEST_STEP, verify
from sparsedsl.proofs.verifier_file import MOST_BYTES
from sparsedsl.proofs.verifier_steps import Work
from sparsedsl.text import parse
from tests.proofs.mutations import fields, mutated
from tests.proofs.paths import joined, scope
from tests.proofs.random_patterns import layered

# The recorded run sets it; see benchmarks/certificates.py.
EXAMPLES = int(os.environ.get("CERTIFICATE_MUTATIONS", "60"))
CHANGES = 8
# Of each field, in each kind of certificate: 72 fields, 2304 changes.
FIELD_CHANGES = 32

STEPS = {"file", "json", "version", "fields", "digest", "pattern", "limits", "work", "tree", "claim"}


def certificate(pattern: Pattern | PerHead | Stack, seq_len: int, layers: int | None = None, **named: Any) -> Any:
    return json.loads(certify(pattern, seq_len=seq_len, layers=layers, **named).to_json())


def step_of(content: object) -> str | None:
    """The step at which a certificate is rejected; None if it is accepted."""
    try:
        verify(json.dumps(content))
    except Rejected as error:
        rejected = error
    else:
        return None
    named = rejected.where
    assert named in STEPS or (named.startswith("layer ") and named[6:].isdigit())
    assert repr(named) in rejected.what
    return named


def catalogue() -> st.SearchStrategy[Pattern | PerHead | Stack]:
    return st.sampled_from(sorted(CATALOGUE)).map(lambda name: CATALOGUE[name]())


LENGTHS = st.integers(1, 48) | st.sampled_from([64, 65, 500, 2050])


@settings(max_examples=EXAMPLES)
@given(layered() | catalogue(), LENGTHS, st.integers(1, 9), st.booleans(), st.integers(0, 1 << 32))
def test_every_single_change_is_rejected(
    pattern: Pattern | PerHead | Stack, seq_len: int, layers: int, residual: bool, seed: int
) -> None:
    known = str(pattern) in {str(each()) for each in CATALOGUE.values()}
    if not known:
        seq_len = min(seq_len, 65)
    count = None if isinstance(pattern, Stack) else layers
    content = certificate(pattern, seq_len, count, residual=residual)
    assert step_of(content) is None
    random = Random(seed)
    for _ in range(CHANGES):
        changed, what = mutated(content, random)
        if json.dumps(changed) != json.dumps(content):
            assert step_of(changed) is not None, what


IN_ALL = {"format", "version", "pattern", "digest", "seq_len", "residual", "claim", "evidence"}
GAP = {"claim/complete", "claim/layers", "claim/query", "claim/key"}
SETS = {"evidence/kind", "evidence/levels", "evidence/steps"}
COUNTS = {"evidence/kind", "evidence/pairs", "evidence/joined"}


@pytest.mark.parametrize(
    ("pattern", "seq_len", "layers", "own"),
    [
        (
            (sliding(3) | sink(1)) & causal(),
            40,
            None,
            {"claim/complete", "claim/layers", *SETS, "evidence/reach"},
        ),
        ((sliding(2).blocks(16) | sink(1)) & causal(), 1100, 3, {*GAP, *SETS}),
        (dilated(5, 2), 90, None, {*GAP, *SETS}),
        (sliding(3, ahead=1), 30, None, {"claim/complete", "claim/layers", *COUNTS}),
        (random_blocks(4, 1, seed=3) | sliding(1, ahead=1), 30, 2, {*GAP, *COUNTS}),
    ],
    ids=["distances", "query", "query, never", "pairs", "pairs, incomplete"],
)
def test_changes_of_every_field_of_every_kind(
    pattern: Pattern, seq_len: int, layers: int | None, own: set[str]
) -> None:
    content = certificate(pattern, seq_len, layers)
    assert step_of(content) is None
    assert {"/".join(each) for each in fields(content)} == IN_ALL | own
    random = Random(seq_len)
    for field in fields(content):
        made = 0
        while made < FIELD_CHANGES:
            changed, what = mutated(content, random, field)
            if json.dumps(changed) != json.dumps(content):
                made += 1
                assert step_of(changed) is not None, what


@settings(max_examples=EXAMPLES)
@given(layered(), st.integers(1, 12), st.integers(1, 4), st.booleans(), st.integers(0, 1 << 32))
def test_another_pattern_is_accepted_only_if_the_claim_is_true_of_it(
    pattern: Pattern | PerHead | Stack, seq_len: int, layers: int, residual: bool, seed: int
) -> None:
    count = None if isinstance(pattern, Stack) else layers
    content = certificate(pattern, seq_len, count, residual=residual)
    random = Random(seed)
    for _ in range(CHANGES):
        text = content["pattern"]
        digits = [at for at, letter in enumerate(text) if letter.isdigit()]
        if not digits:
            return
        at = random.choice(digits)
        try:
            other = parse(text[:at] + random.choice("0123456789") + text[at + 1 :])
        except ValueError:
            continue
        resealed = {**content, "pattern": str(other), "digest": sha256(str(other).encode()).hexdigest()}
        if step_of(resealed) is not None:
            continue
        for way in (True, False) if content["residual"] == "either" else (content["residual"],):
            seen = joined(other, content["seq_len"], content["claim"]["layers"], residual=way)
            if content["claim"]["complete"]:
                assert (seen | ~scope(other, content["seq_len"])).all()
            else:
                assert not seen[content["claim"]["query"], content["claim"]["key"]]


def test_changes_fail_at_many_steps() -> None:
    random = Random(0)
    steps: Counter[str | None] = Counter()
    for pattern in ((sliding(4) | sink(2)) & causal(), power(), chunked(8) & causal(), random_blocks(4, 2) & causal()):
        content = certificate(pattern, 64, 3)
        for _ in range(300):
            steps[step_of(mutated(content, random)[0])] += 1
    assert {"version", "fields", "digest", "tree", "claim", "layer 1", "layer 2"} <= set(steps)


# --- forged by hand


def tree_of(sets: list[int], width: int = 1) -> dict[str, Any]:
    """Levels and steps for sets below 64."""
    words = list(dict.fromkeys(f"{each:016x}" for each in sets))
    roots = [words.index(f"{each:016x}") for each in sets]
    steps = [roots[at : at + width] for at in range(0, len(roots), width)]
    return {"levels": [words], "steps": steps}


def forged(pattern: str, seq_len: int, claim: dict[str, Any], evidence: dict[str, Any], residual: object = True) -> Any:
    return {
        "format": "sparsedsl certificate",
        "version": 1,
        "pattern": pattern,
        "digest": sha256(pattern.encode("utf-8", "surrogatepass")).hexdigest(),
        "seq_len": seq_len,
        "residual": residual,
        "claim": claim,
        "evidence": evidence,
    }


def distances(sets: list[int], reach: list[int], width: int = 1) -> dict[str, Any]:
    return {"kind": "distances", "reach": reach, **tree_of(sets, width)}


def ones(length: int) -> int:
    return (1 << length) - 1


def test_the_forger_can_write_a_true_one() -> None:
    sets = [ones(4), ones(7), ones(10)]
    claim = {"complete": True, "layers": 3}
    true = forged("sliding(4)", 10, claim, distances(sets, [4, 7, 10]), residual="either")
    assert step_of(true) is None
    assert true == certificate(sliding(4), 10)


@pytest.mark.parametrize(
    ("content", "step"),
    [
        # One layer too few: the second set is larger than what a layer joins.
        (
            forged(
                "sliding(4)",
                10,
                {"complete": True, "layers": 2},
                distances([ones(4), ones(10)], [4, 10]),
                residual="either",
            ),
            "layer 2",
        ),
        # One layer too many: the first set is smaller than what a layer joins.
        (
            forged(
                "sliding(4)",
                10,
                {"complete": True, "layers": 4},
                distances([ones(3), ones(6), ones(9), ones(10)], [3, 6, 9, 10]),
                residual="either",
            ),
            "layer 1",
        ),
        # A layer that repeats a complete one.
        (
            forged("causal()", 10, {"complete": True, "layers": 2}, distances([ones(10)] * 2, [10, 10])),
            "claim",
        ),
        # Residues never mix; the forger fills the holes.
        (
            forged("dilated(window=5, dilation=2)", 8, {"complete": True, "layers": 1}, distances([ones(8)], [8])),
            "layer 1",
        ),
        # The chain stops short, and says it is complete.
        (forged("sliding(4)", 10, {"complete": True, "layers": 1}, distances([ones(4)], [4])), "claim"),
        # A set that is complete in distances beyond the length.
        (
            forged("causal()", 10, {"complete": True, "layers": 1}, distances([ones(11)], [10]), residual="either"),
            "layer 1",
        ),
        # The sink is left out of the sets.
        (
            forged("(sliding(2) | sink(1)) & causal()", 4, {"complete": True, "layers": 2}, distances([3, 7], [2, 4])),
            "layer 1",
        ),
        # The query hides what it reads, so that the key seems out of reach.
        (
            forged(
                "sliding(4)",
                5,
                {"complete": False, "layers": 2, "query": 4, "key": 0},
                {"kind": "query", **tree_of([0b11110, 0b11110])},
                residual="either",
            ),
            "layer 2",
        ),
        # Closed, says the forger, where one more layer would go on.
        (
            forged(
                "sliding(4)",
                9,
                {"complete": False, "layers": None, "query": 8, "key": 0},
                {"kind": "query", **tree_of([0b111100000, 0b111111100])},
            ),
            "claim",
        ),
        # A key that is reached.
        (
            forged(
                "sliding(4)",
                5,
                {"complete": False, "layers": 1, "query": 4, "key": 1},
                {"kind": "query", **tree_of([0b11110])},
                residual="either",
            ),
            "claim",
        ),
        # A key after the query, which counts for no causal pattern.
        (
            forged(
                "sliding(4)",
                4,
                {"complete": False, "layers": None, "query": 3, "key": 4},
                {"kind": "query", **tree_of([0b1111])},
            ),
            "claim",
        ),
        # A pattern that looks ahead, so that a longer sequence has other paths.
        (
            forged(
                "sliding(1, ahead=1)",
                3,
                {"complete": False, "layers": 1, "query": 2, "key": 0},
                {"kind": "query", **tree_of([0b100])},
            ),
            "pattern",
        ),
        # Counted pairs of the causal triangle for a pattern that looks ahead.
        (
            forged(
                "sliding(1, ahead=1)", 2, {"complete": True, "layers": 1}, {"kind": "pairs", "pairs": 3, "joined": [3]}
            ),
            "claim",
        ),
        # Counts that are made up.
        (
            forged(
                "where(q * k < 1)", 4, {"complete": True, "layers": 1}, {"kind": "pairs", "pairs": 16, "joined": [16]}
            ),
            "layer 1",
        ),
        # A gap that is not the first.
        (
            forged(
                "empty() & where(q * k < 1)",
                4,
                {"complete": False, "layers": None, "query": 2, "key": 0},
                {"kind": "pairs", "pairs": 10, "joined": []},
            ),
            "claim",
        ),
        # A draw that is not the pattern's.
        (
            forged(
                "random_blocks(block=1, count=1, seed=0) & causal()",
                4,
                {"complete": True, "layers": 1},
                {"kind": "pairs", "pairs": 10, "joined": [10]},
            ),
            "layer 1",
        ),
        # The evidence of distances for a pattern without a period.
        (
            forged(
                "random_blocks(block=1, count=1, seed=0) & causal()",
                2,
                {"complete": True, "layers": 1},
                distances([3], [2]),
            ),
            "pattern",
        ),
    ],
)
def test_forged_claims(content: Any, step: str) -> None:
    assert step_of(content) == step


def test_more_layers_than_a_stack_has() -> None:
    content = certificate(cycle([sliding(4)], layers=3), 10)
    content["pattern"] = str(cycle([sliding(4)], layers=2))
    content["digest"] = sha256(content["pattern"].encode()).hexdigest()
    assert step_of(content) == "claim"


def test_the_layers_of_a_stack_in_another_order() -> None:
    content = certificate(Stack([dilated(2, 1), dilated(2, 2), dilated(2, 4)]), 8)
    assert step_of(content) is None
    content["pattern"] = str(Stack([dilated(2, 4), dilated(2, 2), dilated(2, 1)]))
    content["digest"] = sha256(content["pattern"].encode()).hexdigest()
    assert step_of(content) == "layer 1"


# --- made to hurt


def rejected_at(data: bytes) -> str:
    with pytest.raises(Rejected) as caught:
        verify(data)
    return caught.value.where


TRUE = certify(sliding(4), seq_len=10).to_json()


@pytest.mark.parametrize(
    ("data", "step"),
    [
        (b"", "json"),
        (b"\xff\xfe{}", "json"),
        (b"[" * 100_000, "json"),
        (b'{"a":' * 50_000, "json"),
        (TRUE.encode()[:-20], "json"),
        (TRUE.replace('"version":1', '"version":1,"version":1').encode(), "json"),
        (TRUE.replace('"layers":3', '"layers":NaN').encode(), "json"),
        (TRUE.replace('"layers":3', '"layers":-Infinity').encode(), "json"),
        (TRUE.replace('"layers":3', '"layers":3.0').encode(), "json"),
        (TRUE.replace('"layers":3', '"layers":3e99999').encode(), "json"),
        (TRUE.replace('"layers":3', '"layers":' + "9" * 100_000).encode(), "json"),
        (TRUE.replace('"layers":3', '"layers":-0').encode(), "json"),
        (TRUE.replace('"layers":3', '"layers":true').encode(), "fields"),
        (TRUE.replace('"seq_len":10', '"seq_len":1' + "0" * 20).encode(), "fields"),
        (TRUE.replace('"version":1', '"version":2').encode(), "version"),
        (TRUE.replace('"version":1', '"version":"1"').encode(), "version"),
        (TRUE.replace('"version":1', '"version":true').encode(), "version"),
        (b"[]", "version"),
        (b"null", "version"),
        (b" " * (MOST_BYTES + 1), "file"),
    ],
)
def test_hostile_files(data: bytes, step: str) -> None:
    assert rejected_at(data) == step


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('false')",
        "sliding(4).__class__",
        "where(__import__)",
        "(" * 5000 + "sliding(4)" + ")" * 5000,
        "sliding(",
        "power_attention()",
        "sliding(4) ",
        "sliding(2*2)",
        "Stack([per_head([sliding(4)] * 65536)] * 65536)",
        "x" * 150_000,
        "\ud800",
    ],
)
def test_texts_that_are_no_pattern(text: str) -> None:
    assert step_of(forged(text, 10, {"complete": True, "layers": 1}, distances([3], [2]))) == "pattern"


@pytest.mark.parametrize(
    "text",
    [
        f"strided({1 << 40}) & causal()",
        f"chunked({1 << 40}) & causal()",
        f"sliding(4).blocks({1 << 39}) & causal()",
        f"where(k % {1 << 40} == 3) & causal()",
        f"where(q // {LARGEST_STEP + 1} == 3) & causal()",
        f"random_blocks(block=1, count={1 << 30}, seed=0) & causal()",
        f"dilated(window={1 << 40}, dilation={1 << 30})",
        f"dilated(window=3, dilation={1 << 40})",
    ],
)
def test_patterns_that_are_too_large(text: str) -> None:
    tracemalloc.start()
    step = step_of(forged(text, 10, {"complete": True, "layers": 1}, distances([3], [2])))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert step == "limits"
    assert most < 1 << 24


@pytest.mark.parametrize(
    ("seq_len", "pattern"),
    [(1 << 40, "sliding(4)"), (1 << 23, "chunked(1048576) & causal()"), (1 << 20, "chunked(65536) & causal()")],
)
def test_small_files_about_large_sets(seq_len: int, pattern: str) -> None:
    # Doubling pairs unfold one word to any size; what is not needed is not unfolded.
    levels: list[Any] = [["ffffffffffffffff"], *([[0, 0]] * 30)]
    evidence = {"kind": "distances", "reach": [1], "levels": levels, "steps": [[0]]}
    tracemalloc.start()
    step = step_of(forged(pattern, seq_len, {"complete": True, "layers": 1}, evidence))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert step in ("limits", "tree", "layer 1")
    assert most < 1 << 26


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = certificate(random_blocks(1, 2) | sliding(2, ahead=1), 300, 12)
    assert step_of(content) is None
    monkeypatch.setattr(verifier, "Work", lambda: Work(left=1 << 24))
    assert step_of(content) == "work"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="cannot be read"):
        verify(tmp_path / "none.json")


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    path.write_text(TRUE)
    assert str(verify(path)).startswith("complete at 10 tokens in 3 layers")


def test_the_text_of_a_rejection() -> None:
    with pytest.raises(Rejected) as caught:
        verify(TRUE.replace('"layers":3', '"layers":0'))
    assert str(caught.value).splitlines() == [
        "Rejected: the certificate is rejected at step 'fields': layers is not a whole number from 1 to 4096",
        "  where     fields",
        "  got       0",
    ]
