"""Certificates of the whole library: how large, how long to write, how long to verify; and changes that are rejected.

    python benchmarks/certificates.py                     # writes benchmarks/results/certificates.json

Each certificate is written by one process, `sparsedsl check ... --certificate`, and verified by another,
`sparsedsl verify`. Times are of the whole process, the least of three; CPU time is user and system time together.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sparsedsl.layers import Stack
from sparsedsl.patterns.catalogue import CATALOGUE

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "certificates.json"
LENGTHS = (1, 1000, 16384, 131072, 1048576)
LAYERS = 28
REPEATS = 3
# Hypothesis examples, each of 8 changes.
MUTATIONS = 500


def timed(words: list[str], allowed: set[int]) -> tuple[float, float, str]:
    """Wall time, CPU time and output of one command, the least times of a few runs."""
    walls, cpus, output = [], [], ""
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "sparsedsl", *words], cwd=ROOT, capture_output=True, text=True)
        walls.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if done.returncode not in allowed:
            raise SystemExit(f"{words}: exit status {done.returncode}\n{done.stderr}")
        output = done.stdout
    return min(walls), min(cpus), output


def measured(name: str, seq_len: int, folder: Path) -> dict[str, object]:
    """One certificate, written and verified."""
    file = folder / f"{name}.json"
    layers = [] if isinstance(CATALOGUE[name](), Stack) else ["--layers", str(LAYERS)]
    write = ["check", f"{name}()", "--seq-len", str(seq_len), *layers, "--certificate", str(file)]
    wall_write, cpu_write, _ = timed(write, {0, 1})
    wall_verify, cpu_verify, printed = timed(["verify", str(file), "--json"], {0})
    claim = json.loads(printed)
    found = {key: claim[key] for key in ("seq_len", "complete", "layers", "residual", "query", "key")}
    row: dict[str, object] = {
        "pattern": name,
        "asked_seq_len": seq_len,
        "bytes": file.stat().st_size,
        "kind": json.loads(file.read_text())["evidence"]["kind"],
        "write_s": round(wall_write, 3),
        "write_cpu_s": round(cpu_write, 3),
        "verify_s": round(wall_verify, 3),
        "verify_cpu_s": round(cpu_verify, 3),
        "proved": found,
    }
    print(
        f"{name:<28}{seq_len:>8} {row['bytes']:>7} B  write {wall_write:.2f} s ({cpu_write:.2f} CPU)"
        f"  verify {wall_verify:.2f} s ({cpu_verify:.2f} CPU)",
        flush=True,
    )
    return row


def rejected_changes() -> dict[str, object]:
    """The test of single changes, run with more examples."""
    test = "tests/proofs/test_verifier.py::test_every_single_change_is_rejected"
    environment = {**os.environ, "CERTIFICATE_MUTATIONS": str(MUTATIONS)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", test], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    print(done.stdout[-300:])
    return {"test": test, "certificates": MUTATIONS, "changes_each": 8, "all_rejected": done.returncode == 0}


def main() -> None:
    """Measure all, and write the results."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [measured(name, seq_len, Path(folder)) for seq_len in LENGTHS for name in CATALOGUE]
    result = {
        "command": "python benchmarks/certificates.py",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end",
        "python": platform.python_version(),
        "layers": LAYERS,
        "repeats": REPEATS,
        "single_changes": rejected_changes(),
        "largest_bytes": max(int(str(row["bytes"])) for row in rows),
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
