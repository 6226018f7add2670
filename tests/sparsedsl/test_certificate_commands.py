"""`sparsedsl check --certificate` writes what `sparsedsl verify` accepts, and the exit status says the answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparsedsl.cli import main


def test_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "power.json"
    words = ["check", "power_attention()", "--seq-len", "131072", "--layers", "28", "--certificate", str(file)]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        "claim       complete at 131072 tokens in 8 layers with or without the residual connection",
        f"wrote       {file}, {file.stat().st_size} bytes",
    ]
    assert main(["verify", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "accepted    (sliding(5) | power() | sink(1)).blocks(256) & causal()",
        "proved      complete at 131072 tokens in 8 layers with or without the residual connection, in no fewer",
    ]


def test_incomplete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "dilated.json"
    assert main(["check", "dilated_window()", "--seq-len", "1000", "--certificate", str(file), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["complete"] is False
    assert main(["verify", str(file), "--json"]) == 0
    claim = json.loads(capsys.readouterr().out)
    assert (claim["accepted"], claim["query"], claim["key"], claim["layers"]) == (True, 1, 0, None)


def test_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sliding.json"
    assert main(["check", "sliding(4)", "--seq-len", "10", "--certificate", str(file)]) == 0
    file.write_text(file.read_text().replace('"seq_len":10', '"seq_len":11'))
    capsys.readouterr()
    assert main(["verify", str(file)]) == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("Rejected: the certificate is rejected at step 'claim'")
    assert main(["verify", str(file), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["step"] == "claim"
    assert main(["verify", str(tmp_path / "none.json")]) == 1


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", "sliding(4)", "--seq-len", "10", "--certificate", str(tmp_path / "none" / "x.json")]
    assert main(words) == 2
    assert "the certificate can't be written" in capsys.readouterr().err
