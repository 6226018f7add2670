"""The cheapest edit that makes a pattern complete: a distance, a sink or a window more, in one layer or in all."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sparsedsl.errors import SparseDSLError
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.progress import Progress, working
from sparsedsl.proofs.repair_base import Base, base_of
from sparsedsl.proofs.repair_edits import KINDS, Kind, edited
from sparsedsl.proofs.repair_report import report
from sparsedsl.proofs.repair_search import Found, Search
from sparsedsl.proofs.verdict import check


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit that makes the pattern complete.

    kind         what is added: a distance, a sink (the first keys), a window (the last keys)
    amount       the distance, the number of first keys, or the window, in units
    layers       the layers that change, counted from 1 at the bottom; () where one pattern serves all layers
    heads        the head of each of these layers that changes, counted from 0; None where heads have no patterns
    pattern      the whole pattern after the edit
    extra_pairs  the token pairs that it adds to all the layers that change; to one layer where `layers` of the
                 repair is None
    extra_keys   the same for each query of a layer that changes, on average
    degree       the keys of the worst row, after
    depth        the layers that the edited pattern needs
    """

    kind: Kind
    amount: int
    layers: tuple[int, ...]
    heads: tuple[int | None, ...]
    pattern: Pattern | PerHead | Stack
    extra_pairs: int
    extra_keys: float
    degree: int
    depth: int | None


@dataclass(frozen=True, slots=True)
class Repair:
    """The cheapest edit of each kind, the cheapest of all first; see `repair` for the space that is searched.

    complete     the pattern needs no edit; then there is none, and else there always is one: a full window
    unit, units  tokens of a unit, and how many units there are
    degree       the keys of the worst row, before
    """

    pattern: str
    seq_len: int
    layers: int | None
    complete: bool
    unit: int
    units: int
    degree: int
    edits: tuple[Edit, ...]

    @property
    def best(self) -> Edit | None:
        """The cheapest edit; None where there is none."""
        return self.edits[0] if self.edits else None

    def __str__(self) -> str:
        return report(self)

    def to_json(self) -> str:
        """All fields as one JSON object, the edited patterns as texts."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        edits = [
            {name: getattr(edit, name) for name in edit.__slots__} | {"pattern": str(edit.pattern)}
            for edit in self.edits
        ]
        return json.dumps(fields | {"edits": edits})


def repair(
    pattern: Pattern | PerHead | Stack,
    *,
    seq_len: int = 131072,
    layers: int | None = None,
) -> Repair:
    """The cheapest edit that makes a pattern complete for this length and these layers.

    Set
        An edit adds to one pattern, in its own unit (blocks, where the whole pattern is told in blocks) and with
        the causal cut kept, one of
          - a distance d:  {Q - K = d}, 0 <= d < units;
          - a sink of c:   {K < c}, 1 <= c <= units, and at most 1024;
          - a window of w: {Q - K < w}, 1 <= w <= units. The last one is the full causal pattern.
        Of a stack it changes one layer, or all layers with the same pattern, or all layers; never their number.
        Of a per-head pattern it changes one head of each such layer, the one that gains the fewest pairs.
        Its cost is the number of token pairs that all the changed layers gain. No edit in this space that is
        cheaper makes the pattern complete; of equal ones the lower amount, then the lower layers win. Every edit
        returned has been through `check`. The residual connection counts as an edge, so a full window always
        mends. A distance or a sink is missing from the result where none does.
    Cost
        For each set of layers: O(log units) candidates for windows and sinks, and every distance up to the
        nearest pair that is not joined; each costs O(layers) sets of readers (see `check`), and those that no
        known pair refutes one full check.
    Raises
        WrongType, WrongValue, OutOfRange, Unsupported: as `check`.
        Unsupported: the pattern looks ahead.
    Example
        >>> from sparsedsl import causal, sink, sliding
        >>> found = repair((sliding(9) | sink(1)).blocks(256) & causal(), seq_len=32768, layers=8)
        >>> for edit in found.edits:
        ...     print(edit.extra_pairs, edit.pattern)
        36700160 (sliding(9) | sink(1) | offsets({57})).blocks(256) & causal()
        480247808 (sliding(17) | sink(1)).blocks(256) & causal()
        2844262400 (sliding(9) | sink(63)).blocks(256) & causal()

    """
    try:
        with working("checking"):
            base = base_of(pattern, seq_len=seq_len, layers=layers)
            course = base.course()
    except SparseDSLError as error:
        raise error.located(f"repair({pattern}, seq_len={seq_len})") from None
    edits: list[Edit] = []
    if course.evidence.first_gap is not None:
        with Progress("edits tried") as progress:
            search = Search(base, course, progress)
            found = [best for kind in KINDS if (best := search.best(kind)) is not None]
        # Sorting keeps the order of kinds among equal costs.
        edits = [_edit(base, each) for each in sorted(found, key=lambda each: each.cost)]
    return Repair(
        pattern=str(pattern),
        seq_len=base.extent.seq_len,
        layers=base.schedule.count,
        complete=course.evidence.first_gap is None,
        unit=base.extent.unit,
        units=base.extent.units,
        degree=base.degree(),
        edits=tuple(edits),
    )


def _edit(base: Base, found: Found) -> Edit:
    heads = [
        min(range(len(each)), key=lambda head: base.extra_pairs(each[head], found.addition))
        for each in map(base.heads_at, base.places())
    ]
    pattern = edited(base.pattern, found.addition, base.extent.unit, positions=found.positions, heads=heads)
    verdict = check(pattern, seq_len=base.extent.seq_len, layers=base.schedule.count)
    if not verdict.complete:
        raise AssertionError(f"the edit {found} does not complete {base.pattern}")
    stacked = isinstance(base.pattern, Stack)
    return Edit(
        kind=found.addition.kind,
        amount=found.addition.amount,
        layers=tuple(place + 1 for place in found.positions) if stacked else (),
        heads=tuple(heads[place] if len(base.heads_at(place)) > 1 else None for place in found.positions),
        pattern=pattern,
        extra_pairs=found.cost if stacked else found.cost * (base.schedule.count or 1),
        extra_keys=found.cost / len(found.positions) / base.extent.seq_len,
        degree=verdict.degree,
        depth=verdict.depth,
    )
