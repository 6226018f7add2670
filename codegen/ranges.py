"""Print a tile program as Python that lists ranges of tiles: the walk of the CPU road."""

from __future__ import annotations

from sparsedsl.codegen.runs import Jump, Listed, Stretch
from sparsedsl.codegen.walk import Names, Section, condition_of, limits, list_arguments, run_lines


def range_lines(section: Section, names: Names, mask: str) -> list[str]:
    """Python source that appends (range of tiles, mask) for each run of the section to `runs`."""
    lines: list[str] = []
    for run in section.runs:
        if isinstance(run, Stretch):
            lines += run_lines(run, names, "start", "count")
            stop = "start + count" if run.step == 1 else f"start + {run.step} * count, {run.step}"
            lines.append(f"runs.append((range(start, {stop}), {mask}))")
            continue
        inner = _list_lines(run, names, mask) if isinstance(run, Listed) else _jump_lines(run, names, mask)
        condition = condition_of(run, names)
        lines += [f"if {condition}:", *(f"    {line}" for line in inner)] if condition else inner
    return lines


def _list_lines(run: Listed, names: Names, mask: str) -> list[str]:
    arguments = ", ".join([*list_arguments(run, names), *limits(run, names)])
    return [f"for tile in listed_tiles({arguments}):", f"    runs.append((range(tile, tile + 1), {mask}))"]


def _jump_lines(run: Jump, names: Names, mask: str) -> list[str]:
    low, high = limits(run, names)
    if run.sign > 0:
        ends = f"max(origin - jump - {run.width - 1}, {low}), origin - jump + 1"
    else:
        ends = f"origin + jump, min(origin + jump + {run.width}, {high})"
    return [
        f"origin = {names.home_less(tuple(run.sign * each for each in run.offset))}",
        f"for jump in ({run.scale} * {run.base}**t for t in range({run.count})):",
        f"    if {f'origin - jump < {low}' if run.sign > 0 else f'origin + jump >= {high}'}:",
        "        break",
        f"    runs.append((range({ends}), {mask}))",
    ]
