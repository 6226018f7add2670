"""Tile programs in words, for the head of an emitted module."""

from __future__ import annotations

from collections.abc import Sequence

from sparsedsl.codegen.runs import Jump, Listed, Run
from sparsedsl.codegen.walk import Section, even_difference
from sparsedsl.integers import INFINITY


def describe(section: Section, own: str) -> str:
    """The section's runs in words, for headers: which tiles, seen from the own tile."""
    return "; ".join(_description(run, own) for run in section.runs)


def _description(run: Run, own: str) -> str:
    def side(values: Sequence[int] | None, edge: str) -> str:
        if values is None:
            return edge
        return even_difference(values) or "a bound by place"

    where = ""
    if run.rows[0] > 0 or run.rows[1] != INFINITY:
        where += f", {own} in {_range(run.rows)}"
    if run.columns[0] > 0 or run.columns[1] != INFINITY:
        where += f", tiles {_range(run.columns)}"
    if isinstance(run, Listed):
        count = max(map(len, run.entries))
        again = f", again every {run.turn}" if run.endless else ""
        return f"a list of {count} tiles {'before' if run.sign > 0 else 'after'} home{again}{where}"
    if isinstance(run, Jump):
        wide = f" and {run.width - 1} more" if run.width > 1 else ""
        sign = "-" if run.sign > 0 else "+"
        start = side(tuple(run.sign * each for each in run.offset), "")
        return f"{start} {sign} {run.scale} * {run.base}**t{wide}, t = 0, 1, ...{where}"
    low, high = side(run.farthest, "first"), side(run.nearest, "last")
    step = f" by {run.step}" if run.step > 1 else ""
    single = run.farthest is not None and run.farthest == run.nearest
    return (low if single else f"{low} .. {high}") + step + where


def _range(span: tuple[int, int]) -> str:
    return f"[{span[0]}, {'...' if span[1] == INFINITY else span[1]})"
