"""The run of a benchmark of a whole model: its record on disk, the time that is left, and its two measurements."""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import torch
import triton
from torch import Tensor
from torch._dynamo.utils import counters

import sparsedsl as sd
from benchmarks.beforehand import first_line, within
from benchmarks.model_parts import call, few_layers, new_cache, restart
from benchmarks.record import machine
from benchmarks.timing import captured

FEW_STEPS = 4  # before the capture; their tokens are those that the graph must give again


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured: an attention, and whether the layers around it are compiled or eager."""

    attention: str
    layers: str

    def __str__(self) -> str:
        return f"{self.layers} {self.attention}"


class Run:
    """The record, on disk after every change, and the time that is left."""

    def __init__(self, options: argparse.Namespace, pattern: sd.Pattern) -> None:
        import transformers

        self.options, self.start = options, perf_counter()
        self.logits: dict[str, Tensor] = {}
        told = {key: value for key, value in vars(options).items() if key != "out"}
        versions = {
            "sparsedsl": sd.__version__,
            "torch": torch.__version__,
            "triton": triton.__version__,
            "transformers": transformers.__version__,
        }
        self.record: dict[str, Any] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions,
            "options": told,
            "pattern": str(pattern),
            "measured": [],
            "absences": [],
        }

    def note(self, **entries: object) -> None:
        """Keep entries, show them and write the record."""
        print(f"{perf_counter() - self.start:6.1f} s  {entries}", file=sys.stderr, flush=True)
        self.record |= entries
        self.write()

    def measured(self, case: Case, what: str, batch: int, **figures: object) -> None:
        """Keep what was measured of one implementation."""
        found = {"attention": case.attention, "layers": case.layers, "what": what, "batch": batch, **figures}
        print(f"{perf_counter() - self.start:6.1f} s  {found}", file=sys.stderr, flush=True)
        self.record["measured"].append(found)
        self.write()

    def write(self) -> None:
        """The record so far."""
        if self.options.out:
            self.options.out.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """A part of the run: whatever goes wrong in it is noted, and costs no more than the part. Parts do not nest."""
        left = self.options.limit - (perf_counter() - self.start)
        try:
            with within(max(0.0, min(left, self.options.part_limit))):
                yield
        except Exception as reason:
            self.record["absences"].append(f"{what}: {first_line(reason)}")
            self.note()
        gc.collect()
        if self.options.device == "cuda":
            torch.cuda.empty_cache()


def prefill(run: Run, model: Any, tokens: Tensor, case: Case) -> Any:
    """One layer first, so that whatever is compiled is; then one or two prefills, of which the faster counts.

    Result
        The cache of the last one.
    """
    options, graphs, start = run.options, graphs_compiled(), now(run.options)
    with few_layers(model, 1):
        call(model, tokens, new_cache(model, options.tokens + options.steps))
    first, cache = now(options) - start, None
    found: list[float] = []
    reset_peak(options)
    while not found or (len(found) == 1 and found[0] < options.prefill_limit):
        cache = None  # its memory goes before another is taken
        cache, start = new_cache(model, options.tokens + options.steps), now(options)
        logits = call(model, tokens, cache)
        found.append(now(options) - start)
        assert logits.isfinite().all(), case
    run.measured(
        case,
        "prefill",
        1,
        seconds=min(found),
        all_seconds=found,
        tokens_per_s=options.tokens / min(found),
        one_layer_first_s=first,
        graphs_compiled=graphs_compiled() - graphs,
        peak_gib=peak_gib(options),
    )
    compare(run, case, logits)
    return cache


def compare(run: Run, case: Case, logits: Tensor) -> None:
    """Compiled layers give what eager ones give: the distance of the prefill's logits, once there are both."""
    logits = logits.float().cpu()
    other = run.logits.setdefault(case.attention, logits)
    if other is not logits:
        distances = run.record.get("distance_compiled_from_eager", {})
        distance = float((logits - other).norm() / logits.norm())
        run.note(distance_compiled_from_eager=distances | {case.attention: distance})


def decode(run: Run, model: Any, cache: Any, case: Case, limit: float) -> None:
    """Greedy steps from a filled cache, as a captured graph on a GPU, for about as many seconds as the limit says."""
    options, batch = run.options, cache.layers[0].keys.shape[0]
    last = torch.zeros(batch, 1, dtype=torch.int64, device=options.device)

    def step() -> None:
        last.copy_(call(model, last, cache)[:, -1:].argmax(-1))

    def repeated(advance: Callable[[], object], steps: int) -> float:
        """Seconds of so many steps from the prompt."""
        restart(cache, last, options.tokens)
        start = now(options)
        for _ in range(steps):
            advance()
        return now(options) - start

    def tokens_of(advance: Callable[[], object], steps: int) -> list[int]:
        """The tokens of the first sequence, from the prompt."""
        restart(cache, last, options.tokens)
        found = []
        for _ in range(steps):
            advance()
            found.append(int(last[0]))
        return found

    reset_peak(options)
    few, graphs = min(FEW_STEPS, options.steps), graphs_compiled()
    first = repeated(step, 1)
    expected = tokens_of(step, few)
    plain = repeated(step, few) / few
    advance: Callable[[], object] = step
    graph = options.device == "cuda"
    if graph:
        try:
            advance = captured(step)
        except Exception as reason:  # then plain calls are timed, and the record says so
            graph = False
            run.record["absences"].append(f"{case}: a step cannot be captured: {first_line(reason)}")
    same = tokens_of(advance, few) == expected
    steps = max(1, min(options.steps, int(limit * few / repeated(advance, few))))
    spent = repeated(advance, steps)
    run.measured(
        case,
        "decode",
        batch,
        steps=steps,
        seconds=spent,
        ms_per_step=spent / steps * 1e3,
        tokens_per_s=steps * batch / spent,
        captured=graph,
        plain_call_ms=plain * 1e3,
        first_call_s=first,
        first_tokens=expected,
        same_tokens_as_plain_calls=same,
        graphs_compiled=graphs_compiled() - graphs,
        peak_gib=peak_gib(options),
    )


def graphs_compiled() -> int:
    """How many graphs torch.compile has made in this process."""
    return int(counters["stats"]["unique_graphs"])


def reset_peak(options: argparse.Namespace) -> None:
    """Forget the most memory so far."""
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_gib(options: argparse.Namespace) -> float | None:
    """The most device memory since it was last reset, in GiB."""
    return torch.cuda.max_memory_allocated() / 2**30 if options.device == "cuda" else None


def now(options: argparse.Namespace) -> float:
    """The time once the device has done all it was given."""
    if options.device == "cuda":
        torch.cuda.synchronize()
    return perf_counter()


def seconds_of(run: Run, body: Callable[[], object], times: int) -> float:
    """Seconds of a call that has been made once before."""
    body()
    start = now(run.options)
    for _ in range(times):
        body()
    return (now(run.options) - start) / times
