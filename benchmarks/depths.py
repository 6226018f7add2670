"""The formulas of `sparsedsl prove` against matrices at every N <= 512 and the exact engine at large N.

    python -m benchmarks.depths --out benchmarks/results/prove_depths.json
    python -m benchmarks.depths --table benchmarks/results/prove_depths.json

Run from the root of a checkout; needs no GPU. For every pattern of tests/proofs/depth/families.py: the proof is
verified; its bounds are compared with a search over boolean matrices at each length from 2 to 512, and with `check`
at 20 lengths from 512 to 131071, or to 8191 for patterns without a normal form; and the command is timed as a whole
process, in seconds of CPU time and on the clock. Takes about five minutes. Exit status: 0; 1 if anything
disagreed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from time import perf_counter

from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.proofs.depth.proof import Proof
from sparsedsl.proofs.depth.prover import prove
from sparsedsl.proofs.verdict import check
from sparsedsl.resolve import resolve
from tests.proofs.depth.brute_force import depths
from tests.proofs.depth.families import FAMILIES

BRUTE, LARGE = 512, 20
# Powers of two below which large lengths are drawn; without a normal form `check` follows every pair.
MOST, MOST_FOLLOWED = 17, 13


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or print the table of a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args(arguments)
    if options.table:
        print(table(json.loads(options.table.read_text())["patterns"]))
        return 0
    rows = [_row(family.name, text) for family in FAMILIES for text in family.texts]
    machine = {
        "command": f"python -m benchmarks.depths {' '.join(sys.argv[1:] if arguments is None else arguments)}",
        "python": platform.python_version(),
        "processor": platform.machine(),
        "brute_force_up_to": BRUTE,
        "large_lengths_each": LARGE,
    }
    if options.out:
        lines = ",\n".join(json.dumps(row) for row in rows)
        options.out.write_text(f'{{"machine": {json.dumps(machine)}, "patterns": [\n{lines}\n]}}\n')
    return int(any(row["disagreements"] for row in rows))


def _row(family: str, text: str) -> dict[str, object]:
    pattern = resolve(text)
    start = perf_counter()
    proof = prove(pattern)
    found = perf_counter()
    proof.verify()
    verified = perf_counter()
    small = [n for n, depth in enumerate(depths(pattern, BRUTE)) if n >= 2 and not _fits(proof, n, depth)]
    large, wrong = _large(pattern, proof, text)
    row: dict[str, object] = {
        "family": family,
        "pattern": text,
        "complete": proof.complete,
        "fails_from": proof.fails_from,
        "exact": proof.exact,
        "upper": None if proof.upper is None else str(proof.upper),
        "lower": None if proof.lower is None else str(proof.lower),
        "large_lengths": large,
        "disagreements": small + wrong,
        "prove_ms": round(1e3 * (found - start), 1),
        "verify_ms": round(1e3 * (verified - found), 1),
        **_process_seconds(text),
    }
    print(family, text, "ok" if not row["disagreements"] else row["disagreements"], row["process_cpu_s"], flush=True)
    return row


def _fits(proof: Proof, length: int, depth: int | None) -> bool:
    """Whether the statement and the bounds hold at one length, tightly where the proof says exact."""
    fails = proof.complete is False and length >= (proof.fails_from or 0)
    if proof.complete is not None and fails != (depth is None):
        return False
    if depth is None or fails:
        return True
    if proof.upper is None:
        return proof.complete is not True
    below, above = proof.depth(length)
    return above is not None and below <= depth <= above and (not proof.exact or below == above)


def _large(
    pattern: Pattern | PerHead | Stack, proof: Proof, text: str
) -> tuple[list[tuple[int, int | None]], list[int]]:
    """[length, depth by `check`] for random lengths of all sizes, and the lengths at which the proof differs."""
    random = Random(text)
    lengths: set[int] = set()
    most = MOST if proof.facts.is_exact else MOST_FOLLOWED
    while len(lengths) < LARGE:
        lengths.add(random.randrange(BRUTE, 1 << random.randint(10, most)))
    told = [(length, check(pattern, seq_len=length).depth) for length in sorted(lengths)]
    return told, [length for length, depth in told if not _fits(proof, length, depth)]


def _process_seconds(text: str) -> dict[str, float]:
    before = os.times()
    subprocess.run([sys.executable, "-m", "sparsedsl", "prove", text], capture_output=True, check=False)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return {"process_cpu_s": round(spent, 2), "process_s": round(after.elapsed - before.elapsed, 2)}


def table(rows: Sequence[dict[str, str]]) -> str:
    """What is proved for each pattern, in Markdown."""
    lines = ["| family | pattern | complete | depth(N), N >= 2 |", "|---|---|---|---|"]
    for row in rows:
        complete = "every N" if row["complete"] else f"fails from N = {row['fails_from']}"
        if row["exact"]:
            depth = f"`{row['upper']}`"
        elif row["upper"]:
            depth = f"from `{shortened(row['lower'])}` to `{shortened(row['upper'])}`"
        else:
            depth = "none"
        pattern = row["pattern"].replace("|", "\\|")
        lines.append(f"| {row['family']} | `{pattern}` | {complete} | {depth.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def shortened(formula: str) -> str:
    """Long piecewise formulas by their beginning."""
    return formula if len(formula) <= 120 else f"{formula[:100]} ..."


if __name__ == "__main__":
    sys.exit(main())
