"""The postage-stamp table and a synthesis at the published length, timed on one core.

    python -m benchmarks.synthesis --out benchmarks/results/synthesis.json

Run from the root of a checkout, which need not be installed. Every figure of the table is searched anew and proved;
the synthesis is `synthesise(seq_len=131072, layers=28, block=256, max_depth=8, schedule=True)`, run twice, and the
two fronts must be equal byte by byte. Times are of this process: seconds of its processor, and on the clock.

Exit status: 0; 1 if a figure was not proved or the fronts differ.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time

import sparsedsl
from sparsedsl.proofs.stamps import largest_range
from sparsedsl.proofs.synthesis import synthesise

# (distances, hops): the cells of the published table, and those for 28 layers.
CELLS = [
    *((2, hops) for hops in (2, 3, 4, 5, 6, 7, 28)),
    *((3, hops) for hops in (2, 3, 4, 5, 6, 7, 28)),
    *((4, hops) for hops in (2, 3, 4, 5, 6, 7)),
    *((5, hops) for hops in (3, 4, 5, 6)),
    (6, 3),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both parts and write what came out; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description="the postage-stamp table and a synthesis at 512 blocks")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args(words)
    cells = [_cell(distances, hops) for distances, hops in CELLS]
    runs = [_front() for _ in range(2)]
    same = runs[0]["front"] == runs[1]["front"]
    synthesis = {
        "call": "synthesise(seq_len=131072, layers=28, block=256, max_depth=8, schedule=True)",
        "processor_s": [each["processor_s"] for each in runs],
        "clock_s": [each["clock_s"] for each in runs],
        "same_bytes_twice": same,
    }
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"python -m benchmarks.synthesis {' '.join(words)}",
        "machine": {"system": f"{platform.system()} {platform.machine()}", "processor": _processor()},
        "versions": {"sparsedsl": sparsedsl.__version__, "python": platform.python_version()},
        "table": cells,
        "synthesis": {**synthesis, "front": json.loads(str(runs[0]["front"]))},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for each in (*cells, synthesis):
        print(each)
    return 0 if same and all(each["proved"] for each in cells) else 1


def _cell(distances: int, hops: int) -> dict[str, object]:
    start = process_time()
    reach, basis, proved = largest_range(distances, hops)
    seconds = round(process_time() - start, 3)
    return {
        "distances": distances,
        "hops": hops,
        "range": reach,
        "basis": basis,
        "proved": proved,
        "processor_s": seconds,
    }


def _front() -> dict[str, object]:
    processor, clock = process_time(), perf_counter()
    front = synthesise(seq_len=131072, layers=28, block=256, max_depth=8, schedule=True)
    return {
        "processor_s": round(process_time() - processor, 1),
        "clock_s": round(perf_counter() - clock, 1),
        "front": front.to_json(),
    }


def _processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    sys.exit(main())
