"""More dilations, LongNet, head dims, grouped heads and fp16 beside FlexAttention; dense causal beside cuDNN.

    python -m benchmarks.shapes --out benchmarks/results/shapes_h200.json

65536 tokens (dense: 32768), batch 1, 16 query heads. Results are compared with the peer's before anything is timed;
all of them are compared with float64 by `pytest -m gpu`. Milliseconds are medians of CUDA events.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import triton
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import sparsedsl as sd
from benchmarks import peers
from benchmarks.cases import DENSE, MaskMod, causal_mask, dilated_mask, longnet_mask, power_mask, window_mask
from benchmarks.oracle import Inputs, relative_distance
from benchmarks.peers import Peer
from benchmarks.record import machine
from benchmarks.timing import Call, samples
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.longnet import longnet
from sparsedsl.patterns.power import power_attention

LENGTH, DENSE_LENGTH, HEADS, ROUNDS, FARTHEST = 65536, 32768, 16, 7, 2e-2
WARM_SECONDS = 100
HEAD = "| case | tokens | peer | forward ms: ours / peer | times | backward ms: ours / peer | times |\n|" + " --- |" * 7
LEVELS = ((2048, 4096, 8192, 16384, 32768), (1, 2, 4, 8, 16))


@dataclass(frozen=True, slots=True)
class Shape:
    """A pattern and its mask, with what is unusual about the inputs."""

    name: str
    pattern: Pattern | PerHead
    mask: MaskMod
    head_dim: int = 128
    key_heads: int = HEADS
    dtype: torch.dtype = torch.bfloat16

    @property
    def dense(self) -> bool:
        """Whether the peer is cuDNN's dense causal attention."""
        return self.mask is causal_mask

    def inputs(self, length: int) -> Inputs:
        """Random inputs."""
        torch.manual_seed(0)
        heads = (HEADS, self.key_heads, self.key_heads, HEADS)
        return Inputs(*(torch.randn(1, h, length, self.head_dim, device="cuda", dtype=self.dtype) for h in heads))

    def peer(self, length: int) -> Peer:
        """FlexAttention, or cuDNN."""
        if self.dense:
            return peers.dense_causal(peers.CUDNN)
        heads = HEADS if isinstance(self.pattern, PerHead) else None
        make = torch.compile(create_block_mask, dynamic=False)
        block_mask = make(self.mask, None, heads, length, length, device="cuda")
        compiled = torch.compile(flex_attention, dynamic=False)
        call = partial(compiled, block_mask=block_mask, enable_gqa=self.key_heads != HEADS)
        return Peer(peers.FLEX, call)


POWER_128, POWER_256 = power_attention(block=128, window=4), power_attention()
SHAPES = (
    *(Shape(f"dilated 512 x {d}", sd.dilated(512, d), dilated_mask(512, d)) for d in (2, 3, 5, 16)),
    Shape("LongNet, 16 heads", longnet(), longnet_mask(*LEVELS)),
    Shape("sliding 1024, head dim 64", sd.sliding(1024), window_mask(1024), head_dim=64),
    Shape("sliding 1024, head dim 256", sd.sliding(1024), window_mask(1024), head_dim=256),
    Shape("power 128, head dim 64", POWER_128, power_mask(128, 4), head_dim=64),
    Shape("power 256, head dim 256", POWER_256, power_mask(256, 5), head_dim=256),
    Shape("sliding 1024, 4 key heads", sd.sliding(1024), window_mask(1024), key_heads=4),
    Shape("power 256, 4 key heads", POWER_256, power_mask(256, 5), key_heads=4),
    Shape("sliding 4096, fp16", sd.sliding(4096), window_mask(4096), dtype=torch.float16),
    Shape("power 128, fp16", POWER_128, power_mask(128, 4), dtype=torch.float16),
    Shape(DENSE.name, sd.causal(), causal_mask),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One shape's times in ms, and the farthest of output and gradients from the peer's, relative, if compared here."""

    name: str
    tokens: int
    peer: str
    forward_ms: float
    peer_forward_ms: float
    backward_ms: float
    peer_backward_ms: float
    distance: float | None = None

    def __str__(self) -> str:
        cells = (
            self.name,
            str(self.tokens),
            self.peer,
            f"{self.forward_ms:.2f} / {self.peer_forward_ms:.2f}",
            f"{self.peer_forward_ms / self.forward_ms:.2f}",
            f"{self.backward_ms:.2f} / {self.peer_backward_ms:.2f}",
            f"{self.peer_backward_ms / self.backward_ms:.2f}",
        )
        return f"| {' | '.join(cells)} |"


def measured(shape: Shape) -> Row:
    """Compare, then time."""
    length = DENSE_LENGTH if shape.dense else LENGTH
    inputs, ours, peer = shape.inputs(length), Peer(peers.OURS, sd.compile(shape.pattern)), shape.peer(length)
    own, other = ours.results(inputs), peer.results(inputs)
    distance = max(relative_distance(own[name], other[name]) for name in own)
    assert distance < FARTHEST, f"{shape.name}: {distance:.1e} from {peer.name}'s results"
    del own, other
    with torch.no_grad():
        forward = timed({each.name: each.forward(inputs) for each in (ours, peer)})
    backward = timed({each.name: each.backward(inputs) for each in (ours, peer)})
    return Row(shape.name, length, peer.name, forward[0], forward[1], backward[0], backward[1], distance)


def timed(calls: dict[str, Call]) -> list[float]:
    """Medians."""
    found = samples(calls, rounds=ROUNDS, cuda=True)
    return [float(torch.tensor(each).median()) for each in found.values()]


def warm(shape: Shape) -> None:
    """Every kernel once, into the compilers' caches on disk."""
    length = DENSE_LENGTH if shape.dense else LENGTH
    inputs = shape.inputs(length)
    for each in (Peer(peers.OURS, sd.compile(shape.pattern)), shape.peer(length)):
        each.results(inputs)


def warm_caches() -> None:
    """A process for each shape; what is not done in time is compiled when it is measured."""
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.shapes", "--warm"]
    start = perf_counter()
    running = [
        subprocess.Popen([*command, str(number)], env=environment, stderr=subprocess.DEVNULL)
        for number in range(len(SHAPES))
    ]
    for process in running:
        try:
            process.wait(max(1.0, start + WARM_SECONDS - perf_counter()))
        except subprocess.TimeoutExpired:
            process.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shapes")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every number as JSON")
    parser.add_argument("--warm", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    peers.allow_repeated_backward()
    if options.warm is not None:
        warm(SHAPES[options.warm])
        return 0
    warm_caches()
    record: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.shapes", *words]),
        "machine": machine(),
        "versions": {"sparsedsl": sd.__version__, "torch": torch.__version__, "triton": triton.__version__},
        "rows": [],
    }
    print(HEAD)
    for shape in SHAPES:
        torch._dynamo.reset()
        torch.cuda.empty_cache()
        row = measured(shape)
        print(row, flush=True)
        record["rows"].append(asdict(row))
        if options.out:  # after each, so that nothing is lost if the run ends early
            options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
