"""The question of one check, on the road that can answer it."""

from __future__ import annotations

from dataclasses import dataclass

from sparsedsl.errors import OutOfRange
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern, whole
from sparsedsl.proofs.extent import Extent
from sparsedsl.proofs.layer_graph import LayerGraph, LayerGraphs, layer_graphs
from sparsedsl.proofs.periodic_layer import PeriodicLayer
from sparsedsl.proofs.schedule import Schedule, common_forms, looks_ahead, schedule_of

# One set of this many units takes 32 MiB.
MOST_UNITS = 1 << 28


@dataclass(frozen=True, slots=True)
class Problem:
    """The layers of a schedule on the units of one length: periodic, or else as graphs."""

    schedule: Schedule
    extent: Extent
    periodic: tuple[PeriodicLayer, ...]
    graphs: LayerGraphs | None

    @property
    def layers(self) -> tuple[PeriodicLayer | LayerGraph, ...]:
        """Who reads whom, layer by layer."""
        return self.periodic if self.graphs is None else self.graphs.layers

    @property
    def ahead(self) -> bool:
        """Whether some layer reads a key to its right, so that complete means every pair at all."""
        return self.graphs is not None and self.graphs.ahead


def problem_of(pattern: Pattern | PerHead | Stack, *, seq_len: int, layers: int | None) -> Problem:
    """Choose the road: sets of distances for causal normal forms, a layer graph for everything else.

    Raises
        WrongType, WrongValue, OutOfRange: arguments that no check can take.
        Unsupported: a layer graph over its limit.
    """
    schedule = schedule_of(pattern, layers)
    seq_len = whole("check", "seq_len", seq_len, least=1)
    forms = common_forms(schedule.patterns)
    if forms is None or any(map(looks_ahead, forms)):
        graphs = layer_graphs(schedule.patterns, seq_len)
        return Problem(schedule, graphs.extent, (), graphs)
    extent = Extent(seq_len, forms[0].unit)
    if extent.units > MOST_UNITS:
        raise OutOfRange(
            "the length has too many units for one check",
            got=f"seq_len = {seq_len}, {extent.units} units of {extent.unit} tokens",
            expected=f"at most {MOST_UNITS} units",
            hint=f"seq_len={MOST_UNITS * extent.unit} (--seq-len {MOST_UNITS * extent.unit})",
        )
    return Problem(schedule, extent, tuple(PeriodicLayer(form, extent.units) for form in forms), None)
