"""Certificates say what networkx finds, and what `check` says; they are accepted, and small."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedsl.constructors import causal, cycle, power, random_blocks, sink, sliding
from sparsedsl.errors import Unsupported, WrongValue
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.catalogue import CATALOGUE
from sparsedsl.proofs.certificate import Certificate, certify
from sparsedsl.proofs.verdict import check
from sparsedsl.proofs.verifier import verify
from tests.proofs.paths import joined, scope
from tests.proofs.random_patterns import layered


def assert_true(pattern: Pattern | PerHead | Stack, found: Certificate) -> None:
    """What the certificate claims holds in the unrolled graph."""
    tokens = found.seq_len
    for residual in (True, False) if found.residual == "either" else (bool(found.residual),):
        if found.complete:
            assert found.layers is not None
            assert (joined(pattern, tokens, found.layers, residual=residual) | ~scope(pattern, tokens)).all()
            if residual and found.layers > 1:
                less = joined(pattern, tokens, found.layers - 1, residual=residual)
                assert not (less | ~scope(pattern, tokens)).all()
            continue
        lengths = (tokens, tokens + 1, tokens + 5) if found.kind == "query" else (tokens,)
        for length in lengths:
            seen = joined(pattern, length, found.layers, residual=residual)
            assert not seen[found.query, found.key]
            assert scope(pattern, length)[found.query, found.key]


@settings(max_examples=250)
@given(layered(), st.integers(1, 14), st.integers(1, 5) | st.none(), st.booleans())
def test_claims_are_true_and_proved(
    pattern: Pattern | PerHead | Stack, seq_len: int, layers: int | None, residual: bool
) -> None:
    if isinstance(pattern, Stack):
        layers = None
    elif layers is None and not residual:
        layers = 3
    found = certify(pattern, seq_len=seq_len, layers=layers, residual=residual)
    claim = verify(found.to_json())
    asked = len(pattern) if isinstance(pattern, Stack) else layers
    assert claim.settles(seq_len=seq_len, layers=asked, residual=residual)
    assert claim.complete is found.complete
    assert_true(pattern, found)
    # The answer is the right one: complete or not, at the length and for the layers asked about.
    if asked is not None:
        answer = joined(pattern, seq_len, asked, residual=residual) | ~scope(pattern, seq_len)
        assert found.complete == answer.all()


@settings(max_examples=300)
@given(layered(), st.integers(1, 60), st.integers(1, 9), st.booleans())
def test_check_says_the_same(pattern: Pattern | PerHead | Stack, seq_len: int, layers: int, residual: bool) -> None:
    count = None if isinstance(pattern, Stack) else layers
    verdict = check(pattern, seq_len=seq_len, layers=count, residual=residual)
    if verdict.ahead != bool(np.triu(scope(pattern, seq_len), 1).any()):
        return  # a normal form may know that it looks ahead where the length is too short to show it
    found = certify(pattern, seq_len=seq_len, layers=count, residual=residual)
    verify(found.to_json())
    assert found.complete is verdict.complete
    if verdict.counterexample is not None:
        assert (found.query, found.key) == (verdict.counterexample.q, verdict.counterexample.k)
    elif residual:
        assert found.layers == verdict.depth


@pytest.mark.parametrize("seq_len", [1, 2, 100, 2049, 16384])
@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_the_catalogue(name: str, seq_len: int) -> None:
    pattern = CATALOGUE[name]()
    found = certify(pattern, seq_len=seq_len, layers=None if isinstance(pattern, Stack) else 28)
    text = found.to_json()
    assert len(text) < 1_000_000
    claim = verify(text)
    layers = len(pattern) if isinstance(pattern, Stack) else 28
    assert claim.settles(seq_len=seq_len, layers=layers)


def test_a_million_tokens() -> None:
    found = certify(power(), seq_len=1 << 20, layers=28)
    text = found.to_json()
    assert (found.complete, found.layers, len(text) < 2000) == (True, 20, True)
    assert verify(text).settles(seq_len=1 << 20, layers=28)


def test_the_strongest_claim() -> None:
    window = certify(sliding(4), seq_len=1000, layers=5)
    assert (window.seq_len, window.query, window.key, window.layers) == (17, 16, 0, 5)
    assert certify((sliding(4) | sink(1)).blocks(8) & causal(), seq_len=8, layers=5).residual == "either"
    # Distances 1, 2, 4, ... leave a token's own distance out, so the residual connection matters.
    assert certify(power() - sliding(1), seq_len=100).residual is True
    never = certify(sliding(1), seq_len=10**9, layers=28)
    assert (never.layers, never.seq_len) == (None, 2)


def test_a_claim_settles_no_other_question() -> None:
    complete = verify(certify(sliding(4), seq_len=100).to_json())
    assert complete.layers == 33
    assert complete.settles(seq_len=100, layers=28)  # it says that fewer than 33 do not
    assert not complete.settles(seq_len=101, layers=33)
    failing = verify(certify(sliding(4), seq_len=100, layers=5).to_json())
    assert failing.settles(seq_len=100, layers=5)
    assert failing.settles(seq_len=10**6, layers=4)
    assert not failing.settles(seq_len=16, layers=5)
    assert not failing.settles(seq_len=100, layers=6)
    assert not failing.settles(seq_len=100, layers=None)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("seq_len", [4, 40])
def test_all_layers_of_a_stack_need_not_be_counted(seq_len: int, residual: bool) -> None:
    # 3 + 3 + 3 + 3 steps back reach 13 tokens: complete at 4, incomplete at 40.
    claim = verify(certify(cycle([sliding(4)], layers=4), seq_len=seq_len, residual=residual).to_json())
    assert claim.complete is (seq_len == 4)
    assert claim.stack == 4
    assert claim.settles(seq_len=seq_len, layers=None, residual=residual)
    assert claim.settles(seq_len=seq_len, layers=4, residual=residual)


def test_refusals() -> None:
    with pytest.raises(WrongValue, match="number of layers must be given"):
        certify(sliding(4), seq_len=100, residual=False)
    with pytest.raises(Unsupported, match="too large"):
        certify(random_blocks(1, 2) | sliding(2, ahead=1), seq_len=1 << 20, layers=28)
    with pytest.raises(Unsupported, match="no certificate is small enough"):
        certify((random_blocks(1, 2) | sliding(2)) & causal(), seq_len=1 << 20)
    with pytest.raises(Unsupported, match="too many"):
        certify(sliding(2), seq_len=1 << 20)


def test_the_text_is_one_line_of_json() -> None:
    text = certify(power(), seq_len=128).to_json()
    assert text.count("\n") == 1
    assert list(json.loads(text)) == [
        "format",
        "version",
        "pattern",
        "digest",
        "seq_len",
        "residual",
        "claim",
        "evidence",
    ]
