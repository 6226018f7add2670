"""The benchmark of a whole model, in a size that a CPU runs in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'sparsedsl[transformers]'")

from benchmarks.model import main


def test_both_kinds_of_attention_are_measured(tmp_path: Path) -> None:
    sizes = {
        "tokens": 300,
        "steps": 3,
        "layers": 2,
        "hidden": 64,
        "heads": 4,
        "key-heads": 2,
        "intermediate": 96,
        "vocabulary": 101,
        "block": 16,
    }
    words = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    assert main([*words, "--dtype", "float32", "--device", "cpu", "--out", str(tmp_path / "model.json")]) == 0
    record = json.loads((tmp_path / "model.json").read_text())
    assert record["distance_over_causal"] < 1e-5
    measured = {(each["attention"], each["what"]): each for each in record["measured"]}
    assert [*measured] == [
        ("PowerAttention", "prefill"),
        ("PowerAttention", "decode"),
        ("dense", "prefill"),
        ("dense, no mask", "decode"),
        ("dense", "decode"),
    ]
    assert all(each["seconds"] > 0 and each["tokens_per_s"] > 0 for each in measured.values())
    assert all(each["steps"] == 3 for (_, what), each in measured.items() if what == "decode")
    assert record["options"]["tokens"] == 300
