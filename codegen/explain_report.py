"""An explanation as text: the plan first, then its work, memory and time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import fill

from sparsedsl.codegen.explanation import Bytes, Choice, ExplainedLayer, Explanation, Kernel, Kind, PartOfPlan, Pass
from sparsedsl.errors import clipped

WIDTH = 118
PATTERN_WIDTH, RUN_WIDTH = 100, 200
# Lines of runs, and heads or layers, that are listed.
RUNS_SHOWN, NUMBERS_SHOWN = 8, 12
KERNELS = {
    "forward": "forward",
    "dq": "dq",
    "dkdv": "dk/dv",
    "hopper": "on Hopper",
    "hopper_backward": "backward on Hopper",
}
ROADS = {
    "loops": "loops by arithmetic, no table",
    "lists": "loops, some over lists of tiles in the module's constants",
    "table": "a table of tiles, made on the host for each length",
}
# Where Hopper has no kernel of its own.
PLAIN_FORWARD = "the plain forward: its own takes 16-bit types, and tiles in closed form"
PLAIN_BACKWARD = (
    "the plain dq and dk/dv: its own takes 16-bit types, heads of 24 to 128, tiles in closed form with short masks, "
    "and of several parts long ones"
)


def report(found: Explanation) -> str:
    """All layers, one after the other."""
    head = [
        (
            "inputs",
            f"{number(found.seq_len)} tokens, batch 1, {count(found.heads, 'head')}, "
            f"{count(found.key_heads, 'key head')}, head dim {found.head_dim}, {found.dtype}; tiling {found.tiling}",
        )
    ]
    blocks = [
        _lines([("pattern", shortened(each.pattern)), *_owners(each), *head, *_layer(each, found)])
        for each in found.layers
    ]
    return "\n\n".join(blocks)


def _lines(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(fill(text, WIDTH, initial_indent=f"{name:<12}", subsequent_indent=" " * 12) for name, text in rows)


def _owners(layer: ExplainedLayer) -> list[tuple[str, str]]:
    return [("layers", f"{listed(layer.layers)} ({len(layer.layers)} in all)")] if layer.layers else []


def _layer(layer: ExplainedLayer, found: Explanation) -> list[tuple[str, str]]:
    rows = [("plan", _plan(layer.choice, len(layer.parts), layer.parts[0].step))]
    for place, part in enumerate(layer.parts):
        rows += _part(part, place, len(layer.parts))
    rows.append(("live pairs", _live(layer)))
    rows.append(("constants", _constants(layer)))
    for name, each in (("forward", layer.forward), ("backward", layer.backward)):
        rows += [(name, _flops(each)), ("", _bytes(each))]
    rows.append(("memory", f"forward {_memory(layer.forward_memory)}"))
    rows.append(("", f"backward {_memory(layer.backward_memory)}"))
    if layer.hopper_backward_memory:
        rows.append(("", f"backward on Hopper {_memory(layer.hopper_backward_memory)}"))
    for name, each in (("forward", layer.forward), ("backward", layer.backward)):
        rows.append((f"on {found.gpu}" if name == "forward" else "", f"{name} {_time(each)}"))
    return rows


def _plan(choice: Choice, parts: int, step: int) -> str:
    if choice.identity is None or choice.parts is None:
        return "1 part in identity order: no other order fits the whole pattern"
    cost = (
        f"{choice.parts:.4g} tiles a query tile, {choice.identity:.4g} in identity order "
        f"({choice.tile} x {choice.tile}, {number(choice.tokens)} tokens)"
    )
    if choice.parts > choice.gain * choice.identity:
        return f"1 part in identity order: residue order would cost {cost}; it must save {1 - choice.gain:.0%}"
    if parts == 1:
        return f"1 part in residue order: {cost}"
    return f"{parts} disjoint parts, merged by log-sum-exp: {cost}"


def _part(part: PartOfPlan, place: int, parts: int) -> list[tuple[str, str]]:
    order = (
        "identity order: tiles hold neighbouring positions"
        if part.step == 1
        else f"residue({part.step}): tiles hold every {part.step}th position, in {count(part.classes, 'class')}"
    )
    rows = [(f"part {place}" if parts > 1 else "order", order)]
    for kind in part.kinds:
        where = " over ranks" if part.step > 1 else ""
        named = parts > 1 or part.step > 1 or len(part.kinds) > 1
        rows += _kind(kind, len(part.kinds), shortened(kind.pattern) + where if named else "")
    forward, *backward = ((f"  {KERNELS[kernel.name]}", _kernel(kernel)) for kernel in part.kernels)
    own = _kernel(part.hopper) if part.hopper else PLAIN_FORWARD
    own_backward = _kernel(part.hopper_backward) if part.hopper_backward else PLAIN_BACKWARD
    return [*rows, forward, ("  on Hopper", own), *backward, ("  on Hopper", own_backward)]


def _kind(kind: Kind, kinds: int, name: str) -> list[tuple[str, str]]:
    owners = f"{'head' if len(kind.heads) == 1 else 'heads'} {listed(kind.heads)}: " if kinds > 1 else ""
    rows = [("  pairs", owners + name)] if name else []
    rows.append(("  road", ROADS[kind.road]))
    rows += [
        ("    walks" if not place else "", clipped(run, RUN_WIDTH)) for place, run in enumerate(kind.runs[:RUNS_SHOWN])
    ]
    more = len(kind.runs) - RUNS_SHOWN
    return [*rows, ("", f"and {more} more loops")] if more > 0 else rows


def _kernel(kernel: Kernel) -> str:
    table = f"; table of {size(kernel.table)}" if kernel.table else ""
    if kernel.split:
        table += f"; {count(kernel.split, 'key tile')} that all later queries read, each in {kernel.shares} programs"
    return (
        f"tiles {kernel.block_m} x {kernel.block_n}: {number(kernel.full)} FULL, {number(kernel.partial)} PARTIAL; "
        f"{number(kernel.executed)} pairs executed, waste {kernel.waste:.2f}x; {flops(kernel.flops)}{table}"
    )


def _all(part: PartOfPlan) -> tuple[Kernel, ...]:
    return tuple(each for each in (part.hopper, *part.kernels, part.hopper_backward) if each is not None)


def _live(layer: ExplainedLayer) -> str:
    text = f"{number(layer.live_pairs)} in all heads"
    if layer.dense_ratio is None:
        return text
    return f"{text}; dense causal has {layer.dense_ratio:.3g}x as many, the most that leaving pairs out can gain"


def _constants(layer: ExplainedLayer) -> str:
    if not layer.constants:
        return "none"
    readers = dict.fromkeys(KERNELS[each.name] for part in layer.parts for each in _all(part) if each.constants)
    text = f"{number(layer.constants)} numbers, {size(4 * layer.constants)}"
    return f"{text}, read by {', '.join(readers)}" if readers else f"{text}, read on the CPU only"


def _flops(each: Pass) -> str:
    return f"{flops(each.useful_flops)} useful, {flops(each.executed_flops)} executed ({each.waste:.2f}x)"


def _bytes(each: Pass) -> str:
    merged = f", {size(each.merged_bytes)} of them to merge parts" if each.merged_bytes else ""
    return (
        f"{size(each.floor_bytes)} with each tensor moved once ({each.intensity:.0f} useful FLOPs a byte); "
        f"the tiles move {size(each.loaded_bytes)}{merged}, most of it from cache"
    )


def _memory(found: Sequence[Bytes]) -> str:
    return f"{size(sum(each.bytes for each in found))}: " + ", ".join(
        f"{each.name} {size(each.bytes)}" for each in found
    )


def _time(each: Pass) -> str:
    floor = "no matrix rate measured for this type"
    if each.floor_ms is not None:
        by = "matrix rate" if each.floor_ms > each.memory_ms else "copy rate"
        floor = f"{milliseconds(each.floor_ms)} at least ({by})"
    ours = each.predicted_ms if each.hopper_ms is None else each.hopper_ms
    if ours is None or each.predicted_ms is None:
        return f"{floor}; kernels of this shape were not measured"
    by_host = ours <= each.launch_ms
    text = f"{milliseconds(ours)} predicted{' (launches)' if by_host else ''}, {floor}"
    if each.hopper_ms is not None and not by_host:
        text = f"{milliseconds(ours)} predicted ({milliseconds(each.predicted_ms)} by the plain kernels), {floor}"
    if each.dense_ms is None or by_host:
        return text
    return f"{text}; dense causal cuDNN {milliseconds(each.dense_ms)}, {each.dense_ms / ours:.3g}x as long"


def number(value: int) -> str:
    """131072 as 131 072."""
    return f"{value:,}".replace(",", " ")


def count(value: int, noun: str) -> str:
    """1 head, 2 heads, 4 classes."""
    plural = "" if value == 1 else "es" if noun.endswith("s") else "s"
    return f"{number(value)} {noun}{plural}"


def flops(value: int) -> str:
    """With the prefix that leaves one to three digits before the point."""
    return scaled(value, 1000, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"))


def size(value: int) -> str:
    """Bytes in powers of 1024."""
    return scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def scaled(value: float, step: int, units: Sequence[str]) -> str:
    """The value in the unit that leaves it below a step.

    >>> scaled(4718592, 1024, ("B", "KiB", "MiB"))
    '4.5 MiB'

    """
    place = 0
    while value >= step and place < len(units) - 1:
        value, place = value / step, place + 1
    return f"{value:.4g} {units[place]}"


def milliseconds(value: float) -> str:
    """Three digits are more than a prediction is worth."""
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def shortened(text: str) -> str:
    """The text, its middle left out where it is longer than a line."""
    return text if len(text) <= PATTERN_WIDTH else f"{text[: PATTERN_WIDTH - 30]} ... {text[-25:]}"


def listed(numbers: Sequence[int]) -> str:
    """Numbers in short: neighbours as a range, long lists cut."""
    spans: list[list[int]] = []
    for each in numbers:
        if spans and each == spans[-1][1] + 1:
            spans[-1][1] = each
        else:
            spans.append([each, each])
    texts = [f"{lo}" if lo == hi else f"{lo}, {hi}" if hi == lo + 1 else f"{lo} to {hi}" for lo, hi in spans]
    return ", ".join(texts if len(texts) <= NUMBERS_SHOWN else [*texts[:NUMBERS_SHOWN], "..."])
