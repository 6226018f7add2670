"""Every mistake a user can make, one class a code, one text for all.

Deep code raises the class with what it knows; the public boundary adds `where` with `located`. The fields
stay on the exception as data; the five lines are built here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from textwrap import fill
from types import FunctionType
from typing import Self

LONGEST_SHOWN_VALUE = 60
LONGEST_SHOWN_LINE = 96


class SparseDSLError(ValueError):
    """A user's mistake: what is wrong, where, what was got, what was expected, what to try; all five, always.

    Example
        >>> print(EmptyWindow("the window holds no key", where="sliding(window=0)", got="window = 0",
        ...                   expected="window >= 1", hint="sliding(window=1) for the diagonal"))
        EmptyWindow: the window holds no key
          where     sliding(window=0)
          got       window = 0
          expected  window >= 1
          try       sliding(window=1) for the diagonal

    """

    def __init__(self, what: str, *, where: str = "", got: str = "", expected: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.got = got
        self.expected = expected
        self.hint = hint

    def located(self, where: str) -> Self:
        """The same error with its place, unless a deeper layer already knew it."""
        self.where = self.where or where
        return self

    def __str__(self) -> str:
        fields = (("where", self.where), ("got", self.got), ("expected", self.expected), ("try", self.hint))
        lines = [f"{type(self).__name__}: {self.what}"]
        for name, value in fields:
            if value:
                first, *rest = value.splitlines()
                lines.append(f"  {name:<10}{first}")
                lines.extend(f"{'':12}{line}" for line in rest)
        return "\n".join(lines)


class WrongType(SparseDSLError, TypeError):
    """An argument of another type than the one asked for."""


class WrongValue(SparseDSLError):
    """A number outside its range."""


class EmptyWindow(WrongValue):
    """A window that holds no key at all."""


class NotABoolean(SparseDSLError, TypeError):
    """A pattern used where Python wants True or False."""


class UnknownName(SparseDSLError):
    """A constructor, keyword, catalogue entry or file name that does not exist."""


class SyntaxMistake(SparseDSLError):
    """A pattern text that does not parse."""


class NotAPattern(SparseDSLError):
    """A Python file, or a name in it, that gives no pattern."""


class NoNormalForm(SparseDSLError):
    """A pattern that is not periodic, given to a road that needs one that is."""


class HeadMismatch(SparseDSLError):
    """Head counts that do not fit each other or the pattern."""


class LayerMismatch(SparseDSLError):
    """A stack and a model with different numbers of layers."""


class ShapeMismatch(SparseDSLError):
    """Tensors whose shapes do not fit each other."""


class DtypeMismatch(SparseDSLError, TypeError):
    """Tensors of a type that no kernel takes, or of different types."""


class DeviceMismatch(SparseDSLError):
    """Tensors on different devices, or on one without a kernel."""


class OutOfRange(SparseDSLError, IndexError):
    """A position, length or layer outside the range that the rest of the call sets."""


class Unsupported(SparseDSLError):
    """A request that is well-formed and that this version does not carry out."""


class StateMismatch(SparseDSLError):
    """A saved state that cannot be read, or that belongs to another request."""


class Rejected(SparseDSLError):
    """A certificate that does not prove what it claims; `where` names the step at which it fails."""


class GeneratedModuleMismatch(SparseDSLError):
    """An emitted module that fails its own check against the dense oracle."""


def shown(value: object) -> str:
    """The value for an error text, on one short line.

    >>> shown("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."

    """
    if isinstance(value, FunctionType):
        return value.__name__
    try:
        return clipped(repr(value))
    except ValueError:  # Python does not print an int of more than 4300 digits.
        return "a number of thousands of digits"


def clipped(text: str, longest: int = LONGEST_SHOWN_VALUE) -> str:
    """The text on one line, cut where it is too long for an error."""
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 3] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like this one, or "".

    >>> nearest("slidng", ["power", "sliding"])
    'sliding'

    """
    return next(iter(get_close_matches(name, sorted(known), n=1)), "")


def one_of(known: Iterable[str]) -> str:
    """The known names for the field `expected`, on as many lines as they need."""
    return fill(f"one of {', '.join(sorted(known))}", LONGEST_SHOWN_LINE, break_long_words=False)


def marked(text: str, start: int, end: int) -> str:
    """The line of a text on which [start, end) begins, and carets under that part of it.

    >>> print(marked("sliding(0) | sink(4)", 0, 10))
    sliding(0) | sink(4)
    ^^^^^^^^^^

    """
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", start)
    last = len(text) if last < 0 else last
    # A long line is cut around the mark.
    cut = first if last - first <= LONGEST_SHOWN_LINE else max(first, start - LONGEST_SHOWN_LINE // 2)
    stop = min(last, cut + LONGEST_SHOWN_LINE)
    head, tail = "..." if cut > first else "", "..." if stop < last else ""
    line = "".join(letter if letter.isprintable() else " " for letter in text[cut:stop])
    carets = "^" * max(1, min(end, stop) - start)
    return f"{head}{line}{tail}\n{' ' * (len(head) + start - cut)}{carets}"
