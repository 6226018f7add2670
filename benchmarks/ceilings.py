"""What a GPU can do at most, and what our kernels do on it: the figures behind `sparsedsl explain`.

    python -m benchmarks.ceilings --out benchmarks/results/ceilings_h200.json

Run from the root of a checkout, on a CUDA device. The matrix rate is that of one square product of random numbers
through torch, float32 without tf32; the copy rate counts bytes read and bytes written. Our kernels run windows of
several sizes at the head dims that `benchmarks.attention` leaves out, forward and backward.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch
import triton

import sparsedsl as sd
from benchmarks.timing import samples

SIDE = 8192  # of the matrices
COPIED = 1 << 32  # bytes of the tensor that is copied
ROUNDS = 10
TOKENS, HEADS = 32768, 16
# Two windows for each height of the forward kernel's tiles: 64 and 128 queries at head dim 64, one height at 256.
WINDOWS = {64: (512, 1024, 4096, 8192), 256: (1024, 4096)}


def main() -> int:
    """Measure, write the record; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ceilings")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="write every number as JSON")
    out = parser.parse_args().out
    if not torch.cuda.is_available():
        print("The ceilings need a CUDA device and find none.", file=sys.stderr)
        return 2
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m benchmarks.ceilings --out {out}",
        "device": torch.cuda.get_device_name(),
        "versions": {"torch": torch.__version__, "triton": triton.__version__},
        "matrix": [matrix(dtype) for dtype in (torch.bfloat16, torch.float16, torch.float32)],
        "copy": copy(),
        "kernels": [
            row for head_dim, windows in WINDOWS.items() for window in windows for row in rows(head_dim, window)
        ],
    }
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=1))
    return 0


def milliseconds(call: Callable[[], object]) -> float:
    """The median time of a call."""
    return median(samples({"call": call}, rounds=ROUNDS, cuda=True)["call"])


def matrix(dtype: torch.dtype) -> dict[str, object]:
    """One square product."""
    torch.backends.cuda.matmul.allow_tf32 = False
    a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=dtype) for _ in range(2))
    ms = milliseconds(lambda: a @ b)
    return {"dtype": _name(dtype), "side": SIDE, "ms": round(ms, 4), "tflops": round(2 * SIDE**3 / ms / 1e9, 1)}


def copy() -> dict[str, object]:
    """A large tensor onto another one."""
    source = torch.randn(COPIED // 4, device="cuda")
    target = torch.empty_like(source)
    ms = milliseconds(lambda: target.copy_(source))
    return {"bytes": COPIED, "ms": round(ms, 4), "terabytes_per_s": round(2 * COPIED / ms / 1e9, 3)}


def rows(head_dim: int, window: int) -> list[dict[str, object]]:
    """Forward and backward of a window in bfloat16."""
    attention = sd.compile(sd.sliding(window), backend="triton")  # explain predicts the plain kernels from it
    shape = (1, HEADS, TOKENS, head_dim)
    q, k, v, gradient = (torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(4))
    with torch.no_grad():
        forward = milliseconds(lambda: attention(q, k, v))
    output = attention(q, k, v)
    backward = milliseconds(lambda: torch.autograd.grad(output, (q, k, v), gradient, retain_graph=True))
    done = {"head_dim": head_dim, "heads": HEADS, "tokens": TOKENS, "window": window}
    return [
        {**done, "direction": name, "ms": round(ms, 4)} for name, ms in (("forward", forward), ("backward", backward))
    ]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    sys.exit(main())
