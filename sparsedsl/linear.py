"""Integer terms as weighted sums, and how their values repeat."""

from __future__ import annotations

from math import lcm

from sparsedsl.terms import Binary, Constant, Position, Term


def linear(term: Term) -> tuple[dict[Term, int], int]:
    """The term as a sum of weighted atoms and a constant; (q // a) // b -> q // (a b) on the way."""
    match term:
        case Constant(value):
            return {}, value
        case Binary("+" | "-" as sign, left, right):
            weights, constant = linear(left)
            more, extra = linear(right)
            factor = 1 if sign == "+" else -1
            for atom, weight in more.items():
                weights[atom] = weights.get(atom, 0) + factor * weight
            return {atom: weight for atom, weight in weights.items() if weight}, constant + factor * extra
        case Binary("*", left, right):
            for one, other in ((left, right), (right, left)):
                weights, constant = linear(one)
                if not weights:
                    atoms, extra = linear(other)
                    scaled = {atom: weight * constant for atom, weight in atoms.items() if weight * constant}
                    return scaled, constant * extra
        case Binary("//", Binary("//", inner, Constant(first)), Constant(second)):
            return linear(Binary("//", inner, Constant(first * second)))
    return {term: 1}, 0


def value_period(term: Term) -> int | None:
    """A p such that the term is unchanged by q + p and by k + p; None where there is none."""
    match term:
        case Constant():
            return 1
        case Position():
            return None
        case Binary("%", inner, Constant(divisor)):
            return _modular_period(inner, divisor)
        case Binary(_, left, right):
            a, b = value_period(left), value_period(right)
            return lcm(a, b) if a is not None and b is not None else None


def _modular_period(term: Term, modulus: int) -> int | None:
    """A p such that the term's residue by the modulus is unchanged by q + p and by k + p."""
    match term:
        case Constant():
            return 1
        case Position():
            return modulus
        case Binary("//", inner, Constant(divisor)):
            return _modular_period(inner, divisor * modulus)
        case Binary("+" | "-" | "*", left, right):
            a, b = _modular_period(left, modulus), _modular_period(right, modulus)
            return lcm(a, b) if a is not None and b is not None else None
        case _:
            return value_period(term)
