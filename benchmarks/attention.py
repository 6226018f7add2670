"""Our kernels beside FlexAttention with the same mask, FlashAttention-4, NATTEN, and dense attention in PyTorch.

    python -m benchmarks.attention --out benchmarks/results/attention_h200.json      # in about four minutes
    python -m benchmarks.publish                       # then: the figures of README.md, docs/ and codegen/gpus.py
    python -m benchmarks.attention --table benchmarks/results/attention_h200.json
    python -m benchmarks.attention --device cpu        # a rehearsal of the script: tiny, ours alone

Run from the root of a checkout, which need not be installed. Every implementation of every case first runs once in a
process of its own, which fills the compilers' caches; one that fails there, or hangs, is not run in the measuring
process. Each case is then compared with a float64 oracle at the first length before anything of it is timed, by the
very calls that are then timed; at further lengths ours is compared with FlexAttention's results. An implementation that
is wrong is not timed. Forward runs without gradients; backward is timed alone, on an output that was computed before.

FlashAttention-4 and NATTEN are measured beside where they are installed and give the same results; a line says why not.
What the time limit cuts off is named too.

Exit status: 0; 1 if something was wrong or over its bound; 2 if there is no CUDA device.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import torch

from benchmarks import peers
from benchmarks.cases import ALL_CASES, Case
from benchmarks.measure import Settings, measure
from benchmarks.record import Record
from benchmarks.tables import peer_table
from benchmarks.warm import Failures, run_once, warm_caches

CUDA = Settings("cuda", (32768, 131072), 16, 128, torch.bfloat16, rounds=8)
CPU = Settings("cpu", (512, 1024), 2, 32, torch.float32, rounds=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _options(words)
    if options.table:
        print(peer_table(Record.read(options.table)))
        return 0
    settings = CPU if options.device == "cpu" else CUDA
    if settings.cuda and not torch.cuda.is_available():
        say("The benchmark needs a CUDA device and finds none. --device cpu rehearses the script without one.")
        return 2
    peers.allow_repeated_backward()
    chosen = [case for case in ALL_CASES if options.case is None or case.name in options.case]
    # Dense attention first: it stands beside all the others, and must not be what the time limit cuts off.
    chosen.sort(key=lambda case: not case.dense)
    if options.warm:
        run_once(options.warm, chosen[0], settings)
        return 0
    return run(chosen, settings, Record.begun(settings.described(), words), options.out, options.seconds)


def run(cases: Sequence[Case], settings: Settings, record: Record, out: Path | None, seconds: float) -> int:
    """Measure the cases, write the record, print the table; the exit status."""
    start = perf_counter()
    failures: Failures = {}
    if settings.cuda:
        failures = warm_caches(cases, settings.lengths, say)
        say(f"compiled ahead: {perf_counter() - start:.0f} s")
    for case in cases:
        begun = perf_counter()
        measure(case, settings, record, failures, until=start + seconds)
        say(f"{case.name}: {perf_counter() - begun:.0f} s")
        # After every case: what is measured is kept, whatever a later case does.
        if out:
            record.write(out)
    for text in dict.fromkeys(record.absences):
        say(text)
    for text in record.complaints:
        say(f"WRONG: {text}")
    say(f"in all: {perf_counter() - start:.0f} s")
    print(peer_table(record))
    return 1 if record.complaints else 0


def say(text: str) -> None:
    """Progress and complaints go to the error stream; the table alone is the output."""
    print(text, file=sys.stderr, flush=True)


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention")
    names = [case.name for case in ALL_CASES]
    parser.add_argument("--case", action="append", choices=names, help="only this case; may be repeated")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every number as JSON")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a JSON file, measure nothing")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--seconds", type=float, default=250.0, help="start no case and length after so many (default: 250)"
    )
    parser.add_argument("--warm", metavar="PEER", help=argparse.SUPPRESS)
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
