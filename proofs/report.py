"""A verdict as text for one screen."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparsedsl.proofs.verdict import Intervals, Verdict

# Depths and intervals listed; longer lists are cut in the middle or at the end.
DEPTHS_SHOWN = 10
INTERVALS_SHOWN = 4
WIDTH = 100


def report(verdict: Verdict) -> str:
    """The verdict, what it says, and what it rests on, one line each."""
    lines = [
        ("pattern", shortened(verdict.pattern)),
        ("tokens", _tokens(verdict)),
        ("layers", _layers(verdict)),
        ("verdict", _outcome(verdict)),
        ("depth", _depth(verdict)),
        ("reach", f"{_listed(verdict.reach)}  tokens seen by the last query, layer by layer"),
        ("contiguous", f"{_listed(verdict.contiguous)}  every distance up to it, from every token"),
        ("degree", f"{number(verdict.degree)} keys in the worst row"),
        ("density", _density(verdict)),
        ("holes", _intervals(verdict.holes, "the last query sees all from its farthest key on")),
        ("keyless", _intervals(verdict.keyless, "every row has a key")),
        ("rests on", verdict.basis),
    ]
    if not verdict.complete and verdict.residual and not verdict.ahead:
        lines.append(("repair", "--repair, or repair(pattern, ...), finds the cheapest edit that completes it"))
    return "\n".join(f"{name:<12}{text}" for name, text in lines)


def number(value: int) -> str:
    """131072 as 131 072."""
    return f"{value:,}".replace(",", " ")


def shortened(text: str) -> str:
    """The text, its middle left out where it is longer than a line."""
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 30]} ... {text[-25:]}"


def _tokens(verdict: Verdict) -> str:
    blocks = -(-verdict.seq_len // verdict.unit)
    tail = f", {number(blocks)} blocks of {number(verdict.unit)}" if verdict.unit > 1 else ""
    return number(verdict.seq_len) + tail


def _layers(verdict: Verdict) -> str:
    count = "as many as it takes" if verdict.layers is None else number(verdict.layers)
    return f"{count}, {'with' if verdict.residual else 'without'} the residual connection"


def _outcome(verdict: Verdict) -> str:
    gap = verdict.counterexample
    if gap is None:
        which = "every token" if verdict.ahead else "every earlier token"
        return f"COMPLETE: every token reaches {which}"
    share = verdict.joined_pairs / verdict.pairs
    return (
        f"INCOMPLETE: query {number(gap.q)} does not reach key {number(gap.k)}, from {number(gap.seq_len)} tokens "
        f"on; {share:.2%} of the pairs are joined"
    )


def _depth(verdict: Verdict) -> str:
    if verdict.depth is not None:
        return f"{number(verdict.depth)} {'layer is' if verdict.depth == 1 else 'layers are'} needed"
    if not verdict.settled:
        return f"more than {number(len(verdict.reach))} layers are needed; the search for how many was given up"
    return "no number of layers will do"


def _density(verdict: Verdict) -> str:
    return f"{verdict.density:.4%} of the causal triangle, {number(verdict.live_pairs)} live pairs"


def _listed(values: Sequence[int]) -> str:
    shown = [number(value) for value in values]
    if len(shown) > DEPTHS_SHOWN:
        shown = [*shown[: DEPTHS_SHOWN - 2], "...", shown[-1]]
    return ", ".join(shown)


def _intervals(intervals: Intervals, none: str) -> str:
    if not intervals.count:
        return f"none: {none}"
    shown = [f"[{number(lo)}, {number(hi)})" for lo, hi in intervals.first[:INTERVALS_SHOWN]]
    more = ", ..." if intervals.count > INTERVALS_SHOWN else ""
    return f"{number(intervals.tokens)} positions in {number(intervals.count)} intervals: {', '.join(shown)}{more}"


def path_report(q: int, k: int, path: Sequence[int] | None) -> str:
    """A witness path, the top layer first."""
    if path is None:
        return f"query {number(q)} does not reach key {number(k)}"
    layers = len(path) - 1
    lines = [f"query {number(q)} reaches key {number(k)} in {layers} layer{'' if layers == 1 else 's'}"]
    for below, (query, key) in enumerate(pairwise(path), 1):
        step = f"distance {number(query - key)}" if query != key else "passed on"
        lines.append(f"  layer {layers - below + 1:<4} {number(query)} -> {number(key)}  {step}")
    return "\n".join(lines)
