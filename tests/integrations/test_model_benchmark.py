"""The benchmark of a whole model, in a size that a CPU runs in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'sparsedsl[transformers]'")

from benchmarks.model import KEYS, MASKED, NO_MASK, NOTHING, OURS, main


def test_all_kinds_of_attention_are_measured(tmp_path: Path) -> None:
    sizes = {
        "tokens": 300,
        "steps": 5,
        "layers": 3,
        "hidden": 64,
        "heads": 4,
        "key-heads": 2,
        "intermediate": 96,
        "vocabulary": 101,
        "block": 16,
    }
    words = {
        "backend": "aot_eager",
        "batches": "1,2",
        "limit": 600,
        "part-limit": 600,
        "decode-limit": 600,
        "dtype": "float32",
        "device": "cpu",
        "out": tmp_path / "model.json",
    }
    assert main([word for name, value in (sizes | words).items() for word in (f"--{name}", str(value))]) == 0
    record = json.loads((tmp_path / "model.json").read_text())
    assert record["distance_over_causal"] < 1e-5
    assert record["options"]["tokens"] == 300
    assert not record["absences"]
    measured = {tuple(each[key] for key in KEYS): each for each in record["measured"]}
    places = {
        (attention if what == "prefill" else step, layers, what, batch)
        for attention, step in ((OURS, OURS), ("dense", NO_MASK), (NOTHING, NOTHING))
        for layers in ("compiled", "eager")
        for what, batch in (("prefill", 1), ("decode", 1), ("decode", 2))
    }
    assert {*measured} == {*places, (MASKED, "eager", "decode", 1)}
    assert [each[:2] for each in [*measured][:6]] == [
        *[(OURS, "compiled")] * 3,
        ("dense", "compiled"),
        *[(NO_MASK, "compiled")] * 2,
    ]
    assert all(each["seconds"] > 0 and each["tokens_per_s"] > 0 for each in measured.values())
    assert all(each["steps"] == 5 for (*_, what, _), each in measured.items() if what == "decode")
    # Three layers are one graph, and a step after a step is the same one.
    assert all(each["graphs_compiled"] == (layers == "compiled") for (_, layers, *_), each in measured.items())
    assert {*record["distance_compiled_from_eager"]} == {OURS, "dense", NOTHING}
    assert all(each < 1e-5 for each in record["distance_compiled_from_eager"].values())
    for attention in (OURS, NO_MASK, NOTHING):
        for batch in (1, 2):
            compiled, eager = (measured[attention, layers, "decode", batch] for layers in ("compiled", "eager"))
            assert compiled["first_tokens"] == eager["first_tokens"]
    assert {tuple(each[key] for key in KEYS) for each in record["ratios"]} == {
        each for each in measured if each[0] not in (OURS, NOTHING)
    }
    for each in record["ratios"]:
        own = measured[OURS, *(each[key] for key in KEYS[1:])]
        dense = measured[tuple(each[key] for key in KEYS)]
        assert each["times"] == pytest.approx(own["tokens_per_s"] / dense["tokens_per_s"])
    assert all(each["bound"] > 0 for each in record["ratios"])
