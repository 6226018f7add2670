"""One new token over a long cache: our kernels beside dense attention and FlexAttention, in one run.

    python -m benchmarks.decode --out benchmarks/results/decode_h200.json
    python -m benchmarks.decode --device cpu        # a rehearsal of the script: tiny, no graphs, no FlexAttention

Run from the root of a checkout, which need not be installed. 131072 cached tokens, 28 query heads on 4 key heads, head
dim 128, bfloat16. Batch 1 goes through 32 caches in turn, as a model goes through its layers: the second-level cache of
the device must not keep the keys from one call to the next. Each implementation is compared with float64 attention
over the live keys before it is timed; one that is wrong, or that fails, is not timed. "Bytes" are those of the keys and
values that the token attends to, "fraction" their rate as a share of a measured copy, which reads and writes.

Exit status: 0; 1 if something of ours was wrong; 2 if there is no CUDA device.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import pad, scaled_dot_product_attention

import sparsedsl as sd
from benchmarks.ceilings import copy as copy_rate
from benchmarks.record import machine
from benchmarks.timing import samples
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.power import power_attention

OURS, PAGED, DENSE, GROUPED, FLEX = "sparsedsl", "sparsedsl, pages", "dense", "dense, grouped", "FlexAttention"
FARTHEST = 2e-2  # from float64 attention, relative to its largest value
Attend = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """The shapes of a run."""

    device: str
    tokens: int
    sequences: int
    heads: int
    key_heads: int
    head_dim: int
    page_size: int
    dtype: torch.dtype
    rounds: int


CUDA = Settings("cuda", 131072, 32, 28, 4, 128, 64, torch.bfloat16, 10)
CPU = Settings("cpu", 2048, 3, 8, 2, 32, 64, torch.float32, 2)


@dataclass(frozen=True, slots=True)
class Caches:
    """A query token, keys and values of each sequence, contiguous and the same in shuffled pages."""

    q: Tensor
    k: Tensor
    v: Tensor
    k_pages: Tensor
    v_pages: Tensor
    page_table: Tensor

    @staticmethod
    def random(settings: Settings) -> Caches:
        """Standard normal numbers. Two copies of all keys and values: 17 GB at the settings of a GPU."""
        torch.manual_seed(0)
        batch, size = settings.sequences, settings.page_size
        columns = settings.tokens // size
        options: dict[str, Any] = {"device": settings.device, "dtype": settings.dtype}
        q = torch.randn(batch, settings.heads, 1, settings.head_dim, **options)
        shape = (batch, settings.key_heads, settings.tokens, settings.head_dim)
        order = torch.randperm(batch * columns, device=settings.device)
        found, pages = [], []
        for _ in range(2):
            each = torch.randn(shape, **options)
            parts = each.unflatten(2, (columns, size)).transpose(1, 2).flatten(0, 1)
            store = torch.empty_like(parts)
            store[order] = parts
            found.append(each)
            pages.append(store)
        (k, v), (k_pages, v_pages) = found, pages
        return Caches(q, k, v, k_pages, v_pages, order.reshape(batch, columns).to(torch.int32))


def mask_of(pattern: Pattern, tokens: int) -> Callable[..., Tensor]:
    """The pattern's last query as a mask of FlexAttention, written by hand."""
    last = tokens - 1
    if pattern == power_attention():

        def power(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            distance = last // 256 - k // 256
            return (distance < 5) | (distance & (distance - 1) == 0) | (k < 256)

        return power
    return lambda b, h, q, k: last - k < 4096


def implementations(pattern: Pattern, caches: Caches, settings: Settings) -> dict[str, Callable[[slice], Tensor]]:
    """Calls that take a range of sequences."""
    attention: Attend = sd.compile(pattern)
    seqlens = torch.full((settings.sequences,), settings.tokens, dtype=torch.int32, device=settings.device)

    def contiguous(own: slice) -> Tensor:
        out: Tensor = attention(caches.q[own], caches.k[own], caches.v[own], cache_seqlens=seqlens[own])
        return out

    def paged(own: slice) -> Tensor:
        tables = {"cache_seqlens": seqlens[own], "page_table": caches.page_table[own]}
        out: Tensor = attention(caches.q[own], caches.k_pages, caches.v_pages, **tables)
        return out

    def dense(own: slice) -> Tensor:
        return scaled_dot_product_attention(caches.q[own], caches.k[own], caches.v[own], enable_gqa=True)

    def grouped(own: slice) -> Tensor:
        # One token sees every key, so the heads that share a key head may stand as queries of one head.
        q = caches.q[own].unflatten(1, (settings.key_heads, -1)).squeeze(3)
        return scaled_dot_product_attention(q, caches.k[own], caches.v[own]).flatten(1, 2).unsqueeze(2)

    calls: dict[str, Callable[[slice], Tensor]] = {OURS: contiguous, PAGED: paged, DENSE: dense, GROUPED: grouped}
    if settings.device == "cuda":
        block_mask = create_block_mask(
            mask_of(pattern, settings.tokens), None, None, 1, settings.tokens, device="cuda", _compile=True
        )
        call: Attend = partial(torch.compile(flex_attention, dynamic=False), block_mask=block_mask, enable_gqa=True)

        # Its kernel for decoding takes 1, 2, 4, 8, ... query heads to a key head, and leaves 7 to a slower one: it gets
        # 8, the last of them zero, made before the clock starts. They are rows of its tile in any case.
        group = settings.heads // settings.key_heads
        room = triton.next_power_of_2(group) - group
        padded = pad(caches.q.unflatten(1, (settings.key_heads, group)), (0, 0, 0, 0, 0, room)).flatten(1, 2)

        def flex(own: slice) -> Tensor:
            out: Tensor = call(padded[own], caches.k[own], caches.v[own]).unflatten(1, (settings.key_heads, -1))
            return out[:, :, :group].flatten(1, 2)

        calls[FLEX] = flex
    return calls


def expected(caches: Caches, live: Tensor, own: slice) -> Tensor:
    """Attention over the live keys in float64."""
    q, k, v = caches.q[own].double(), caches.k[own][:, :, live].double(), caches.v[own][:, :, live].double()
    scores = q.unflatten(1, (k.shape[1], -1)).squeeze(3) @ k.mT * q.shape[3] ** -0.5
    return (torch.softmax(scores, -1) @ v).flatten(1, 2).unsqueeze(2)


def distance(got: Tensor, want: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite where a number is missing."""
    error = ((got.double() - want).abs().amax() / want.abs().amax()).item()
    return error if error == error else float("inf")


def graphed(call: Callable[[], object]) -> Callable[[], object]:
    """The call as a captured CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def measure(name: str, pattern: Pattern, caches: Caches, settings: Settings, copied: float) -> list[dict[str, object]]:
    """The rows of one pattern: every batch size and implementation."""
    live = torch.from_numpy(pattern.dense(1, settings.tokens)[0].nonzero()[0]).to(settings.device)
    everything = torch.arange(settings.tokens, device=settings.device)
    rows: list[dict[str, object]] = []
    calls = implementations(pattern, caches, settings)
    first = slice(0, 1)
    right: dict[str, float] = {}
    for peer, call in calls.items():
        try:
            read = everything if peer in (DENSE, GROUPED) else live
            right[peer] = distance(call(first), expected(caches, read, first))
        except Exception as failure:  # a peer that this version cannot run is left out, and said so
            say(f"{name}: {peer} fails: {str(failure).splitlines()[0]}")
    for peer, error in right.items():
        if error > FARTHEST:
            say(f"WRONG: {name}: {peer} is {error:.1e} from float64 attention")
    right = {peer: error for peer, error in right.items() if error <= FARTHEST}
    for batch in (1, settings.sequences):
        turns = [slice(number, number + batch) for number in range(0, settings.sequences, batch)]
        bound: dict[str, Callable[[], object]] = {peer: partial(_each, calls[peer], turns) for peer in right}
        plain = _timed(bound, settings)
        replays: dict[str, Callable[[], object]] = {}
        for peer, each in bound.items() if settings.device == "cuda" else ():
            try:
                replays[peer] = graphed(each)
            except Exception as failure:  # as above
                say(f"{name}: {peer} cannot be captured: {str(failure).splitlines()[0]}")
        graphs = _timed(replays, settings)
        for peer in bound:
            keys = settings.tokens if peer in (DENSE, GROUPED) else len(live)
            size = batch * keys * 2 * settings.key_heads * settings.head_dim * settings.dtype.itemsize
            ms = min(graphs.get(peer, float("inf")), plain[peer]) / len(turns)
            rate = size / ms / 1e6
            rows.append(
                {
                    "pattern": name,
                    "batch": batch,
                    "peer": peer,
                    "ms": round(plain[peer] / len(turns), 4),
                    "graph_ms": round(graphs[peer] / len(turns), 4) if peer in graphs else None,
                    "keys": keys,
                    "bytes": size,
                    "gb_per_s": round(rate, 1),
                    "fraction_of_copy": round(rate / copied, 3) if copied else None,
                    "error": right[peer],
                }
            )
    return rows


def _each(call: Callable[[slice], Tensor], turns: Sequence[slice]) -> None:
    for own in turns:
        call(own)


def _timed(calls: dict[str, Callable[[], object]], settings: Settings) -> dict[str, float]:
    """Medians in milliseconds."""
    if not calls:
        return {}
    found = samples(calls, rounds=settings.rounds, cuda=settings.device == "cuda")
    return {peer: median(times) for peer, times in found.items()}


def table(record: dict[str, Any]) -> str:
    """The rows as Markdown: times of one call, and how many times faster ours is, plain and as graphs."""
    ours = {(row["pattern"], row["batch"]): row for row in record["rows"] if row["peer"] == OURS}
    head = ("pattern", "batch", "by", "ms", "graph ms", "keys", "MB", "GB/s", "of copy", "ours faster", "keys / ours")
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * 3}{' ---: |' * 8}"]
    for row in record["rows"]:
        own = ours.get((row["pattern"], row["batch"]))
        faster, keys = "–", "–"
        if own:
            both = row["graph_ms"] and own["graph_ms"]
            faster = f"{row['graph_ms'] / own['graph_ms'] if both else row['ms'] / own['ms']:.2f}"
            keys = f"{row['keys'] / own['keys']:.1f}"
        cells = (row["pattern"], row["batch"], row["peer"], row["ms"], row["graph_ms"] or "–", row["keys"])
        rates = (f"{row['bytes'] / 1e6:.1f}", row["gb_per_s"], row["fraction_of_copy"] or "–", faster, keys)
        lines.append(f"| {' | '.join(map(str, (*cells, *rates)))} |")
    copied = f"copy {record['copy_gb_per_s']:.0f} GB/s; " if record["copy_gb_per_s"] else ""
    return "\n".join(
        [*lines, "", f"{record['machine']['device']}; {copied}{record['date'][:10]}; `{record['command']}`."]
    )


def say(text: str) -> None:
    """Progress and complaints go to the error stream."""
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the record, print the table; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every number as JSON")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args(arguments)
    settings = CUDA if options.device == "cuda" else CPU
    if options.device == "cuda" and not torch.cuda.is_available():
        say("The benchmark needs a CUDA device and finds none. --device cpu rehearses the script without one.")
        return 2
    copied = 1e3 * float(copy_rate()["terabytes_per_s"]) if options.device == "cuda" else 0.0  # type: ignore[arg-type]
    record: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks.decode", *(sys.argv[1:] if arguments is None else arguments)]),
        "machine": machine(),
        "versions": {"sparsedsl": sd.__version__, "torch": torch.__version__, "triton": triton.__version__},
        "settings": {name: str(getattr(settings, name)) for name in Settings.__dataclass_fields__},
        "copy_gb_per_s": copied,
        "rows": [],
    }
    with torch.no_grad():
        caches = Caches.random(settings)
        for name, pattern in (("power_attention()", power_attention()), ("sliding(4096)", sd.sliding(4096))):
            record["rows"] += measure(name, pattern, caches, settings, copied)
            if options.out:
                options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(table(record))
    found = {(row["pattern"], row["batch"], row["peer"]) for row in record["rows"]}
    return 0 if len([each for each in found if each[2] in (OURS, PAGED)]) == 8 else 1


if __name__ == "__main__":
    sys.exit(main())
