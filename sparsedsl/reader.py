"""The grammar of pattern texts: a part of Python's expressions, read by hand; Python evaluates nothing.

`parse` and `parse_predicate` of `sparsedsl.text` are the doors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import reduce
from operator import and_, or_, sub
from typing import NoReturn

from sparsedsl.cursor import CLOSING, DEEPEST, Cursor, Found
from sparsedsl.errors import UnknownName, marked, nearest, one_of
from sparsedsl.index import Predicate, Relation, all_of, any_of, comparison, negation
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.terms import Constant, K, Operator, Q, Term, checked, raised
from sparsedsl.tokens import A_CONDITION, A_PATTERN, Token
from sparsedsl.values import (
    JOINED,
    PREFIXED,
    call_text,
    called,
    example,
    kind,
    number,
    number_or_term,
    number_raised,
    repetition,
)

Names = Mapping[str, Callable[..., object]]

# Python's levels: `not` and comparisons are between `and` and `|`; `~` and `-` before a value bind tightest.
_LEVELS = {"or": 1, "and": 2, "|": 5, "&": 6, "+": 7, "-": 7, "*": 8, "//": 8, "%": 8}
_COMPARISON = 4
_TIGHTEST = 9
_RELATIONS: dict[str, Relation] = {"==": "==", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_ARITHMETIC: dict[str, Operator] = {"+": "+", "-": "-", "*": "*", "//": "//", "%": "%"}
_SET_OPERATIONS: dict[str, Callable[[Pattern, Pattern], Pattern]] = {"|": or_, "&": and_, "-": sub}


class Reader(Cursor):
    """The grammar; each method reads what its name says. `names` are the functions that the text may call."""

    def __init__(
        self, source: str, names: Names, *, start: int = 0, end: int | None = None, in_condition: bool = False
    ) -> None:
        super().__init__(source, start=start, end=end, in_condition=in_condition)
        self.names = names
        self.depth = 0

    # --- operators

    def whole_text(self) -> Found:
        """The value of the text, which must end after it."""
        found = self.expression()
        token = self.token
        if token.kind != "end":
            closing = token.text in CLOSING.values()
            what = f"{token.text} closes nothing" if closing else "the text goes on after its end"
            self.mistake(what, token.start, token.end, expected="an operator, or the end of the text")
        return found

    def expression(self, level: int = 1) -> Found:
        """A value, with every operator that binds at least as tightly as `level`."""
        self.depth += 1
        if self.depth > DEEPEST:
            self.too_deep(self.token.start, self.token.end)
        left = self.prefixed()
        while True:
            sign = self.token.text
            own = _COMPARISON if sign in _RELATIONS else _LEVELS.get(sign, 0)
            if own < level:
                self.depth -= 1
                return left
            if own == _COMPARISON:
                left = self.compared(left)
                continue
            # `|` and `&` join any number of operands at once; a - b - c is (a - b) - c.
            operands = [left]
            while self.accept(sign):
                operands.append(self.expression(own + 1))
                if sign in _ARITHMETIC:
                    break
            left = self.joined(sign, operands)

    def compared(self, first: Found) -> Found:
        """a < b <= c: each neighbouring pair is compared."""
        operands, relations = [first], []
        while self.token.text in _RELATIONS:
            relations.append(_RELATIONS[self.token.text])
            self.at += 1
            operands.append(self.expression(_COMPARISON + 1))
        terms = [self.as_term(operand) for operand in operands]
        pairs = list(zip(relations, terms, terms[1:], strict=False))
        return self.built(lambda: all_of(*(comparison(*pair) for pair in pairs)), first.start, *operands)

    def as_term(self, operand: Found) -> Term:
        """The operand as a term, if it is a number or a term."""
        if isinstance(operand.value, int):
            return Constant(operand.value)
        if isinstance(operand.value, Term):
            return operand.value
        self.mistake(
            f"{kind(operand.value)} cannot be compared",
            operand.start,
            operand.end,
            expected="numbers and terms over q and k",
            hint="parentheses around each comparison: (q - k < 4) & (k % 2 == 0)",
        )

    def joined(self, sign: str, operands: list[Found]) -> Found:
        """Two operands or more, joined by one sign."""
        start = operands[0].start
        values = [operand.value for operand in operands]
        conditions = [value for value in values if isinstance(value, Predicate)]
        if len(conditions) == len(values) and sign not in _ARITHMETIC:
            join = all_of if sign in ("&", "and") else any_of
            return self.built(lambda: join(*conditions), start, *operands)
        patterns = [value for value in values if isinstance(value, Pattern | PerHead)]
        if len(patterns) == len(values) and sign in _SET_OPERATIONS:
            # PerHead has the same operators.
            return self.built(lambda: reduce(_SET_OPERATIONS[sign], patterns), start, *operands)  # type: ignore[arg-type]
        left, right = values[:2]
        if isinstance(left, int | Term) and isinstance(right, int | Term) and sign in _ARITHMETIC:
            a, b = map(self.as_term, operands)
            return self.built(lambda: number_or_term(checked(_ARITHMETIC[sign], a, b)), start, *operands)
        if isinstance(left, list) and isinstance(right, int) and sign == "*":
            return self.built(lambda: repetition(left, right), start, *operands)
        self.not_joined(sign, operands)

    def not_joined(self, sign: str, operands: list[Found]) -> NoReturn:
        """Raise, for operands that the sign does not join."""
        left, right = operands[:2]
        hint = ""
        if sign in ("and", "or") and isinstance(left.value, Pattern | PerHead):
            hint = "& for `and`, | for `or`"
        elif sign in ("&", "|") and self.in_condition:
            hint = f"parentheses around each comparison: (q - k < 4) {sign} (k % 2 == 0)"
        elif sign in ("+", "*") and isinstance(left.value, Pattern | PerHead):
            hint = "| for the union, & for the intersection"
        elif isinstance(left.value, Stack) or isinstance(right.value, Stack):
            hint = f"the operator inside the list: Stack([sliding(4) {sign} causal()])"
        what = f"{sign} does not join {kind(left.value)} and {kind(right.value)}"
        self.mistake(what, left.start, right.end, expected=JOINED[sign], hint=hint)

    def prefixed(self) -> Found:
        """A value after any number of `~`, `-`, `+`, `not`."""
        start, sign = self.token.start, self.token.text
        if not self.accept("~", "-", "+", "not"):
            return self.raised()
        operand = self.expression(_COMPARISON if sign == "not" else _TIGHTEST)
        match sign, operand.value:
            case "~", (Pattern() | PerHead()) as pattern:
                return self.built(lambda: ~pattern, start, operand)
            case (("~" | "not"), value) if isinstance(value, Predicate):
                return self.built(lambda: negation(value), start, operand)  # type: ignore[arg-type]  # a union alias does not narrow
            case "-", (int() | float()) as number:
                return self.built(lambda: -number, start)
            case "-", value if isinstance(value, Term):
                return self.built(lambda: checked("-", Constant(0), value), start, operand)
            case "+", int() | float():
                return self.built(lambda: operand.value, start)
        hint = "~ for the complement" if sign == "not" else ""
        what = f"{sign} does not apply to {kind(operand.value)}"
        self.mistake(what, start, operand.end, expected=PREFIXED[sign], hint=hint)

    def raised(self) -> Found:
        """A value, with `** exponent` if that follows."""
        base = self.value()
        if not self.accept("**"):
            return base
        exponent = self.expression(_TIGHTEST)
        match base.value, exponent.value:
            case int() as number, int() as power:
                return self.built(lambda: number_raised(number, power), base.start)
            case term, int() as power if isinstance(term, Term):
                return self.built(lambda: raised(term, power), base.start, base)
        self.mistake(
            f"** does not join {kind(base.value)} and {kind(exponent.value)}",
            base.start,
            exponent.end,
            expected="a number or a term, ** a whole number",
            hint="2**10",
        )

    # --- values

    def value(self) -> Found:
        """A value without operators, with every `.blocks(size)` after it."""
        found = self.atom()
        while self.accept("."):
            method = self.token
            if not isinstance(found.value, Pattern | PerHead) or method.text != "blocks":
                raise UnknownName(
                    f"{kind(found.value)} has no part of that name",
                    where=marked(self.source, method.start, method.end),
                    got=f".{method.text}",
                    expected=".blocks(size) after a pattern",
                    hint="sliding(5).blocks(256)",
                )
            self.at += 1
            found = self.call("blocks", found.value.blocks, found.start, found)
        return found

    def atom(self) -> Found:
        """A number, a quoted text, a list, a set, a call, q or k, or anything in parentheses."""
        token = self.token
        if token.kind == "number":
            self.at += 1
            return self.built(lambda: number(token.text), token.start)
        if token.kind == "name" and token.text not in ("and", "or", "not"):
            self.at += 1
            return self.named(token)
        if token.kind == "text":
            self.at += 1
            if not self.in_condition:
                return Found(token.text[1:-1], token.start, token.end)
            inner = Reader(self.source, {}, start=token.start + 1, end=token.end - 1, in_condition=True)
            return inner.whole_text()
        if self.accept("("):
            found = self.expression()
            self.close(token)
            return Found(found.value, token.start, self.tokens[self.at - 1].end, found.height)
        if self.accept("[", "{"):
            return self.listed(token)
        if self.in_condition:
            self.unexpected("q, k, a number or a condition")
        self.unexpected("a pattern, a number or a list")

    def named(self, token: Token) -> Found:
        """What a name stands for: q, k, or the call that it begins."""
        name = token.text
        if self.in_condition and name in ("q", "k"):
            return Found(Q if name == "q" else K, token.start, token.end)
        place = marked(self.source, token.start, token.end)
        if self.in_condition:
            raise UnknownName(
                "a condition knows no other names than q and k",
                where=place,
                got=name,
                expected="q, the query's position, and k, the key's",
                hint=A_CONDITION,
            )
        if name not in self.names:
            hint = "where(q - k < 4): q and k stand inside where" if name in ("q", "k") else nearest(name, self.names)
            raise UnknownName(
                f"there is no {name}", where=place, got=name, expected=one_of(self.names), hint=hint or A_PATTERN
            )
        if self.token.text != "(":
            call = call_text(name, self.names[name])
            hint = example(name, self.names[name])
            self.mistake(f"{name} must be called", token.start, token.end, expected=call, hint=hint)
        return self.call(name, self.names[name], token.start)

    def listed(self, opening: Token) -> Found:
        """The rest of a list, or of a set of numbers."""
        items: list[Found] = []
        while not self.accept(CLOSING[opening.text]):
            items.append(self.expression())
            if not self.accept(","):
                self.close(opening)
                break
        values = [item.value for item in items]
        if opening.text == "[":
            return self.built(lambda: values, opening.start, *items)
        for item in items:
            if not isinstance(item.value, int):
                what = f"a set holds whole numbers, not {kind(item.value)}"
                self.mistake(what, item.start, item.end, expected="whole numbers", hint="{0, 1, 2, 4}")
        return self.built(lambda: set(values), opening.start)

    def call(self, name: str, function: Callable[..., object], start: int, *before: Found) -> Found:
        """The value of the call; `before` is the pattern before the dot of `.blocks`."""
        opening = self.token
        if not self.accept("("):
            self.unexpected(f"( after {name}")
        outside, self.in_condition = self.in_condition, name == "where"
        positional: list[Found] = []
        named: dict[str, Found] = {}
        while not self.accept(")"):
            keyword = self.keyword(name, function, named)
            if keyword:
                named[keyword] = self.expression()
            elif named:
                self.unexpected("name=value, as before it")
            else:
                positional.append(self.expression())
            if not self.accept(","):
                self.close(opening)
                break
        self.in_condition = outside
        values = [found.value for found in positional]
        by_name = {key: found.value for key, found in named.items()}
        parts = (*before, *positional, *named.values())
        return self.built(lambda: called(name, function, values, by_name), start, *parts)

    def keyword(self, name: str, function: Callable[..., object], given: Mapping[str, Found]) -> str:
        """Step over `keyword=`, if that comes next, and give the keyword; else give ""."""
        token = self.token
        if token.kind != "name" or self.tokens[self.at + 1].text != "=":
            return ""
        known = inspect.signature(function).parameters
        if token.text not in known:
            raise UnknownName(
                f"{name} has no argument {token.text}",
                where=marked(self.source, token.start, token.end),
                got=f"{token.text}=",
                expected=call_text(name, function),
                hint="== to compare" if name == "where" else nearest(token.text, known) or example(name, function),
            )
        if token.text in given:
            self.mistake(
                f"{token.text} is given twice",
                token.start,
                token.end,
                got=f"{token.text}= again",
                expected="each argument once",
                hint=f"one of the two {token.text}=",
            )
        self.at += 2
        return token.text
