"""The values that a pattern text states: their kinds and numbers, and what a call makes of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import UnionType

from sparsedsl.errors import SparseDSLError, SyntaxMistake, WrongType, WrongValue, clipped, shown
from sparsedsl.index import Predicate
from sparsedsl.integers import INFINITY
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.terms import Constant, Term

LONGEST_LIST = 1 << 16
LARGEST_EXPONENT = 62
LONGEST_NUMBER = 1000
_DIGITS = r"[0-9]+(_[0-9]+)*(\.[0-9]+)?([eE][-+]?[0-9]+)?"

# What stands on both sides of a sign, and after a sign before a value, for errors.
_CONDITIONS = "conditions on both sides, inside where"
JOINED = dict.fromkeys(("+", "*", "//", "%"), "numbers or terms on both sides") | {
    "or": _CONDITIONS,
    "and": _CONDITIONS,
    "|": "patterns on both sides, or conditions inside where",
    "&": "patterns on both sides, or conditions inside where",
    "-": "patterns on both sides, or numbers, or terms inside where",
}
PREFIXED = {
    "~": "a pattern, or a condition inside where",
    "not": "a condition, inside where",
    "-": "a number, or a term inside where",
    "+": "a number",
}


def called(name: str, function: Callable[..., object], values: list[object], by_name: dict[str, object]) -> object:
    """What the function gives for these arguments, if they fit its signature."""
    try:
        inspect.signature(function).bind(*values, **by_name)
    except TypeError as error:
        raise SyntaxMistake(
            f"{name} is called with other arguments than it takes",
            got=str(error),
            expected=call_text(name, function),
            hint=example(name, function),
        ) from None
    try:
        return function(*values, **by_name)
    except SparseDSLError:
        raise
    except TypeError as error:
        raise WrongType(
            f"{name} does not take arguments of these types",
            got=", ".join([*map(shown, values), *(f"{key} = {shown(value)}" for key, value in by_name.items())]),
            expected=call_text(name, function),
            hint=example(name, function),
        ) from error


def call_text(name: str, function: Callable[..., object]) -> str:
    """The call with its parameters, such as `sliding(window, *, ahead=0)`."""
    signature = inspect.signature(function)
    bare = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    return f"{name}{signature.replace(parameters=bare, return_annotation=signature.empty)}"


# Calls of the constructors that have arguments without a default.
_EXAMPLES = {
    "Stack": "Stack([sliding(1024), causal()])",
    "blocks": "blocks(256)",
    "chunked": "chunked(512)",
    "cycle": "cycle([sliding(1024), causal()], layers=28)",
    "dilated": "dilated(512, 8)",
    "offsets": "offsets({0, 1, 2, 4})",
    "per_head": "per_head([sliding(1024), causal()])",
    "random_blocks": "random_blocks(64, 3, seed=0)",
    "sink": "sink(4)",
    "sliding": "sliding(1024)",
    "strided": "strided(8)",
    "where": "where(q - k < 4)",
}


def example(name: str, function: Callable[..., object]) -> str:
    """A call that works."""
    parameters = inspect.signature(function).parameters.values()
    return _EXAMPLES.get(name) or f"{name}({'...' if any(each.default is each.empty for each in parameters) else ''})"


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
    if re.fullmatch(_DIGITS, text) is None:
        raise SyntaxMistake(
            "a number is malformed", got=clipped(text), expected="digits, with one _ between two of them", hint="1_024"
        )
    if any(letter in text for letter in ".eE"):
        return bounded(float(text))
    # Python reads no int of more than 4300 digits.
    return bounded(int(text) if len(text) < LONGEST_NUMBER else INFINITY, text)


def bounded(value: int | float, text: str = "") -> int | float:
    """The number, if it is below 2**62 in size; `text` as it was written."""
    if abs(value) >= INFINITY:
        got = clipped(text) or shown(value)
        raise WrongValue("a number is too large", got=got, expected="below 2**62 in size", hint="2**40")
    return value


def number_raised(base: int, exponent: int) -> int | float:
    """base ** exponent, if that is a whole number below 2**62 in size."""
    if not 0 <= exponent <= LARGEST_EXPONENT:
        raise WrongValue(
            "an exponent is out of range",
            got=f"{shown(base)} ** {shown(exponent)}",
            expected=f"0 <= exponent <= {LARGEST_EXPONENT}",
            hint="2**40",
        )
    return bounded(base**exponent)


def number_or_term(term: Term) -> int | Term:
    """A constant as a number, any other term as it is."""
    return term.value if isinstance(term, Constant) else term


def repetition(values: list[object], times: int) -> list[object]:
    """The list, `times` times over."""
    if not 0 <= times * len(values) <= LONGEST_LIST:
        raise WrongValue(
            "a list is repeated too often" if times > 0 else "a list is not repeated so",
            got=f"{len(values)} * {shown(times)} entries",
            expected=f"0 to {LONGEST_LIST} entries",
            hint="[causal()] * 4",
        )
    return values * times
