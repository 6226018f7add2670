"""Following one part of the pairs from layer to layer, and putting the parts together.

The pairs (q, k) are split by key into parts that know how to add one layer: all keys with periodic readers
together, each absolute key by itself, or one layer graph for everything. `follow` drives a part and notes, after
each layer, what matters; `merged` joins the notes.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sparsedsl.errors import Unsupported
from sparsedsl.proofs.schedule import Schedule

# About the bytes that half a minute of shifts and unions reads on one core.
MOST_WORK = 1 << 38


class Snapshot(NamedTuple):
    """After some layers: are all pairs joined, the tokens that the last query sees, the least distance of a
    pair that is not joined (INFINITY if there is none).
    """

    complete: bool
    seen: int
    gap: int


class Evidence(NamedTuple):
    """After all layers: the first pair not joined (least q, then least k), the number of token pairs joined,
    and what the last query sees: the unit distances as bits, and whether that holds for its own unit.
    """

    first_gap: tuple[int, int] | None
    joined: int
    last: int
    last_own: int


class Part(Protocol):
    """Some of the pairs, and which of them are joined by the layers so far."""

    def advance(self, layer: int) -> bool:
        """Add one layer, given by its index in the schedule's patterns; whether anything changed."""

    def snapshot(self) -> Snapshot:
        """What the layers so far join."""

    def evidence(self) -> Evidence:
        """The same in full."""

    def state(self) -> Hashable:
        """What the future depends on; equal states have equal futures under equal layers."""

    def cost(self, layer: int) -> int:
        """About how many bytes `advance(layer)` reads and writes."""


@dataclass(slots=True)
class Work:
    """The bytes that a check may still read before it gives up."""

    left: int = MOST_WORK

    def spend(self, cost: int) -> bool:
        """Whether the cost was still within the limit."""
        self.left -= cost
        return self.left >= 0


@dataclass(slots=True)
class Course:
    """What became of a part: a snapshot for each layer, the layers needed, the evidence after all layers.

    The snapshots end with the last layer, or before, where nothing changes any more. depth is None if no
    number of layers completes the part; if not `settled`, the search for it was given up.
    """

    snapshots: list[Snapshot]
    depth: int | None
    settled: bool
    evidence: Evidence


def follow(part: Part, schedule: Schedule, work: Work, *, residual: bool, search: bool = True) -> Course:
    """Add layers to a part until the schedule ends, or nothing can change any more.

    `search` asks for the depth beyond the last layer of an endless schedule.

    Raises
        Unsupported: the layers asked for are more work than `work` allows.
    """
    snapshots: list[Snapshot] = []
    depth: int | None = None
    cycle = Cycle()
    layer, done = 0, False
    while not done and layer != schedule.count:
        index = schedule.at(layer)
        if not work.spend(part.cost(index)):
            raise _too_much_work(layer)
        changed = part.advance(index)
        layer += 1
        snapshot = part.snapshot()
        if changed or not residual or not schedule.endless or not snapshots:
            snapshots.append(snapshot)
        if snapshot.complete and depth is None:
            depth = layer
        if residual:
            done = snapshot.complete or (schedule.endless and not changed)
        elif schedule.count is None:
            done = snapshot.complete or cycle.closes(part.state())
    evidence = part.evidence()
    search = search and schedule.endless and depth is None
    while search and not done:
        if not work.spend(part.cost(0)):
            return Course(snapshots, None, False, evidence)
        changed = part.advance(0)
        layer += 1
        if part.snapshot().complete:
            depth = layer
        done = depth is not None or (not changed if residual else cycle.closes(part.state()))
    return Course(snapshots, depth, True, evidence)


@dataclass(slots=True)
class Cycle:
    """Brent's search for a state seen before, which keeps one state only."""

    kept: Hashable = None
    age: int = 0
    patience: int = 1

    def closes(self, state: Hashable) -> bool:
        """Whether the state is the one kept; every state of the cycle is kept long enough to come round."""
        if state == self.kept:
            return True
        self.age += 1
        if self.age == self.patience:
            self.kept, self.age, self.patience = state, 0, 2 * self.patience
        return False


def merged(one: Course, other: Course, *, residual: bool) -> Course:
    """The course of two parts together.

    With the residual connection a part that has ended stays as it is, and the depth is the greater; without it
    the parts are complete together or not at all.
    """
    length = max(len(one.snapshots), len(other.snapshots))
    snapshots = [
        Snapshot(a.complete and b.complete, a.seen + b.seen, min(a.gap, b.gap))
        for a, b in zip(_lasting(one, length), _lasting(other, length), strict=True)
    ]
    depth: int | None = None
    if not residual:
        depth = next((layer for layer, each in enumerate(snapshots, 1) if each.complete), None)
    elif one.depth is not None and other.depth is not None:
        depth = max(one.depth, other.depth)
    # One part that is never complete settles the question.
    never = any(each.settled and each.depth is None for each in (one, other))
    settled = never or (one.settled and other.settled)
    return Course(snapshots, depth, settled, _joined_evidence(one.evidence, other.evidence))


def _lasting(course: Course, length: int) -> list[Snapshot]:
    return course.snapshots + course.snapshots[-1:] * (length - len(course.snapshots))


def _joined_evidence(one: Evidence, other: Evidence) -> Evidence:
    gaps = [gap for gap in (one.first_gap, other.first_gap) if gap is not None]
    return Evidence(
        min(gaps, default=None),
        one.joined + other.joined,
        one.last | other.last,
        one.last_own + other.last_own,
    )


def _too_much_work(layers: int) -> Unsupported:
    return Unsupported(
        "the check takes more work than its limit",
        got=f"{MOST_WORK >> 30} GiB of sets read after {layers} layers",
        expected="fewer tokens, fewer layers, or a pattern with a shorter period",
        hint="seq_len=16384 (--seq-len 16384), or layers=28 (--layers 28)",
    )
