"""Integer terms over a query position `q` and a key position `k`.

Division is floor division and the remainder has the sign of the divisor, as in Python and NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sparsedsl.errors import LONGEST_SHOWN_VALUE, WrongValue
from sparsedsl.segments import INFINITY

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A term stays below INFINITY in size while positions stay below this bound, so that int64 never overflows.
POSITIONS_OF_TERMS = 1 << 31
HIGHEST_POWER = 8

Operator = Literal["+", "-", "*", "//", "%"]


@dataclass(frozen=True, slots=True)
class Position:
    """The position of the query, `q`, or of the key, `k`."""

    name: Literal["q", "k"]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Constant:
    """An integer."""

    value: int

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Binary:
    """Two terms joined by `+ - * // %`."""

    operator: Operator
    left: Term
    right: Term

    def __str__(self) -> str:
        return term_text(self)


Term = Position | Constant | Binary

Q = Position("q")
K = Position("k")
DISTANCE = Binary("-", Q, K)

_PRECEDENCE: dict[Operator, int] = {"+": 1, "-": 1, "*": 2, "//": 2, "%": 2}


def term_text(term: Term, level: int = 0) -> str:
    """The term as Python source, with no parentheses that precedence already gives."""
    if not isinstance(term, Binary):
        return str(term)
    own = _PRECEDENCE[term.operator]
    text = f"{term_text(term.left, own)} {term.operator} {term_text(term.right, own + 1)}"
    return f"({text})" if own < level else text


def binary(operator: Operator, left: Term, right: Term) -> Term:
    """left operator right, with constants folded and neutral elements dropped."""
    if isinstance(left, Constant) and isinstance(right, Constant):
        return Constant(_fold(operator, left.value, right.value))
    match operator, right:
        case ("+" | "-", Constant(0)) | ("*" | "//", Constant(1)):
            return left
        case "%", Constant(1):
            return Constant(0)
    return Binary(operator, left, right)


def checked(operator: Operator, left: Term, right: Term) -> Term:
    """`binary` for a term that a user wrote.

    Raises
        WrongValue: a division by anything but a positive constant, or a term that leaves 62 bits while
        positions are below 2**31.
    """
    if operator in ("//", "%") and not (isinstance(right, Constant) and right.value > 0):
        raise WrongValue(
            f"{operator} takes a positive number on its right",
            got=shown_term(right),
            expected="a whole number >= 1, the same for every pair",
            hint=f"q {operator} 4",
        )
    term = binary(operator, left, right)
    check_size(term)
    return term


def raised(base: Term, exponent: int) -> Term:
    """base ** exponent, for a term that a user wrote, as a product.

    Raises
        WrongValue: the exponent is negative or above 8, or the product leaves 62 bits.
    """
    if not 0 <= exponent <= HIGHEST_POWER:
        raise WrongValue(
            "an exponent is out of range",
            got=f"{shown_term(base)} ** {exponent}",
            expected=f"0 <= exponent <= {HIGHEST_POWER}",
            hint=f"{shown_term(base)} ** 2",
        )
    product: Term = Constant(1)
    for factor in range(exponent):
        product = checked("*", product, base) if factor else base
    return product


def check_size(term: Term) -> None:
    """Raise unless int64 holds the term at every position below POSITIONS_OF_TERMS."""
    positions = (0, POSITIONS_OF_TERMS - 1)
    if max(map(abs, value_range(term, positions, positions))) >= INFINITY:
        raise WrongValue(
            "the arithmetic leaves the range of 62 bits",
            got=shown_term(term),
            expected="every value below 2**62 in size while q and k are below 2**31",
            hint="smaller factors, or a remainder: q % 1024 * k",
        )


def shown_term(term: Term) -> str:
    """The term for an error text, on one short line."""
    text = term_text(term)
    return text if len(text) <= LONGEST_SHOWN_VALUE else text[: LONGEST_SHOWN_VALUE - 3] + "..."


def _fold(operator: Operator, left: int, right: int) -> int:
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "//":
            return left // right
        case "%":
            return left % right


def substitute(term: Term, q: Term, k: Term) -> Term:
    """The term with the positions replaced."""
    match term:
        case Position(name):
            return q if name == "q" else k
        case Constant():
            return term
        case Binary(operator, left, right):
            return binary(operator, substitute(left, q, k), substitute(right, q, k))


def evaluate(term: Term, q: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.int64]:
    """The values of the term on broadcastable int64 arrays of positions."""
    import numpy as np

    match term:
        case Position(name):
            return q if name == "q" else k
        case Constant(value):
            return np.asarray(value, dtype=np.int64)
        case Binary(operator, left, right):
            a, b = evaluate(left, q, k), evaluate(right, q, k)
            match operator:
                case "+":
                    return a + b
                case "-":
                    return a - b
                case "*":
                    return a * b
                case "//":
                    return a // b
                case "%":
                    return a % b


def value_range(term: Term, q: tuple[int, int], k: tuple[int, int]) -> tuple[int, int]:
    """Inclusive bounds of the term while q and k stay inside these inclusive ranges; never too narrow."""
    match term:
        case Position(name):
            return q if name == "q" else k
        case Constant(value):
            return value, value
        case Binary(operator, left, right):
            a, b = value_range(left, q, k)
            c, d = value_range(right, q, k)
            match operator:
                case "+":
                    return a + c, b + d
                case "-":
                    return a - d, b - c
                case "*":
                    corners = (a * c, a * d, b * c, b * d)
                    return min(corners), max(corners)
                case "//":
                    return (a // c, b // c) if c == d and c > 0 else (-INFINITY, INFINITY)
                case "%":
                    if c != d or c <= 0:
                        return -INFINITY, INFINITY
                    return (a % c, b % c) if a // c == b // c else (0, c - 1)
