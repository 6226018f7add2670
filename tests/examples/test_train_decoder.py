"""The decoder example runs, learns and says so, in tiny settings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent.parent


def test_it_trains_saves_loads_and_generates(tmp_path: Path) -> None:
    sizes = ["--steps", "15", "--dim", "32", "--batch", "2", "--out", str(tmp_path)]
    command = [sys.executable, "examples/train_decoder.py", *sizes]
    # Installed or not, the checkout under test is the one that runs.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = {command[1:]!r}; import runpy; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "complete, depth" in done.stdout
    assert "generation with the cache equals recomputation: " in done.stdout
    first, last = map(float, *re.findall(r"loss (\S+) -> (\S+);", done.stdout))
    assert last < first - 0.3
    assert torch.load(tmp_path / "decoder.pt", weights_only=True)["words.weight"].shape[1] == 32
