"""A pattern as FlexAttention's `mask_mod`, and as the boolean mask of `scaled_dot_product_attention`.

The function is printed as source, as kernels are: torch.compile then traces plain arithmetic and look-ups
of small tensors, and nothing of this package.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from sparsedsl.codegen.build import one_layer
from sparsedsl.codegen.geometric import geometric_tail
from sparsedsl.errors import Unsupported, WrongValue
from sparsedsl.index import (
    AllOf,
    AnyOf,
    Binary,
    Chosen,
    Comparison,
    Constant,
    Member,
    Negation,
    Position,
    Predicate,
    Term,
    drawn,
    evaluate,
    lowered,
    term_text,
    value_range,
)
from sparsedsl.integers import IntegerSet, Segment
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern, whole

# (batch, head, query, key) -> bool, elementwise: what FlexAttention calls a mask_mod.
MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

_LARGEST = (1 << 31) - 1
_POSITIONS = (0, _LARGEST)
_NUMBERS = IntegerSet.interval(-_LARGEST, _LARGEST + 1)
# Sets of more pieces than this are looked up in a table, as far as FARTHEST; beyond it pieces are compared.
MOST_COMPARISONS = 8
FARTHEST = 1 << 20


def to_mask_mod(
    pattern: Pattern | PerHead,
    *,
    q_start: int = 0,
    length: int | None = None,
    device: torch.device | str | None = None,
) -> MaskMod:
    """The pattern as a FlexAttention mask_mod: (b, h, q, kv) -> bool, by arithmetic on the two positions.

    FlexAttention counts queries from 0: row q stands at position q_start + q. With q_len != k_len our own default,
    the last query on the last key, is q_start = k_len - q_len. `length` bounds the positions of a pattern with random
    choices, whose draws are tabulated; no other pattern needs it.

    Cost
        Elementwise work for each pair that it is asked about. Memory O(period) for words, up to 256 kB for the bits of
        a set of many pieces, and O(length / block · count) for random choices, on `device`.
    Raises
        Unsupported: random choices without a `length`.
    Example
        >>> from sparsedsl.constructors import causal, sink, sliding
        >>> q, k = torch.arange(4)[:, None], torch.arange(4)[None, :]
        >>> to_mask_mod(sliding(2) | sink(1) & causal())(0, 0, q, k).int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1]]

    """
    pattern = one_layer("to_mask_mod", pattern)
    q_start = whole("to_mask_mod", "q_start", q_start, least=-_LARGEST, most=_LARGEST)
    if length is not None:
        length = whole("to_mask_mod", "length", length, least=1, most=_LARGEST)
    heads = pattern.heads if isinstance(pattern, PerHead) else (pattern,)
    kinds = list(dict.fromkeys(heads))
    printer = _Printer(length)
    texts = [printer.source(lowered(kind.predicate())) for kind in kinds]
    if len(kinds) > 1:
        own = printer.table([kinds.index(head) for head in heads])
        texts = [f"(({own}[h] == {kind}) & {text})" for kind, text in enumerate(texts)]
    lines = [f"q = q{f' + {q_start}' if q_start else ''}"]
    if printer.wide:
        lines.append("q, k = q.long(), k.long()")
    lines.append(f"return {'(q >= 0) & ' if q_start < 0 else ''}({' | '.join(texts)})")
    body = "\n".join(f"        {line}" for line in lines)
    names = ", ".join(f"t{number}" for number in range(len(printer.tables)))
    source = (
        f'"""The mask_mod of {len(kinds)} head patterns; q counts from position {q_start}."""\n\n\n'
        f"def make({names}):\n    def mask_mod(b, h, q, k):\n{body}\n\n    return mask_mod\n"
    )
    return _maker(source)(*(torch.tensor(table, device=device) for table in printer.tables))


@lru_cache(maxsize=256)
def _maker(source: str) -> Callable[..., MaskMod]:
    """The function `make` of a source; nothing is written to the cache, as a new q_start is a new source."""
    names: dict[str, Any] = {"__name__": "sparsedsl_mask_mod"}
    exec(compile(source, "<mask_mod>", "exec"), names)
    maker: Callable[..., MaskMod] = names["make"]
    return maker


class _Printer:
    """Predicates as Python source over integer tensors q and k, and the tables t0, t1, ... that it looks up."""

    def __init__(self, length: int | None) -> None:
        self.length = length
        self.tables: list[list[int] | list[bool] | list[list[int]]] = []
        self.wide = False

    def table(self, values: list[int] | list[bool] | list[list[int]]) -> str:
        """The name of a table; equal ones are kept once."""
        if values not in self.tables:
            self.tables.append(values)
        return f"t{self.tables.index(values)}"

    def source(self, predicate: Predicate) -> str:
        """The predicate in one pair of parentheses."""
        match predicate:
            case Member(term, members):
                return self._member(term, members & _NUMBERS)
            case Comparison():
                return self.source(lowered(predicate))
            case AllOf(parts):
                return f"({' & '.join(map(self.source, parts)) or 'q == q'})"
            case AnyOf(parts):
                return f"({' | '.join(map(self.source, parts)) or 'q != q'})"
            case Negation(part):
                return f"(~{self.source(part)})"
            case Chosen():
                return self._chosen(predicate)

    def _term(self, term: Term) -> str:
        low, high = value_range(term, _POSITIONS, _POSITIONS)
        self.wide |= low < -_LARGEST or high > _LARGEST or any(self._is_wide(part) for part in _parts(term))
        return f"({term_text(term)})"

    def _is_wide(self, term: Term) -> bool:
        low, high = value_range(term, _POSITIONS, _POSITIONS)
        return low < -_LARGEST or high > _LARGEST

    def _member(self, term: Term, members: IntegerSet) -> str:
        if isinstance(term, Constant):
            return "(q == q)" if term.value in members else "(q != q)"
        value, segments, pieces = self._term(term), list(members.segments), []
        tail = geometric_tail(segments)
        if tail is not None and (tail.base, tail.offset, tail.width) == (2, 0, 1) and tail.scale.bit_count() == 1:
            pieces.append(f"(({value} >= {tail.scale}) & (({value} & ({value} - 1)) == 0))")
            segments = segments[: tail.start]
        near = [each for each in segments if each.lo >= -FARTHEST and each.hi <= FARTHEST]
        if len(near) > MOST_COMPARISONS:
            segments = [each for each in segments if each not in near]
            pieces.append(self._looked_up(value, IntegerSet(tuple(near))))
        pieces += [self._segment(value, segment) for segment in segments]
        return f"({' | '.join(pieces) or 'q != q'})"

    def _looked_up(self, value: str, members: IntegerSet) -> str:
        lo, hi = members.minimum, members.maximum + 1
        bits = members.bits(lo, hi)
        # 31 bits a number: none is negative.
        table = self.table([bits >> place & _LARGEST for place in range(0, hi - lo, 31)])
        place = f"({value} - {lo}).clamp(0, {hi - lo - 1})"
        return f"(({value} >= {lo}) & ({value} < {hi}) & (({table}[{place} // 31] >> ({place} % 31) & 1) == 1))"

    def _segment(self, value: str, segment: Segment) -> str:
        lo, hi, period, word = segment
        if hi - lo == 1:
            return f"({value} == {lo})"
        conditions = [f"({value} >= {lo})"] if lo > -_LARGEST else []
        conditions += [f"({value} < {hi})"] if hi <= _LARGEST else []
        residues = [residue for residue in range(period) if word >> residue & 1]
        if period > 1 and len(residues) == 1:
            conditions.append(f"({value} % {period} == {residues[0]})")
        elif period > 1:
            conditions.append(
                f"{self.table([bool(word >> residue & 1) for residue in range(period)])}[{value} % {period}]"
            )
        return f"({' & '.join(conditions) or 'q == q'})"

    def _chosen(self, choice: Chosen) -> str:
        if self.length is None:
            raise Unsupported(
                "a random choice needs the number of positions",
                got="length = None",
                expected="a bound on the positions, because the draws are tabulated",
                hint="to_mask_mod(pattern, length=k_len)",
            )
        import numpy as np

        places = np.arange(self.length, dtype=np.int64)
        rows = int(np.max(evaluate(choice.q, places, places))) + 1
        draws = [drawn(row, choice.count, choice.seed) for row in range(rows)]
        table = self.table([[*draw, *[-1] * (choice.count - len(draw))] for draw in draws])
        row, key = f"{self._term(choice.q)}.clamp(0, {rows - 1})", self._term(choice.k)
        return f"({' | '.join(f'({table}[{row}, {pick}] == {key})' for pick in range(choice.count))})"


def _parts(term: Term) -> list[Term]:
    match term:
        case Position() | Constant():
            return []
        case Binary(_, left, right):
            return [left, right, *_parts(left), *_parts(right)]


def to_mask(
    pattern: Pattern | PerHead,
    q_len: int,
    k_len: int | None = None,
    *,
    q_start: int | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """The pattern as the `attn_mask` of `scaled_dot_product_attention`: True where the query may read the key.

    Shapes
        (q_len, k_len), or (heads, q_len, k_len) for a pattern with one for each head; both broadcast over the batch.
        Alignment as in `Pattern.dense`: the last query sits on the last key unless `q_start` says otherwise.
    Cost
        O(q_len · k_len) time and memory: that is what a dense mask is.
    Example
        >>> from sparsedsl.constructors import sliding
        >>> to_mask(sliding(2), 2, 3).int().tolist()
        [[1, 1, 0], [0, 1, 1]]

    """
    pattern = one_layer("to_mask", pattern)
    return torch.from_numpy(pattern.dense(q_len, k_len, q_start=q_start)).to(device)


def block_sides(call: str, block_size: int | tuple[int, int]) -> tuple[int, int]:
    """A block size as (queries, keys)."""
    sides = (block_size, block_size) if isinstance(block_size, int) else tuple(block_size)
    if len(sides) != 2:
        raise WrongValue(
            "a block has two sides",
            where=f"{call}(block_size={block_size!r})",
            got=f"{len(sides)} numbers",
            expected="one number, or (queries, keys)",
            hint=f"{call}(block_size=128)",
        )
    return whole(call, "block_size", sides[0], least=1), whole(call, "block_size", sides[1], least=1)
