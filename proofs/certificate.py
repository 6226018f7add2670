"""Certificates: the answer of a check with the evidence for it, which `verifier` accepts or rejects on its own.

What each kind of evidence holds and proves is in docs/certificates.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import count as counted
from typing import Literal

from sparsedsl.errors import SparseDSLError, Unsupported, WrongValue
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern, whole
from sparsedsl.proofs.chains import BackLayers, DistanceChain, gap_by_rows, query_chain
from sparsedsl.proofs.graph_reach import GraphPairs
from sparsedsl.proofs.layer_graph import MOST_UNITS, LayerGraph, LayerGraphs, layer_graphs
from sparsedsl.proofs.schedule import Schedule, schedule_of
from sparsedsl.proofs.shared_tree import SharedTree, shared_tree
from sparsedsl.rows import never_ahead
from sparsedsl.segments import LONGEST_WORD, WordTooLong

FORMAT = "sparsedsl certificate"
VERSION = 1
# Bits of the sets of one layer, and layers, that a certificate lists at most.
MOST_BITS = 1 << 30
MOST_STEPS = 1 << 12
# A chain by classes is dearer than one by rows beyond this many classes; keys before the start have a set each.
MOST_CLASSES = 64
MOST_LISTED_CLASSES = 1 << 9
MOST_LISTED_UNITS = 1 << 22
MOST_EARLY_KEYS = 1 << 10


@dataclass(frozen=True, slots=True)
class Certificate:
    """An answer and its evidence.

    complete  every pair j <= i < seq_len is joined by `layers` layers, and with the residual connection not by one
              layer less; every pair at all for kind "pairs" with seq_len² pairs
    not       query `query` does not reach key `key` through `layers` layers, or through any number of layers where
              `layers` is None; kind "query" says so for every length from `seq_len` = query + 1 on

    `residual` says whether that is with or without the residual connection; "either" where one evidence shows both.

    The evidence of the kinds "distances" and "query" is `tree` and `steps`, with `reach`, the tokens that the last
    query sees after each layer, for "distances"; that of "pairs" is `joined`, the joined pairs after each layer.
    """

    pattern: str
    seq_len: int
    residual: bool | Literal["either"]
    complete: bool
    layers: int | None
    query: int | None
    key: int | None
    kind: str
    tree: SharedTree | None = None
    steps: tuple[tuple[int, ...], ...] = ()
    reach: tuple[int, ...] = ()
    pairs: int | None = None
    joined: tuple[int, ...] = ()

    def to_json(self) -> str:
        """The certificate as a file holds it."""
        claim: dict[str, object] = {"complete": self.complete, "layers": self.layers}
        if not self.complete:
            claim |= {"query": self.query, "key": self.key}
        evidence: dict[str, object] = {"kind": self.kind}
        if self.kind == "distances":
            evidence["reach"] = self.reach
        if self.tree is not None:
            evidence |= {"levels": self.tree.levels, "steps": self.steps}
        else:
            evidence |= {"pairs": self.pairs, "joined": self.joined}
        content = {
            "format": FORMAT,
            "version": VERSION,
            "pattern": self.pattern,
            "digest": sha256(self.pattern.encode()).hexdigest(),
            "seq_len": self.seq_len,
            "residual": self.residual,
            "claim": claim,
            "evidence": evidence,
        }
        return json.dumps(content, separators=(",", ":")) + "\n"

    def __str__(self) -> str:
        connection = {True: "with", False: "without", "either": "with or without"}[self.residual]
        layers = "any number of layers" if self.layers is None else f"{self.layers} layers"
        if self.complete:
            return f"complete at {self.seq_len} tokens in {layers} {connection} the residual connection"
        pair = f"query {self.query} does not reach key {self.key}"
        tokens = f"from {self.seq_len} tokens on" if self.kind == "query" else f"at {self.seq_len} tokens"
        return f"incomplete {tokens}: {pair} in {layers} {connection} the residual connection"


def certify(
    pattern: Pattern | PerHead | Stack,
    *,
    seq_len: int = 131072,
    layers: int | None = None,
    residual: bool = True,
) -> Certificate:
    """The answer of `check` with evidence that anyone can check.

    Set
        The arguments mean what they mean for `check`. The claim is the strongest that answers the question: the
        least number of layers that suffices, or the least length that fails and, if that is so, that no number of
        layers helps.
    Cost
        For patterns with a period, as `check`; a few seconds and 1 MB of text for a million tokens.
    Raises
        WrongType, WrongValue, OutOfRange: arguments that no check can take.
        Unsupported: a certificate over the limits of units, sets or layers.
    Example
        >>> from sparsedsl import power, sliding
        >>> print(certify(power(), seq_len=128))
        complete at 128 tokens in 7 layers with or without the residual connection
        >>> print(certify(sliding(4), seq_len=10**6, layers=5))
        incomplete from 17 tokens on: query 16 does not reach key 0 in 5 layers with or without the residual connection

    """
    try:
        schedule = schedule_of(pattern, layers)
        seq_len = whole("certify", "seq_len", seq_len, least=1)
        if not residual and schedule.count is None:
            raise WrongValue(
                "without the residual connection the number of layers must be given",
                got="layers = None, residual = False",
                expected="a number of layers",
                hint="layers=28 (--layers 28)",
            )
        if schedule.count is not None and schedule.count > MOST_STEPS:
            if not (schedule.endless and residual):
                raise _too_many_layers(schedule.count)
            # More layers than can be listed: where as many as it takes can be, that is an answer too.
            schedule = replace(schedule, count=None)
        question = _Question(str(pattern), schedule, seq_len, residual)
        if all(never_ahead(each.predicate()) for each in schedule.patterns):
            return question.looking_back()
        return question.by_pairs(back=False)
    except WordTooLong as reason:
        raise Unsupported(
            "the pattern repeats too late",
            where=f"certify({pattern}, seq_len={seq_len})",
            got=f"a period of {reason}",
            expected=f"at most {LONGEST_WORD}",
            hint="dilations, strides and chunks that divide each other",
        ) from None
    except SparseDSLError as error:
        raise error.located(f"certify({pattern}, seq_len={seq_len})") from None


@dataclass(frozen=True, slots=True)
class _Question:
    pattern: str
    schedule: Schedule
    seq_len: int
    residual: bool

    def looking_back(self) -> Certificate:
        """The certificate of a pattern that never looks ahead."""
        back = BackLayers([each.predicate() for each in self.schedule.patterns], self.seq_len)
        by_distances = (back.periodic and back.classes <= MOST_LISTED_CLASSES and back.start <= MOST_EARLY_KEYS) and (
            back.classes + back.start
        ) * back.units <= MOST_BITS
        # Gaps near the start are found by rows at once, where the sets of all classes are large.
        end = min(back.units, 2 * back.classes + back.start + 64) if by_distances else back.units
        gap = gap_by_rows(back, self._layers(), min(end, MOST_UNITS), residual=self.residual)
        if gap is not None:
            return self._incomplete(gap)
        if by_distances:
            return self._by_distances(back)
        if back.units > MOST_UNITS:
            raise Unsupported(
                "no certificate is small enough: none of the first units shows a gap, and the sets are too many",
                got=f"{back.units} units of {back.extent.unit} tokens, "
                + (f"{back.classes} classes of queries" if back.periodic else "no period"),
                expected=f"at most {MOST_UNITS} units; with a period and at most {MOST_LISTED_CLASSES} classes, "
                f"{MOST_LISTED_UNITS} units and {MOST_BITS} bits for a set of each class",
                hint=f"seq_len={MOST_UNITS * back.extent.unit} (--seq-len {MOST_UNITS * back.extent.unit})",
            )
        return self.by_pairs(back=True)

    def _layers(self) -> list[int] | None:
        """The layers from the bottom; None for as many as it takes."""
        if self.schedule.count is None:
            return None
        return [self.schedule.at(layer) for layer in range(self.schedule.count)]

    def _by_distances(self, back: BackLayers) -> Certificate:
        chain = DistanceChain(back, residual=self.residual)
        listed: list[list[int]] = []
        reach: list[int] = []
        gap: tuple[int, int] | None = None
        for layer in counted() if self.schedule.count is None else range(self.schedule.count):
            before = gap
            if len(listed) == MOST_STEPS:
                raise _too_many_layers(layer)
            changed = chain.advance(self.schedule.at(layer))
            listed.append(chain.listed())
            reach.append(chain.reach())
            gap = chain.first_gap()
            if self.residual and (gap is None or (self.schedule.endless and not changed)):
                break
        if gap is not None:
            return self._incomplete(gap)
        # Where every token reads itself, the residual connection adds nothing.
        loops = all(chain.loops_everywhere(self.schedule.at(layer)) for layer in range(len(listed)))
        whole_stack = self.schedule.endless or len(listed) == self.schedule.count
        tree = shared_tree([each for step in listed for each in step], back.units)
        width = len(listed[0])
        return Certificate(
            pattern=self.pattern,
            seq_len=self.seq_len,
            residual="either" if loops and whole_stack and (len(listed) == 1 or before is not None) else self.residual,
            complete=True,
            layers=len(listed),
            query=None,
            key=None,
            kind="distances",
            tree=tree,
            steps=tuple(tree.roots[at : at + width] for at in range(0, len(tree.roots), width)),
            reach=tuple(reach),
        )

    def _incomplete(self, gap: tuple[int, int]) -> Certificate:
        """The certificate of the first pair that is not joined; later tokens do not matter for it."""
        query, key = gap
        back = BackLayers([each.predicate() for each in self.schedule.patterns], query + 1)
        by_rows = not back.periodic or back.classes > MOST_CLASSES or back.start > MOST_EARLY_KEYS
        layers = self._layers()
        downwards: Sequence[int] | None = None if layers is None else layers[::-1]
        chain, closed = self._chain(back, downwards, by_rows, residual=self.residual)
        if len(chain) > MOST_STEPS:
            raise _too_many_layers(len(chain))
        other = ([], True) if closed else self._chain(back, downwards, by_rows, residual=not self.residual)
        tree = shared_tree(chain, back.units)
        return Certificate(
            pattern=self.pattern,
            seq_len=query + 1,
            residual="either" if other == (chain, False) else self.residual,
            complete=False,
            layers=None if closed else self.schedule.count,
            query=query,
            key=key,
            kind="query",
            tree=tree,
            steps=tuple((root,) for root in tree.roots),
        )

    def _chain(
        self, back: BackLayers, downwards: Sequence[int] | None, by_rows: bool, *, residual: bool
    ) -> tuple[list[int], bool]:
        return query_chain(
            back, back.units - 1, downwards, endless=self.schedule.endless, residual=residual, by_rows=by_rows
        )

    def by_pairs(self, *, back: bool) -> Certificate:
        """The certificate of any pattern, by counting pairs on its layer graphs."""
        found = self._counted(back=back)
        if found.layers is None or not (self.schedule.endless or found.layers == self.schedule.count):
            return found
        schedule = replace(self.schedule, count=found.layers)
        other = _Question(self.pattern, schedule, self.seq_len, not self.residual)._counted(back=back)
        same = replace(other, residual=self.residual) == found
        return replace(found, residual="either") if same else found

    def _graphs(self, back: bool) -> LayerGraphs:
        """The layer graphs; `ahead` where some query reads a later key at this very length."""
        units = BackLayers([each.predicate() for each in self.schedule.patterns], self.seq_len)
        if back and units.units <= MOST_UNITS:
            rows = [LayerGraph(tuple(map(each.row, range(units.units)))) for each in units.layers]
            return LayerGraphs(tuple(rows), units.extent, False)
        graphs = layer_graphs(self.schedule.patterns, self.seq_len)
        extent = graphs.extent
        ahead = any(
            row >> query + 1 or (extent.unit > 1 and row >> query & 1 and extent.size(query) > 1)
            for graph in graphs.layers
            for query, row in enumerate(graph.rows)
        )
        return replace(graphs, ahead=graphs.ahead and ahead)

    def _counted(self, back: bool) -> Certificate:
        """The certificate, with or without the residual connection."""
        graphs = self._graphs(back)
        part = GraphPairs(graphs, residual=self.residual)
        pairs = self.seq_len**2 if graphs.ahead else self.seq_len * (self.seq_len + 1) // 2
        endless = self.residual and self.schedule.endless
        joined: list[int] = []
        gap: tuple[int, int] | None = None
        closed = False
        for layer in counted():
            before = joined[-1] if joined else self.seq_len
            if before == pairs and joined and self.residual:
                break
            if layer == self.schedule.count and not endless:
                break
            gap = part.evidence().first_gap
            part.advance(self.schedule.at(layer))
            found = part.evidence()
            closed = endless and found.joined == before != pairs
            if closed or layer == self.schedule.count:
                break
            if len(joined) == MOST_STEPS:
                raise _too_many_layers(layer)
            joined.append(found.joined)
            gap = found.first_gap
        return Certificate(
            pattern=self.pattern,
            seq_len=self.seq_len,
            residual=self.residual,
            complete=gap is None,
            layers=len(joined) if gap is None else None if closed else self.schedule.count,
            query=None if gap is None else gap[0],
            key=None if gap is None else gap[1],
            kind="pairs",
            pairs=pairs,
            joined=tuple(joined),
        )


def _too_many_layers(layers: int) -> Unsupported:
    return Unsupported(
        "a certificate lists its layers one by one, and these are too many",
        got=f"{layers} layers",
        expected=f"at most {MOST_STEPS}",
        hint="layers=28 (--layers 28)",
    )
