"""Packages of kernels: what is written, that it stands alone, and that nothing of others is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module, invalidate_caches
from pathlib import Path

import pytest
import torch

import sparsedsl as sd
from sparsedsl import errors
from sparsedsl.codegen.package import build_package
from sparsedsl.codegen.tiling import TILINGS
from tests.codegen.oracle import dense_attention, dense_mask

ROOT = Path(__file__).resolve().parent.parent.parent
NEAR, FAR = sd.sliding(5), (sd.sliding(2) | sd.power()).blocks(4) & sd.causal()
STACK = sd.cycle([NEAR, FAR, NEAR], layers=7)

# In a process where sparsedsl can't be imported.
ALONE = """
import sys
sys.modules["sparsedsl"] = None
sys.path.insert(0, sys.argv[1])
import torch
import kernels
q, k, v = (torch.randn(1, heads, 50, 16, requires_grad=True) for heads in (4, 2, 2))
for layer in range(kernels.LAYERS):
    out, lse = kernels.attention(q, k, v, layer=layer, return_lse=True)
    out.sum().backward()
assert not [name for name in sys.modules if name.startswith("sparsedsl.")], "imports sparsedsl"
print(kernels.LAYERS, sorted({*kernels.PATTERNS}), out.shape == q.shape, q.grad.isfinite().all().item())
"""


def files(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(folder.iterdir()) if each.is_file()}


def test_each_layer_has_its_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_package(STACK, tmp_path / "kernels_by_layer")
    monkeypatch.syspath_prepend(str(tmp_path))
    invalidate_caches()
    kernels = import_module("kernels_by_layer")
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, 40, 16, dtype=torch.float64) for heads in (4, 2, 2))
    for layer, pattern in enumerate(STACK):
        want, _ = dense_attention(q, k, v, dense_mask(pattern, 4, 40, 40, None), 16**-0.5)
        torch.testing.assert_close(kernels.attention(q, k, v, layer=layer), want)
    assert kernels.LAYERS == 7
    assert [*kernels.PATTERNS] == [str(NEAR), str(FAR), str(NEAR)]
    for wrong in (7, -1, "0"):
        with pytest.raises(ValueError, match=r"OutOfRange: there is no such layer(.|\n)*0 <= layer < 7"):
            kernels.attention(q, k, v, layer=wrong)
    with pytest.raises(ValueError, match="q is no tensor"):
        kernels.attention(None, k, v)


def test_the_kernels_of_the_head_dim_and_type_are_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_package(NEAR, tmp_path / "kernels_by_tiling")
    monkeypatch.syspath_prepend(str(tmp_path))
    invalidate_caches()
    kernels = import_module("kernels_by_tiling")
    called: list[str] = []
    for _, _, modules in kernels.MODULES:
        for module in modules:
            monkeypatch.setattr(module, "attention", lambda *_, name=module.__name__: called.append(name))
    for dtype, head_dim in ((torch.bfloat16, 64), (torch.float16, 256), (torch.float32, 128), (torch.float32, 512)):
        q = torch.empty(1, 1, 1, head_dim, dtype=dtype)
        kernels.attention(q, q, q)
    assert called == [
        f"kernels_by_tiling.pattern_0_{name}" for name in ("half128", "half256", "single256", "single256")
    ]


def test_it_stands_alone_and_is_the_same_text_each_time(tmp_path: Path) -> None:
    written = []
    for seed in ("1", "2"):
        folder = tmp_path / seed / "kernels"
        command = [sys.executable, "-m", "sparsedsl", "build", str(STACK), "-o", str(folder)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        written.append(files(folder))
    assert written[0] == written[1]
    assert len(written[0]) == 2 + 2 * len(TILINGS)
    assert all(text.startswith(b"# SPDX-License-Identifier: Apache-2.0\n") for text in written[0].values() if text)
    command = [sys.executable, "-c", ALONE, str(tmp_path / "1")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split(maxsplit=1) == ["7", f"{sorted({str(NEAR), str(FAR)})} True True\n"], done.stderr


def test_an_earlier_build_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    build_package(STACK, folder)
    build_package(NEAR, folder, tilings=TILINGS[:1])
    assert [*files(folder)] == ["__init__.py", "pattern_0_half128.py", "py.typed"]
    (folder / "mine.py").write_text("mine = 1\n")
    before = files(folder)
    with pytest.raises(errors.WrongValue, match=r"not from a build(.|\n)*mine\.py"):
        build_package(FAR, folder)
    assert files(folder) == before
