"""Jobs in processes of their own, and limits of time."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter, sleep

import pytest

from benchmarks.beforehand import first_line, prepare, within

# A benchmark with three jobs: one that is done, one that fails, one that never ends.
JOBS = """
import sys, time
job = sys.argv[sys.argv.index("--prepare") + 1]
if job == "fails":
    raise ValueError("no such kernel")
if job == "hangs":
    time.sleep(600)
"""


def test_what_fails_or_hangs_is_named_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "three_jobs.py").write_text(JOBS)
    monkeypatch.chdir(tmp_path)
    start = perf_counter()
    complaints = prepare("three_jobs", ["done", "fails", "hangs"], limit_s=3.0)
    assert complaints == ["fails: ValueError: no such kernel", "hangs: not prepared after 3 s"]
    assert perf_counter() - start < 60


def test_a_body_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(TimeoutError, match="not done after 0 s"), within(0.05):
        sleep(30)
    with within(0.2):
        pass
    sleep(0.3)  # the limit of the body is gone with it


def test_an_exception_is_one_line() -> None:
    assert first_line(ValueError("one\ntwo")) == "ValueError: one"
    assert first_line(KeyError()) == "KeyError: "
