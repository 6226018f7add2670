"""`Proof.verify` refuses a proof with any constant or step changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from sparsedsl import offsets, sliding
from sparsedsl.integers import IntegerSet
from sparsedsl.proofs.depth.parts import Distances
from sparsedsl.proofs.depth.proof import Proof
from sparsedsl.proofs.depth.prover import prove
from sparsedsl.resolve import resolve

TEXTS = [
    "sliding(5)",
    "offsets({1, 5, 24, 37})",
    "power(base=3)",
    "sliding(6) | power()",
    "power_attention(block=8)",
    "(sliding(4) | strided(9)) & causal()",
    "sparse_transformer_fixed(stride=6, summary=2)",
    "streaming_llm(sink=3, window=9)",
    "wavenet(layers=5)",
    "cycle([dilated(2, 2), sliding(3)], layers=5)",
    "longformer(window=3, global_tokens=[0, 4])",
    "where('((q < 5) & (k <= q)) | ((q >= 5) & (q - k < 4) & (k <= q))')",
    "dilated(3, 2)",
    "chunked(8) & causal()",
    "strided(4)",
    "chunked(4)",
]


def changed(value: Any, *, shorten: bool = True) -> Iterator[Any]:
    """The value with one number in it one more or one less, or an entry less; sets and patterns are left alone."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
        yield value - 1
    elif isinstance(value, tuple):
        for place, each in enumerate(value):
            for other in changed(each, shorten=shorten):
                yield (*value[:place], other, *value[place + 1 :])
        if shorten and len(value) > 1:
            yield value[:-1]
            yield value[1:]
    elif is_dataclass(value) and not isinstance(value, IntegerSet | type):
        for field in fields(value):
            for other in changed(getattr(value, field.name), shorten=shorten):
                yield replace(value, **{field.name: other})


def mutants(proof: Proof) -> Iterator[tuple[str, Proof]]:
    """The proof with one constant of the frame, of a part or of the conclusion changed, or a step left out."""
    for name in ("frame", "parts", "fails_from", "complete"):
        for other in changed(getattr(proof, name)):
            yield name, replace(proof, **{name: other})
    for name in ("frame", "parts"):
        for place in range(len(getattr(proof, name))):
            kept = getattr(proof, name)
            yield name, replace(proof, **{name: kept[:place] + kept[place + 1 :]})
    if proof.upper is not None:
        yield "upper", replace(proof, upper=proof.upper + 1)
        yield "upper", replace(proof, upper=None)
    if proof.lower is not None:
        yield "lower", replace(proof, lower=proof.lower - 1)
        yield "lower", replace(proof, lower=None)


def is_accepted(proof: Proof) -> bool:
    try:
        proof.verify()
    except (AssertionError, IndexError, ValueError, ZeroDivisionError, StopIteration, OverflowError):
        return False
    return True


@pytest.mark.parametrize("text", TEXTS)
def test_a_changed_constant_or_step_is_refused(text: str) -> None:
    proof = prove(resolve(text))
    proof.verify()
    count = 0
    for name, mutant in mutants(proof):
        count += 1
        if is_accepted(mutant):
            # A proof may have a constant to spare: then it must say the same, of the same pattern.
            stated = (mutant.complete, mutant.fails_from, mutant.upper, mutant.lower)
            assert stated == (proof.complete, proof.fails_from, proof.upper, proof.lower), name
    assert count >= 3


@pytest.mark.parametrize("text", ["sliding(5)", "offsets({1, 5, 24, 37})", "power(base=3)", "power_attention(block=8)"])
def test_every_constant_of_the_inductions_matters(text: str) -> None:
    proof = prove(resolve(text))
    (part,) = proof.parts
    assert isinstance(part, Distances)
    for other in changed(part, shorten=False):
        if other.through is None:
            assert not is_accepted(replace(proof, parts=(other,))), other


def test_a_proof_of_another_pattern_is_refused() -> None:
    one, other = prove(sliding(5)), prove(sliding(6))
    assert not is_accepted(replace(one, facts=other.facts))
    assert not is_accepted(replace(one, parts=other.parts, upper=other.upper, lower=other.lower))
    assert not is_accepted(replace(prove(offsets({1, 2, 4})), parts=one.parts, upper=one.upper, lower=one.lower))
