"""A model of Qwen2-7B's shape, dense beside PowerAttention: prefill of 131072 tokens, then 1024 decode steps.

    python -m benchmarks.model --out benchmarks/results/model_h200.json

The model is stock transformers (28 layers, hidden 3584, 28 heads, 4 key heads) with random bf16 weights made on the
device; nothing is downloaded. Dense is the library's `sdpa`. Both fill a cache in one prefill whose logits are of the
last token alone; its content goes to a static cache, not timed, from which they decode greedily. (A static cache in the
prefill would cost sdpa a mask of N x N.) Random weights make random text: this measures time and memory, no quality.
`--layers 2 --hidden 64 ... --device cpu` shrinks it.
"""

from __future__ import annotations

import argparse
import gc
import json
from dataclasses import asdict, dataclass
from inspect import signature
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

import sparsedsl as sd
from benchmarks.record import machine
from sparsedsl.integrations.transformers import register
from sparsedsl.patterns.power import power_attention

NAME = "power_benchmark"
DENSE, SPARSE = "sdpa", NAME


@dataclass(frozen=True, slots=True)
class Measured:
    """One implementation: seconds of prefill and of all decode steps, and the peak of device memory in GiB."""

    attention: str
    prefill_s: float
    decode_s: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    peak_gib: float | None


def model_of(options: argparse.Namespace, attention: str) -> Any:
    """The model with random weights, made where it runs."""
    import transformers

    config = transformers.Qwen2Config(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=options.intermediate,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.key_heads,
        max_position_embeddings=options.tokens + options.steps,
        use_sliding_window=False,
        attention_dropout=0.0,
    )
    torch.manual_seed(0)
    with torch.device(options.device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation=attention, dtype=getattr(torch, options.dtype)
        )
    return model.eval()


@torch.inference_mode()
def run(model: Any, tokens: Tensor, steps: int) -> tuple[float, float, Tensor]:
    """Seconds of the prefill and of the decode steps, and the logits after the prefill."""
    from transformers import DynamicCache, StaticCache

    cache, fixed = DynamicCache(config=model.config), StaticCache(model.config, tokens.shape[1] + steps)
    # The argument's name has changed from one release to the next.
    name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
    start = now(tokens)
    logits = model(tokens, **{name: cache}, use_cache=True, logits_to_keep=1).logits
    prefilled = now(tokens)
    for number, layer in enumerate(cache.layers):
        fixed.update(layer.keys, layer.values, number)
        layer.keys = layer.values = None
    last, started = logits[:, -1:].argmax(-1), now(tokens)
    for _ in range(steps):
        last = model(last, **{name: fixed}, use_cache=True, logits_to_keep=1).logits.argmax(-1)
    return prefilled - start, now(tokens) - started, logits


def now(tensor: Tensor) -> float:
    """The time once the device has done all it was given."""
    if tensor.is_cuda:
        torch.cuda.synchronize()
    return perf_counter()


def measured(options: argparse.Namespace, attention: str) -> Measured:
    """Warm up at a short length, which compiles what is compiled, then measure once."""
    model = model_of(options, attention)
    tokens = torch.randint(options.vocabulary, (1, options.tokens), device=options.device)
    run(model, tokens[:, : min(options.tokens, 2048)], 3)
    cuda = tokens.is_cuda
    if cuda:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    prefill, decode, logits = run(model, tokens, options.steps)
    assert logits.isfinite().all(), attention
    return Measured(
        attention,
        prefill,
        decode,
        options.tokens / prefill,
        options.steps / decode,
        torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
    )


def check(options: argparse.Namespace) -> float:
    """The relative distance between dense attention and the integration over causal(), on short input."""
    register(sd.causal(), f"{NAME}_check")
    tokens = torch.randint(options.vocabulary, (1, min(options.tokens, 1000)), device=options.device)
    found = []
    for attention in (DENSE, f"{NAME}_check"):
        model = model_of(options, attention)
        found.append(run(model, tokens, 0)[2].float())
        del model
        gc.collect()
    distance = float((found[0] - found[1]).norm() / found[0].norm())
    assert distance < 5e-2, distance
    return distance


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
    parser.add_argument("--out", type=Path, help="where the record goes")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Check, measure both, print and record."""
    options = arguments(words)
    pattern = power_attention(block=options.block)
    register(pattern, NAME)
    distance = check(options)
    print(f"{pattern}\nover causal() the logits are {distance:.1e} from dense attention's", flush=True)
    found = []
    for attention in (DENSE, SPARSE):
        one = measured(options, attention)
        found.append(one)
        gc.collect()
        memory = "" if one.peak_gib is None else f", peak {one.peak_gib:.1f} GiB"
        print(
            f"{attention:16} prefill {one.prefill_s:.2f} s, {one.prefill_tokens_per_s:.0f} tokens/s; "
            f"{options.steps} steps {one.decode_s:.2f} s, {one.decode_tokens_per_s:.1f} tokens/s{memory}",
            flush=True,
        )
    dense, sparse = found
    ratios = {"prefill": dense.prefill_s / sparse.prefill_s, "decode": dense.decode_s / sparse.decode_s}
    print(
        f"dense takes {ratios['prefill']:.2f} x the prefill and {ratios['decode']:.2f} x the decode of PowerAttention"
    )
    if options.out:
        told = {key: value for key, value in vars(options).items() if key != "out"}
        record = {
            "machine": machine(),
            "options": told,
            "pattern": str(pattern),
            "distance_over_causal": distance,
            "measured": [asdict(each) for each in found],
            "dense_over_sparse": ratios,
        }
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
