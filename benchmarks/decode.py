"""One new token over a long cache: our kernels beside dense attention and FlexAttention, in one run.

    python -m benchmarks.decode --out benchmarks/results/decode_h200.json
    python -m benchmarks.decode --table benchmarks/results/decode_h200.json
    python -m benchmarks.decode --device cpu        # a rehearsal of the script: tiny, no graphs, no FlexAttention

Run from the root of a checkout, which need not be installed. 131072 cached tokens, 28 query heads on 4 key heads, head
dim 128, bfloat16. Batch 1 goes through 32 caches in turn, as a model goes through its layers: the second-level cache of
the device must not keep the keys from one call to the next. Each implementation is compared with float64 attention
over the live keys before it is timed; one that is wrong, or that fails, is not timed. "Bytes" are those of the keys and
values that the token attends to, "fraction" their rate as a share of a measured copy, which reads and writes.

Kernels are compiled first, in processes side by side. Ours and dense attention are measured before FlexAttention, the
record is written after every row, and what begins later than --limit seconds after the start is left out: the whole
takes about a minute. In between, our kernel is launched in other ways (splits of the keys, tiles, warps, stages), whose
times stand in the record under "variants".

Exit status: 0; 1 if something of ours was wrong; 2 if there is no CUDA device.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import triton
from torch import Tensor

import sparsedsl as sd
from benchmarks.beforehand import first_line, prepare, within
from benchmarks.ceilings import copy as copy_rate
from benchmarks.decode_peers import (
    CPU,
    CUDA,
    DENSE,
    FLEX,
    GROUPED,
    OURS,
    PAGED,
    PATTERNS,
    Caches,
    Call,
    Settings,
    distance,
    expected,
    flex,
    flex_at_once,
    ours_and_dense,
)
from benchmarks.decode_variants import VARIANTS, call_of, compile_ahead
from benchmarks.record import machine
from benchmarks.timing import captured, samples

FARTHEST = 2e-2  # from float64 attention, relative to its largest value
PREPARE_S, FLEX_S = 45.0, 25.0  # the most that compiling ahead takes, and each of FlexAttention's cases
SHARES = 4  # processes that compile ours
CALLS = 4  # of a large batch in one captured graph, so that the gap between graphs counts little
WANTED_SHARE, WANTED_FRACTION = 0.8, 0.7


class Run:
    """What is measured so far, on disk after every change, and the time that is left."""

    def __init__(self, settings: Settings, out: Path | None, limit_s: float, command: str) -> None:
        self.settings, self.out, self.end = settings, out, perf_counter() + limit_s
        self.start = perf_counter()
        self.record: dict[str, Any] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command,
            "machine": machine(),
            "versions": {"sparsedsl": sd.__version__, "torch": torch.__version__, "triton": triton.__version__},
            "settings": {name: str(getattr(settings, name)) for name in Settings.__dataclass_fields__},
            "copy_gb_per_s": 0.0,
            "rows": [],
            "variants": [],
            "absences": [],
            "complaints": [],
        }

    def note(self, kind: str, entry: object) -> None:
        """Keep an entry, show it and write the record."""
        self.record[kind].append(entry)
        self.say(f"{kind}: {entry}")
        self.write()

    def write(self) -> None:
        """The record so far."""
        if self.out:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")

    def say(self, text: str) -> None:
        """Progress goes to the error stream, with the seconds since the start."""
        print(f"{perf_counter() - self.start:6.1f} s  {text}", file=sys.stderr, flush=True)

    def late(self, what: str) -> bool:
        """Whether the time is up; what is left out for it is named."""
        if perf_counter() < self.end:
            return False
        self.note("absences", f"{what}: the time was up")
        return True


def turns_of(batch: int, settings: Settings) -> list[slice]:
    """The ranges of sequences that one sample goes through."""
    found = [slice(first, first + batch) for first in range(0, settings.sequences, batch)]
    return found if len(found) > 1 else found * CALLS


def timed(call: Call, turns: Sequence[slice], settings: Settings, *, graph: bool) -> float:
    """The median time of one call, in milliseconds."""

    def each() -> None:
        for own in turns:
            call(own)

    sample = captured(each) if graph else each
    return median(samples({"": sample}, rounds=settings.rounds, cuda=settings.cuda)[""]) / len(turns)


def measure(run: Run, name: str, peer: str, call: Call, batch: int, caches: Caches) -> None:
    """One row: check on the first sequence, time plain calls and captured ones."""
    settings = run.settings
    keys = torch.arange(settings.tokens, device=settings.device)
    if peer not in (DENSE, GROUPED):
        keys = torch.from_numpy(PATTERNS[name].dense(1, settings.tokens)[0].nonzero()[0]).to(settings.device)
    first = call(slice(0, batch))[:1]
    error = distance(first, expected(caches, keys, slice(0, 1)))
    if not error <= FARTHEST:
        run.note("complaints", f"{name}, batch {batch}: {peer} is {error:.1e} from float64 attention")
        return
    turns = turns_of(batch, settings)
    plain = timed(call, turns, settings, graph=False)
    graph: float | None = None
    if settings.cuda:
        try:
            graph = timed(call, turns, settings, graph=True)
        except Exception as reason:  # what can't be captured is timed as it is
            run.note("absences", f"{name}, batch {batch}: {peer} cannot be captured: {first_line(reason)}")
    size = batch * len(keys) * 2 * settings.key_heads * settings.head_dim * settings.dtype.itemsize
    rate = size / min(plain, graph or plain) / 1e6
    copied = run.record["copy_gb_per_s"]
    row = {
        "pattern": name,
        "batch": batch,
        "peer": peer,
        "ms": round(plain, 4),
        "graph_ms": round(graph, 4) if graph else None,
        "keys": len(keys),
        "bytes": size,
        "gb_per_s": round(rate, 1),
        "fraction_of_copy": round(rate / copied, 3) if copied else None,
        "error": error,
    }
    run.note("rows", row)


def measure_variant(run: Run, name: str, number: int, caches: Caches, want: Tensor) -> None:
    """Our kernel over all sequences, launched in another way."""
    settings, variant = run.settings, VARIANTS[number]
    call, all_of_them = call_of(name, variant, caches), slice(0, settings.sequences)
    error = distance(call(all_of_them), want)
    if not error <= FARTHEST:
        run.note("complaints", f"{name}, {variant}: {error:.1e} from the kernel as it is built")
        return
    ms = timed(call, [all_of_them] * CALLS, settings, graph=settings.cuda)
    run.note("variants", {"pattern": name, "variant": str(variant), "ms": round(ms, 4)})


def attempt(run: Run, what: str, body: Callable[[], object], seconds: float) -> None:
    """Run the body if there is time; whatever goes wrong in it is noted, and no more."""
    if run.late(what):
        return
    try:
        with within(min(seconds, run.end - perf_counter())):
            body()
    except Exception as reason:  # a peer that this version can't run is left out, and said so
        run.note("absences", f"{what}: {first_line(reason)}")


def measure_all(run: Run) -> None:
    """Ours and dense attention; the variants; FlexAttention."""
    settings = run.settings
    if settings.cuda:
        jobs = [f"ours {number} {SHARES}" for number in range(SHARES)]
        jobs += [f"flex {name} {batch}" for name in PATTERNS for batch in (1, flex_at_once(settings))]
        for text in prepare("benchmarks.decode", jobs, limit_s=PREPARE_S):
            run.say(f"not compiled ahead: {text}")
        rate: Any = copy_rate()["terabytes_per_s"]
        run.record["copy_gb_per_s"] = 1e3 * rate
    caches = Caches.random(settings)
    run.say("caches are filled")
    batches = (1, settings.sequences)
    for name, pattern in PATTERNS.items():
        for peer, call in ours_and_dense(pattern, caches, settings).items():
            for batch in batches:
                what = f"{name}, batch {batch}: {peer}"
                attempt(run, what, partial(measure, run, name, peer, call, batch, caches), 30.0)
    if not settings.cuda:
        return
    for name, pattern in PATTERNS.items():
        want = ours_and_dense(pattern, caches, settings)[OURS](slice(0, settings.sequences)).double()
        for number, variant in enumerate(VARIANTS):
            attempt(run, f"{name}, {variant}", partial(measure_variant, run, name, number, caches, want), 15.0)
    for name in PATTERNS:
        torch._dynamo.reset()  # no shape of the last pattern may come back as a dynamic one
        for batch in batches:
            body = partial(measure_flex, run, name, batch, caches)
            attempt(run, f"{name}, batch {batch}: {FLEX}", body, FLEX_S)


def measure_flex(run: Run, name: str, batch: int, caches: Caches) -> None:
    """One row of FlexAttention, compiled for this batch alone."""
    measure(run, name, FLEX, flex(name, caches, run.settings), batch, caches)


def prepare_job(words: Sequence[str], settings: Settings) -> None:
    """One of the jobs of `measure_all`, in a process of its own."""
    with torch.no_grad():
        if words[0] == "ours":
            compile_ahead(settings, int(words[1]), int(words[2]))
            return
        name, batch = words[1], int(words[2])
        caches = Caches.random(settings, paged=False)
        flex(name, caches, settings)(slice(0, batch))
        torch.cuda.synchronize()


def table(record: dict[str, Any]) -> str:
    """The rows as Markdown: times of one call, and how many times faster ours is, plain and as graphs."""
    ours = {(row["pattern"], row["batch"]): row for row in record["rows"] if row["peer"] == OURS}
    head = ("pattern", "batch", "by", "ms", "graph ms", "keys", "MB", "GB/s", "of copy", "ours faster", "keys / ours")
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * 3}{' ---: |' * 8}"]
    for row in sorted(record["rows"], key=lambda row: (row["pattern"], row["batch"])):
        own = ours.get((row["pattern"], row["batch"]))
        faster, keys = "–", "–"
        if own:
            faster, keys = f"{_best(row) / _best(own):.2f}", f"{row['keys'] / own['keys']:.1f}"
        cells = (row["pattern"], row["batch"], row["peer"], row["ms"], row["graph_ms"] or "–", row["keys"])
        rates = (f"{row['bytes'] / 1e6:.1f}", row["gb_per_s"], row["fraction_of_copy"] or "–", faster, keys)
        lines.append(f"| {' | '.join(map(str, (*cells, *rates)))} |")
    if record["variants"]:
        lines += ["", "| pattern | our kernel over all sequences | graph ms |", "| --- | --- | ---: |"]
        for each in sorted(record["variants"], key=lambda each: (each["pattern"], each["ms"])):
            lines.append(f"| {each['pattern']} | {each['variant']} | {each['ms']} |")
    copied = f"copy {record['copy_gb_per_s']:.0f} GB/s; " if record["copy_gb_per_s"] else ""
    where = f"{record['machine']['device']}; {copied}{record['date'][:10]}; `{record['command']}`."
    return "\n".join([*lines, "", *targets(record), *record["absences"], *record["complaints"], where])


def targets(record: dict[str, Any]) -> list[str]:
    """For the larger batch: the gain over the faster dense form against the ratio of the keys, and the bandwidth."""
    found = []
    batch = max((row["batch"] for row in record["rows"]), default=0)
    for name in PATTERNS:
        rows = {row["peer"]: row for row in record["rows"] if (row["pattern"], row["batch"]) == (name, batch)}
        dense = [rows[peer] for peer in (DENSE, GROUPED) if peer in rows]
        own = rows.get(OURS)
        if not own or not dense:
            continue
        fewer, gain = dense[0]["keys"] / own["keys"], min(map(_best, dense)) / _best(own)
        found.append(
            f"{name}, batch {batch}: {fewer:.1f} x fewer keys, {gain:.1f} x faster than dense: {gain / fewer:.2f} of "
            f"it (wanted {WANTED_SHARE}); {own['fraction_of_copy']} of the copy's rate (wanted {WANTED_FRACTION})."
        )
    return found


def _best(row: dict[str, Any]) -> float:
    return float(min(row["ms"], row["graph_ms"] or row["ms"]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the record, print the table; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every number as JSON")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a JSON file, measure nothing")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--limit", type=float, default=105.0, metavar="S", help="begin nothing after so many seconds")
    parser.add_argument("--prepare", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.table:
        print(table(json.loads(options.table.read_text(encoding="utf-8"))))
        return 0
    settings = CUDA if options.device == "cuda" else CPU
    if options.prepare and options.prepare.startswith("ours"):
        prepare_job(options.prepare.split(), settings)
        return 0
    if settings.cuda and not torch.cuda.is_available():
        message = "The benchmark needs a CUDA device and finds none. --device cpu rehearses the script without one."
        print(message, file=sys.stderr)
        return 2
    if options.prepare:
        prepare_job(options.prepare.split(), settings)
        return 0
    run = Run(settings, options.out, options.limit, " ".join(["python -m benchmarks.decode", *words]))
    with torch.no_grad():
        measure_all(run)
    run.write()
    print(table(run.record))
    wanted = [(name, batch, peer) for name in PATTERNS for batch in (1, settings.sequences) for peer in (OURS, PAGED)]
    found = [(row["pattern"], row["batch"], row["peer"]) for row in run.record["rows"]]
    return 0 if not run.record["complaints"] and not {*wanted} - {*found} else 1


if __name__ == "__main__":
    sys.exit(main())
