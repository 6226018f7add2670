"""`sparsedsl synth`, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sparsedsl.cli import main
from sparsedsl.proofs.verdict import check
from sparsedsl.text import parse
from tests.proofs.short_limits import shorten

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = ["synth", "--seq-len", "640", "--layers", "6", "--block", "10", "--max-depth", "4"]


def test_the_text_shows_points_bounds_and_what_they_mean(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch)
    assert main([*SMALL, "--schedule"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == "tokens      640, 64 blocks of 10"
    for text in ("distance sets:", "schedules:", "optimal", "exactly", "PowerAttention", "cycle([", ".blocks(10)"):
        assert text in shown


def test_json_holds_patterns_that_check_accepts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch)
    assert main([*SMALL, "--json"]) == 0
    front = json.loads(capsys.readouterr().out)
    assert front["units"] == 64
    for point in front["points"]:
        assert main(["check", point["pattern"], "--seq-len", "640", "--layers", "6"]) == 0
        assert check(parse(point["pattern"]), seq_len=640).depth == point["depth"]
        assert point["status"] in ("optimal", "heuristic")
    assert "contain 0" in front["proved_among"]["distance set"]


def test_a_set_is_ready_to_build(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch)
    assert main([*SMALL, "--block", "64", "--json"]) == 0
    point = json.loads(capsys.readouterr().out)["points"][0]
    assert main(["build", point["pattern"], "-o", str(tmp_path / "attention.py")]) == 0
    assert point["pattern"] in (tmp_path / "attention.py").read_text()


def test_a_budget_that_nothing_meets_is_a_no_with_its_proof(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--budget", "40"]) == 1
    shown = capsys.readouterr().out
    assert "none within the limits" in shown
    assert "at least 5: 3 distances have at most 35 sums, 64 are needed" in shown


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--layers", "0"], "layers is out of range"),
        (["--alpha", "1.5"], "alpha is out of range"),
        (["--resume", "/no/such/folder/state.json"], "the state can't be written"),
        (["--layers", "few"], "the command line does not fit"),
    ],
)
def test_mistakes_end_with_status_2(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch)
    assert main([*SMALL, *words]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a signal")
def test_ctrl_c_ends_in_one_line_and_resume_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["synth", "--seq-len", "2000", "--layers", "6", "--block", "10", "--max-depth", "4", "--budget", "80"]
    program = (
        "import sys; from sparsedsl import cli, progress; progress.SILENT_FOR = 0; sys.exit(cli.main(sys.argv[1:]))"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in its background with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert running.stderr is not None
    assert running.stderr.readline().startswith("searching ")
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert out == ""
    assert err == "sparsedsl: interrupted: go on with the same options and --resume synth-state.json\n"
    state = tmp_path / "synth-state.json"
    assert json.loads(state.read_text())["format"] == "sparsedsl synthesis"
    # No set of 8 blocks will do, and that is proved: the answer is no.
    assert main([*words, "--json", "--resume", str(state)]) == 1
    resumed = capsys.readouterr().out
    assert '"found": 200' in resumed
    assert main([*words, "--json"]) == 1
    assert capsys.readouterr().out == resumed
