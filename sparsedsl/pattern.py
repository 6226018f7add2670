"""The algebra of patterns: values that denote sets of pairs (q, k) of token positions.

A pattern has no length. Operators build trees and never evaluate; `dense` is the meaning. Values are frozen,
hashable and comparable; `str` is the text that `parse` reads and `repr` is Python source that rebuilds the
value. The leaves are in `sparsedsl.leaves`, the functions that make them in `sparsedsl.constructors`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import index
from types import FunctionType
from typing import TYPE_CHECKING, NoReturn

from sparsedsl.errors import NotABoolean, WrongType, WrongValue, clipped, shown
from sparsedsl.index import Constant, K, Predicate, Q, all_of, any_of, binary, holds, negation, substituted
from sparsedsl.segments import LAST_POSITION

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Operand:
    """What the set operators take: a `Pattern`, or a `PerHead`. It is neither true nor false."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:
        refuse_truth(self)


class Pattern(Operand):
    """A set of pairs (q, k), q, k >= 0; combined with `|`, `&`, `-`, `~`, lifted with `.blocks(size)`."""

    __slots__ = ()

    def predicate(self) -> Predicate:
        """The pattern as a predicate over q and k, made of memberships (and seeded choices)."""
        raise NotImplementedError

    def dense(self, q_len: int, k_len: int | None = None, *, q_start: int | None = None) -> NDArray[np.bool_]:
        """The pattern as a boolean matrix: this is what it means.

        Shapes
            (q_len, k_len), True where the query may read the key; k_len defaults to q_len. Query row i stands
            at position q_start + i; by default the last query sits on the last key, q_start = k_len - q_len.
            A row at a negative position has no key.
        Cost
            O(q_len · k_len) time and memory: for tests and small examples.
        Example
            >>> from sparsedsl.constructors import sliding
            >>> sliding(2).dense(2, 3).astype(int).tolist()
            [[1, 1, 0], [0, 1, 1]]

        """
        import numpy as np

        q_len = whole("dense", "q_len", q_len, least=0)
        k_len = q_len if k_len is None else whole("dense", "k_len", k_len, least=0)
        start = k_len - q_len if q_start is None else whole("dense", "q_start", q_start, least=-LAST_POSITION)
        q = np.arange(start, start + q_len, dtype=np.int64)[:, None]
        k = np.arange(k_len, dtype=np.int64)[None, :]
        return holds(self.predicate(), q, k) & (q >= 0)

    def blocks(self, size: int) -> Pattern:
        """{(q, k) : (q // size, k // size) in this pattern}."""
        return Blocks(self, whole("blocks", "size", size, least=1))

    def _text(self, level: int, *, source: bool) -> str:
        """The text, in parentheses if it binds less than `level`; `source` asks for Python source."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self._text(0, source=False)

    def __repr__(self) -> str:
        return self._text(0, source=True)

    def __or__(self, other: Pattern) -> Pattern:
        if isinstance(other, Pattern):
            return _joined(Union, self, other)
        check_operand("|", self, other)
        return NotImplemented

    def __and__(self, other: Pattern) -> Pattern:
        if isinstance(other, Pattern):
            return _joined(Intersection, self, other)
        check_operand("&", self, other)
        return NotImplemented

    def __sub__(self, other: Pattern) -> Pattern:
        if isinstance(other, Pattern):
            return Difference(self, other)
        check_operand("-", self, other)
        return NotImplemented

    # What stands left of a pattern and knows no such operator itself is no pattern.

    def __ror__(self, other: object) -> NoReturn:
        raise _not_joined("|", other, f"{shown(other)} | {shown(self)}")

    def __rand__(self, other: object) -> NoReturn:
        raise _not_joined("&", other, f"{shown(other)} & {shown(self)}")

    def __rsub__(self, other: object) -> NoReturn:
        raise _not_joined("-", other, f"{shown(other)} - {shown(self)}")

    def __invert__(self) -> Pattern:
        return Complement(self)


def _joined(node: type[Union] | type[Intersection], left: Pattern, right: Pattern) -> Pattern:
    left_parts = left.parts if isinstance(left, node) else (left,)
    right_parts = right.parts if isinstance(right, node) else (right,)
    return node(left_parts + right_parts)


# --- checks shared by everything that a user calls


def refuse_truth(value: object) -> NoReturn:
    """Raise, for a value used where Python wants True or False."""
    raise NotABoolean(
        "a pattern is a set of pairs and is neither true nor false",
        where=f"bool({clipped(str(value))})",
        got="`and`, `or`, `not`, `if` or bool(), which ask for True or False",
        expected="the set operators |, &, - and ~ between patterns",
        hint="| for `or`, & for `and`, ~ for `not`; `is None` to ask whether there is one",
    )


def check_operand(sign: str, left: Operand, right: object) -> None:
    """Raise unless the right side of an operator is a pattern, or one pattern for each head."""
    if not isinstance(right, Operand):
        raise _not_joined(sign, right, f"{shown(left)} {sign} {shown(right)}")


def _not_joined(sign: str, other: object, where: str) -> WrongType:
    """The error for an operand that is no pattern."""
    if isinstance(other, FunctionType):
        hint = f"{other.__name__}(...), the call and not the function"
    elif isinstance(other, str):
        hint = f"parse({shown(other)})"
    elif isinstance(other, Iterable):
        hint = f"[each {sign} causal() for each in ...], one by one"
    else:
        hint = f"sliding(1024) {sign} sink(4)"
    return WrongType(
        f"{sign} joins patterns",
        where=where,
        got=f"{shown(other)} of type {type(other).__name__}",
        expected="a pattern on both sides",
        hint=hint,
    )


def wholes(call: str, *, least: int = 1, most: int = LAST_POSITION, **numbers: int) -> None:
    """Raise unless each argument of a call is a whole number in [least, most]."""
    for name, value in numbers.items():
        whole(call, name, value, least=least, most=most)


def listed(call: str, name: str, values: Iterable[int], *, least: int) -> tuple[int, ...]:
    """An argument of a call that is a list of whole numbers, as a tuple."""
    try:
        return tuple(whole(call, name, value, least=least) for value in values)
    except TypeError as error:
        if isinstance(error, WrongType):
            raise
        raise WrongType(
            f"{name} must be a list of whole numbers",
            where=f"{call}({name}={shown(values)})",
            got=f"{name} = {shown(values)} of type {type(values).__name__}",
            expected=f"a list of ints >= {least}",
            hint=f"{call}({name}=[{max(least, 4)}])",
        ) from None


def whole(call: str, name: str, value: int, *, least: int, most: int = LAST_POSITION) -> int:
    """The value as an int, if it is a whole number in [least, most]."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = index(value)
    except TypeError:
        raise WrongType(
            f"{name} must be a whole number",
            where=f"{call}({name}={shown(value)})",
            got=f"{name} = {shown(value)} of type {type(value).__name__}",
            expected=f"an int, {_bound(least)} <= {name} <= {_bound(most)}",
            hint=f"{call}({name}={max(least, 4)})",
        ) from None
    if not least <= number <= most:
        raise WrongValue(
            f"{name} is out of range",
            where=f"{call}({name}={shown(number)})",
            got=f"{name} = {shown(number)}",
            expected=f"{_bound(least)} <= {name} <= {_bound(most)}",
            hint=f"{call}({name}={_bound(least if number < least else most)})",
        )
    return number


def _bound(number: int) -> str:
    return {LAST_POSITION: "2**40", -LAST_POSITION: "-2**40"}.get(number, str(number))


# --- operators


@dataclass(frozen=True, slots=True, repr=False)
class Union(Pattern):
    """The pairs of any part."""

    parts: tuple[Pattern, ...]

    def predicate(self) -> Predicate:
        return any_of(*(part.predicate() for part in self.parts))

    def _text(self, level: int, *, source: bool) -> str:
        text = " | ".join(part._text(2, source=source) for part in self.parts)
        return f"({text})" if level > 1 else text


@dataclass(frozen=True, slots=True, repr=False)
class Intersection(Pattern):
    """The pairs of every part."""

    parts: tuple[Pattern, ...]

    def predicate(self) -> Predicate:
        return all_of(*(part.predicate() for part in self.parts))

    def _text(self, level: int, *, source: bool) -> str:
        text = " & ".join(part._text(3, source=source) for part in self.parts)
        return f"({text})" if level > 2 else text


@dataclass(frozen=True, slots=True, repr=False)
class Difference(Pattern):
    """The pairs of the first that are not in the second."""

    kept: Pattern
    removed: Pattern

    def predicate(self) -> Predicate:
        return all_of(self.kept.predicate(), negation(self.removed.predicate()))

    def _text(self, level: int, *, source: bool) -> str:
        text = f"{self.kept._text(3, source=source)} - {self.removed._text(4, source=source)}"
        return f"({text})" if level > 3 else text


@dataclass(frozen=True, slots=True, repr=False)
class Complement(Pattern):
    """The pairs that are not in the part."""

    part: Pattern

    def predicate(self) -> Predicate:
        return negation(self.part.predicate())

    def _text(self, level: int, *, source: bool) -> str:
        text = f"~{self.part._text(5, source=source)}"
        return f"({text})" if level > 5 else text


@dataclass(frozen=True, slots=True, repr=False)
class Blocks(Pattern):
    """{(q // size, k // size) in the part}."""

    part: Pattern
    size: int

    def predicate(self) -> Predicate:
        size = Constant(self.size)
        return substituted(self.part.predicate(), binary("//", Q, size), binary("//", K, size))

    def _text(self, level: int, *, source: bool) -> str:
        return f"{self.part._text(6, source=source)}.blocks({self.size})"
