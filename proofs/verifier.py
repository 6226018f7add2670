"""The verifier of certificates: small, bounded, and apart from what writes them.

Trusted are Python, the JSON reader, the pattern language (parser, predicates, exact integer sets) and
`sparsedsl.rows`; docs/certificates.md says what follows from an accepted certificate, and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparsedsl.errors import SparseDSLError
from sparsedsl.index import AllOf, AnyOf, Chosen, Comparison, Member, Negation, Predicate
from sparsedsl.layers import PerHead, Stack
from sparsedsl.leaves import Chunked, RandomBlocks, Strided
from sparsedsl.pattern import Blocks, Complement, Difference, Intersection, Pattern, Union
from sparsedsl.proofs.verifier_file import Content, content_of, read, reject
from sparsedsl.proofs.verifier_pairs import verify_pairs
from sparsedsl.proofs.verifier_steps import MOST_BITS, Layers, Work, below, each_bit
from sparsedsl.rows import never_ahead
from sparsedsl.terms import Binary, Constant, Position, Term
from sparsedsl.text import parse

# Strides, chunks, blocks, divisors and draws of a pattern: sets repeat, and words are as long as they.
LARGEST_STEP = 1 << 20
MOST_DRAWN = 1 << 10
# Chains by classes up to this many, beyond it query by query.
MOST_CLASSES = 64


@dataclass(frozen=True, slots=True)
class Claim:
    """What an accepted certificate proves; see `Certificate` for the fields."""

    pattern: str
    seq_len: int
    residual: bool
    complete: bool
    layers: int | None
    query: int | None
    key: int | None
    longer: bool

    def __str__(self) -> str:
        connection = "with" if self.residual else "without"
        if self.complete:
            least = ", and no fewer" if self.residual else ""
            return f"complete at {self.seq_len} tokens in {self.layers} layers{least}, {connection} residual connection"
        layers = "any number of layers" if self.layers is None else f"{self.layers} layers"
        lengths = f"at {self.seq_len} tokens" + (" and more" if self.longer else "")
        pair = f"query {self.query} does not reach key {self.key}"
        return f"incomplete {lengths} in {layers}, {connection} residual connection: {pair}"

    def settles(self, *, seq_len: int, layers: int | None) -> bool:
        """Whether the claim answers: is the pattern complete at this length through so many layers, or any number?"""
        if self.complete:
            enough = layers == self.layers or (self.residual and (layers is None or layers >= (self.layers or 0)))
            fewer = self.residual and layers is not None and layers < (self.layers or 0)
            return seq_len == self.seq_len and (enough or fewer)
        if not (seq_len == self.seq_len or (self.longer and seq_len > self.seq_len)):
            return False
        if self.layers is None:
            return True
        return layers is not None and (layers == self.layers or (self.residual and layers < self.layers))


def verify(certificate: bytes | str | Path) -> Claim:
    """The claim of a certificate, if its evidence proves it: the text of a file, or the path of one.

    Cost
        Time O(sets listed · segments of a row · units / 64), memory O(sets of one layer · units / 8) bytes, both
        bounded by the limits in docs/certificates.md.
    Raises
        Rejected: with the step that fails.
    Example
        >>> from sparsedsl import certify, power
        >>> print(verify(certify(power(), seq_len=128).to_json()))
        complete at 128 tokens in 7 layers, and no fewer, with residual connection
        >>> verify(certify(power(), seq_len=128).to_json().replace('"layers":7', '"layers":6'))
        Traceback (most recent call last):
        ...
        sparsedsl.errors.Rejected: the certificate is rejected at step 'claim': ...

    """
    if isinstance(certificate, Path):
        content = read(certificate)
    else:
        content = content_of(certificate.encode() if isinstance(certificate, str) else certificate)
    pattern, predicates, count = _pattern(content)
    checked = _Check(content, predicates, count)
    if content.kind == "distances":
        checked.distances()
    elif content.kind == "query":
        checked.query()
    else:
        verify_pairs(content, predicates, count)
    return Claim(
        pattern=pattern,
        seq_len=content.seq_len,
        residual=content.residual,
        complete=content.complete,
        layers=content.layers,
        query=content.query,
        key=content.key,
        longer=content.kind == "query",
    )


# --- the pattern


def _pattern(content: Content) -> tuple[str, tuple[Predicate, ...], int | None]:
    """The text, the layers' predicates, and the number of layers of a stack."""
    try:
        pattern = parse(content.pattern)
        if str(pattern) != content.pattern:
            reject("pattern", "its text is not the one that is printed for it")
        layers = pattern.patterns if isinstance(pattern, Stack) else (pattern,)
        graphs = [layer.union() if isinstance(layer, PerHead) else layer for layer in layers]
        for graph in graphs:
            _check_steps(graph)
        predicates = tuple(graph.predicate() for graph in graphs)
        for predicate in predicates:
            for term in _terms(predicate):
                _check_divisors(term)
    except SparseDSLError as error:
        if error.where == "pattern" or error.where == "limits":
            raise
        reject("pattern", f"its text is not a pattern: {error.what}")
    return content.pattern, predicates, len(pattern) if isinstance(pattern, Stack) else None


def _check_steps(pattern: Pattern) -> None:
    match pattern:
        case Union(parts=parts) | Intersection(parts=parts):
            for part in parts:
                _check_steps(part)
        case Difference(kept=one, removed=other):
            _check_steps(one)
            _check_steps(other)
        case Complement(part=part):
            _check_steps(part)
        case Blocks(part=part, size=size):
            _check_step(size)
            _check_steps(part)
        case Strided(stride=step) | Chunked(size=step) | RandomBlocks(block=step):
            _check_step(step)
    if isinstance(pattern, RandomBlocks) and pattern.count > MOST_DRAWN:
        reject("limits", "a draw is too large", got=str(pattern.count), expected=f"at most {MOST_DRAWN}")


def _check_step(step: int) -> None:
    if step > LARGEST_STEP:
        reject("limits", "a stride, chunk or divisor is too large", got=str(step), expected=f"at most {LARGEST_STEP}")


def _terms(predicate: Predicate) -> Iterator[Term]:
    match predicate:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from _terms(part)
        case Negation(part):
            yield from _terms(part)
        case Comparison(_, left, right):
            yield from (left, right)
        case Member(term, _):
            yield term
        case Chosen(_, _, query, key):
            yield from (query, key)


def _check_divisors(term: Term) -> None:
    match term:
        case Binary(operator, left, right):
            if operator in ("//", "%") and isinstance(right, Constant):
                _check_step(right.value)
            _check_divisors(left)
            _check_divisors(right)
        case Position() | Constant():
            pass


# --- chains of sets


class _Check:
    """The checks of "distances" and "query", for patterns that never look ahead."""

    def __init__(self, content: Content, predicates: tuple[Predicate, ...], count: int | None) -> None:
        self.content, self.predicates, self.count = content, predicates, count
        self.work = Work()

    def _layers(self) -> Layers:
        if not all(map(never_ahead, self.predicates)):
            reject("pattern", "it may look ahead, which this kind of evidence does not allow")
        return Layers(self.predicates, self.content.seq_len, self.work)

    def _unfolded(self, step: int, layers: Layers, width: int) -> list[int]:
        """The sets of one step."""
        content, roots = self.content, self.content.steps[step]
        tree = content.tree
        assert tree is not None
        if 64 << len(tree.pairs) < layers.units or (tree.pairs and 32 << len(tree.pairs) >= layers.units):
            reject("tree", "it does not have the levels that its length asks for")
        if len(roots) != width:
            reject(f"layer {step + 1}", "it does not list its sets", expected=f"{width} sets")
        if width * layers.units > MOST_BITS:
            reject("limits", "the sets of a layer are too large", expected=f"at most {MOST_BITS} bits")
        self.work.spend(width * layers.units)
        return tree.sets(roots)

    def distances(self) -> None:
        """The claim that all pairs are joined, and with the residual connection, by no fewer layers."""
        content, layers = self.content, self._layers()
        if not content.complete or content.layers != len(content.steps):
            reject("claim", "it is not what the evidence is for: complete in as many layers as are listed")
        if self.count is not None and (
            len(content.steps) > self.count or (len(content.steps) < self.count and not content.residual)
        ):
            reject("claim", "the stack has another number of layers")
        if not layers.repeats:
            reject("pattern", "it has no period that is seen")
        early = range(layers.start)
        last = range(max(layers.start, layers.units - layers.period), layers.units)
        full = [below(layers.units) & ~below(key) for key in early]
        full += [below(query - layers.start + 1) for query in last]
        before = [1 << key for key in early] + [1 for _ in last]
        looped = [False] * len(before)
        # Tokens of one unit are joined where the unit has an edge to itself; a unit of one token needs none.
        needs_loop = [layers.tokens_of(key) > 1 for key in early]
        needs_loop += [layers.tokens_of(max(query - layers.period, layers.start)) > 1 for query in last]
        complete = False
        for step in range(len(content.steps)):
            if complete and content.residual:
                reject("claim", f"fewer layers do: {step}")
            layer = step % len(self.predicates)
            listed = self._unfolded(step, layers, len(full))
            for place, query in enumerate([*early, *last]):
                if layers.unit > 1 and content.residual and not looped[place]:
                    looped[place] = bool(layers.row(layer, query) >> query & 1)
                if place < layers.start:
                    found = layers.readers(layer, before[place]) | (before[place] if content.residual else 0)
                else:
                    seen = dict(zip(last, before[layers.start :], strict=True))
                    kept = before[place] if content.residual else 0
                    found = layers.seen_above(layer, query, seen, kept)
                if found != listed[place]:
                    what = f"key {query}" if place < layers.start else f"query {query}"
                    reject(f"layer {step + 1}", f"the set of {what} is not what one more layer joins")
            before = listed
            complete = listed == full
            if content.residual:
                complete &= all(loop or not needed for loop, needed in zip(looped, needs_loop, strict=True))
        if not complete:
            reject("claim", "the last layer does not join all pairs")

    def query(self) -> None:
        """The claim that one query does not reach one key, at this length and at every greater one."""
        content, layers = self.content, self._layers()
        token, unit = content.seq_len - 1, layers.unit
        query = token // unit
        if content.complete or content.query != token:
            reject("claim", "it is not what the evidence is for: a key that the last query does not reach")
        if not content.steps:
            reject("claim", "no layer is listed")
        one_pattern = content.residual and self.count is None
        if content.layers is None and not one_pattern:
            reject("claim", "that no number of layers helps is proved for one pattern with the residual connection")
        if content.layers is not None and content.layers != len(content.steps):
            reject("claim", "it speaks of another number of layers than are listed")
        if self.count is not None and content.layers != self.count:
            reject("claim", "the stack has another number of layers")
        before, loop = 1 << query, False
        for step in range(len(content.steps)):
            (listed,) = self._unfolded(step, layers, 1)
            layer = (len(content.steps) - 1 - step) % len(self.predicates)
            found = self._keys(layers, layer, before) | (before if content.residual else 0)
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
        self._check_pair(layers, query, before, loop=loop if content.residual else bool(before >> query & 1))

    def _keys(self, layers: Layers, layer: int, queries: int) -> int:
        if layers.repeats and layers.period <= MOST_CLASSES:
            return layers.keys(layer, queries)
        found = 0
        for query in each_bit(queries):
            found |= layers.row(layer, query)
        return found

    def _check_pair(self, layers: Layers, query: int, seen: int, *, loop: bool) -> None:
        """The key is the least that is not reached, the query the least of those that this tells of."""
        content, unit = self.content, layers.unit
        missing = below(query) & ~seen
        if missing:
            least = (missing & -missing).bit_length() - 1
            token, key = query * unit, least * unit
        elif not content.residual and not loop:
            token = key = query * unit
        elif not loop:
            token, key = query * unit + 1, query * unit
        else:
            reject("claim", "the query reaches every key")
        if content.key != key or content.seq_len - 1 != token:
            reject("claim", "the pair is not the first that the last set leaves out", expected=f"{token}, {key}")
        if not content.residual:
            self._check_first(layers, query, key // unit)

    def _check_first(self, layers: Layers, query: int, key: int) -> None:
        """Without the residual connection, no earlier query reads a part of what this one reads."""
        top = (len(self.content.steps) - 1) % len(self.predicates)
        own = layers.row(top, query)
        for earlier in range(key, query):
            if not layers.row(top, earlier) & ~own:
                reject("claim", "an earlier query reads no more", got=str(earlier))
