"""Backward with and without a split of its longest columns, those of keys that all later queries read.

    python -m benchmarks.columns                   # on one GPU, in about a minute
    python -m benchmarks.columns --tokens 8192 --heads 1

For each pattern and number of heads the same backward call, with as many shares as the module chooses and with none:
the results are compared, dk and dv of the split call must repeat to the bit, then both are timed in turn. The table
has medians in ms for the kernels that run by default, and for the plain ones. Kernels are compiled side by side first.

Exit status: 0; 1 if results were wrong; 2 if there is no GPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from types import ModuleType

import torch
import triton
from torch import Tensor

import sparsedsl as sd
from benchmarks.oracle import relative_distance
from benchmarks.timing import samples
from sparsedsl.codegen.ahead import replaced
from sparsedsl.codegen.build import load
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.hopper_choice import Backend
from sparsedsl.codegen.tiling import tilings_here
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.power import power_attention

PATTERNS: dict[str, Pattern] = {
    "power 128": power_attention(block=128, window=4),
    "power 256": power_attention(),
    "sliding 1024 and sink 64": sd.sliding(1024) | sd.sink(64) & sd.causal(),
}
# The window with a sink has masks that the kernel for Hopper is not used with by default.
CASES: tuple[tuple[str, Backend], ...] = (
    *((name, "auto") for name in PATTERNS),
    ("power 128", "triton"),
    ("power 256", "triton"),
)
LIMIT_S = 120
HEADS, TOKENS, HEAD_DIM, ROUNDS, AGAIN = (1, 2, 4, 16), 131072, 128, 6, 3
# dk and dv of a split column are summed in another order; dq on Hopper has none.
FARTHEST = 2e-3

Results = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Inputs:
    """q, k, v, an output and what backward is given with it."""

    q: Tensor
    k: Tensor
    v: Tensor
    d_out: Tensor
    out: Tensor
    lse: Tensor

    def backward(self, module: ModuleType) -> Results:
        """dq, dk and dv."""
        given = (self.d_out, torch.zeros_like(self.lse), self.q, self.k, self.v, self.out, self.lse)
        found: Results = module.launch_backward(*given, HEAD_DIM**-0.5, 0)
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status."""
    options = _options(arguments)
    if not torch.cuda.is_available():
        print("There is no GPU.", file=sys.stderr)
        return 2
    if options.warm is not None:
        warm(*CASES[options.warm])
        return 0
    with ThreadPoolExecutor(len(CASES)) as pool:  # what fails here fails again below
        list(pool.map(in_a_process, range(len(CASES))))
    print("| pattern | heads | kernels | shares | not split, ms | split, ms | times |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    wrong = 0
    for name, backend in CASES:
        module = module_of(name, backend)
        for heads in options.heads:
            line, complaint = row(module, inputs_of(module, heads, options.tokens))
            print(f"| {name} | {heads} | {backend} | {line} |", flush=True)
            if complaint:
                wrong += 1
                print(f"WRONG: {name}, {heads} heads, {backend}: {complaint}", file=sys.stderr)
    print(f"\n{options.tokens} tokens, bf16, head dim {HEAD_DIM}; {torch.cuda.get_device_name()}; ", end="")
    print(f"torch {torch.__version__}, triton {triton.__version__}; `python -m benchmarks.columns`")
    return int(wrong > 0)


def module_of(name: str, backend: Backend) -> ModuleType:
    """The module of a case."""
    return load(emit(PATTERNS[name], tilings_here()[0], backend))


def warm(name: str, backend: Backend) -> None:
    """Compile the kernels of a case, with and without a split."""
    module = module_of(name, backend)
    inputs = inputs_of(module, 1, 4096)
    for shares in (1, 2):
        called(module, shares, inputs)
    torch.cuda.synchronize()


def in_a_process(number: int) -> None:
    """Compile a case in a process of its own, beside the others."""
    command = [sys.executable, "-m", "benchmarks.columns", "--warm", str(number)]
    subprocess.run(command, timeout=LIMIT_S, check=False)


def inputs_of(module: ModuleType, heads: int, tokens: int) -> Inputs:
    """Random inputs and the output of the module's own forward pass."""
    made = torch.Generator("cuda").manual_seed(heads)
    shape = (1, heads, tokens, HEAD_DIM)
    q, k, v, d_out = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, generator=made) for _ in range(4))
    return Inputs(q, k, v, d_out, *module.launch_forward(q, k, v, HEAD_DIM**-0.5, 0))


def row(module: ModuleType, inputs: Inputs) -> tuple[str, str]:
    """The cells of one shape, and what was wrong with it, if anything."""
    with shares_of(module, None) as asked:
        found = inputs.backward(module)
        repeats = [inputs.backward(module) for _ in range(AGAIN)]
    shares = max(asked)
    with shares_of(module, 1):
        want = inputs.backward(module)
    far = max(relative_distance(ours, theirs) for ours, theirs in zip(found, want, strict=True))
    complaint = "" if far <= FARTHEST else f"{far:.1e} away from the call that is not split"
    if not all(torch.equal(a, b) for again in repeats for a, b in zip(found[1:], again[1:], strict=True)):
        complaint = "dk or dv has other bits at another launch"
    calls: dict[str, Callable[[], object]] = {
        "not split": partial(called, module, 1, inputs),
        "split": partial(called, module, None, inputs),
    }
    times = {name: median(ms) for name, ms in samples(calls, rounds=ROUNDS, cuda=True).items()}
    ratio = times["not split"] / times["split"]
    return f"{shares} | {times['not split']:.3f} | {times['split']:.3f} | {ratio:.2f}", complaint


def called(module: ModuleType, shares: int | None, inputs: Inputs) -> None:
    """One backward call, split into so many shares, or into as many as the module chooses."""
    with shares_of(module, shares):
        inputs.backward(module)


@contextmanager
def shares_of(module: ModuleType, shares: int | None) -> Iterator[list[int]]:
    """The module splits long columns so; None: as it chooses. What it was told, each time that it asked."""
    usual = module.column_shares
    asked: list[int] = []

    def told(*given: float) -> int:
        asked.append(usual(*given) if shares is None else shares)
        return asked[-1]

    with replaced(module, "column_shares", told):
        yield asked


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.columns")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--heads", type=int, nargs="+", default=HEADS)
    parser.add_argument("--warm", type=int, choices=range(len(CASES)), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
