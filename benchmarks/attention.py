"""Our kernels beside FlexAttention with the same mask, and dense causal attention through cuDNN and flash.

    python -m benchmarks.attention --out benchmarks/results/attention_h200.json
    python -m benchmarks.attention --table benchmarks/results/attention_h200.json
    python -m benchmarks.attention --device cpu        # a rehearsal of the script: tiny, ours alone

Run from the root of a checkout, which need not be installed. Each case is compared with a float64 oracle at the first
length before anything of it is timed, by the very calls that are then timed; at further lengths ours is compared with
FlexAttention's results. An implementation that is wrong is not timed. Forward runs without gradients; backward is
timed alone, on an output that was computed before.

FlashAttention-4 and NATTEN are measured beside where they are installed and give the same results; a line says why not.

Exit status: 0; 1 if something was wrong or over its bound; 2 if there is no CUDA device.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import torch

from benchmarks import peers
from benchmarks.cases import CASES, DENSE, Case
from benchmarks.measure import Settings, implementations, measure, measure_dense
from benchmarks.record import Record, table

CUDA = Settings("cuda", (32768, 131072), 16, 128, torch.bfloat16, rounds=12)
CPU = Settings("cpu", (512, 1024), 2, 32, torch.float32, rounds=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _options(words)
    if options.table:
        print(_table(Record.read(options.table)))
        return 0
    settings = CPU if options.device == "cpu" else CUDA
    if settings.cuda and not torch.cuda.is_available():
        say("The benchmark needs a CUDA device and finds none. --device cpu rehearses the script without one.")
        return 2
    peers.allow_repeated_backward()
    chosen = [case for case in CASES if options.case is None or case.name in options.case]
    if options.warm:
        for case in chosen:
            run_once(case, settings)
        return 0
    return run(chosen, settings, Record.begun(settings.described(), words), options.out)


def run(cases: Sequence[Case], settings: Settings, record: Record, out: Path | None) -> int:
    """Measure the cases, write the record, print the table; the exit status."""
    if settings.cuda:
        warm_caches(cases)
    for case in cases:
        start = perf_counter()
        measure(case, settings, record)
        say(f"{case.name}: {perf_counter() - start:.0f} s")
    if settings.cuda:
        measure_dense(settings, record)
    if out:
        record.write(out)
    for text in dict.fromkeys(record.absences):
        say(text)
    for text in record.complaints:
        say(f"WRONG: {text}")
    print(_table(record))
    return 1 if record.complaints else 0


def warm_caches(cases: Sequence[Case]) -> None:
    """Fill the compilers' caches on disk, one process for each case, so that the measuring process finds them."""
    start = perf_counter()
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.attention", "--warm", "--case"]
    running = [subprocess.Popen([*command, case.name], env=environment) for case in cases]
    # What fails here fails again, and is reported, where the case is measured.
    statuses = [process.wait() for process in running]
    say(f"compiled ahead: {perf_counter() - start:.0f} s, exit statuses {statuses}")


def run_once(case: Case, settings: Settings) -> None:
    """Each implementation once, forward and backward, at every length."""
    for length in settings.lengths:
        inputs = settings.inputs(length)
        for peer in implementations(case, length, settings):
            peer.results(inputs)


def say(text: str) -> None:
    """Progress and complaints go to the error stream; the table alone is the output."""
    print(text, file=sys.stderr, flush=True)


def _table(record: Record) -> str:
    return table(record, peers.OURS, peers.FLEX, peers.CUDNN, DENSE.name)


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention")
    names = [case.name for case in CASES]
    parser.add_argument("--case", action="append", choices=names, help="only this case; may be repeated")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every number as JSON")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a JSON file, measure nothing")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--warm", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
