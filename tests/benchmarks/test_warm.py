"""What runs ahead of a measurement: processes that fail or hang are named, by case, length and implementation."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from time import perf_counter

import pytest
import torch

import sparsedsl as sd
from benchmarks import warm
from benchmarks.attention import CPU, run
from benchmarks.cases import CASES, DENSE, Case, window_mask
from benchmarks.measure import Settings, measure
from benchmarks.optional_peers import FLASH4, NATTEN
from benchmarks.peers import CUDNN, FLASH, FLEX, OURS, PLAIN
from benchmarks.record import Record

WINDOW = Case("window", sd.sliding(20), window_mask(20), (20, 1))
TINY = Settings("cpu", (64, 96), 1, 16, torch.float32, rounds=1)


def as_python(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that the processes run in the place of Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr(sys, "executable", str(path))
    monkeypatch.setattr(warm, "find_spec", lambda name: object())


def test_failures_are_named_from_the_length_at_which_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'echo "done at 100"; case "$*" in *FlashAttention*) echo "far\nRuntimeError: bad" >&2; exit 1;; esac\n'
    as_python(script, tmp_path, monkeypatch)
    said: list[str] = []
    failures = warm.warm_caches([WINDOW], (100, 200), said.append)
    assert failures == {("window", 200, FLASH4): "RuntimeError: bad"}
    assert len(said) == 1


def test_a_process_that_hangs_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_python("exec sleep 60\n", tmp_path, monkeypatch)
    monkeypatch.setattr(warm, "LIMIT_S", 0.2)
    failures = warm.warm_caches([DENSE], (100, 200), lambda text: None)
    names = {FLEX, OURS, PLAIN, FLASH4, NATTEN, CUDNN, FLASH}
    assert failures.keys() == {(DENSE.name, length, name) for length in (100, 200) for name in names}


def test_what_runs_ahead_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    warm.run_once(OURS, WINDOW, TINY)
    assert capsys.readouterr().out == "done at 64\ndone at 96\n"


def test_what_failed_is_a_complaint_and_is_not_run() -> None:
    record = Record.begun(TINY.described(), [])
    measure(WINDOW, TINY, record, {("window", 96, OURS): "it hangs"})
    assert record.complaints == ["window, 96 tokens, sparsedsl: it hangs"]
    assert {each.tokens for each in record.timings} == {64}


def test_the_time_limit_leaves_a_line_for_what_is_not_measured() -> None:
    record = Record.begun(TINY.described(), [])
    measure(WINDOW, TINY, record, until=perf_counter() - 1)
    assert record.timings == []
    assert record.absences == [
        f"window, {length} tokens: nothing is measured: the time is up" for length in TINY.lengths
    ]


def test_the_record_is_written_after_every_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "record.json"
    record = Record.begun(CPU.described(), [])
    assert run([WINDOW, CASES[0]], TINY, record, out, seconds=60) == 0
    kept = Record.read(out)
    assert [each.case for each in kept.preparations] == ["window", "sliding 1024"]
    assert [each.ms for each in kept.timings] == [each.ms for each in record.timings]
    assert "| sliding 1024 | 96 | backward |" in capsys.readouterr().out
