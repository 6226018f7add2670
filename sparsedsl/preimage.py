"""Sets pulled back through terms of one position: at which positions a term lies in a set."""

from __future__ import annotations

from sparsedsl.integers import EMPTY, EVERYTHING, IntegerSet
from sparsedsl.terms import Binary, Constant, Position, Term


class NotOnePosition(Exception):
    """A term that holds a position twice; it is evaluated place by place."""


def preimage(term: Term, members: IntegerSet) -> IntegerSet:
    """{x : term(x) in members}, for a term with one position in it, once.

    Raises
        NotOnePosition: the term holds a position twice.
    Example
        >>> from sparsedsl.terms import DISTANCE, K, Constant, substitute
        >>> str(preimage(substitute(DISTANCE, Constant(7), K), IntegerSet.interval(0, 3)))
        '{5, 6, 7}'

    """
    match term:
        case Position():
            return members
        case Constant(value):
            return EVERYTHING if value in members else EMPTY
        case Binary("+", inner, Constant(value)) | Binary("+", Constant(value), inner):
            return preimage(inner, members.shift(-value))
        case Binary("-", inner, Constant(value)):
            return preimage(inner, members.shift(value))
        case Binary("-", Constant(value), inner):
            return preimage(inner, members.negate().shift(value))
        case Binary("*", inner, Constant(value)) | Binary("*", Constant(value), inner):
            if value == 0:
                return EVERYTHING if 0 in members else EMPTY
            return preimage(inner, members.sample(value) if value > 0 else members.negate().sample(-value))
        case Binary("//", inner, Constant(value)):
            return preimage(inner, members.lift(value))
        case Binary("%", inner, Constant(value)):
            return preimage(inner, members.modulo_preimage(value))
    raise NotOnePosition
