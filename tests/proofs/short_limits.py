"""Limits of the synthesis made small, for tests of what does not depend on how much is found."""

from __future__ import annotations

import pytest

from sparsedsl.proofs import synthesis_search


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps with less patience."""
    limits = {"PROOF_NODES": 60_000, "FINDING_NODES": 20_000, "SYMMETRIC_NODES": 2_000, "RUN_TRIES": 1_000}
    for name, limit in {**limits, "MOST_EVALUATIONS": 30, "STEP": 2_000}.items():
        monkeypatch.setattr(synthesis_search, name, limit)
