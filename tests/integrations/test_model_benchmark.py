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
    main([*words, "--dtype", "float32", "--device", "cpu", "--out", str(tmp_path / "model.json")])
    record = json.loads((tmp_path / "model.json").read_text())
    assert record["distance_over_causal"] < 1e-5
    assert [each["attention"] for each in record["measured"]] == ["sdpa", "power_benchmark"]
    assert all(each[name] > 0 for each in record["measured"] for name in ("prefill_s", "decode_s"))
    assert record["options"]["tokens"] == 300
