"""The result of a synthesis: points, what is proved of each, and the text that shows them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Literal

from sparsedsl.proofs.report import number

Space = Literal["distance set", "schedule", "given"]
Status = Literal["optimal", "heuristic", "given"]

SPACES: dict[Space, str] = {
    "distance set": "one set of distances, 0 among them, the same in every layer",
    "schedule": "a set of distances for each layer, 0 among them; a cycle over the layers",
    "given": "for comparison",
}
# What an `optimal` point was compared with.
PROVED_AMONG: dict[Space, str] = {
    "distance set": "all sets of distances between blocks that contain 0, the same in every layer",
    "schedule": "all stacks of any patterns told in blocks, the own block counted in every row",
    "given": "",
}


@dataclass(frozen=True, slots=True)
class Bound:
    """The fewest blocks in a row with which a depth can be met: proved at least, and found (None: not found).

    `reason` is the proof of `at_least`: that one block fewer is not enough.
    """

    space: Space
    depth: int
    at_least: int
    found: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Point:
    """One pattern, verified by `check` for the length and layers of its front.

    pattern          the expression, ready for `sparsedsl check`, and for `sparsedsl build` (a schedule: layer by layer)
    keys             keys per query in tokens: the worst row, its diagonal block counted whole
    blocks           the same in blocks, own block included
    depth            the layers that join every token to every earlier one
    influence        the least share of any block in the last one after all layers
    influence_limit  no pattern of the space with as many blocks has more; proved, and seldom tight (None: not told)
    status           optimal: proved, among `PROVED_AMONG[space]`, that fewer blocks need more depth and that no
                     less depth has as few blocks; influence is not part of the proof. heuristic: found, not proved
    at_least         the blocks that are proved necessary at this depth
    """

    space: Space
    pattern: str
    keys: int
    blocks: int
    depth: int
    influence: float
    influence_limit: float | None
    status: Status
    at_least: int | None

    def beats(self, other: Point) -> bool:
        """Not worse than the other in keys, depth and influence, and better in one of them."""
        mine, its = (self.blocks, self.depth, -self.influence), (other.blocks, other.depth, -other.influence)
        return mine != its and all(a <= b for a, b in zip(mine, its, strict=True))


def pareto(points: Iterable[Point]) -> tuple[Point, ...]:
    """The points that no other beats, fewest blocks first; one of each kind.

    Cost
        O(points²) time.
    """
    listed = sorted(points, key=lambda each: (each.blocks, each.depth, -each.influence, each.pattern))
    # Of points that are equal in all three, the first stays.
    different = {(each.blocks, each.depth, each.influence): each for each in reversed(listed)}.values()
    return tuple(
        each for each in sorted(different, key=listed.index) if not any(other.beats(each) for other in different)
    )


@dataclass(frozen=True, slots=True)
class Front:
    """Points of the spaces, each space with its own Pareto front; bounds for each depth; what was given.

    Units
        Tokens where a name says `keys` or `seq_len`; blocks of `block` tokens elsewhere.
    """

    seq_len: int
    block: int
    units: int
    layers: int
    max_depth: int
    budget: int | None
    alpha: float
    seed: int
    points: tuple[Point, ...]
    given: tuple[Point, ...]
    bounds: tuple[Bound, ...]

    def __str__(self) -> str:
        return "\n".join(_report(self))

    def to_json(self) -> str:
        """All fields as one JSON object, with what the statuses mean."""
        return json.dumps({**asdict(self), "proved_among": {key: text for key, text in PROVED_AMONG.items() if text}})


# --- text


def _report(front: Front) -> Iterable[str]:
    budget = "no limit on keys" if front.budget is None else f"at most {number(front.budget)} keys per query"
    yield f"tokens      {number(front.seq_len)}, {_counted(front.units, 'block')} of {number(front.block)}"
    yield f"layers      {front.layers}, complete within {front.max_depth}; {budget}"
    yield f"influence   the least share of any block in the last one after {front.layers} layers, alpha {front.alpha:g}"
    for space in _spaces(front):
        points = [each for each in front.points if each.space == space]
        yield ""
        yield f"{space}s: {SPACES[space]}"
        yield from _table(points) if points else ["  none within the limits"]
        yield from _bounds([each for each in front.bounds if each.space == space])
    if front.given:
        yield ""
        yield "PowerAttention, for comparison"
        yield from _table(front.given)
        yield from _compared(front)
    yield ""
    yield "optimal     proved: fewer blocks need more depth, and less depth needs more blocks, among"
    for space in _spaces(front):
        yield f"            {space}s: {PROVED_AMONG[space]}"
    yield "heuristic   found, not proved; `needs` is the proved least number of blocks at this depth"
    yield "influence   never part of the proof; `limit` is proved for any such pattern with as many blocks"
    yield "keys        tokens in the worst row, its diagonal block counted whole"
    yield "checked     every pattern above was checked: complete at its depth, and not before"


def _counted(count: int, what: str) -> str:
    return f"{number(count)} {what}{'' if count == 1 else 's'}"


def _spaces(front: Front) -> list[Space]:
    return list(dict.fromkeys(each.space for each in front.bounds))


def _table(points: Sequence[Point]) -> Iterable[str]:
    yield f"  {'keys':>9} {'blocks':>7} {'needs':>6} {'depth':>6} {'influence':>10} {'limit':>8}  status"
    for point in points:
        needs = "" if point.at_least is None else number(point.at_least)
        limit = "" if point.influence_limit is None else f"{point.influence_limit:.1e}"
        yield (
            f"  {number(point.keys):>9} {number(point.blocks):>7} {needs:>6} {point.depth:>6} "
            f"{point.influence:>10.2e} {limit:>8}  {point.status}"
        )
        yield f"            {point.pattern}"


def _bounds(bounds: Sequence[Bound]) -> Iterable[str]:
    yield "  fewest blocks by depth"
    for _, group in groupby(bounds, key=lambda each: (each.at_least, each.found)):
        # The deepest first: what needs so many blocks there needs them at less depth.
        deepest, *others = group
        depths = f"{others[-1].depth} to {deepest.depth}" if others else str(deepest.depth)
        if deepest.found == deepest.at_least:
            known = f"exactly {number(deepest.at_least)}"
        elif deepest.found is None:
            known = f"at least {number(deepest.at_least)}"
        else:
            known = f"{number(deepest.at_least)} to {number(deepest.found)}"
        yield f"  {depths:>9}  {known}: {deepest.reason}"


def _compared(front: Front) -> Iterable[str]:
    for given in front.given:
        fewer = [each for each in front.points if each.blocks < given.blocks and each.depth <= given.depth]
        better = [each for each in front.points if each.beats(given)]
        yield f"  fewer keys, no more depth: {_named(fewer)}"
        for bound in front.bounds:
            if bound.depth == min(given.depth, front.max_depth) and bound.at_least >= given.blocks:
                yield f"  no {bound.space} has fewer keys at no more depth: {bound.reason}"
        yield f"  no worse in keys, depth and influence, and better in one: {_named(better)}"


def _named(points: Sequence[Point]) -> str:
    if not points:
        return "none found"
    first = {each.space: each for each in reversed(points)}
    named = "; ".join(
        f"{each.space} of {_counted(each.blocks, 'block')} at depth {each.depth}" for each in first.values()
    )
    return f"{_counted(len(points), 'point')}, the leanest of each kind: {named}"
