"""A model of Qwen2-7B's shape, dense beside PowerAttention: prefill of 131072 tokens, then up to 1024 decode steps.

    python -m benchmarks.model --out benchmarks/results/model_h200.json

The model is stock transformers (28 layers, hidden 3584, 28 heads, 4 key heads) with random bf16 weights made on the
device; nothing is downloaded. One model serves all: its attention is exchanged. A prefill fills a static cache, and its
logits are of the last token alone. A decode step is captured in a CUDA graph and replayed, its greedy token being the
next step's input, so that no implementation waits for Python; its first tokens are compared with those of plain calls.
Random weights make random text: this measures time and memory, no quality.

All is measured twice: with the decoder layers compiled by torch.compile (one graph, compiled once for all layers; the
embedding, the rotary angles, the mask and the logits stay eager), and eager. Compiling is not timed with the rest: one
layer comes before each prefill, plain calls before each capture. How far the logits of both are apart is recorded.

Decoding runs at each batch of --batches. The cache of a larger batch is that of the one prefilled sequence, repeated:
its rows make equal tokens, and read memory of their own (7.5 GB a row at the default sizes).

Dense is the library's `sdpa`. Its prefill runs PyTorch's fused kernel that is faster on one layer. In decoding, `sdpa`
gets a mask of the whole static cache, which is measured eager at batch 1; beside it stands `sdpa` without a mask, which
may use its fastest kernel but also attends to the rows that are not filled yet (under 1 % of them): a bound for dense
attention, and no real decoder. "No attention" returns its queries: what is left of the model, so that dense attention's
ratio to it is the most that any sparse attention could reach here.

The record is written after every measurement; one that is not done --limit seconds after the start, or that takes more
than --part-limit seconds, is given up. Decoding that would take more than --decode-limit seconds does fewer steps than
--steps, and a prefill of more than --prefill-limit seconds is not repeated; the record says what was done.
`--layers 2 --hidden 64 ... --device cpu` shrinks it.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import sparsedsl as sd
from benchmarks.model_parts import (
    CAUSAL,
    DENSE,
    FLOOR,
    FORMS,
    SPARSE,
    UNMASKED,
    call,
    compiled_layers,
    model_of,
    new_cache,
    register_floor,
    register_unmasked,
    repeated_cache,
)
from benchmarks.model_run import Case, Run, decode, prefill, seconds_of
from sparsedsl.integrations.transformers import register
from sparsedsl.patterns.power import power_attention

FUSED = {"cuDNN": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
OURS, NO_MASK, MASKED, NOTHING = "PowerAttention", "dense, no mask", "dense, masked", "no attention"
PREFILLED = {OURS: SPARSE, "dense": DENSE, NOTHING: FLOOR}
KEYS = ("attention", "layers", "what", "batch")
FARTHEST = 5e-2  # of the logits over causal() from dense attention's
FARTHEST_COMPILED = 0.2  # of the logits of compiled layers from eager ones'; logits that share nothing are 1.4 apart
CHECK_TOKENS = 1000
MASKED_LIMIT = 5.0  # seconds; a step takes ten times as long as others


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
    q = torch.randn(len(k), run.options.heads, 1, k.shape[3], dtype=k.dtype, device=k.device)
    seconds = {name: seconds_of(run, partial(form, q, k, v), 20) for name, form in FORMS.items()}
    run.note(dense_decode_layer_s=run.record.get("dense_decode_layer_s", {}) | {f"batch {len(k)}": seconds})
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
    """The figures that matter most come first, so that they are safe whatever the others cost."""
    options = run.options
    model = model_of(options)
    tokens = torch.randint(options.vocabulary, (1, options.tokens), device=options.device)
    run.note(parameters=sum(each.numel() for each in model.parameters()))
    with run.step("check"):
        check(run, model, tokens)
    backend = faster_backend(run)
    register_floor()
    for case in (
        Case(OURS, "compiled"),
        Case("dense", "compiled"),
        Case(OURS, "eager"),
        Case("dense", "eager"),
        Case(NOTHING, "compiled"),
        Case(NOTHING, "eager"),
    ):
        implementation(run, model, tokens, case, backend)


def implementation(run: Run, model: Any, tokens: Tensor, case: Case, backend: SDPBackend | None) -> None:
    """A prefill, then decoding from its cache and from copies of it; of dense attention with and without a mask."""
    options, cache = run.options, None
    dense = case.attention == "dense"
    compiled = case.layers == "compiled"
    with compiled_layers(model, backend=options.backend, tuned=options.tuned) if compiled else nullcontext():
        with run.step(f"{case}, prefill"):
            model.set_attn_implementation(PREFILLED[case.attention])
            with sdpa_kernel(backend) if dense and backend else nullcontext():
                cache = prefill(run, model, tokens, case)
        if cache is None:
            return
        stepping = Case(NO_MASK, case.layers) if dense else case
        for batch in options.batches:
            with run.step(f"{stepping}, decode at batch {batch}"):
                many = repeated_cache(model, cache, batch)
                if dense:
                    register_unmasked(grouped=faster_form(run, many))
                    model.set_attn_implementation(UNMASKED)
                decode(run, model, many, stepping, options.decode_limit)
            many = None  # its memory goes before more is taken
        if dense and case.layers == "eager":
            with run.step(f"{MASKED}, decode"):
                model.set_attn_implementation(DENSE)
                decode(run, model, cache, Case(MASKED, case.layers), min(options.decode_limit, MASKED_LIMIT))


def ratios(record: dict[str, Any]) -> list[dict[str, Any]]:
    """How many times as long dense attention takes as PowerAttention, and as no attention: the bound."""
    rate = {tuple(each[key] for key in KEYS): each["tokens_per_s"] for each in record["measured"]}
    found = []
    for (attention, *place), dense in rate.items():
        own, floor = (rate.get((other, *place)) for other in (OURS, NOTHING))
        if own and attention not in (OURS, NOTHING):
            entry = dict(zip(KEYS, (attention, *place), strict=True))
            found.append({**entry, "times": own / dense, "bound": floor and floor / dense})
    return found


def summary(record: dict[str, Any]) -> str:
    """A line for each measurement, and how many times as long dense attention takes."""
    lines = []
    for each in record["measured"]:
        memory = "" if each["peak_gib"] is None else f", peak {each['peak_gib']:.1f} GiB"
        count = f"{each['steps']} steps " if "steps" in each else ""
        step = f", {each['ms_per_step']:.2f} ms a step" if "steps" in each else ""
        speed = f"{count}{each['seconds']:.2f} s{step}, {each['tokens_per_s']:.1f} tokens/s"
        lines.append(f"{each['layers']:8} {each['attention']:16} {place_of(each):16} {speed}{memory}")
    for each in record["ratios"]:
        bound = "" if each["bound"] is None else f"; {each['bound']:.2f} times as long as no attention"
        takes = f"{each['attention']} takes {each['times']:.2f} times as long as PowerAttention{bound}"
        lines.append(f"{each['layers']} {place_of(each)}: {takes}")
    return "\n".join([*lines, *failures(record)])


def place_of(measured: dict[str, Any]) -> str:
    """What was measured, in words."""
    return "prefill" if measured["what"] == "prefill" else f"decode, batch {measured['batch']}"


def failures(record: dict[str, Any]) -> list[str]:
    """What is missing or wrong."""
    measured = record["measured"]
    other = [each for each in measured if not each.get("same_tokens_as_plain_calls", True)]
    distances = record.get("distance_compiled_from_eager", {})
    far = {name: each for name, each in distances.items() if not each < FARTHEST_COMPILED}
    return [
        *record["absences"],
        *(f"{each['layers']} {each['attention']}: the graph's tokens are not those of plain calls" for each in other),
        *(f"{name}: the logits of compiled layers are {each:.2g} away from eager ones'" for name, each in far.items()),
    ]


def numbers(text: str) -> tuple[int, ...]:
    """Numbers by commas, each at least 1."""
    found = tuple(int(each) for each in text.split(","))
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected numbers above 0, try 1,8")
    return found


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
    parser.add_argument("--batches", type=numbers, default=(1, 8), help="of the decoding, by commas (default: 1,8)")
    parser.add_argument("--backend", default="inductor", help="of torch.compile (default: inductor)")
    parser.add_argument("--tuned", action="store_true", help="compile with coordinate_descent_tuning, which takes long")
    limits = {
        "limit": (180.0, "of the whole run"),
        "part-limit": (60.0, "of one measurement"),
        "prefill-limit": (9.0, "of a prefill that is repeated"),
        "decode-limit": (3.0, "of steps in each decoding"),
    }
    for name, (seconds, what) in limits.items():
        parser.add_argument(f"--{name}", type=float, default=seconds, help=f"seconds {what} (default: {seconds:.0f})")
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
    run.note(ratios=ratios(run.record))
    print(summary(run.record))
    return 1 if failures(run.record) else 0


if __name__ == "__main__":
    sys.exit(main())
