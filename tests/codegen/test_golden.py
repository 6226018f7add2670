"""Emitted modules as files in tests/golden, so that a review shows every change of emission; and its determinism."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

import sparsedsl as sd
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.tiling import TILINGS
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.catalogue import CATALOGUE
from sparsedsl.patterns.power import power_attention

ROOT = Path(__file__).resolve().parents[2]
GOLDEN: dict[str, Pattern | PerHead] = {
    "sliding": sd.sliding(1024),
    "power_attention": power_attention(),
    "dilated": sd.dilated(512, 8),
    "global_tokens": (sd.sliding(256) | sd.sink(4) | sd.where("q < 4")) & sd.causal(),
    "per_head": sd.per_head([sd.sliding(512), sd.sliding(512), sd.power(), sd.sink(64) & sd.causal()]),
    "random_blocks": (sd.random_blocks(64, 3, seed=0) | sd.sliding(128)) & sd.causal(),
}


def layer_of(name: str) -> Pattern | PerHead:
    pattern = CATALOGUE[name]()
    return pattern[3] if isinstance(pattern, Stack) else pattern


@pytest.mark.parametrize("name", GOLDEN)
def test_emitted_source(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"{name}.py", emit(GOLDEN[name], TILINGS[0]))


LINTED = {**GOLDEN, **{name: layer_of(name) for name in CATALOGUE}}


@pytest.mark.parametrize("name", LINTED)
def test_emitted_source_passes_the_linter(name: str) -> None:
    """The project's own rules; the module prints its verdict (T20), and its main is no public API (D1)."""
    command = [str(Path(sys.executable).with_name("ruff")), "check", "--ignore", "T20,D1", "-"]
    source = emit(LINTED[name], TILINGS[0])
    done = subprocess.run(command, cwd=ROOT, input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_golden_file_that_differs_is_noticed(
    golden: Callable[[str, str], None], request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--update-golden"):
        pytest.skip("golden files are being written")
    with pytest.raises(AssertionError, match=r"differs from tests/golden/sliding\.py"):
        golden("sliding.py", emit(sd.sliding(1025), TILINGS[0]))
    with pytest.raises(AssertionError, match=r"tests/golden/no\.py is missing"):
        golden("no.py", "")


PROGRAM = """
from hashlib import sha256
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.tiling import TILINGS
from sparsedsl import parse
import sys
for text in sys.argv[1:]:
    for tiling in TILINGS:
        print(sha256(emit(parse(text), tiling).encode()).hexdigest())
"""


def test_other_processes_emit_the_same_bytes() -> None:
    """Under other hash seeds, so that no order of a set or of memory shows."""
    texts = [str(GOLDEN[name]) for name in ("power_attention", "per_head", "random_blocks")]
    here = [sha256(emit(sd.parse(text), tiling).encode()).hexdigest() for text in texts for tiling in TILINGS]  # type: ignore[arg-type]
    for seed in ("1", "31337"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *texts],
            cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == here
