"""Ctrl-C, sent as a signal to whole processes: one line, status 130, no traceback, no half-written file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sparsedsl.files import write_whole
from sparsedsl.proofs.certificate import certify
from sparsedsl.text import parse

ROOT = Path(__file__).resolve().parents[2]
# Progress is shown at once, so that its first line tells that the work has begun.
PROGRAM = "import sys; from sparsedsl import cli, progress; progress.SILENT_FOR = 0; sys.exit(cli.main(sys.argv[1:]))"
LARGE = ["--seq-len", "131072", "--layers", "28"]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a signal")


@pytest.mark.parametrize(
    "words",
    [
        ["check", "longnet()", *LARGE],
        ["check", "longnet()", *LARGE, "--certificate", "written.json"],
        ["check", "sliding(3) & causal()", *LARGE, "--repair"],
        ["check", "longnet()", "--seq-len", "131072", "--path", "131071", "0"],
        ["flow", "power_attention()", "--seq-len", "524288", "--layers", "28"],
        ["liveness", "longnet()", *LARGE],
        ["prove", "longnet()"],
        ["explain", "longnet()"],
        ["synth", *LARGE, "--max-depth", "8", "--resume", "written.json"],
        ["verify", "long.json"],
    ],
    ids=lambda words: " ".join(each for each in words if not each.isdigit()),
)
def test_ctrl_c_ends_every_long_command(words: list[str], tmp_path: Path) -> None:
    if words[0] == "verify":
        text = certify(parse("random_blocks(block=1, count=3, seed=1) & causal()"), seq_len=1500).to_json()
        (tmp_path / "long.json").write_text(text)
    before = set(tmp_path.iterdir())
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in its background with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert running.stderr is not None
    first = running.stderr.readline()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, (first, err)
    assert out == ""
    # Before the last line there may be more lines of progress.
    assert err.splitlines()[-1].startswith("sparsedsl: interrupted")
    assert "Traceback" not in first + err
    written = set(tmp_path.iterdir()) - before
    assert {each.name for each in written} <= ({"written.json"} if words[0] == "synth" else set())


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file.json"
    write_whole(file, "old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_whole(file, "new")
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_text() == "old"
    link = tmp_path / "link.json"
    link.symlink_to(file)
    write_whole(link, "through the link")
    assert link.is_symlink()
    assert file.read_text() == "through the link"
    write_whole(Path(os.devnull), "nothing kept")
    assert not Path(os.devnull).is_file()
