"""Files made to hurt the verifier: a clear rejection, little memory, nothing executed, whole processes included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sparsedsl.errors import Rejected
from sparsedsl.proofs.verifier import verify
from sparsedsl.proofs.verifier_file import MOST_BYTES

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 600 << 20

# Verifies each file with the address space limited and every event that would reach beyond the process refused.
# One honest certificate comes first: after it, all that the verifier needs is imported.
PROGRAM = f"""
import resource, sys
import numpy
from pathlib import Path
from sparsedsl.errors import Rejected
from sparsedsl.proofs.verifier import verify
from sparsedsl.constructors import random_blocks, sink, sliding

honest, *hostile = map(Path, sys.argv[1:])
verify(honest)
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
refused = ("exec", "os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pickle.", "import", "compile")
def watch(event, arguments):
    if event.startswith(refused) or (event == "open" and arguments[1] not in (None, "r", "rb")):
        print("EVENT", event, arguments, flush=True)
sys.addaudithook(watch)
for each in hostile:
    try:
        verify(each)
    except Rejected as error:
        print(each.name, error.where.split()[0])
    else:
        print(each.name, "accepted")
"""


def certificate(pattern: str = "sliding(4)", **changed: Any) -> dict[str, Any]:
    """A certificate in form: the fields are there, and what they say is made up."""
    whole: dict[str, Any] = {
        "format": "sparsedsl certificate",
        "version": 1,
        "pattern": pattern,
        "digest": sha256(pattern.encode()).hexdigest(),
        "seq_len": 10,
        "residual": "either",
        "claim": {"complete": True, "layers": 3},
        "evidence": {
            "kind": "distances",
            "reach": [4, 7, 10],
            "levels": [["000000000000000f", "000000000000007f", "00000000000003ff"]],
            "steps": [[0], [1], [2]],
        },
    }
    return {**whole, **changed}


def evidence(**changed: Any) -> dict[str, Any]:
    return {"evidence": {**certificate()["evidence"], **changed}}


def doubling(levels: int) -> dict[str, Any]:
    """One word, unfolded to 64 * 2**levels bits."""
    return evidence(levels=[["f" * 16], *([[0, 0]] * levels)], steps=[[0]], reach=[10])


WHOLE = json.dumps(certificate())

# name -> the text of the file, the step at which it is rejected.
HOSTILE: dict[str, tuple[str, set[str]]] = {
    "long number": (WHOLE.replace('"seq_len": 10', '"seq_len": ' + "9" * 3_000_000), {"json"}),
    "deep list": ("[" * 4_000_000, {"json"}),
    "deep object": ('{"a":' * 800_000, {"json"}),
    "cut off": (WHOLE[: len(WHOLE) // 2], {"json"}),
    "no end of text": (WHOLE[:-40], {"json"}),
    "field twice": (WHOLE.replace('"seq_len": 10', '"seq_len": 10, "seq_len": 11'), {"json"}),
    "field of evidence twice": (WHOLE.replace('"reach": ', '"reach": [], "reach": '), {"json"}),
    "NaN": (WHOLE.replace('"seq_len": 10', '"seq_len": NaN'), {"json"}),
    "infinity": (WHOLE.replace('"layers": 3', '"layers": Infinity'), {"json"}),
    "exponent": (WHOLE.replace('"layers": 3', '"layers": 1e400'), {"json"}),
    "two values": (WHOLE + WHOLE, {"json"}),
    "huge list": (json.dumps(certificate(**evidence(reach=[0] * 1_300_000))), {"fields"}),
    "huge tree": (json.dumps(certificate(**evidence(levels=[["0" * 16] * 190_000]))), {"tree"}),
    "million roots": (
        json.dumps(certificate(**evidence(steps=[[0] * 1_300_000]))),
        {"tree", "layer", "fields", "limits"},
    ),
    "a gigabyte in a tree": (json.dumps(certificate(seq_len=1 << 33, **doubling(27))), {"limits"}),
    "all levels": (json.dumps(certificate(**doubling(39))), {"claim"}),
    "too many levels": (json.dumps(certificate(**doubling(60))), {"fields"}),
    "2**40 tokens": (json.dumps(certificate(seq_len=1 << 40)), {"limits"}),
    "2**62 tokens": (json.dumps(certificate(seq_len=1 << 62)), {"fields"}),
    "2**22 units of one class": (json.dumps(certificate(seq_len=1 << 22, **doubling(16))), {"claim"}),
    "2**20 layers": (json.dumps(certificate(claim={"complete": True, "layers": 1 << 20})), {"fields"}),
    "counted pairs of 2**39 tokens": (
        json.dumps(certificate(seq_len=1 << 39, evidence={"kind": "pairs", "pairs": 1 << 78, "joined": [1]})),
        {"limits"},
    ),
    "long stack": (json.dumps(certificate("cycle([sliding(4)], layers=1099511627776)")), {"claim"}),
    "stack of many": (json.dumps(certificate("Stack([sliding(4)] * 65536)")), {"pattern", "limits"}),
    "heads of heads": (json.dumps(certificate("per_head([sliding(4)] * 65536)")), {"pattern", "limits"}),
    "period of a prime product": (
        json.dumps(certificate(" & ".join(f"strided({p})" for p in (1048573, 1048571, 1048559)) + " & causal()")),
        {"limits", "layer", "tree", "pattern"},
    ),
    "many draws": (json.dumps(certificate("random_blocks(block=1, count=1073741824, seed=0) & causal()")), {"limits"}),
    "code": (json.dumps(certificate("__import__('os').system('touch executed')")), {"pattern"}),
    "code in a condition": (
        json.dumps(certificate("where(\"__import__('os').system('touch executed')\")")),
        {"pattern"},
    ),
    "pickle": ("cos\nsystem\n(S'touch executed'\ntR.", {"json"}),
}


def test_whole_files_in_little_memory(tmp_path: Path) -> None:
    honest = tmp_path / "honest"
    honest.write_text(WHOLE)
    names = []
    for name, (text, _) in HOSTILE.items():
        assert len(text) <= MOST_BYTES, name
        (tmp_path / name.replace(" ", "_")).write_text(text)
        names.append(name.replace(" ", "_"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, honest.name, *names],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    wrong = {
        name: found.get(name)
        for name, (_, steps) in zip(names, HOSTILE.values(), strict=True)
        if found.get(name) not in steps
    }
    assert not wrong, done.stdout
    assert set(found) == set(names), done.stdout
    assert not (tmp_path / "executed").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_plain_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for each in (pipe, Path("/dev/zero"), Path("/dev/random"), tmp_path):
        with pytest.raises(Rejected, match="it is no plain file") as caught:
            verify(each)
        assert caught.value.where == "file"


def test_a_file_that_is_larger_than_it_may_be_is_not_read_whole(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Rejected, match="too large"):
        verify(sparse)
