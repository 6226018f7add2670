"""A model of Qwen2-7B's shape, dense beside PowerAttention: prefill of 131072 tokens, then 1024 decode steps.

    python -m benchmarks.model --out benchmarks/results/model_h200.json

The model is stock transformers (28 layers, hidden 3584, 28 heads, 4 key heads) with random bf16 weights made on the
device; nothing is downloaded. One model serves all: its attention is exchanged. A prefill fills a static cache, and its
logits are of the last token alone. A decode step is captured in a CUDA graph and replayed, its greedy token being the
next step's input, so that no implementation waits for Python; its first tokens are compared with those of plain calls.
Random weights make random text: this measures time and memory, no quality.

Dense is the library's `sdpa`. Its prefill runs PyTorch's fused kernel that is faster on one layer. In decoding, `sdpa`
gets a mask of the whole static cache; beside it stands `sdpa` without a mask, which may use its fastest kernel but also
attends to the rows that are not filled yet (under 1 % of them): a bound for dense attention, and no real decoder.

The record is written after every step, and what begins later than --limit seconds after the start is left out. Decoding
that would take more than --decode-limit seconds does fewer than --steps steps, and the record says how many.
`--layers 2 --hidden 64 ... --device cpu` shrinks it.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import sparsedsl as sd
from benchmarks.beforehand import first_line, within
from benchmarks.model_parts import (
    CAUSAL,
    DENSE,
    FORMS,
    SPARSE,
    UNMASKED,
    call,
    model_of,
    new_cache,
    register_unmasked,
    restart,
)
from benchmarks.record import machine
from benchmarks.timing import captured
from sparsedsl.integrations.transformers import register
from sparsedsl.patterns.power import power_attention

FUSED = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
FARTHEST = 5e-2  # of the logits over causal() from dense attention's
FEW_STEPS = 4  # before the capture; their tokens are those that the graph must give again
WARM_TOKENS, CHECK_TOKENS = 2048, 1000


class Run:
    """The record, on disk after every change, and the time that is left."""

    def __init__(self, options: argparse.Namespace, pattern: sd.Pattern) -> None:
        import transformers

        self.options, self.start = options, perf_counter()
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

    def measured(self, attention: str, what: str, **figures: float | int | None) -> None:
        """Keep what was measured of one implementation."""
        found = {"attention": attention, "what": what, **figures}
        print(f"{perf_counter() - self.start:6.1f} s  {found}", file=sys.stderr, flush=True)
        self.record["measured"].append(found)
        self.write()

    def write(self) -> None:
        """The record so far."""
        if self.options.out:
            self.options.out.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """A part of the run: whatever goes wrong in it is noted, and costs no more than the part."""
        left = self.options.limit - (perf_counter() - self.start)
        try:
            with within(left):
                yield
        except Exception as reason:
            self.record["absences"].append(f"{what}: {first_line(reason)}")
            self.note()
        gc.collect()
        if self.options.device == "cuda":
            torch.cuda.empty_cache()


def prefill(run: Run, model: Any, tokens: Tensor, label: str) -> Any:
    """Two prefills after a short one, which compiles what is compiled; the faster counts. The cache of the last."""
    options = run.options
    call(model, tokens[:, :WARM_TOKENS], new_cache(model, WARM_TOKENS + 16))
    reset_peak(options)
    found = []
    cache = None
    for _ in range(2):
        cache = None  # its memory goes before another is taken
        cache, start = new_cache(model, options.tokens + options.steps), now(options)
        logits = call(model, tokens, cache)
        found.append(now(options) - start)
        assert logits.isfinite().all(), label
    run.measured(
        label,
        "prefill",
        seconds=min(found),
        other_seconds=max(found),
        tokens_per_s=options.tokens / min(found),
        peak_gib=peak_gib(options),
    )
    return cache


def decode(run: Run, model: Any, cache: Any, label: str) -> None:
    """Greedy steps from a filled cache, as a captured graph on a GPU."""
    options = run.options
    last = torch.zeros(1, 1, dtype=torch.int64, device=options.device)

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
        return [int(last) for each in range(1, steps + 1) if repeated(advance, each)]

    reset_peak(options)
    few = min(FEW_STEPS, options.steps)
    expected = tokens_of(step, few)
    plain = repeated(step, few) / few
    advance: Callable[[], object] = step
    graph = options.device == "cuda"
    if graph:
        try:
            advance = captured(step)
        except Exception as reason:  # then plain calls are timed, and the record says so
            graph = False
            run.record["absences"].append(f"{label}: a step cannot be captured: {first_line(reason)}")
    same = tokens_of(advance, few) == expected
    steps = max(1, min(options.steps, int(options.decode_limit * few / repeated(advance, few))))
    spent = repeated(advance, steps)
    run.measured(
        label,
        "decode",
        steps=steps,
        seconds=spent,
        ms_per_step=spent / steps * 1e3,
        tokens_per_s=steps / spent,
        captured=graph,
        plain_call_ms=plain * 1e3,
        same_tokens_as_plain_calls=same,
        peak_gib=peak_gib(options),
    )


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


def faster_backend(run: Run) -> SDPBackend | None:
    """PyTorch's fused kernel that is faster over one layer of the prefill; its choice where neither runs."""
    options = run.options
    if options.device != "cuda":
        return None
    shapes = ((options.heads, options.tokens), (options.key_heads, options.tokens), (options.key_heads, options.tokens))
    width, dtype = options.hidden // options.heads, getattr(torch, options.dtype)
    q, k, v = (torch.randn(1, heads, n, width, device=options.device, dtype=dtype) for heads, n in shapes)
    seconds = {}
    for name, backend in FUSED.items():
        with run.step(f"{DENSE} by {name}"), sdpa_kernel(backend):
            body = partial(scaled_dot_product_attention, q, k, v, is_causal=True, enable_gqa=True)
            seconds[name] = seconds_of(run, body, 1)
    run.note(dense_prefill_layer_s=seconds)
    return FUSED[min(seconds, key=lambda name: seconds[name])] if seconds else None


def faster_form(run: Run, cache: Any) -> bool:
    """Whether sdpa over the cache is faster with grouped heads as queries of one than with enable_gqa."""
    k, v = cache.layers[0].keys, cache.layers[0].values
    q = torch.randn(1, run.options.heads, 1, k.shape[3], dtype=k.dtype, device=k.device)
    seconds = {name: seconds_of(run, partial(form, q, k, v), 20) for name, form in FORMS.items()}
    run.note(dense_decode_layer_s=seconds)
    return seconds["grouped"] < seconds["enable_gqa"]


def check(run: Run, model: Any, tokens: Tensor) -> None:
    """The integration over causal() is dense attention, on a short prompt and in one step after it."""
    register(sd.causal(), CAUSAL)
    short, found = tokens[:, :CHECK_TOKENS], []
    for attention in (DENSE, CAUSAL):
        model.set_attn_implementation(attention)
        cache = new_cache(model, CHECK_TOKENS + 16)
        found.append(torch.cat([call(model, short, cache), call(model, short[:, :1], cache)], 1).float())
    distance = float((found[0] - found[1]).norm() / found[0].norm())
    run.note(distance_over_causal=distance)
    assert distance < FARTHEST, distance


def measure(run: Run) -> None:
    """PowerAttention first, so that its figures are safe whatever dense attention costs."""
    options = run.options
    model = model_of(options)
    tokens = torch.randint(options.vocabulary, (1, options.tokens), device=options.device)
    run.note(parameters=sum(each.numel() for each in model.parameters()))
    with run.step("check"):
        check(run, model, tokens)
    with run.step("PowerAttention"):
        model.set_attn_implementation(SPARSE)
        decode(run, model, prefill(run, model, tokens, "PowerAttention"), "PowerAttention")
    backend = faster_backend(run)
    with run.step("dense"):
        model.set_attn_implementation(DENSE)
        with sdpa_kernel(backend) if backend else nullcontext():
            cache = prefill(run, model, tokens, "dense")
        register_unmasked(grouped=faster_form(run, cache))
        for attention, label in ((UNMASKED, "dense, no mask"), (DENSE, "dense")):
            with run.step(f"{label}, decode"):
                model.set_attn_implementation(attention)
                decode(run, model, cache, label)


def summary(record: dict[str, Any]) -> str:
    """A line for each measurement, and how many times longer dense attention takes."""
    lines, found = [], {}
    for each in record["measured"]:
        found[each["attention"], each["what"]] = each
        memory = "" if each["peak_gib"] is None else f", peak {each['peak_gib']:.1f} GiB"
        count = f"{each['steps']} steps " if "steps" in each else ""
        speed = f"{count}{each['seconds']:.2f} s, {each['tokens_per_s']:.1f} tokens/s"
        lines.append(f"{each['attention']:16} {each['what']:8} {speed}{memory}")
    for what in ("prefill", "decode"):
        own = found.get(("PowerAttention", what))
        for (attention, kind), each in found.items():
            if own and kind == what and each is not own:
                times = own["tokens_per_s"] / each["tokens_per_s"]
                lines.append(f"{what}: {attention} takes {times:.2f} times as long as PowerAttention")
    return "\n".join([*lines, *record["absences"]])


def arguments(words: list[str] | None) -> argparse.Namespace:
    """The sizes; those of Qwen2-7B by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {
        "tokens": 131072,
        "steps": 1024,
        "layers": 28,
        "hidden": 3584,
        "heads": 28,
        "key-heads": 4,
        "intermediate": 18944,
        "vocabulary": 152064,
        "block": 256,
    }
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size, help=f"(default: {size})")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds after which nothing begins (default: 180)")
    parser.add_argument("--decode-limit", type=float, default=20.0, help="seconds of each decoding (default: 20)")
    parser.add_argument("--out", type=Path, help="where the record goes")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Check, measure both, print and record; the exit status is 1 where something is missing."""
    options = arguments(words)
    pattern = power_attention(block=options.block)
    register(pattern, SPARSE)
    run = Run(options, pattern)
    with torch.no_grad():
        measure(run)
    run.write()
    print(summary(run.record))
    same = all(each.get("same_tokens_as_plain_calls", True) for each in run.record["measured"])
    return 0 if same and not run.record["absences"] else 1


if __name__ == "__main__":
    sys.exit(main())
