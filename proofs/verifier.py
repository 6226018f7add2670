"""The verifier of certificates: small, bounded, and apart from what writes them.

Trusted are Python, the JSON reader, the pattern language (parser, predicates, exact integer sets) and
`sparsedsl.rows`; docs/certificates.md says what follows from an accepted certificate, and why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol

from sparsedsl.errors import Rejected, SparseDSLError
from sparsedsl.index import AllOf, AnyOf, Chosen, Comparison, Member, Negation, Predicate
from sparsedsl.layers import PerHead, Stack
from sparsedsl.leaves import Chunked, Dilated, RandomBlocks, Strided
from sparsedsl.pattern import Blocks, Complement, Difference, Intersection, Pattern, Union
from sparsedsl.proofs.verifier_chains import DistanceChain, QueryChain
from sparsedsl.proofs.verifier_file import Content, content_of, read, reject
from sparsedsl.proofs.verifier_pairs import CountedPairs
from sparsedsl.proofs.verifier_steps import Work
from sparsedsl.segments import WordTooLong
from sparsedsl.terms import Binary, Constant, Position, Term
from sparsedsl.text import parse

# Strides, dilations, chunks, blocks, divisors and draws of a pattern: sets repeat, and words are as long as they.
LARGEST_STEP = 1 << 20
MOST_DRAWN = 1 << 10
# Lists inside lists, each times a number, would print texts of any length.
_REPEATED_LIST = re.compile(r"\]\s*\*")


class Evidence(Protocol):
    """The evidence of one kind."""

    def claim(self, *, residual: bool) -> None:
        """Reject unless it proves the claim, with or without the residual connection."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What an accepted certificate proves; see `Certificate` for the fields. `stack` counts a stack's own layers."""

    pattern: str
    seq_len: int
    residual: bool | Literal["either"]
    complete: bool
    layers: int | None
    query: int | None
    key: int | None
    longer: bool
    stack: int | None

    def __str__(self) -> str:
        way = {True: "with", False: "without", "either": "with or without"}[self.residual]
        layers = "any number of layers" if self.layers is None else f"{self.layers} layers"
        layers += f" {way} the residual connection"
        if self.complete:
            return f"complete at {self.seq_len} tokens in {layers}" + (", in no fewer" if self.residual else "")
        lengths = f"{self.seq_len} tokens" + (" and more" if self.longer else "")
        return f"incomplete at {lengths}: query {self.query} does not reach key {self.key} in {layers}"

    def as_dict(self) -> dict[str, object]:
        """All fields by name."""
        return asdict(self)

    def settles(self, *, seq_len: int, layers: int | None, residual: bool = True) -> bool:
        """Whether the claim answers the question if the pattern is complete at a length, through so many layers.

        `layers` = None asks about any number of layers; a stack's question is about all of its own.
        """
        if self.residual not in ("either", residual):
            return False
        if seq_len != self.seq_len and not (self.longer and seq_len > self.seq_len):
            return False
        layers = self.stack if layers is None else layers
        if self.layers is None or layers == self.layers:
            return True
        if not residual:
            return False
        # With the residual connection what is joined stays joined.
        return self.complete or (layers is not None and layers < self.layers)


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
        complete at 128 tokens in 7 layers with or without the residual connection, in no fewer
        >>> try:
        ...     verify(certify(power(), seq_len=128).to_json().replace('"layers":7', '"layers":6'))
        ... except Rejected as error:
        ...     print(error.where)
        claim

    """
    if isinstance(certificate, Path):
        content = read(certificate)
    else:
        content = content_of(
            certificate.encode("utf-8", "surrogatepass") if isinstance(certificate, str) else certificate
        )
    pattern, predicates, count = _pattern(content)
    evidence = _evidence(content, predicates, count)
    for residual in (True, False):
        if content.residual in ("either", residual):
            evidence.claim(residual=residual)
        elif _holds(evidence, residual=residual):
            reject("claim", "it holds with and without the residual connection, and does not say so")
    return Claim(
        pattern=pattern,
        seq_len=content.seq_len,
        residual=content.residual,
        complete=content.complete,
        layers=content.layers,
        query=content.query,
        key=content.key,
        longer=content.kind == "query",
        stack=count,
    )


def _evidence(content: Content, predicates: tuple[Predicate, ...], count: int | None) -> Evidence:
    work = Work()
    if content.kind == "pairs":
        return CountedPairs(content, predicates, count, work)
    if content.kind == "distances":
        return DistanceChain(content, predicates, count, work)
    return QueryChain(content, predicates, count, work)


def _holds(evidence: Evidence, *, residual: bool) -> bool:
    try:
        evidence.claim(residual=residual)
    except Rejected as error:
        if error.where in ("work", "limits"):
            raise
        return False
    return True


# --- the pattern


def _pattern(content: Content) -> tuple[str, tuple[Predicate, ...], int | None]:
    """The text, the layers' predicates, and the number of layers of a stack."""
    if _REPEATED_LIST.search(content.pattern):
        reject("pattern", "a list times a number is not how a pattern is printed")
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
    except WordTooLong:
        reject("limits", "the pattern repeats too late")
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
        case Strided(stride=step) | Chunked(size=step) | RandomBlocks(block=step) | Dilated(dilation=step):
            _check_step(step)
    if isinstance(pattern, RandomBlocks) and pattern.count > MOST_DRAWN:
        reject("limits", "a draw is too large", got=str(pattern.count), expected=f"at most {MOST_DRAWN}")


def _check_step(step: int) -> None:
    if step > LARGEST_STEP:
        reject(
            "limits",
            "a stride, dilation, chunk or divisor is too large",
            got=str(step),
            expected=f"at most {LARGEST_STEP}",
        )


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
