"""The CPU road beside dense causal attention and compiled FlexAttention with the same mask, forward.

    python -m benchmarks.cpu --out benchmarks/results/cpu.json

A window of 1024 keys, 16384 tokens, 8 heads, head dim 64, float32. The results are compared before anything is timed.
Memory is the peak of a call of ours beyond what the process held before it, its result included, at three lengths.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

import sparsedsl as sd
from benchmarks.cases import window_mask

WINDOW, LENGTH, HEADS, HEAD_DIM, ROUNDS = 1024, 16384, 8, 64, 7
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def inputs(length: int) -> list[Tensor]:
    """Random q, k, v."""
    torch.manual_seed(0)
    return [torch.randn(1, HEADS, length, HEAD_DIM) for _ in range(3)]


def ours() -> Attention:
    """The CPU road."""
    return sd.compile(sd.sliding(WINDOW))


def flex() -> Attention:
    """FlexAttention, compiled, with a block mask."""
    block_mask = create_block_mask(window_mask(WINDOW), None, None, LENGTH, LENGTH, device="cpu")
    compiled = torch.compile(flex_attention, dynamic=False)

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = compiled(q, k, v, block_mask=block_mask)
        assert isinstance(out, Tensor)
        return out

    return attention


def dense() -> Attention:
    """Dense causal attention."""
    return lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True)


IMPLEMENTATIONS: dict[str, Callable[[], Attention]] = {"sparsedsl": ours, "FlexAttention": flex, "dense causal": dense}


def peak_mib(name: str, length: int) -> float:
    """What a call adds to the process's peak memory, in a fresh process; a short call goes first."""
    command = [sys.executable, "-m", "benchmarks.cpu", "--peak", name, "--length", str(length)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def measured_peak(name: str, length: int) -> float:
    """The same in this process."""
    tensors = inputs(length)
    attention = IMPLEMENTATIONS[name]()
    if name != "FlexAttention":  # its mask is for one length
        attention(*(each[:, :, :256] for each in tensors))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts from what is held now
    before = high_water_mib()
    with torch.no_grad():
        attention(*tensors)
    return high_water_mib() - before


def high_water_mib() -> float:
    """The peak memory that Linux noted for this process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def timed() -> dict[str, list[float]]:
    """Milliseconds of each, in turn."""
    tensors = inputs(LENGTH)
    calls = {name: make() for name, make in IMPLEMENTATIONS.items()}
    results = {name: call(*tensors) for name, call in calls.items()}
    distance = (results["sparsedsl"] - results["FlexAttention"]).abs().max().item()
    assert distance < 1e-4, f"ours is {distance:.1e} from FlexAttention's result"
    found: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(ROUNDS):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = perf_counter()
            calls[name](*tensors)
            found[name].append((perf_counter() - start) * 1e3)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every number as JSON")
    parser.add_argument("--peak", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--length", type=int, default=LENGTH, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.peak:
        print(measured_peak(options.peak, options.length))
        return 0
    with torch.no_grad():
        samples = timed()
    medians = {name: median(each) for name, each in samples.items()}
    peaks = {
        f"sparsedsl, {length} tokens": peak_mib("sparsedsl", length) for length in (LENGTH, 2 * LENGTH, 4 * LENGTH)
    }
    result = {
        "command": " ".join(["python -m benchmarks.cpu", *words]),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"torch": torch.__version__, "python": platform.python_version(), "sparsedsl": sd.__version__},
        "case": f"sliding({WINDOW}), {LENGTH} tokens, {HEADS} heads, head dim {HEAD_DIM}, float32, forward",
        "ms": medians,
        "samples_ms": samples,
        "times_faster": {name: medians[name] / medians["sparsedsl"] for name in medians},
        "peak_mib_of_a_call": peaks,
    }
    print(json.dumps({key: value for key, value in result.items() if key != "samples_ms"}, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
