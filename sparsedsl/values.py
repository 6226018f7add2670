"""The values that a pattern text states: their kinds and numbers, and what a call makes of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import UnionType

from sparsedsl.errors import SparseDSLError, SyntaxMistake, WrongType, WrongValue, shown
from sparsedsl.index import Predicate
from sparsedsl.integers import INFINITY
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.terms import Constant, Term

LONGEST_LIST = 1 << 16
LARGEST_EXPONENT = 62


def called(name: str, function: Callable[..., object], values: list[object], by_name: dict[str, object]) -> object:
    """What the function gives for these arguments, if they fit its signature."""
    try:
        inspect.signature(function).bind(*values, **by_name)
    except TypeError as error:
        raise SyntaxMistake(
            f"{name} is called with other arguments than it takes",
            got=str(error),
            expected=call_text(name, function),
        ) from None
    try:
        return function(*values, **by_name)
    except SparseDSLError:
        raise
    except TypeError as error:
        raise WrongType(
            f"{name} does not take arguments of these types",
            got=str(error),
            expected=call_text(name, function),
        ) from error


def call_text(name: str, function: Callable[..., object]) -> str:
    """The call with its parameters, such as `sliding(window, *, ahead=0)`."""
    signature = inspect.signature(function)
    bare = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return f"{name}{signature.replace(parameters=bare, return_annotation=signature.empty)}"


def kind(value: object) -> str:
    """The value's kind, in the user's words."""
    kinds: list[tuple[type | UnionType, str]] = [
        (Pattern, "a pattern"),
        (PerHead, "a pattern for each head"),
        (Stack, "a stack"),
        (Term, "a term"),
        (Predicate, "a condition"),
        (int | float, "a number"),
        (str, "a quoted text"),
        (list, "a list"),
    ]
    return next((words for each, words in kinds if isinstance(value, each)), "a set")


def number(text: str) -> int | float:
    """The number that a token states."""
    try:
        value = float(text) if any(letter in text for letter in ".eE") else int(text)
    except ValueError:
        raise SyntaxMistake("a number is malformed", got=shown(text)) from None
    return bounded(value)


def bounded(value: int | float) -> int | float:
    """The number, if it is below 2**62 in size."""
    if abs(value) >= INFINITY:
        raise WrongValue("a number is too large", got=shown(value), expected="below 2**62 in size")
    return value


def number_raised(base: int, exponent: int) -> int | float:
    """base ** exponent, if that is a whole number below 2**62 in size."""
    if not 0 <= exponent <= LARGEST_EXPONENT:
        raise WrongValue(
            "an exponent is out of range",
            got=f"{shown(base)} ** {shown(exponent)}",
            expected=f"0 <= exponent <= {LARGEST_EXPONENT}",
        )
    return bounded(base**exponent)


def number_or_term(term: Term) -> int | Term:
    """A constant as a number, any other term as it is."""
    return term.value if isinstance(term, Constant) else term


def repetition(values: list[object], times: int) -> list[object]:
    """The list, `times` times over."""
    if not 0 <= times * len(values) <= LONGEST_LIST:
        raise WrongValue(
            "a list is too long",
            got=f"{len(values)} * {shown(times)} entries",
            expected=f"at most {LONGEST_LIST}",
        )
    return values * times
