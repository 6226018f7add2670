"""A few of the cases that `python -m tests.proofs.agreement` draws by the thousand; and that it can fail."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

import sparsedsl as sd
from sparsedsl.proofs.verdict import Verdict
from tests.proofs import agreement
from tests.proofs.agreement import Case, compare


@settings(max_examples=60)
@given(agreement.cases())
def test_check_agrees_with_networkx(case: Case) -> None:
    compare(case, Counter())


def test_the_kinds_are_counted() -> None:
    counts: Counter[str] = Counter()
    compare(Case(sd.sliding(3), 150, 4, residual=True), counts)
    compare(Case(sd.cycle([sd.sliding(2), sd.random_blocks(2, 1)], layers=3), 12, None, residual=False), counts)
    assert counts["cases"] == counts["incomplete"] == 2
    assert counts["patterns"] == counts["stacks"] == counts["more than 100 tokens"] == 1
    assert counts["on a layer graph"] == counts["on sets of distances"] == 1


CASE = Case((sd.sliding(3) | sd.sink(1)).blocks(2) & sd.causal(), 29, 2, residual=True)
FULL = replace(CASE, layers=None)


@pytest.mark.parametrize("case", [CASE, FULL], ids=["incomplete", "complete"])
@pytest.mark.parametrize(
    "field", ["complete", "depth", "reach", "contiguous", "degree", "live_pairs", "joined_pairs", "counterexample"]
)
def test_a_wrong_verdict_is_noticed(case: Case, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = sd.check(case.pattern, seq_len=case.seq_len, layers=case.layers)
    wrong: dict[str, Any] = {
        "complete": not right.complete,
        "reach": (*right.reach[:-1], right.reach[-1] - 1),
        "contiguous": (*right.contiguous[:-1], right.contiguous[-1] - 1),
        "counterexample": None if right.counterexample else sd.check(sd.sliding(1), seq_len=2).counterexample,
    }

    value: Any = wrong[field] if field in wrong else (getattr(right, field) or 0) + 1

    def check(*_: object, **__: object) -> Verdict:
        return replace(right, **{field: value})

    monkeypatch.setattr(agreement, "check", check)
    with pytest.raises(AssertionError):
        compare(case, Counter())
