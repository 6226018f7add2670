"""The command line, in process and as a program: what each command prints, its exit status, its cost."""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import pytest

import sparsedsl.cli
import sparsedsl.progress
from sparsedsl import check, parse
from sparsedsl.cli import COMMANDS, main
from sparsedsl.patterns import CATALOGUE, summary
from sparsedsl.patterns.power import power_attention
from sparsedsl.proofs.verdict import Verdict
from sparsedsl.proofs.witness import witness

ROOT = Path(__file__).resolve().parents[2]
POWER = ["check", "power_attention(block=256)", "--seq-len", "16384", "--layers", "28"]
Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded machine takes seconds for what is done at once elsewhere; progress has its own tests."""
    monkeypatch.setattr(sparsedsl.progress, "SILENT_FOR", 1e6)


def run(words: list[str], capsys: Output) -> tuple[int, str]:
    """(exit status, what was printed); nothing goes to the error stream."""
    status = main(words)
    captured = capsys.readouterr()
    assert captured.err == ""
    return status, captured.out


class TestCheck:
    def test_complete(self, capsys: Output) -> None:
        status, out = run(POWER, capsys)
        assert status == 0
        assert out == f"{check(power_attention(), seq_len=16384, layers=28)}\n"
        assert "verdict     COMPLETE: every token reaches every earlier token" in out.splitlines()
        assert "depth       5 layers are needed" in out.splitlines()

    def test_incomplete(self, capsys: Output) -> None:
        status, out = run(["check", "sliding(4)", "--seq-len", "100", "--layers", "5"], capsys)
        assert status == 1
        lines = out.splitlines()
        assert lines[0] == "pattern     sliding(4)"
        # 5 layers of 3 steps: 16 tokens, the query's own included; so query 16 is the first to miss key 0.
        assert lines[3].startswith("verdict     INCOMPLETE: query 16 does not reach key 0, from 17 tokens on; ")
        assert "reach       4, 7, 10, 13, 16  tokens seen by the last query, layer by layer" in lines

    def test_the_length_has_a_default(self, capsys: Output) -> None:
        _, out = run(["check", "sliding(4096)"], capsys)
        assert "tokens      131 072" in out.splitlines()

    def test_no_residual(self, capsys: Output) -> None:
        words = ["check", "power_theorem()", "--seq-len", "64"]
        assert run(words, capsys)[0] == 0
        status, out = run([*words, "--no-residual", "--layers", "6"], capsys)
        assert status == 1
        assert "layers      6, without the residual connection" in out.splitlines()

    def test_a_stack_brings_its_layers(self, capsys: Output) -> None:
        status, out = run(["check", "wavenet(kernel=2, layers=7)", "--seq-len", "128", "--json"], capsys)
        told = json.loads(out)
        assert (status, told["layers"], told["depth"]) == (0, 7, 7)
        assert run(["check", "wavenet(kernel=2, layers=7)", "--seq-len", "129"], capsys)[0] == 1

    def test_patterns_from_files(self, capsys: Output, tmp_path: Path) -> None:
        file = tmp_path / "model.py"
        file.write_text("import sparsedsl as sd\nnear = sd.sliding(8)\nfar = sd.power()\n")
        status, out = run(["check", f"{file}:far", "--seq-len", "64", "--json"], capsys)
        assert (status, json.loads(out)["pattern"]) == (0, "power()")

    def test_no_abbreviations(self, capsys: Output) -> None:
        assert main(["check", "causal()", "--seq", "64"]) == 2
        assert "unrecognized arguments: --seq 64" in capsys.readouterr().err


class TestJson:
    """The documented fields, with figures that are known from elsewhere."""

    def test_power(self, capsys: Output) -> None:
        status, out = run([*POWER, "--json"], capsys)
        assert out.count("\n") == 1
        told = json.loads(out)
        assert status == 0
        assert told["pattern"] == "(sliding(5) | power() | sink(1)).blocks(256) & causal()"
        assert parse(told["pattern"]) == power_attention()
        assert (told["seq_len"], told["layers"], told["residual"]) == (16384, 28, True)
        assert (told["complete"], told["depth"], told["counterexample"]) == (True, 5, None)
        # In blocks of 256: 9, 27, 49, 62, 64 seen by the last; 9 of the worst row.
        assert told["reach"] == [256 * blocks for blocks in (9, 27, 49, 62, 64)]
        assert told["degree"] == 9 * 256
        assert len(told["contiguous"]) == 5
        assert told["contiguous"][-1] == 16383
        # 502 block pairs, the 64 on the diagonal cut in half.
        live = 438 * 256 * 256 + 64 * (256 * 257 // 2)
        assert told["live_pairs"] == live
        assert told["density"] == live / (16384 * 16385 // 2)

    def test_incomplete(self, capsys: Output) -> None:
        status, out = run(["check", "sliding(4)", "--seq-len", "100", "--layers", "5", "--json"], capsys)
        told = json.loads(out)
        assert status == 1
        assert told["complete"] is False
        assert told["counterexample"] == {"q": 16, "k": 0, "seq_len": 17}
        assert (told["reach"], told["contiguous"]) == ([4, 7, 10, 13, 16], [3, 6, 9, 12, 15])
        assert (told["depth"], told["degree"], told["live_pairs"]) == (33, 4, 394)

    @pytest.mark.parametrize(
        "pattern",
        ["causal()", "dilated(4, 2)", "per_head([sliding(4), sink(2)]) & causal()", "cycle([power()], layers=3)"],
    )
    def test_every_field_of_the_verdict_in_its_order(self, pattern: str, capsys: Output) -> None:
        _, out = run(["check", pattern, "--seq-len", "50", "--json"], capsys)
        told = json.loads(out)
        assert list(told) == [field.name for field in fields(Verdict)]
        documented = {"pattern", "seq_len", "layers", "complete", "depth", "reach", "contiguous"}
        documented |= {"degree", "density", "live_pairs", "counterexample"}
        assert documented <= set(told)
        assert told == json.loads(check(parse(pattern), seq_len=50).to_json())


class TestPath:
    def test_a_path(self, capsys: Output) -> None:
        status, out = run(["check", "power()", "--seq-len", "128", "--path", "100", "0"], capsys)
        assert status == 0
        # 100 = 64 + 32 + 4
        lines = out.splitlines()
        assert lines[0] == "query 100 reaches key 0 in 3 layers"
        assert sorted(line.rsplit(" ")[-1] for line in lines[1:]) == ["32", "4", "64"]

    def test_no_path(self, capsys: Output) -> None:
        words = ["check", "power()", "--seq-len", "128", "--layers", "2", "--path", "100", "0"]
        assert run(words, capsys) == (1, "query 100 does not reach key 0\n")
        assert run(["check", "power()", "--path", "3", "5"], capsys)[0] == 1

    def test_json(self, capsys: Output) -> None:
        status, out = run(["check", "power()", "--seq-len", "128", "--path", "100", "0", "--json"], capsys)
        told = json.loads(out)
        assert (status, list(told)) == (0, ["pattern", "seq_len", "q", "k", "path"])
        path = told.pop("path")
        assert told == {"pattern": "power()", "seq_len": 128, "q": 100, "k": 0}
        assert (path[0], path[-1]) == (100, 0)
        assert all((a - b).bit_count() == 1 for a, b in pairwise(path))
        words = ["check", "power()", "--seq-len", "128", "--layers", "2", "--path", "100", "0", "--json"]
        status, out = run(words, capsys)
        assert (status, json.loads(out)["path"]) == (1, None)
        assert witness(power_attention(), 5, 5, seq_len=128, layers=2) == [5, 5, 5]


class TestBuild:
    def test_a_module(self, capsys: Output, tmp_path: Path) -> None:
        file = tmp_path / "attention.py"
        assert run(["build", "sliding(16) | sink(2) & causal()", "-o", str(file)], capsys) == (0, f"wrote {file}\n")
        source = file.read_text()
        compile(source, str(file), "exec")
        assert "sliding(16) | sink(2) & causal()" in source.splitlines()[1]

    def test_the_header_s_command_builds_the_same_bytes(self, capsys: Output, tmp_path: Path) -> None:
        for number, tiling in enumerate(("half128", "half256", "single128", "single256", "half256_small")):
            file, again = tmp_path / f"{number}.py", tmp_path / f"{number}_again.py"
            words = ["build", "where('q - k < 9') & causal()", "-o", str(file), "--tiling", tiling]
            assert run(words, capsys)[0] == 0
            (line,) = (line for line in file.read_text().splitlines() if "Rebuild with: sparsedsl build" in line)
            holes = {"FILE": str(again), "PATTERN": words[1]}
            words = [holes.get(word, word) for word in line.partition("Rebuild with: sparsedsl ")[2].split()]
            assert run(words, capsys)[0] == 0
            assert again.read_bytes() == file.read_bytes()

    def test_the_help_names_the_tilings(self, capsys: Output) -> None:
        from sparsedsl.codegen.tiling import TILINGS

        with pytest.raises(SystemExit):
            main(["build", "--help"])
        out = " ".join(capsys.readouterr().out.split())
        assert all(tiling.name in out for tiling in TILINGS)
        assert f"(default {TILINGS[0].name})" in out


def test_patterns_lists_the_library(capsys: Output) -> None:
    status, out = run(["patterns"], capsys)
    assert status == 0
    assert [line.split(maxsplit=1) for line in out.splitlines()] == [[name, summary(name)] for name in CATALOGUE]


def test_help_lists_every_command(capsys: Output) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(f"    {module.__name__.rsplit('.', 1)[1]} " in out for module in COMMANDS)


def test_the_docstring_s_examples_work(capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = (sparsedsl.cli.__doc__ or "").splitlines()
    examples = [shlex.split(line)[1:] for line in told if line.startswith("    sparsedsl ")]
    assert {words[0] for words in examples} == {module.__name__.rsplit(".", 1)[1] for module in COMMANDS}
    for words in examples:
        # A search takes half a minute, and tuning a GPU; their own tests run shorter ones.
        if words[0] not in ("synth", "tune"):
            assert main(words) == 0, words
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "called"),
    [
        ("check sliding(2)", "verdict.check"),
        ("check sliding(2) --path 3 1", "witness.witness"),
        ("check sliding(2) --repair", "repair.repair"),
        ("check sliding(2) --certificate FILE", "certificate.certify"),
        ("verify FILE", "verifier.verify"),
        ("prove sliding(2)", "depth.prover.prove"),
        ("flow sliding(2) --layers 2", "flow.flow"),
        ("synth --seq-len 4096 --layers 4", "synthesis.synthesise"),
    ],
)
def test_ctrl_c_ends_with_one_line(
    words: str, called: str, capsys: Output, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    module, _, name = called.rpartition(".")
    monkeypatch.setattr(importlib.import_module(f"sparsedsl.proofs.{module}"), name, interrupted)
    assert main(words.split()) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sparsedsl: interrupted")
    assert captured.err.count("\n") == 1


# --- the whole program

# As `python -m sparsedsl`; then its own peak memory (VmHWM starts anew with the program), and what it loaded.
PROGRAM = """
import sys
from sparsedsl.cli import main
status = main(sys.argv[1:])
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak) / 1024, *sorted({"torch", "triton", "sympy", "networkx"} & set(sys.modules)), file=sys.stderr)
sys.exit(status)
"""


def program(*words: str) -> tuple[int, str, float, float, list[str]]:
    """(exit status, output, seconds of the whole process, its peak memory in MiB, heavy packages loaded)."""
    start = perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    seconds = perf_counter() - start
    peak, *heavy = done.stderr.split()
    return done.returncode, done.stdout, seconds, float(peak), heavy


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("seq_len", "depth", "seconds", "megabytes"), [(1 << 20, 11, 0.8, 150), (1 << 24, 15, 4.0, 150)]
)
def test_a_check_at_a_million_tokens_is_cheap(seq_len: int, depth: int, seconds: float, megabytes: float) -> None:
    words = ["check", "power_attention()", "--seq-len", str(seq_len), "--layers", "28", "--json"]
    # The best of three: other work on the machine is not this program's cost.
    tries = [program(*words) for _ in range(3)]
    for status, out, _, peak, heavy in tries:
        assert status == 0
        assert json.loads(out)["depth"] == depth
        assert peak < megabytes
        assert heavy == []
    assert min(taken for _, _, taken, _, _ in tries) < seconds


def test_the_module_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "sparsedsl"]
    done = subprocess.run([*command, "check", "causal()"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*command, "check", "causl()"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("UnknownName: there is no causl\n  where     causl()\n")
    assert "Traceback" not in done.stderr
