"""Property tests at length, as scripts: so many cases from one seed, and a record of what was drawn."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import hypothesis
from hypothesis.strategies import SearchStrategy

import sparsedsl

Case = TypeVar("Case")


def check_all(cases: SearchStrategy[Case], check: Callable[[Case], object], count: int, seed: int) -> None:
    """Draw and check so many cases; a failure ends in Hypothesis's report with the smallest case."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(cases)
    def every_case(case: Case) -> None:
        check(case)

    with warnings.catch_warnings():
        # Hypothesis minds that patterns with long sets print long.
        warnings.simplefilter("ignore", hypothesis.errors.HypothesisWarning)
        every_case()


def main(
    module: str,
    description: str,
    what: str,
    run: Callable[[int, int], Mapping[str, int]],
    *,
    cases: int,
    packages: Sequence[str],
) -> None:
    """The command `python -m module`: run (count, seed), print and write the record."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cases", type=int, default=cases)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where to write the record")
    options = parser.parse_args()
    start = perf_counter()
    counts = run(options.cases, options.seed)
    record = {
        "what": what,
        "command": f"python -m {module} --cases {options.cases} --seed {options.seed}",
        "failures": 0,
        "seed": options.seed,
        "counts": dict(sorted(counts.items())),
        "seconds": round(perf_counter() - start, 1),
        "versions": {
            "python": platform.python_version(),
            "sparsedsl": sparsedsl.__version__,
            **{name: version(name) for name in packages},
        },
    }
    text = json.dumps(record, indent=2)
    sys.stdout.write(text + "\n")
    if options.out:
        options.out.write_text(text + "\n")
