"""On the GPU: a package compiled ahead runs alone and compiles nothing; the decoder example trains with one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.codegen.test_package import ROOT, output

pytestmark = pytest.mark.gpu

PATTERN = "sliding(200) | sink(4) & causal()"

# In a process where sparsedsl can't be imported. Forward, backward, packed documents, and a token over a cache.
ALONE = """
import sys
sys.modules["sparsedsl"] = None
sys.path.insert(0, sys.argv[1])
import torch
from triton import knobs
import kernels_ahead as kernels
hits = []
knobs.compilation.listener = lambda *, cache_hit, metadata, **_: hits.append((metadata["name"], cache_hit))
torch.manual_seed(0)
half = {"device": "cuda", "dtype": torch.bfloat16}
q, k, v = (torch.randn(1, heads, 1500, 128, **half).requires_grad_() for heads in (4, 2, 2))
distance = torch.arange(1500, device="cuda")[:, None] - torch.arange(1500, device="cuda")
mask = (distance >= 0) & ((distance < 200) | (torch.arange(1500, device="cuda") < 4))
def dense(q, k, v):
    k, v = (each.repeat_interleave(2, 1) for each in (k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[-q.shape[2] :])
def near(got, want):
    return bool((got.float() - want.float()).norm() < 0.02 * want.float().norm())
right = []
for attend in (kernels.attention, lambda *given: kernels.attention(*given, cu_seqlens=bounds)):
    bounds = torch.tensor([0, 1500], dtype=torch.int32, device="cuda")
    out, want = attend(q, k, v), dense(q, k, v)
    right += [near(out, want)]
    right += map(near, torch.autograd.grad(out.sum(), (q, k, v)), torch.autograd.grad(want.sum(), (q, k, v)))
with torch.no_grad():
    held = torch.tensor([1500], dtype=torch.int32, device="cuda")
    right += [near(kernels.attention(q[:, :, -1:], k, v, cache_seqlens=held), dense(q[:, :, -1:], k, v))]
assert not [name for name in sys.modules if name.startswith("sparsedsl.")], "imports sparsedsl"
print(all(right), len(right), sorted({name for name, hit in hits if hit}), sorted({n for n, hit in hits if not hit}))
"""


def test_a_package_compiled_ahead_runs_alone_and_compiles_nothing(tmp_path: Path) -> None:
    major, minor = torch.cuda.get_device_capability()
    words = ["build", PATTERN, "-o", str(tmp_path / "kernels_ahead"), "--aot", f"sm_{major}{minor}"]
    words += ["--head-dim", "128", "--dtype", "bf16", "--calls", "ordinary,packed,cached"]
    output(["-m", "sparsedsl", *words], tmp_path / "unused")
    right, number, found, compiled = re.fullmatch(
        r"(\w+) (\d+) (\[.*?\]) (\[.*?\])\n", output(["-c", ALONE, str(tmp_path)], tmp_path / "cache")
    ).groups()  # type: ignore[union-attr]
    assert (right, number, compiled) == ("True", "9", "[]")
    kernels = {"forward_kernel", "dq_kernel", "dkdv_kernel", "rows_kernel", "decode_kernel"}
    if (major, minor) == (9, 0):
        kernels |= {"hopper_kernel"}
    assert kernels <= set(re.findall(r"\w+", found))


def test_the_decoder_example(tmp_path: Path) -> None:
    done = output(
        [str(ROOT / "examples" / "train_decoder.py"), "--steps", "60", "--out", str(tmp_path / "out")],
        tmp_path / "cache",
    )
    assert "letters, cuda" in done
    assert "generation with the cache equals recomputation: " in done
    first, last = map(float, *re.findall(r"loss (\S+) -> (\S+);", done))
    assert last < first - 0.5
