"""How information flows through the layers of a pattern, by distance: hops, numbers of paths, influence.

`check` says whether a key is reached at all; this says in how many hops, on how many paths, and with what weight
under a simple model. The model is one: uniform weights in every row, one alpha in every layer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sparsedsl.errors import SparseDSLError, WrongType, WrongValue, shown
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.progress import Progress, working
from sparsedsl.proofs.bits import members
from sparsedsl.proofs.flow_graph import FlowGraph, flow_graph
from sparsedsl.proofs.flow_measures import (
    UNJOINED,
    Bottleneck,
    bottleneck,
    hop_counts,
    influence_matrix,
    influences,
    path_counts,
)
from sparsedsl.proofs.flow_report import report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Numbers of paths with more digits are told as their logarithm only, in JSON.
MOST_DIGITS = 300


@dataclass(frozen=True, slots=True)
class Distance:
    """What all layers do for the pairs at one distance, counted in units.

    hops             the most edges that a pair needs; None where some query is not joined to its key
    mean_hops        the mean over the queries that are joined; None where none is
    unjoined         the queries that are not joined to their key at this distance, out of units - distance
    paths            the paths from the last query, exactly
    influence        the influence of the key on the last query
    least_influence  the least influence over all queries at this distance
    """

    distance: int
    hops: int | None
    mean_hops: float | None
    unjoined: int
    paths: int
    influence: float
    least_influence: float


@dataclass(frozen=True, slots=True)
class Range:
    """What the layers up to one depth do at the distances first, ..., last: always the worst of them.

    hops       the most edges that a pair needs; None where some pair is not joined
    paths      the fewest paths from the last query to a key
    influence  the least influence of a key on the last query
    """

    first: int
    last: int
    hops: int | None
    paths: int
    influence: float


@dataclass(frozen=True, slots=True)
class Depth:
    """The first `layers` layers, counted from the bottom, in units.

    contiguous       the greatest R such that every unit is joined to every unit at a distance <= R
    effective_reach  the greatest R such that each distance 1, ..., R from the last query has at least `fraction`
                     of the influence at distance 1; 0 where distance 1 has none
    ranges           the distances 0, 1, 2-3, 4-7, 8-15, ...
    """

    layers: int
    contiguous: int
    effective_reach: int
    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Flow:
    """How a pattern's layers carry information over each distance; see `flow` for the definitions.

    alpha            the weight of the residual connection in every layer
    fraction         what share of the influence at distance 1 the effective reach asks for
    unit, units      tokens of a unit, and how many units there are; all distances count units
    exact            the units are the pattern's own; else a block reads all that one of its tokens reads
    distances        for each distance 0, ..., units - 1, after all layers
    depths           for 1, 2, ... layers
    bottleneck       the least set of units that all paths from the last unit to the first pass
    sink_share       the share of the last query's influence that comes from the first unit
    absolute_units   how many units have keys that the pattern names by position (sinks, global tokens); None where
                     this is not known, without a normal form
    absolute_share   the share of the last query's influence that comes from them
    lost             the influence that rows without a key pass on to nobody
    """

    pattern: str
    seq_len: int
    layers: int
    alpha: float
    fraction: float
    unit: int
    units: int
    exact: bool
    distances: tuple[Distance, ...]
    depths: tuple[Depth, ...]
    bottleneck: Bottleneck
    sink_share: float
    absolute_units: int | None
    absolute_share: float | None
    lost: float

    @property
    def effective_reach(self) -> int:
        """The effective reach of all layers, in units."""
        return self.depths[-1].effective_reach

    def __str__(self) -> str:
        return report(self)

    def to_json(self) -> str:
        """All fields as one JSON object.

        Numbers of paths are whole numbers of any size, and null beyond 300 digits; `log10_paths` stands beside
        each of them, null where there is no path.
        """
        fields = asdict(self)
        for each in (*fields["distances"], *(at for depth in fields["depths"] for at in depth["ranges"])):
            paths = each["paths"]
            each["log10_paths"] = math.log10(paths) if paths else None
            if paths and each["log10_paths"] > MOST_DIGITS:
                each["paths"] = None
        return json.dumps(fields | {"effective_reach": self.effective_reach})


def flow(
    pattern: Pattern | PerHead | Stack,
    *,
    seq_len: int = 131072,
    layers: int | None = None,
    alpha: float = 0.9,
    fraction: float = 0.01,
    block: int | None = None,
) -> Flow:
    """Hop counts, numbers of paths and influence by distance, for each depth.

    Set
        Vertices are units: tokens, or blocks where the whole pattern is told in blocks. In layer h let E_h be the
        0-1 adjacency, of the union of its heads, and A_h the mean over its heads of the adjacency with each row
        scaled to sum 1; an edge of a block to itself is one key like any other, and a row without a key is zero.
        hops(Q, K) is the least number of edges on a path of at most one edge a layer, in the layers' order; the
        residual connection is no edge. paths(Q, K) = [(I + E_L) ... (I + E_1)]_QK, and
        influence(Q, K) = [(αI + (1 - α)A_L) ... (αI + (1 - α)A_1)]_QK.
    Units
        Distances count units. `block` asks for blocks of so many tokens instead, in which a block reads all that
        one of its tokens reads: hop counts are then least values, and `exact` is False.
    Cost
        At most 2048 units. Time O(layers · units² · (runs of a row + log2 units)) and O(log2 layers · units³)
        flops; where the layers differ O(layers² · units²) and O(layers · units³). Memory O(units²): 32 MiB a
        matrix at the limit, a few of them, and one more for each different layer.
    Raises
        WrongType, WrongValue: arguments that no flow can take.
        Unsupported: too many units; ask for `block`.
    Example
        >>> from sparsedsl import causal, power, sink, sliding
        >>> pattern = (sliding(5) | power() | sink(1)).blocks(256) & causal()
        >>> found = flow(pattern, seq_len=32768, layers=28, alpha=0.9)
        >>> found.units, found.distances[127].hops, found.distances[63].hops, round(found.sink_share, 3)
        (128, 1, 5, 0.249)

    References
        .. [1] Barbero et al., "Transformers need glasses!", 2024, arXiv 2406.04267: sensitivity and numbers of paths.
    """
    try:
        _check_share("alpha", alpha, "0 <= alpha <= 1, the weight of the residual connection", alpha == 0)
        _check_share("fraction", fraction, "0 < fraction <= 1, a share of the influence at distance 1", False)
        with working("flow, graph of the layers"):
            graph = flow_graph(pattern, seq_len=seq_len, layers=layers, block=block)
    except SparseDSLError as error:
        raise error.located(f"flow({pattern}, seq_len={seq_len})") from None
    return _flow(str(pattern), graph, float(alpha), float(fraction))


def _check_share(name: str, value: float, expected: str, zero: bool) -> None:
    got = f"{name} = {shown(value)}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongType(f"{name} must be a number", got=f"{got} of type {type(value).__name__}", expected=expected)
    if not (zero or 0 < value <= 1):
        raise WrongValue(f"{name} is out of range", got=got, expected=expected)


def _flow(text: str, graph: FlowGraph, alpha: float, fraction: float) -> Flow:
    units = graph.units
    depths: list[Depth] = []
    worst: list[int] = []
    known: NDArray[np.int16] | None = None
    curves = zip(hop_counts(graph), path_counts(graph), influences(graph, alpha), strict=True)
    with Progress(f"flow, layers done of {len(graph.layers)}") as progress:
        for layers, (hops, paths, influence) in enumerate(curves, 1):
            progress.at(layers - 1)
            if hops is not known:
                worst, known = [int(hops.diagonal(-distance).max()) for distance in range(units)], hops
            contiguous = worst.index(UNJOINED) - 1 if UNJOINED in worst else units - 1
            ranges = tuple(_ranges(worst, paths[::-1], influence[::-1]))
            depths.append(Depth(layers, contiguous, _effective(influence, fraction), ranges))
    matrix = influence_matrix(graph, alpha)
    absolute = graph.absolute
    return Flow(
        pattern=text,
        seq_len=graph.extent.seq_len,
        layers=len(graph.layers),
        alpha=alpha,
        fraction=fraction,
        unit=graph.extent.unit,
        units=units,
        exact=graph.exact,
        distances=tuple(_distances(hops, paths, influence, matrix)),
        depths=tuple(depths),
        bottleneck=bottleneck(graph),
        sink_share=float(influence[0]),
        absolute_units=None if absolute is None else absolute.bit_count(),
        absolute_share=None if absolute is None else float(influence[list(members(absolute))].sum()),
        lost=max(0.0, 1.0 - float(influence.sum())),
    )


def _ranges(worst: list[int], paths: list[int], influence: NDArray[np.float64]) -> Iterator[Range]:
    """The ranges between powers of two; all three by distance."""
    first = 0
    while first < len(worst):
        end = min(max(1, 2 * first), len(worst))
        hops = max(worst[first:end])
        yield Range(
            first,
            end - 1,
            None if hops == UNJOINED else hops,
            min(paths[first:end]),
            float(influence[first:end].min()),
        )
        first = end


def _effective(influence: NDArray[np.float64], fraction: float) -> int:
    # Entry d - 1: the influence at distance d.
    by_distance = influence[-2::-1]
    if not len(by_distance) or by_distance[0] == 0:
        return 0
    below = by_distance < fraction * by_distance[0]
    return int(below.argmax()) if below.any() else len(below)


def _distances(
    hops: NDArray[np.int16], paths: list[int], influence: NDArray[np.float64], matrix: NDArray[np.float64]
) -> Iterator[Distance]:
    units = len(paths)
    for distance in range(units):
        diagonal = hops.diagonal(-distance)
        joined = diagonal[diagonal != UNJOINED]
        unjoined = len(diagonal) - len(joined)
        yield Distance(
            distance=distance,
            hops=None if unjoined else int(joined.max()),
            mean_hops=float(joined.mean()) if len(joined) else None,
            unjoined=unjoined,
            paths=paths[units - 1 - distance],
            influence=float(influence[units - 1 - distance]),
            least_influence=float(matrix.diagonal(-distance).min()),
        )
