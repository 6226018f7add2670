"""Figures on pages: those of the records, found again where the script writes them; and tables computed by hand."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import costs, publish, tables
from benchmarks.optional_peers import FLASH4
from benchmarks.peers import CUDNN, FLEX, OURS, PLAIN
from benchmarks.record import Preparation, Record, Timing
from sparsedsl.codegen.gpus import H200


def test_pages_and_constants_are_those_of_the_records() -> None:
    record = Record.read(publish.RECORD)
    for path, make in publish.PAGES.items():
        assert make(record, publish.text(path)) == publish.text(path), f"run python -m benchmarks.publish: {path}"
    assert costs.measured_gpu(record) == H200
    assert publish.constants(record, publish.text("codegen/gpus.py")) == publish.text("codegen/gpus.py")


def timing(case: str, tokens: int, direction: str, peer: str, ms: float) -> Timing:
    # The middle one of three, and a TFLOP for each millisecond and token.
    return Timing(case, tokens, direction, peer, (ms * 9, ms, ms / 9), 10**9 * tokens, None)


def record_of(*timings: Timing) -> Record:
    settings: dict[str, int | str] = {"heads": 16, "head dim": 128}
    return Record("2026-11-25", "command", {"device": "GPU"}, {}, settings, timings=list(timings))


RUN = record_of(
    timing("power 128", 2000, "forward", OURS, 2.0),
    timing("power 128", 2000, "forward", PLAIN, 3.0),
    timing("power 128", 2000, "forward", FLEX, 5.0),
    timing("power 128", 2000, "forward", FLASH4, 1.0),
    timing("power 128", 2000, "backward", OURS, 4.0),
    timing("sliding 1024", 2000, "forward", OURS, 2.5),
    timing("dense causal", 2000, "forward", CUDNN, 40.0),
    timing("dense causal", 2000, "forward", OURS, 50.0),
)


def test_all_implementations_beside_ours() -> None:
    head, _, *rows = tables.peer_rows(RUN)
    assert head == (
        "| pattern | tokens | pass | sparsedsl | sparsedsl, plain | FlexAttention | FlashAttention-4 | cuDNN, dense"
        " | sparsedsl, plain / ours | FlexAttention / ours | FlashAttention-4 / ours | cuDNN / ours |"
    )
    assert rows == [
        "| sliding 1024 | 2000 | forward | 2.50 (800) | – | – | – | 40.00 (50) | – | – | – | 16.00 |",
        "| power 128 | 2000 | forward | 2.00 (1000) | 3.00 (667) | 5.00 (400) | 1.00 (2000) | 40.00 (50)"
        " | 1.50 | 2.50 | 0.50 | 20.00 |",
        "| power 128 | 2000 | backward | 4.00 (500) | – | – | – | – | – | – | – | – |",
        "| dense causal | 2000 | forward | 50.00 (40) | – | – | – | 40.00 (50) | – | – | – | 0.80 |",
    ]


def test_readme_names_who_was_measured() -> None:
    head, _, first, second, _ = tables.readme_rows(RUN)
    assert head == (
        "| pattern, tokens | forward ms: ours / Flex / FA-4 / dense cuDNN | × Flex / FA-4"
        " | backward ms: ours / Flex / FA-4 / dense cuDNN | × Flex / FA-4 |"
    )
    assert first == "| sliding 1024, 2000 | 2.50 / – / – / 40.0 | – / – | – / – / – / – | – / – |"
    assert second == "| power 128, 2000 | 2.00 / 5.00 / 1.00 / 40.0 | 2.50 / 0.50 | 4.00 / – / – / – | – / – |"


def test_floors_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 · 10**12 operations at 500 TFLOP/s are 4 ms; four tensors of 16 · 128 · 2000 bf16 numbers are 32.8 MB."""
    monkeypatch.setattr(tables, "ceilings", lambda: (500.0, 4.0))
    rows = [row for row in tables.floor_rows(RUN) if "power 128, forward" in row]
    assert rows == ["| power 128, forward | 2000 | 4.00 | 0.01 | 2.00 | 0.50 | 1000 |"]


def test_targets_say_whether_they_are_met() -> None:
    rows = tables.target_rows(RUN)
    assert rows[0] == "| target | 2000 tokens | met |"
    assert "| power 128, backward: at most 0.60 of FlexAttention's time | not measured | – |" in rows
    assert "| dense causal, forward: at most 1.25 of cuDNN's time | 1.250 | yes |" in rows
    assert "| power 128, forward: at most 0.95 of FlashAttention-4's time | 2.000 | no |" in rows


def test_explain_is_told_the_plain_kernels_times() -> None:
    assert {each.peer for each in tables.plain_timings(RUN)} == {PLAIN}


def test_numbers_are_written_as_they_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record.read(publish.RECORD)
    record.preparations = [
        Preparation(each.case, 1.0, 4, 0, 2 * each.forward_host_ms, each.backward_host_ms)
        for each in record.preparations
    ]
    made = costs.measured_gpu(record)
    assert made.call[0] == pytest.approx(2 * H200.call[0], abs=2e-3)
    assert made.call[1] == H200.call[1]
    path = tmp_path / "gpus_written.py"
    path.write_text(publish.constants(record, publish.text("codegen/gpus.py")))
    monkeypatch.syspath_prepend(tmp_path)
    assert repr(import_module("gpus_written").H200) == repr(made)


def test_a_table_is_replaced_under_its_heading() -> None:
    page = "# One\n\n| a |\n| --- |\n\n## Two\n\ntext\n\n| b |\n| --- |\n| 1 |\n\nend\n"
    assert publish.with_table(page, "Two", ["| c |"]) == page.replace("| b |\n| --- |\n| 1 |\n", "| c |\n")
    with pytest.raises(AssertionError, match="no heading"):
        publish.with_table(page, "Three", [])
