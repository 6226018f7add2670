"""The verifier's checks of chains of sets: what all queries see, layer by layer, or what one query sees.

Part of the verifier: it imports nothing of what writes certificates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from sparsedsl.index import Predicate
from sparsedsl.proofs.verifier_file import Content, reject
from sparsedsl.proofs.verifier_steps import MOST_BITS, Layers, Work, below, each_bit
from sparsedsl.rows import never_ahead

# Chains by classes up to this many classes and keys before the start, beyond it query by query.
MOST_CLASSES = 64
MOST_EARLY_KEYS = 1 << 8


class Chain:
    """The listed sets of a pattern that never looks ahead; `count` is the number of layers of a stack."""

    def __init__(self, content: Content, predicates: tuple[Predicate, ...], count: int | None, work: Work) -> None:
        if not all(map(never_ahead, predicates)):
            reject("pattern", "it may look ahead, which this kind of evidence does not allow")
        self.content, self.predicates, self.count = content, predicates, count
        self.work = work
        self.layers = Layers(predicates, content.seq_len, work)

    def _unfolded(self, step: int, width: int) -> list[int]:
        """The sets of one step."""
        layers, tree, roots = self.layers, self.content.tree, self.content.steps[step]
        assert tree is not None
        if 64 << len(tree.pairs) < layers.units or (tree.pairs and 32 << len(tree.pairs) >= layers.units):
            reject("tree", "it does not have the levels that its length asks for")
        if len(roots) != width:
            reject(f"layer {step + 1}", "it does not list its sets", expected=f"{width} sets")
        self.work.spend(width * layers.units)
        return tree.sets(roots)


@dataclass(slots=True)
class _Step:
    """What a listed layer says: the first set that is wrong, with the residual connection and without (None: none
    is), whether all pairs of units are joined, and which units have had an edge to themselves.
    """

    wrong: dict[bool, str | None]
    full: bool
    seen: int
    own: bool
    looped: list[bool]


class DistanceChain(Chain):
    """What all queries see: by early key the queries that see it, by class of queries the distances."""

    @cached_property
    def _places(self) -> list[int]:
        """Early keys, then the last query of each class."""
        layers = self.layers
        if not layers.repeats:
            reject("pattern", "it has no period that is seen")
        last = range(max(layers.start, layers.units - layers.period), layers.units)
        if (layers.start + len(last)) * layers.units > MOST_BITS:
            reject("limits", "the sets of a layer are too large", expected=f"at most {MOST_BITS} bits")
        return [*range(layers.start), *last]

    @cached_property
    def _steps(self) -> list[_Step]:
        """Every listed layer, until one is wrong with and without the residual connection."""
        layers, places = self.layers, self._places
        full = [below(layers.units) & ~below(key) for key in places[: layers.start]]
        full += [below(query - layers.start + 1) for query in places[layers.start :]]
        before = [1 << key for key in places[: layers.start]] + [1] * (len(places) - layers.start)
        looped = [False] * len(places)
        steps: list[_Step] = []
        for at in range(len(self.content.steps)):
            layer = at % len(self.predicates)
            listed = self._unfolded(at, len(places))
            if layers.unit > 1:
                loops = [bool(layers.row(layer, query) >> query & 1) for query in places]
                looped = [a or b for a, b in zip(looped, loops, strict=True)]
            wrong: dict[bool, str | None] = {True: None, False: None}
            for place, above in zip(places, self._above(layer, before, listed), strict=True):
                for residual, right in above.items():
                    if not right and wrong[residual] is None:
                        wrong[residual] = f"key {place}" if place < layers.start else f"query {place}"
                if all(wrong.values()):
                    break
            steps.append(_Step(wrong, listed == full, *self._seen_by_last(listed), looped))
            if all(wrong.values()):
                break
            before = listed
        return steps

    def _above(self, layer: int, before: list[int], listed: list[int]) -> Iterator[dict[bool, bool]]:
        """Set by set, whether it is what one more layer joins, with the residual connection and without."""
        start = self.layers.start
        classes = dict(zip(self._places[start:], before[start:], strict=True))
        for at, (place, old, new) in enumerate(zip(self._places, before, listed, strict=True)):
            found = self.layers.readers(layer, old) if at < start else self.layers.seen_above(layer, place, classes)
            yield {True: found | old == new, False: found == new}

    def _seen_by_last(self, sets: list[int]) -> tuple[int, bool]:
        """The units before the last that the last one sees, and whether it sees itself."""
        layers = self.layers
        last = layers.units - 1
        early = [key for key in range(layers.start) if sets[key] >> last & 1]
        if last < layers.start:
            return len(early) - (last in early), last in early
        return len(early) + (sets[-1] >> 1).bit_count(), bool(sets[-1] & 1)

    def claim(self, *, residual: bool) -> None:
        """The claim that all pairs are joined, and with the residual connection, by no fewer layers."""
        content, layers, count = self.content, self.layers, self.count
        listed = len(content.steps)
        if not content.complete or content.layers != listed or len(content.reach) != listed:
            reject("claim", "it is not what the evidence is for: complete in as many layers as are listed")
        if count is not None and (listed > count or (listed < count and not residual)):
            reject("claim", "the stack has another number of layers")
        complete = False
        for at, step in enumerate(self._steps):
            if complete and residual:
                reject("claim", f"fewer layers do: {at}")
            if step.wrong[residual]:
                reject(f"layer {at + 1}", f"the set of {step.wrong[residual]} is not what one more layer joins")
            own = layers.tokens_of(layers.units - 1) if step.looped[-1] or not residual else 1
            if content.reach[at] != step.seen * layers.unit + own * step.own:
                reject(f"layer {at + 1}", "the last query sees another number of tokens")
            complete = step.full and (not residual or self._own_pairs_joined(step.looped))
        if not complete:
            reject("claim", "the last layer does not join all pairs")

    def _own_pairs_joined(self, looped: list[bool]) -> bool:
        """Whether tokens of one unit are joined: the unit has had an edge to itself, or one token only."""
        layers = self.layers
        for at, (place, loop) in enumerate(zip(self._places, looped, strict=True)):
            first = place - layers.period
            if at < layers.start or first < layers.start:
                first = place
            if not loop and layers.tokens_of(first) > 1:
                return False
        return True


class QueryChain(Chain):
    """What the last query sees through the top 1, 2, ... layers."""

    def claim(self, *, residual: bool) -> None:
        """The claim that one query does not reach one key, at this length and at every greater one."""
        content, layers = self.content, self.layers
        token, unit = content.seq_len - 1, layers.unit
        query = token // unit
        if content.complete or content.query != token:
            reject("claim", "it is not what the evidence is for: a key that the last query does not reach")
        if not content.steps:
            reject("claim", "no layer is listed")
        one_pattern = residual and self.count is None
        if content.layers is None and not one_pattern:
            reject("claim", "that no number of layers helps is proved for one pattern with the residual connection")
        if content.layers is not None and content.layers != len(content.steps):
            reject("claim", "it speaks of another number of layers than are listed")
        if self.count is not None and content.layers != self.count:
            reject("claim", "the stack has another number of layers")
        before, loop = 1 << query, False
        for step in range(len(content.steps)):
            (listed,) = self._unfolded(step, 1)
            layer = (len(content.steps) - 1 - step) % len(self.predicates)
            found = self._keys(layers, layer, before) | (before if residual else 0)
            if found != listed:
                reject(f"layer {step + 1}", "its set is not what the queries above read")
            if one_pattern and step and listed == before:
                reject(f"layer {step + 1}", "it adds nothing, and the chain goes on")
            loop = loop or bool(layers.row(layer, query) >> query & 1)
            before = listed
        if one_pattern:
            closed = not self._keys(layers, 0, before) & ~before
            if closed is not (content.layers is None):
                reject("claim", "more layers would add something, or would not, other than claimed")
        if not residual:
            loop = bool(before >> query & 1)
            if not self._unfolded(0, 1)[0] >> query & 1:
                self._check_first(layers, query)
        self._check_pair(layers, query, before, loop=loop, residual=residual)

    def _keys(self, layers: Layers, layer: int, queries: int) -> int:
        if layers.repeats and layers.period <= MOST_CLASSES and layers.start <= MOST_EARLY_KEYS:
            return layers.keys(layer, queries)
        found = 0
        for query in each_bit(queries):
            found |= layers.row(layer, query)
        return found

    def _check_pair(self, layers: Layers, query: int, seen: int, *, loop: bool, residual: bool) -> None:
        """The key is the least that is not reached, the query the least of those that this tells of."""
        content, unit = self.content, layers.unit
        missing = below(query) & ~seen
        if missing:
            least = (missing & -missing).bit_length() - 1
            token, key = query * unit, least * unit
        elif not residual and not loop:
            token = key = query * unit
        elif not loop:
            token, key = query * unit + 1, query * unit
        else:
            reject("claim", "the query reaches every key")
        if content.key != key or content.seq_len - 1 != token:
            reject("claim", "the pair is not the first that the last set leaves out", expected=f"{token}, {key}")

    def _check_first(self, layers: Layers, query: int) -> None:
        """Where the sets do not hold the query: no earlier one from the key on reads a part of what it reads."""
        top = (len(self.content.steps) - 1) % len(self.predicates)
        own = layers.row(top, query)
        for earlier in range((self.content.key or 0) // layers.unit, query):
            if not layers.row(top, earlier) & ~own:
                reject("claim", "an earlier query reads no more", got=str(earlier))
