"""The words of a pattern text, with their places."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from sparsedsl.errors import SyntaxMistake, clipped, marked

Kind = Literal["number", "name", "text", "sign", "end"]


# What an error proposes where nothing better is known.
A_PATTERN = "sliding(1024) | sink(4) & causal()"
A_CONDITION = "where((q - k < 4) & (k % 2 == 0))"


class Token(NamedTuple):
    """One word of a text: source[start:end]. The last token of a text is its empty end."""

    kind: Kind
    text: str
    start: int
    end: int


# A quoted text has no escapes: the language has no use for them.
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<number>[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)
    | (?P<name>[A-Za-z_][A-Za-z_0-9]*)
    | (?P<text>'[^'\n]*'|"[^"\n]*")
    | (?P<sign>\*\*|//|<=|>=|==|!=|[-+*%&|~<>=.,()\[\]{}])""",
    re.VERBOSE,
)

_MEANT = {
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "−": "-",
    "×": "*",
    "·": "*",
    "∪": "|",
    "∩": "&",
    "¬": "~",
    "∧": "&",
    "∨": "|",
    "^": "(a | b) - (a & b), or ** for a power",
    "!": "~ for the complement, != for unequal",
    "/": "// for whole division",
    "“": 'straight quotes "',
    "”": 'straight quotes "',
    "’": "straight quotes '",
}


def tokens(source: str, start: int, end: int) -> list[Token]:
    """The tokens of source[start:end]; their places count from the start of `source`.

    Cost
        O(end - start) time and memory.
    Raises
        SyntaxMistake: a character that begins no token.
    Example
        >>> [token.text for token in tokens("sink(1_024) & causal()", 0, 22)]
        ['sink', '(', '1_024', ')', '&', 'causal', '(', ')', '']

    """
    found = []
    at = start
    while at < end:
        match = _TOKEN.match(source, at, end)
        if match is None:
            raise _strange(source, at)
        if match.lastgroup != "space":
            found.append(Token(_KINDS[match.lastgroup or ""], match.group(), at, match.end()))
        at = match.end()
    return [*found, Token("end", "", end, end)]


_KINDS: dict[str, Kind] = {"number": "number", "name": "name", "text": "text", "sign": "sign"}


def _strange(source: str, at: int) -> SyntaxMistake:
    letter = source[at]
    if letter in "'\"":
        return SyntaxMistake(
            "a quote is not closed on its line",
            where=marked(source, at, at + 1),
            got=clipped(source[at:].split("\n")[0]),
            expected=f"{letter} at its end",
            hint=A_CONDITION,
        )
    return SyntaxMistake(
        "a character is not part of the language",
        where=marked(source, at, at + 1),
        got=repr(letter) if letter.isprintable() else f"character number {ord(letter)}",
        expected="names, numbers, and Python's operators and brackets",
        hint=_MEANT.get(letter, A_PATTERN),
    )
