"""Patterns from arithmetic: `where(condition)`, the condition a text, a sympy expression or a predicate.

sympy is needed for sympy expressions only, and imported by whoever made them.
"""

from __future__ import annotations

from functools import reduce
from math import lcm
from typing import TYPE_CHECKING, NoReturn

from sparsedsl.errors import UnknownName, WrongType, WrongValue, shown
from sparsedsl.index import (
    FALSE,
    TRUE,
    AllOf,
    AnyOf,
    Comparison,
    Negation,
    Predicate,
    Relation,
    all_of,
    any_of,
    comparison,
    negation,
)
from sparsedsl.leaves import Where
from sparsedsl.pattern import Pattern
from sparsedsl.terms import Binary, Constant, K, Position, Q, Term, checked, raised
from sparsedsl.text import parse_predicate

if TYPE_CHECKING:
    import sympy

_RELATIONS: dict[str, Relation] = {
    "Equality": "==",
    "Unequality": "!=",
    "StrictLessThan": "<",
    "LessThan": "<=",
    "StrictGreaterThan": ">",
    "GreaterThan": ">=",
}


def where(condition: str | Predicate | sympy.Basic) -> Pattern:
    """{(q, k) : condition}: an arithmetic condition on the query's position q and the key's position k.

    Set
        Terms are whole numbers, q and k, with `+ - * // % **`; `//` and `%` as in Python, by a positive
        number. Terms are compared with `== != < <= > >=`; comparisons are joined by `& | ~`, each in
        parentheses, or by `and or not`. The condition is a text; or a sympy expression over symbols named q
        and k, such as `sparsedsl.q` and `sparsedsl.k`, of relations, And, Or, Not, Mod, floor and whole
        powers; or a predicate of `sparsedsl.index` made of comparisons.
    Cost
        Time and memory O(size of the condition).
    Raises
        SyntaxMistake, UnknownName: a text that does not parse, a symbol that is neither q nor k.
        WrongType, WrongValue: an expression of another kind, a division by what is not a positive number, or
        values beyond 62 bits while positions are below 2**31.
    Example
        >>> where("0 <= q - k < 4 and k % 2 == 0").dense(5)[4].astype(int).tolist()
        [0, 0, 1, 0, 1]
        >>> from sparsedsl import k, q
        >>> print(where((q - k < 4) & ~((k // 8) % 2 >= 1)))
        where((q - k < 4) & (k // 8 % 2 < 1))

    """
    if isinstance(condition, str):
        return Where(parse_predicate(condition))
    try:
        if isinstance(condition, Predicate):
            return Where(_rebuilt(condition))
        if type(condition).__module__.split(".")[0] == "sympy":
            return Where(_from_sympy(condition))
        _refuse(condition)
    except (UnknownName, WrongType, WrongValue) as error:
        raise error.located(f"where({shown(condition)})") from None


def _refuse(condition: object) -> NoReturn:
    if isinstance(condition, bool):
        raise WrongType(
            "the condition is already decided",
            got=f"{condition}, perhaps from == between symbols, which compares their names",
            expected="a text, or sympy.Eq",
            hint='where("q == k"), or where(sympy.Eq(q, k))',
        )
    raise WrongType(
        "where takes a condition on q and k",
        got=f"{shown(condition)} of type {type(condition).__name__}",
        expected="a text or a sympy expression",
        hint='where("q - k < 4")',
    )


def _rebuilt(predicate: Predicate) -> Predicate:
    """The predicate with everything checked and in the form that `parse` gives it."""
    match predicate:
        case Comparison(relation, left, right):
            return comparison(relation, _rebuilt_term(left), _rebuilt_term(right))
        case AllOf(parts):
            return all_of(*map(_rebuilt, parts))
        case AnyOf(parts):
            return any_of(*map(_rebuilt, parts))
        case Negation(part):
            return negation(_rebuilt(part))
    raise WrongType(
        "a condition is made of comparisons",
        got=f"a {type(predicate).__name__}, which has no text",
        expected="comparisons, and AllOf, AnyOf, Negation of them",
        hint='where("q - k < 4")',
    )


def _rebuilt_term(term: Term) -> Term:
    match term:
        case Binary(operator, left, right):
            return checked(operator, _rebuilt_term(left), _rebuilt_term(right))
        case Position() | Constant():
            return term


# --- sympy


def _from_sympy(condition: sympy.Basic) -> Predicate:
    """The predicate of a sympy relation, or of And, Or, Not over them."""
    kind = type(condition).__name__
    match kind:
        case "BooleanTrue":
            return TRUE
        case "BooleanFalse":
            return FALSE
        case "And":
            return all_of(*map(_from_sympy, condition.args))
        case "Or":
            return any_of(*map(_from_sympy, condition.args))
        case "Not":
            return negation(_from_sympy(condition.args[0]))
    if kind in _RELATIONS:
        left, right = map(_term, _without_fractions(*condition.args))
        return comparison(_RELATIONS[kind], left, right)
    raise WrongType(
        "where does not know this kind of condition",
        got=f"{shown(condition)} of type {kind}",
        expected="relations, And, Or, Not",
        hint='where("q - k < 4")',
    )


def _without_fractions(left: sympy.Basic, right: sympy.Basic) -> tuple[sympy.Basic, sympy.Basic]:
    """q / 2 < k -> q < 2 k; sympy itself makes q / 2 < 3 of q // 2 <= 2."""
    denominators = [side.as_numer_denom()[1] for side in (left, right)]
    if not all(each.is_Integer for each in denominators):
        return left, right
    factor = lcm(*map(int, denominators))
    return (left, right) if factor == 1 else ((left * factor).expand(), (right * factor).expand())


def _term(expression: sympy.Basic) -> Term:
    """The term of a sympy expression with whole coefficients."""
    match type(expression).__name__:
        case "Symbol" | "Dummy":
            return _position(str(expression))
        case "Add":
            return _sum(expression.args)
        case "Mul":
            return reduce(lambda left, right: checked("*", left, right), map(_term, expression.args))
        case "Pow" if expression.args[1].is_Integer and expression.args[1] < 0:
            raise WrongValue(
                "a condition divides by whole numbers only",
                got=f"a division by {expression.args[0]}",
                expected="a whole number >= 1, the same for every pair",
                hint="q // 4",
            )
        case "Pow" if expression.args[1].is_Integer:
            return raised(_term(expression.args[0]), int(expression.args[1]))
        case "Mod":
            return checked("%", _term(expression.args[0]), _term(expression.args[1]))
        case "floor":
            return _floor(expression.args[0])
    if expression.is_Integer:
        return Constant(int(expression))
    raise WrongType(
        "where does not know this kind of term",
        got=f"{shown(expression)} of type {type(expression).__name__}",
        expected="whole numbers, q, k, + - * // %, Mod, floor, whole powers",
        hint="// for division: where(k < q // 2)",
    )


def _position(name: str) -> Term:
    if name not in ("q", "k"):
        raise UnknownName(
            "a condition knows no other symbols than q and k",
            got=name,
            expected="sparsedsl.q and sparsedsl.k, or symbols of these names",
            hint='where("q - k < 4")',
        )
    return Q if name == "q" else K


def _sum(parts: tuple[sympy.Basic, ...]) -> Term:
    """The sum, what is added first and what is subtracted after it: -k + q is q - k."""
    added = [_term(part) for part in parts if not part.could_extract_minus_sign()]
    taken = [_term(-part) for part in parts if part.could_extract_minus_sign()]
    total = reduce(lambda left, right: checked("+", left, right), added) if added else Constant(0)
    return reduce(lambda left, right: checked("-", left, right), taken, total)


def _floor(argument: sympy.Basic) -> Term:
    """floor(a / b) with a whole b, as a // b; floor of a sum of fractions over their common divisor."""
    numerator, denominator = argument.as_numer_denom()
    if not denominator.is_Integer:
        raise WrongValue(
            "// takes a positive number on its right",
            got=str(denominator),
            expected="a whole number >= 1, the same for every pair",
            hint="q // 4",
        )
    return checked("//", _term(numerator), Constant(int(denominator)))
