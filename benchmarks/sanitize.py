"""Every kind of kernel once, on small and odd shapes: a program for compute-sanitizer to watch.

    python -m benchmarks.sanitize                                       # first: Triton compiles, outside the tool
    compute-sanitizer --tool memcheck --error-exitcode 3 python -m benchmarks.sanitize
    compute-sanitizer --tool racecheck --error-exitcode 3 python -m benchmarks.sanitize
    compute-sanitizer --tool initcheck --error-exitcode 3 python -m benchmarks.sanitize
    TRITON_INTERPRET=1 python -m benchmarks.sanitize --device cpu       # a rehearsal in Triton's interpreter

compute-sanitizer comes with the CUDA toolkit, and with the wheel nvidia-cuda-sanitizer-api as
nvidia/cu13/bin/compute-sanitizer below site-packages. Set PYTORCH_NO_CUDA_MEMORY_CACHING=1, so that it sees each tensor
as an allocation of its own. Forward, rows, dq, and dk and dv are launched for patterns in one part, in residue order,
in parts, by table, by lists and by head, and the results compared with dense attention in float64. No run on a GPU is
on record yet.

Exit status: 0; 1 if a result is wrong; 2 if there is no CUDA device; 3 as given above, if the tool found something.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

import sparsedsl as sd
from sparsedsl.codegen.plan import plan
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.longnet import longnet

HEADS, KEY_HEADS, HEAD_DIM = 4, 2, 64
FARTHEST = {torch.bfloat16: 2e-2, torch.float32: 1e-4}
# Queries and keys: odd, more keys than queries, more queries than keys, a single query.
SHAPES = ((333, 333), (77, 301), (130, 67), (1, 129))


@dataclass(frozen=True, slots=True)
class Case:
    """A pattern, and in how many parts and orders it must be planned to be the case that its name says."""

    pattern: Pattern | PerHead
    parts: int = 1
    step: int = 1


CASES = {
    "one part": Case(sd.sliding(100) | sd.sink(3) & sd.causal()),
    "both ways": Case(sd.sliding(40, ahead=70)),
    "rows without keys": Case(sd.sliding(90) & sd.where("q % 3 == 1")),
    "residue order": Case(sd.dilated(30, 8), step=8),
    "parts": Case(sd.sliding(256) | sd.dilated(256, 16), parts=2),
    "classes of heads": Case(longnet(segments=[256, 4096], dilations=[1, 16], heads=HEADS), parts=2),
    "table": Case((sd.random_blocks(64, 1, seed=0) | sd.sliding(70)) & sd.causal()),
    "lists": Case(sd.sliding(3) | sd.offsets(n * n for n in range(2, 15))),
    "by head": Case(sd.per_head([sd.sliding(90), sd.sliding(90), sd.power(), sd.sink(64) & sd.causal()])),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sanitize")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--case", action="append", choices=CASES, help="only this case; may be repeated")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device. TRITON_INTERPRET=1 and --device cpu rehearse the script.", file=sys.stderr)
        return 2
    if options.device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        print("--device cpu runs kernels in Triton's interpreter: set TRITON_INTERPRET=1.", file=sys.stderr)
        return 2
    wrong = 0
    for name in options.case or CASES:
        start = perf_counter()
        complaint = checked(CASES[name], options.device)
        wrong += bool(complaint)
        print(f"{name}: {complaint or 'ok'}, {perf_counter() - start:.1f} s", flush=True)
    return 1 if wrong else 0


def checked(case: Case, device: str) -> str:
    """What is wrong with a case, or nothing: the kernels' results beside dense attention in float64 on the CPU."""
    parts = plan(case.pattern).parts
    if len(parts) != case.parts or not any(part.step == case.step for part in parts):
        return f"planned as {[part.step for part in parts]}"
    attention = sd.compile(case.pattern)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    for q_len, k_len in SHAPES:
        torch.manual_seed(q_len)
        shapes = ((HEADS, q_len), (KEY_HEADS, k_len), (KEY_HEADS, k_len), (HEADS, q_len))
        *inputs, d_out = (torch.randn(1, *shape, HEAD_DIM).to(dtype) for shape in shapes)
        leaves = [each.to(device).requires_grad_() for each in inputs]
        out = attention(*leaves)
        assert isinstance(out, Tensor)
        got = [out, *torch.autograd.grad(out, leaves, d_out.to(device))]
        exact_leaves = [each.double().requires_grad_() for each in inputs]
        want_out = dense(case.pattern, exact_leaves)
        want = [want_out, *torch.autograd.grad(want_out, exact_leaves, d_out.double())]
        for name, ours, exact in zip(("output", "dq", "dk", "dv"), got, want, strict=True):
            distance = float((ours.double().cpu() - exact).norm() / exact.norm().clamp_min(1e-6))
            if not distance <= FARTHEST[dtype]:
                return f"{name} at {q_len} x {k_len} is {distance:.1e} away"
    return ""


def dense(pattern: Pattern | PerHead, tensors: Sequence[Tensor]) -> Tensor:
    """Dense attention over the pattern's boolean matrix; a row without a key gives 0."""
    q, k, v = tensors
    heads = pattern.heads if isinstance(pattern, PerHead) else (pattern,) * HEADS
    found = {each: torch.from_numpy(each.dense(q.shape[2], k.shape[2])) for each in dict.fromkeys(heads)}
    mask = torch.stack([found[each] for each in heads])
    k, v = (each.repeat_interleave(HEADS // KEY_HEADS, 1) for each in (k, v))
    scores = (q @ k.mT * HEAD_DIM**-0.5).masked_fill(~mask, float("-inf"))
    return torch.softmax(scores, -1).masked_fill(~mask, 0.0) @ v


if __name__ == "__main__":
    sys.exit(main())
