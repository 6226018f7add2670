"""Our kernels beside FlexAttention and dense SDPA on one GPU: correctness first, then medians of one process.

python benchmarks/attention.py --out benchmarks/results/attention_h200.json
python benchmarks/attention.py --table benchmarks/results/attention_h200.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

import sparsedsl as sd
from sparsedsl.codegen.build import CompiledAttention, compile
from sparsedsl.codegen.header import live_pairs

HEADS, HEAD_DIM, DTYPE = 16, 128, torch.bfloat16
LENGTHS = (32768, 131072)
CHECKED_LENGTH = 4096


@dataclass(frozen=True)
class Case:
    """A pattern in our language and as FlexAttention's mask."""

    name: str
    pattern: sd.Pattern
    mask: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def power(block: int, window: int) -> Case:
    """PowerAttention on blocks: a window, powers of two, one sink block."""

    def mask(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        distance = q // block - k // block
        return (q >= k) & ((distance < window) | ((distance & (distance - 1)) == 0) | (k < block))

    pattern = (sd.sliding(window) | sd.power() | sd.sink(1)).blocks(block) & sd.causal()
    return Case(f"power {block}", pattern, mask)


CASES = (
    Case("sliding 1024", sd.sliding(1024), lambda b, h, q, k: (q >= k) & (q - k < 1024)),
    Case("sliding 4096", sd.sliding(4096), lambda b, h, q, k: (q >= k) & (q - k < 4096)),
    power(128, 4),
    power(256, 5),
    Case(
        "dilated 8 x 512",
        sd.dilated(512, 8),
        lambda b, h, q, k: (q >= k) & (q - k < 4096) & ((q - k) % 8 == 0),
    ),
)


def inputs(length: int, heads: int = HEADS) -> list[Tensor]:
    """q, k, v and the output's gradient."""
    torch.manual_seed(length)
    return [torch.randn(1, heads, length, HEAD_DIM, device="cuda", dtype=DTYPE) for _ in range(4)]


def eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Dense attention in the inputs' type."""
    scores = (q @ k.mT * HEAD_DIM**-0.5).masked_fill(~mask, float("-inf"))
    return torch.softmax(scores, -1) @ v


def with_gradients(attend: Callable[..., Tensor], tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Output and the gradients of q, k, v."""
    *leaves, weight = (each.detach().to(dtype).requires_grad_() for each in tensors)
    out = attend(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, weight)]


def check(case: Case, attn: CompiledAttention) -> dict[str, float]:
    """Raise unless errors against float64 are within 2x (output) and 3x (gradients) of eager bf16's own."""
    tensors = inputs(CHECKED_LENGTH, heads=2)
    mask = torch.from_numpy(case.pattern.dense(CHECKED_LENGTH)).cuda()
    exact = with_gradients(lambda q, k, v: eager(q, k, v, mask), tensors, torch.float64)
    usual = with_gradients(lambda q, k, v: eager(q, k, v, mask), tensors, DTYPE)
    block_mask = create_block_mask(case.mask, None, None, CHECKED_LENGTH, CHECKED_LENGTH, device="cuda")
    flex = torch.compile(flex_attention)
    roads: dict[str, Callable[..., Tensor]] = {
        "ours": attn,
        "flex": lambda q, k, v: flex(q, k, v, block_mask=block_mask),
    }
    worst: dict[str, float] = {}
    for road, attend in roads.items():
        got = with_gradients(attend, tensors, DTYPE)
        for name, factor, want, own, plain in zip(
            ("out", "dq", "dk", "dv"), (2, 3, 3, 3), exact, got, usual, strict=True
        ):
            error, allowed = (own - want).abs().max().item(), (plain - want).abs().max().item()
            ratio = error / (allowed + 1e-4)
            worst[f"{road} {name}"] = ratio
            if road == "ours" and not ratio <= factor:
                raise AssertionError(f"{case.name}: {name} is {ratio:.2f} times as wrong as eager bf16")
    return worst


def median_ms(call: Callable[[], object], *, budget_ms: float = 400.0) -> float:
    """The median time of a call on the device."""
    call()
    torch.cuda.synchronize()
    times: list[float] = []
    while len(times) < 5 or (sum(times) < budget_ms and len(times) < 30):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def both_ways(attend: Callable[..., Tensor], tensors: list[Tensor]) -> tuple[float, float]:
    """(forward, backward) in ms."""
    *leaves, weight = tensors
    with torch.no_grad():
        forward = median_ms(lambda: attend(*leaves))
    leaves = [each.detach().requires_grad_() for each in leaves]
    out = attend(*leaves)
    return forward, median_ms(lambda: torch.autograd.grad(out, leaves, weight, retain_graph=True))


def dense_case(length: int) -> dict[str, object]:
    """Dense causal attention by cuDNN and by the flash backend."""
    row: dict[str, object] = {"case": "dense causal", "length": length}
    for name, backend in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
        with sdpa_kernel(backend):
            times = both_ways(lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True), inputs(length))
        row[f"{name}_forward"], row[f"{name}_backward"] = times
    return row


def kernel_count(attn: CompiledAttention) -> int:
    """Compiled kernels of all of the pattern's modules."""
    count = 0
    for module in attn._modules.values():
        for kernel in (module.forward_kernel, module.rows_kernel, module.dq_kernel, module.dkdv_kernel):
            count += sum(len(cache[0]) for cache in kernel.device_caches.values())
    return count


def sparse_case(case: Case, length: int, attn: CompiledAttention) -> dict[str, object]:
    """One pattern at one length, ours and FlexAttention's; the order of the two alternates with the length."""
    tensors = inputs(length)
    kernels = kernel_count(attn)
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    ours = both_ways(attn, tensors)
    peak = torch.cuda.max_memory_allocated() - held
    added = kernel_count(attn) - kernels
    torch._dynamo.reset()
    start = time.perf_counter()
    block_mask = torch.compile(create_block_mask)(case.mask, None, None, length, length, device="cuda")
    torch.cuda.synchronize()
    mask_seconds = time.perf_counter() - start
    flex = torch.compile(flex_attention)
    theirs = both_ways(lambda q, k, v: flex(q, k, v, block_mask=block_mask), tensors)
    again = both_ways(attn, tensors)
    pairs = live_pairs(case.pattern, length)
    flops = 4 * HEAD_DIM * HEADS * pairs
    best = [statistics.mean(pair) for pair in zip(ours, again, strict=True)]
    return {
        "case": case.name,
        "pattern": str(case.pattern),
        "length": length,
        "live_pairs": pairs,
        "ours_forward": best[0],
        "ours_backward": best[1],
        "ours_forward_twice": [ours[0], again[0]],
        "ours_backward_twice": [ours[1], again[1]],
        "flex_forward": theirs[0],
        "flex_backward": theirs[1],
        "flex_mask_seconds": mask_seconds,
        "ours_forward_tflops": flops / best[0] / 1e9,
        "ours_backward_tflops": 2.5 * flops / best[1] / 1e9,
        "ours_peak_bytes": peak,
        "kernels_added_by_this_length": added,
    }


def host_ms(attn: CompiledAttention) -> float:
    """The host's time for one call on a tiny input, everything compiled: preparation and launch."""
    q, k, v, _ = inputs(256)
    for _ in range(20):
        attn(q, k, v)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(100):
        attn(q, k, v)
    return (time.perf_counter() - start) * 10


def table(results: dict[str, object]) -> str:
    """The figures as a Markdown table."""
    rows = results["rows"]
    assert isinstance(rows, list)
    dense = {row["length"]: row for row in rows if row["case"] == "dense causal"}
    lines = [
        "| pattern, tokens | forward ms: ours / Flex / dense cuDNN | ours : Flex "
        "| backward ms: ours / Flex / dense cuDNN | ours : Flex |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if row["case"] == "dense causal":
            continue
        cells = [f"{row['case']}, {row['length']}"]
        for way in ("forward", "backward"):
            ours, flex, cudnn = row[f"ours_{way}"], row[f"flex_{way}"], dense[row["length"]][f"cudnn_{way}"]
            cells += [f"{ours:.2f} / {flex:.2f} / {cudnn:.1f}", f"{ours / flex:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Check, time, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help="print the table of an earlier run")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return 0
    if not torch.cuda.is_available():
        print("this benchmark needs a CUDA device", file=sys.stderr)
        return 2
    rows: list[dict[str, object]] = []
    errors: dict[str, dict[str, float]] = {}
    compiled = {case.name: compile(case.pattern) for case in CASES}
    for case in CASES:
        torch._dynamo.reset()
        errors[case.name] = check(case, compiled[case.name])
        print(
            case.name,
            "correct",
            {name: round(ratio, 2) for name, ratio in errors[case.name].items()},
            flush=True,
        )
    for length in LENGTHS:
        rows.append(dense_case(length))
        for case in CASES:
            rows.append(sparse_case(case, length, compiled[case.name]))
            print(case.name, length, "done", flush=True)
    results: dict[str, object] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "command": "python benchmarks/attention.py --out FILE",
        "setting": f"batch 1, {HEADS} heads, head dim {HEAD_DIM}, {DTYPE}; medians in ms",
        "error_ratios_to_eager": errors,
        "host_ms_per_call": host_ms(compiled["sliding 1024"]),
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))
    print("host ms per call", results["host_ms_per_call"])
    print("kernels added by a new length", [row.get("kernels_added_by_this_length") for row in rows])
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
