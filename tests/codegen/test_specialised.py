"""A new length compiles nothing: no argument of a launch that follows the lengths is specialised by Triton."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def names(kernels: list[str]) -> set[str]:
    return {each.partition("_kernel")[0] for each in kernels}


def test_a_new_length_compiles_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "SPARSEDSL_CACHE": str(tmp_path), "TRITON_INTERPRET": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.codegen.specialised"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, found in json.loads(done.stdout).items():
        many, few, whole, *others = found["calls"]
        assert names(many) == {"forward", "rows", "dq", "dkdv"}, name
        assert names(few) == {"decode", "combine"}, name
        # Few queries over keys that are not split write the result itself, of another type than a split's.
        assert whole in ([], ["decode_kernel"]), name
        assert others == [[] for _ in others], name
        whole, split, *others = found["split"]
        assert names(whole) == {"rows", "dq", "dkdv"}, name
        assert split in ([], ["dkdv_kernel", "dkdv_kernel_of_shares"], ["dkdv_kernel_0", "dkdv_kernel_of_shares"]), name
        assert bool(split) == (name in ("window and sink", "power")), name
        assert others == [[] for _ in others], name
        many, *others = found["packed"]
        assert names(many) == {"forward", "rows", "dq", "dkdv"}, name
        assert others == [[] for _ in others], name
