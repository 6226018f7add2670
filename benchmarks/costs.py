"""The numbers of codegen/gpus.py, solved from the recorded runs: what a tile costs each of our kernels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from statistics import median
from typing import Any

import sparsedsl as sd
from benchmarks.cases import CASES
from benchmarks.peers import CUDNN, OURS
from benchmarks.record import Record
from benchmarks.tables import DIRECTIONS, RESULTS, plain_timings
from sparsedsl.codegen.explanation import ExplainedLayer
from sparsedsl.codegen.gpus import DenseRate, Gpu, KernelCost, Shape

LENGTH, SHORT = 131072, 32768
# Of an H200, as its maker states them; no record of ours has them.
MULTIPROCESSORS = 132
# Which two measured patterns tell the two numbers of a kernel: cases of the attention benchmark at 131072 tokens, or
# windows of the ceilings' run at 32768.
BY_CASES: dict[tuple[str, Shape], tuple[str, str]] = {
    ("forward", (128, 64, 64)): ("sliding 1024", "dilated 512 x 8"),
    ("forward", (128, 128, 64)): ("sliding 4096", "power 256"),
    ("backward", (128, 64, 64)): ("dilated 512 x 8", "sliding 4096"),
}
BY_WINDOWS: dict[tuple[str, Shape], tuple[int, int]] = {
    ("forward", (64, 64, 64)): (512, 1024),
    ("forward", (64, 128, 64)): (4096, 8192),
    ("forward", (256, 128, 64)): (1024, 4096),
    ("backward", (64, 64, 64)): (1024, 4096),
    ("backward", (256, 64, 64)): (1024, 4096),
}
# The kernels for Hopper: what ran by default. Both directions' numbers come from these two cases.
HOPPER_SHAPES: dict[str, Shape] = {"forward": (128, 128, 128), "backward": (128, 64, 128)}
HOPPER_CASES = ("sliding 1024", "sliding 4096")
TYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def measured_gpu(record: Record) -> Gpu:
    """The H200 as the recorded runs have it."""
    ceilings: dict[str, Any] = json.loads((RESULTS / "ceilings_h200.json").read_text(encoding="utf-8"))
    windows = {(each["head_dim"], each["window"], each["direction"]): each["ms"] for each in ceilings["kernels"]}
    cases = {(each.case, each.direction): each.ms for each in plain_timings(record) if each.tokens == LENGTH}
    costs: dict[tuple[str, Shape], KernelCost] = {}
    for (direction, shape), names in BY_CASES.items():
        pair = [(explained_case(name, LENGTH), cases[name, direction]) for name in names]
        costs[direction, shape] = _solved(pair, direction)
    for (direction, shape), sizes in BY_WINDOWS.items():
        pair = [(_explained(sd.sliding(size), SHORT, shape[0]), windows[shape[0], size, direction]) for size in sizes]
        costs[direction, shape] = _solved(pair, direction)
    forward, backward = (
        tuple(sorted((shape, cost) for (name, shape), cost in costs.items() if name == direction))
        for direction in DIRECTIONS
    )
    rates = {(each.tokens, each.direction): round(each.tflops, 2) for each in record.timings if each.peer == CUDNN}
    lengths = sorted({tokens for tokens, _ in rates})
    return Gpu(
        name="h200",
        multiprocessors=MULTIPROCESSORS,
        matrix=tuple((TYPES[each["dtype"]], each["tflops"]) for each in ceilings["matrix"]),
        copy=ceilings["copy"]["terabytes_per_s"],
        forward=forward,
        backward=backward,
        call=(_host_ms(record, "forward"), _host_ms(record, "backward")),
        dense=tuple(DenseRate(tokens, *(rates[tokens, direction] for direction in DIRECTIONS)) for tokens in lengths),
        hopper=_hopper_costs(record, "forward", "hopper"),
        hopper_backward=_hopper_costs(record, "backward", "hopper_backward"),
    )


def _hopper_costs(record: Record, direction: str, kernel: str) -> tuple[tuple[Shape, KernelCost]]:
    found = hopper_timings(record, direction)
    pair = [(explained_case(name, LENGTH), found[name, LENGTH]) for name in HOPPER_CASES]
    return ((HOPPER_SHAPES[direction], _solved(pair, kernel)),)


def hopper_timings(record: Record, direction: str) -> dict[tuple[str, int], float]:
    """Milliseconds of the kernels for Hopper by case and tokens: where the default runs them, sparse patterns only."""
    kernel = "hopper" if direction == "forward" else "hopper_backward"
    names = {
        case.name
        for case in CASES
        if all(getattr(part, kernel) is not None for part in explained_case(case.name, SHORT).parts)
    }
    return {
        (each.case, each.tokens): each.ms
        for each in record.timings
        if each.case in names and (each.peer, each.direction) == (OURS, direction)
    }


def explained_case(name: str, tokens: int) -> ExplainedLayer:
    """What `explain` counts of a case."""
    return _explained(next(case.pattern for case in CASES if case.name == name), tokens, 128)


def fitted(case: str, direction: str) -> bool:
    """Whether a case gave a number of that direction's kernels."""
    return any(case in names for (name, _), names in BY_CASES.items() if name == direction)


def _explained(pattern: sd.Pattern, tokens: int, head_dim: int) -> ExplainedLayer:
    (layer,) = sd.explain(pattern, seq_len=tokens, head_dim=head_dim).layers
    return layer


def _solved(pair: list[tuple[ExplainedLayer, float]], direction: str) -> KernelCost:
    """visited · a + own · b = the time, twice; where the two tell a b below 0, b is 0 and a fits both together."""
    name = "dq" if direction == "backward" else direction
    (visited, own, ns), (visited2, own2, ns2) = (
        (kernel.full + kernel.partial, kernel.own, ms * 1e6)
        for layer, ms in pair
        for part in layer.parts
        for kernel in (*part.kernels, part.hopper, part.hopper_backward)
        if kernel is not None and kernel.name == name
    )
    determinant = visited * own2 - visited2 * own
    a, b = (ns * own2 - ns2 * own) / determinant, (visited * ns2 - visited2 * ns) / determinant
    if b < 0:
        a, b = (ns + ns2) / (visited + visited2), 0.0
    return KernelCost(_short(a), _short(b))


def _host_ms(record: Record, direction: str) -> float:
    found: list[float] = [
        getattr(each, f"{direction}_host_ms") / len(explained_case(each.case, SHORT).parts)
        for each in record.preparations
        if each.case in {case.name for case in CASES}
    ]
    return round(median(found), 3)


def _short(number: float) -> float:
    """Four digits."""
    return float(f"{number:.4g}")


def source(gpu: Gpu) -> Iterator[str]:
    """The lines of codegen/gpus.py that define it."""
    yield f"{gpu.name.upper()} = Gpu("
    yield f'    name="{gpu.name}",'
    yield f"    multiprocessors={gpu.multiprocessors},"
    matrix = ", ".join(f'("{name}", {rate})' for name, rate in gpu.matrix)
    yield f"    matrix=({matrix}),"
    yield f"    copy={gpu.copy},"
    for direction, costs in zip(DIRECTIONS, (gpu.forward, gpu.backward), strict=True):
        yield f"    {direction}=("
        for shape, cost in costs:
            yield f"        ({shape}, KernelCost({cost.visited}, {cost.own})),"
        yield "    ),"
    yield f"    call={gpu.call},"
    rates = ", ".join(f"DenseRate({each.tokens}, {each.forward}, {each.backward})" for each in gpu.dense)
    yield f"    dense=({rates}),"
    for name, ((shape, cost),) in (("hopper", gpu.hopper), ("hopper_backward", gpu.hopper_backward)):
        yield f"    {name}=(({shape}, KernelCost({cost.visited}, {cost.own})),),"
    yield ")"
