"""`prove` on every family: all N <= 512 by matrices, large N by the exact engine, formulas against integers."""

from __future__ import annotations

from random import Random

import pytest

from sparsedsl.proofs.depth.prover import prove
from sparsedsl.proofs.verdict import check
from sparsedsl.resolve import resolve
from tests.proofs.depth.brute_force import depths
from tests.proofs.depth.families import FAMILIES, Family
from tests.proofs.depth.test_random import assert_agrees

BRUTE = 512
# The first two of each family; `python -m benchmarks.depths` runs all of them, and longer lengths.
EXAMPLES = [(family, text) for family in FAMILIES for text in family.texts[:2]]
IDS = [text[:60] for _, text in EXAMPLES]


@pytest.mark.parametrize(("family", "text"), EXAMPLES, ids=IDS)
def test_every_length_to_512(family: Family, text: str) -> None:
    pattern = resolve(text)
    proof = prove(pattern)
    proof.verify()
    assert (proof.exact, proof.complete) == (family.exact, family.complete)
    found = depths(pattern, BRUTE)
    assert_agrees(proof, found, least=proof.fails_first)
    if proof.complete is False and (proof.fails_from or 0) <= BRUTE:
        assert next(n for n in range(2, BRUTE + 1) if found[n] is None) == proof.fails_from


@pytest.mark.parametrize(("family", "text"), EXAMPLES, ids=IDS)
def test_formulas_are_the_integers(family: Family, text: str) -> None:
    from sympy import Symbol, nan

    proof = prove(resolve(text))
    for length in (2, 3, 5, 17, 64, 65, 100, 4097):
        below, above = proof.depth(length)
        for formula, depth in ((proof.upper, above), (proof.lower, below)):
            if formula is None:
                continue
            value = formula.subs(Symbol("N", integer=True, positive=True), length)
            if value is nan:
                assert above is None
            else:
                assert value == depth, (str(formula), length)


@pytest.mark.parametrize(
    "text",
    [
        "sliding(1024)",
        "power(base=3)",
        "power_attention(block=64)",
        "(sliding(8) | strided(64)) & causal()",
        "sparse_transformer_fixed(stride=8, summary=2)",
        "streaming_llm(sink=4, window=512)",
        "offsets({1, 5, 24, 37, 800})",
        "wavenet(layers=17)",
    ],
)
def test_twenty_large_lengths_by_the_exact_engine(text: str) -> None:
    pattern, random = resolve(text), Random(text)
    proof = prove(pattern)
    assert proof.exact
    for _ in range(20):
        length = random.randrange(512, 1 << random.randrange(10, 18))
        verdict = check(pattern, seq_len=length)
        below, above = proof.depth(length)
        if proof.facts.endless:
            assert below == above == verdict.depth, length
        else:
            assert verdict.complete == (above is not None)


@pytest.mark.parametrize(("family", "text"), EXAMPLES, ids=IDS)
def test_the_inverse_is_the_inverse(family: Family, text: str) -> None:
    proof = prove(resolve(text))
    if not proof.exact:
        return
    for layers in range(1, 8):
        low, high = proof.length(layers)
        assert low == high
        if 2 <= low < 1 << 40:
            assert proof.depth(low)[1] is not None
            assert (proof.depth(low)[1] or 0) <= layers
            further = proof.depth(low + 1)[0]
            assert further > layers or proof.depth(low + 1)[1] is None
