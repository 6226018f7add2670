"""Synthesis: the patterns with the fewest keys for each depth, and with the most influence for their keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sparsedsl.constructors import causal, cycle, offsets, power, sink, sliding
from sparsedsl.errors import SparseDSLError, WrongType, WrongValue, shown
from sparsedsl.layers import Stack
from sparsedsl.pattern import Pattern, whole
from sparsedsl.progress import Progress
from sparsedsl.proofs.front import Bound, Front, Point, Space, Status, pareto
from sparsedsl.proofs.quotient_influence import Layers, depth_of, influence_bound, runs_of, worst_influence
from sparsedsl.proofs.synthesis_search import Search
from sparsedsl.proofs.synthesis_state import Request, State
from sparsedsl.proofs.verdict import check

# The longest sequence in blocks: one node of the search handles sets of as many bits.
MOST_UNITS = 1 << 20


def synthesise(
    *,
    seq_len: int,
    layers: int,
    block: int = 256,
    max_depth: int | None = None,
    budget: int | None = None,
    schedule: bool = False,
    alpha: float = 0.9,
    seed: int = 0,
    resume: str | Path | None = None,
    progress: Progress | None = None,
) -> Front:
    """The Pareto front of keys per query, depth and worst influence over patterns told in blocks.

    Set
        Distance sets: offsets(S).blocks(block) & causal() with 0 ∈ S, the same in every layer. With `schedule`
        also cycles of such layers, a set for each. All are complete within `max_depth` layers (default: all).
    Units
        seq_len in tokens. A pattern's keys per query, and the `budget` of them, count tokens: those of the worst
        row, its diagonal block counted whole. `Point.blocks` is the same number in blocks of `block` tokens.
        Influence is found on the block quotient, where a block is one vertex: the least entry of the last row of
        the product of α I + (1 − α) A over all `layers`, A the layer's adjacency with rows scaled to sum 1.
    Cost
        At 512 blocks, 28 layers and depth 8 under a minute on one core. Searches have limits in nodes, not in
        seconds: the same arguments give the same front. `resume` names a file that keeps what was found: it is
        read if it exists, and written every few seconds, at the end and on Ctrl-C.
    Raises
        WrongType, WrongValue: arguments that no search can take.
        StateMismatch: the file of `resume` is damaged, or belongs to other arguments.
    Example
        >>> front = synthesise(seq_len=32, layers=4, block=1, max_depth=3)
        >>> [(point.keys, point.depth, point.status) for point in front.points if point.status == "optimal"]
        [(6, 3, 'optimal'), (9, 2, 'optimal'), (32, 1, 'optimal')]
        >>> front.points[0].pattern
        'offsets({0, 1, 4, 7, 10, 11})'

    References
        .. [1] The postage-stamp problem: the range of an additive basis.
    """
    request = Request(
        seq_len=whole("synthesise", "seq_len", seq_len, least=1),
        layers=whole("synthesise", "layers", layers, least=1),
        block=whole("synthesise", "block", block, least=1),
        max_depth=layers if max_depth is None else min(whole("synthesise", "max_depth", max_depth, least=1), layers),
        budget=None if budget is None else whole("synthesise", "budget", budget, least=1),
        schedule=bool(schedule),
        alpha=_share(alpha),
        seed=whole("synthesise", "seed", seed, least=0),
    )
    if request.units > MOST_UNITS:
        raise WrongValue(
            "the length has too many blocks to search",
            where=f"synthesise(seq_len={seq_len}, block={block})",
            got=f"{request.units} blocks",
            expected=f"at most {MOST_UNITS} blocks",
            hint=f"block={-(-request.seq_len // MOST_UNITS)} (--block {-(-request.seq_len // MOST_UNITS)}) or more",
        )
    try:
        state = State.of(request, None if resume is None else Path(resume))
    except SparseDSLError as error:
        raise error.located(f"synthesise(resume={shown(str(resume))})") from None
    try:
        front = _front(request, Search(request, state, progress))
    finally:
        # On Ctrl-C too: what is saved is what was found before the step under way.
        state.save()
    return front


def _share(alpha: float) -> float:
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise WrongType(
            "alpha must be a number",
            where=f"synthesise(alpha={shown(alpha)})",
            got=f"alpha = {shown(alpha)} of type {type(alpha).__name__}",
            expected="0 <= alpha < 1, the share of the residual connection",
        )
    if not 0 <= alpha < 1:
        raise WrongValue(
            "alpha is out of range",
            where=f"synthesise(alpha={shown(alpha)})",
            got=f"alpha = {shown(alpha)}",
            expected="0 <= alpha < 1, the share of the residual connection",
        )
    return float(alpha)


def _front(request: Request, search: Search) -> Front:
    bounds, sets = search.distance_sets()
    points = list(pareto(_points("distance set", request, sets, bounds)))
    if request.schedule:
        schedule_bounds, schedules = search.schedules()
        points += pareto(_points("schedule", request, schedules, schedule_bounds))
        bounds += schedule_bounds
    for point in points:
        _verify(point, request)
    return Front(
        seq_len=request.seq_len,
        block=request.block,
        units=request.units,
        layers=request.layers,
        max_depth=request.max_depth,
        budget=request.budget,
        alpha=request.alpha,
        seed=request.seed,
        points=tuple(points),
        given=(power_attention_point(request),),
        bounds=tuple(bounds),
    )


def _points(space: Space, request: Request, found: list[Layers], bounds: list[Bound]) -> Iterator[Point]:
    at_least = {each.depth: each.at_least for each in bounds}
    for layers in dict.fromkeys(found):
        blocks = max(map(len, layers))
        depth = depth_of(layers, request.units, request.max_depth)
        if depth is None or (request.budget is not None and blocks * request.block > request.budget):
            continue
        # Less depth needs more blocks, and this depth needs as many: proved.
        proved = blocks == at_least[depth] and (depth == 1 or at_least[depth - 1] > blocks)
        status: Status = "optimal" if proved else "heuristic"
        yield Point(
            space=space,
            pattern=str(expression(layers, request)),
            keys=blocks * request.block,
            blocks=blocks,
            depth=depth,
            influence=worst_influence(layers, units=request.units, count=request.layers, alpha=request.alpha),
            influence_limit=influence_bound(
                units=request.units,
                count=request.layers,
                alpha=request.alpha,
                degree=blocks,
                same=space == "distance set",
            ),
            status=status,
            at_least=at_least[depth],
        )


def expression(layers: Layers, request: Request) -> Pattern | Stack:
    """The layers as a pattern, or as a cycle of patterns.

    >>> request = Request(1024, 4, 256, 4, None, False, 0.9, 0)
    >>> str(expression(((0, 1, 3),), request)), str(expression(((0, 1, 2, 3), (0, 1)), request))
    ('offsets({0, 1, 3}).blocks(256) & causal()', 'cycle([causal(), sliding(2).blocks(256) & causal()], layers=4)')

    """
    patterns = [_layer(each, request) for each in layers]
    return patterns[0] if len(patterns) == 1 else cycle(patterns, layers=request.layers)


def _layer(distances: tuple[int, ...], request: Request) -> Pattern:
    window = runs_of(distances)[0][1]
    if window >= request.units > 1:
        return causal()
    if window == len(distances):
        pattern = sliding(window)
    elif window < 3:
        pattern = offsets(distances)
    else:
        pattern = sliding(window) | offsets(distances[window:])
    return pattern if request.block == 1 else pattern.blocks(request.block) & causal()


def power_attention_point(request: Request) -> Point:
    """PowerAttention's implementation (window 5, sink 1, powers of two; in blocks) as a point beside the front."""
    pattern = (sliding(5) | power() | sink(1)).blocks(request.block) & causal()
    units = request.units
    distances = tuple(sorted({d for d in (0, 1, 2, 3, 4, *(1 << t for t in range(units.bit_length()))) if d < units}))
    # The sink is one key more, where the last block is not joined to the first by a distance.
    blocks = max(_keys(query, distances) for query in range(units))
    verdict = check(pattern, seq_len=request.seq_len)
    assert verdict.depth is not None, "the window alone joins everything"
    return Point(
        space="given",
        pattern=str(pattern),
        keys=blocks * request.block,
        blocks=blocks,
        depth=verdict.depth,
        influence=worst_influence((distances,), units=units, count=request.layers, alpha=request.alpha, sink=1),
        influence_limit=None,
        status="given",
        at_least=None,
    )


def _keys(query: int, distances: tuple[int, ...]) -> int:
    own = [each for each in distances if each <= query]
    return len(own) + (own[-1] != query)


def _verify(point: Point, request: Request) -> None:
    """Check the pattern as a user would, from its text."""
    from sparsedsl.text import parse

    verdict = check(parse(point.pattern), seq_len=request.seq_len, layers=request.layers)
    if not verdict.complete or verdict.depth != point.depth or verdict.degree > point.keys:
        raise AssertionError(f"the search and the check disagree on {point}: {verdict}")
