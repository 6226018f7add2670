"""Packages of kernels: what is written, that it stands alone, and that nothing of others is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module, invalidate_caches
from pathlib import Path

import pytest
import torch

import sparsedsl as sd
from sparsedsl import errors
from sparsedsl.codegen.build import build_module
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
    for wrong in (7, -1, "0", True):
        with pytest.raises(ValueError, match=r"OutOfRange: there is no such layer(.|\n)*0 <= layer < 7"):
            kernels.attention(q, k, v, layer=wrong)
    kernels.check_layers(7)
    with pytest.raises(ValueError, match=r"LayerMismatch: (.|\n)*a model of 28 layers, kernels for 7"):
        kernels.check_layers(28)
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
        f"kernels_by_tiling.pattern_0_{name}" for name in ("half128", "half256", "single128", "single256")
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
    with pytest.raises(errors.WrongValue, match=r"not from a build(.|\n)*mine\.py(.|\n)*--force"):
        build_package(FAR, folder)
    assert files(folder) == before
    build_package(FAR, folder, tilings=TILINGS[1:2], force=True)
    assert [*files(folder)] == ["__init__.py", "mine.py", "pattern_0_half256.py", "py.typed"]
    assert (folder / "mine.py").read_text() == "mine = 1\n"


def test_a_module_replaces_a_build_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "attention.py"
    file.write_text("")
    build_module(NEAR, file)
    first = file.read_text()
    build_module(FAR, file)
    assert file.read_text() != first
    file.write_bytes(b"\xff mine")
    with pytest.raises(errors.WrongValue, match=r"not from a build, and would be lost(.|\n)*--force"):
        build_module(NEAR, file)
    assert file.read_bytes() == b"\xff mine"
    build_module(NEAR, file, force=True)
    assert file.read_text() == first


# Launches as on the GPU that the package was built for, in another process; says which kernels Triton found.
LAUNCH = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from triton import knobs
import kernels_ahead
from sparsedsl.codegen.ahead import compiled_ahead
hits = []
knobs.compilation.listener = lambda *, cache_hit, metadata, **_: hits.append((metadata["name"], cache_hit))
(module,) = kernels_ahead.MODULES[0][2]
module.disassembled = None  # nor is any machine code looked at again
compiled_ahead(module, 90, dtype=torch.bfloat16, head_dim=64)
assert list(module.HOPPER_ROADS.values()) == [True] * 3
print(sorted(hits))
"""


# Calls over caches of other lengths, batches and numbers of pages, and of few queries without a cache.
LAUNCH_CACHED = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
import kernels_ahead
from sparsedsl.codegen.ahead import launches_compile
hits = []
knobs.compilation.listener = lambda *, cache_hit, metadata, **_: hits.append((metadata["name"], cache_hit))
(module,) = kernels_ahead.MODULES[0][2]
half = {"dtype": torch.bfloat16}
with launches_compile(GPUTarget("cuda", 90, 32)):
    for batch, queries, keys in ((3, 1, 768), (1, 9, 64), (2, 100, 5008), (5, 40, 48)):
        q, k = torch.zeros(batch, 6, queries, 64, **half), torch.zeros(batch, 3, keys, 64, **half)
        pages, table = torch.zeros(77, 3, 16, 64, **half), torch.zeros(batch, keys // 16, dtype=torch.int32)
        lengths = torch.full((batch,), keys, dtype=torch.int32)
        module.launch_cached(q, k, k, lengths, None, 1.0, 0)
        module.launch_cached(q, pages, pages, lengths, table, 1.0, 0)
        if queries <= 16:
            module.launch_cached(q, k, k, None, None, 1.0, keys - queries)
print(sorted({name for name, _ in hits}), all(hit for _, hit in hits))
"""


SHARED = """
import torch
from sparsedsl import sliding
from sparsedsl.codegen.ahead import compiled_ahead
from sparsedsl.codegen.build import load
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.tiling import SMALL_TILINGS
for tiling in SMALL_TILINGS[:2]:
    module = load(emit(sliding(200), tiling))
    for kernel in compiled_ahead(module, 120, dtype=torch.bfloat16, head_dim=tiling.head_dim):
        print(kernel.name, kernel.metadata.shared)
"""


def output(command: Sequence[str], cache: Path) -> str:
    """What a Python that compiles prints; the interpreter of these tests compiles nothing."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache), "TRITON_INTERPRET": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kernels_compiled_ahead_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "built" / "kernels_ahead"
    words = ["build", str(NEAR), "-o", str(folder), "--tiling", "half128", "--aot", "sm_90", "--head-dim", "64"]
    output(["-m", "sparsedsl", *words], tmp_path / "unused")
    kernels = [each for each in sorted((folder / "kernels").rglob("*")) if each.is_file()]
    # Machine code, metadata, their names, one forward kernel in two forms; and what was found in the machine code of
    # those for Hopper that multiply.
    assert len(kernels) == 9 * 3 + 3
    for each in kernels:
        assert str(ROOT).encode() not in each.read_bytes(), "names a folder of this machine"
    moved = folder.parent.rename(tmp_path / "moved")
    of_hopper = ("hopper_dq_kernel", "hopper_gradients_kernel", *["hopper_kernel"] * 2, "hopper_rows_kernel")
    names = ("dkdv_kernel", "dq_kernel", "forward_kernel", *of_hopper, "rows_kernel")
    for _ in range(2):  # an empty cache, and one that has them
        assert output(["-c", LAUNCH, str(moved)], tmp_path / "cache") == f"{[(name, True) for name in names]}\n"
    assert len([*(tmp_path / "cache").iterdir()]) == 9
    build_package(NEAR, moved / "kernels_ahead", tilings=TILINGS[:1])
    assert not (moved / "kernels_ahead" / "kernels").exists()


def test_kernels_over_caches_are_compiled_ahead_where_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "kernels_ahead"
    words = ["build", str(NEAR), "-o", str(folder), "--tiling", "half128", "--aot", "sm_90", "--head-dim", "64"]
    output(["-m", "sparsedsl", *words, "--calls", "cached", "--page-size", "16"], tmp_path / "unused")
    found = output(["-c", LAUNCH_CACHED, str(tmp_path)], tmp_path / "cache")
    assert found == "['chunk_kernel', 'combine_kernel', 'decode_kernel'] True\n"


def test_kernels_for_hopper_alone_are_no_package(tmp_path: Path) -> None:
    with pytest.raises(errors.WrongValue) as caught:
        build_package(NEAR, tmp_path / "kernels", backend="hopper")
    lines = str(caught.value).splitlines()
    assert (lines[0], len(lines)) == ("WrongValue: a package has kernels for every GPU", 5)
    assert not (tmp_path / "kernels").exists()
    build_package(NEAR, tmp_path / "kernels", tilings=TILINGS[:1], backend="triton")
    texts = {name: text.decode() for name, text in files(tmp_path / "kernels").items()}
    assert "FOLDER/ --tiling half128 --backend triton" in texts["__init__.py"]
    assert "hopper" not in texts["pattern_0_half128.py"]


def test_small_tilings_fit_99_kb(tmp_path: Path) -> None:
    lines = [line.split() for line in output(["-c", SHARED], tmp_path).splitlines()]
    assert [name for name, _ in lines] == 2 * ["forward_kernel", "rows_kernel", "dq_kernel", "dkdv_kernel"]
    assert max(int(size) for _, size in lines) <= 99 * 1024
