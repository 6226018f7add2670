"""Every kernel of every shipped tiling fits the shared memory of the GPUs that it is chosen for; compiled without one.

Minutes of compiling: only where SPARSEDSL_COMPILE is set, to the architectures to compile for, such as 89,90.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparsedsl.codegen.tiling import SMALL_TILINGS, TILINGS, tilings_on

ROOT = Path(__file__).resolve().parents[2]
# The most that one block may have, in KB, by CUDA's table of compute capabilities.
LIMITS = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
WANTED = [int(word) for word in os.environ.get("SPARSEDSL_COMPILE", "").split(",") if word]

PROGRAM = """
import json, sys
import torch
from sparsedsl import causal, sliding
from sparsedsl.codegen.ahead import compiled_ahead
from sparsedsl.codegen.build import load, tiling_named
from sparsedsl.codegen.emit import emit
tiling, arch = tiling_named(sys.argv[1]), int(sys.argv[2])
dtype = torch.bfloat16 if tiling.bytes == 2 else torch.float32
patterns = (sliding(200), causal()) if tiling.tall else (sliding(200),)
found = []
for pattern in patterns:
    kernels = compiled_ahead(load(emit(pattern, tiling)), arch, dtype=dtype, head_dim=tiling.head_dim)
    found += [(kernel.name, kernel.metadata.shared) for kernel in kernels]
print(json.dumps(found))
"""


def test_small_cards_have_tilings_of_their_own() -> None:
    assert tilings_on((9, 0)) == TILINGS
    assert all(tilings_on(divmod(arch, 10)) == SMALL_TILINGS for arch in LIMITS if arch != 90)


@pytest.mark.skipif(not WANTED, reason="compiles for minutes; set SPARSEDSL_COMPILE=89,90")
@pytest.mark.parametrize("arch", WANTED or LIMITS)
@pytest.mark.parametrize("place", range(len(TILINGS)))
def test_kernels_fit_the_shared_memory(place: int, arch: int, tmp_path: Path) -> None:
    tiling = tilings_on(divmod(arch, 10))[place]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, tiling.name, str(arch)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name for name, _ in found} >= {"forward_kernel", "dq_kernel", "dkdv_kernel"}
    assert max(shared for _, shared in found) <= LIMITS[arch] * 1024
