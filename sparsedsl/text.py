"""Reading patterns: `parse` turns the text that `str` prints back into the value.

The language is a part of Python's expressions, with Python's precedence: calls of the constructors, the set
operators, whole-number arithmetic, and inside `where(...)` comparisons of terms over `q` and `k`.
"""

from __future__ import annotations

from sparsedsl import constructors
from sparsedsl.errors import SyntaxMistake, WrongType, clipped, marked, shown
from sparsedsl.index import Predicate
from sparsedsl.layers import PerHead, Stack
from sparsedsl.leaves import Where
from sparsedsl.pattern import Pattern
from sparsedsl.reader import Names, Reader
from sparsedsl.tokens import A_PATTERN
from sparsedsl.values import kind

LONGEST_TEXT = 200_000


def parse(text: str, *, names: Names | None = None) -> Pattern | PerHead | Stack:
    """The pattern, per-head pattern or stack that a text declares; `parse(str(p)) == p` for each of them.

    `names` adds calls to those of the constructors, such as the library's: functions that take numbers,
    quoted texts, patterns or lists of these, and give a pattern. A name of the language keeps its meaning.

    Cost
        Time and memory O(length of the text), which has at most 200 000 characters.
    Raises
        SyntaxMistake, UnknownName, or what a constructor raises; `where` is the line with the place marked.
    Example
        >>> str(parse("sliding(4*1024) & (strided(8) | sink(count=4)).blocks(2**6)"))
        'sliding(4096) & (strided(8) | sink(4)).blocks(64)'

    """
    _check_text("parse", text, expected="a pattern", hint="sliding(1024)")
    value = Reader(text, {**(names or {}), **_CONSTRUCTORS}).whole_text().value
    if not isinstance(value, Pattern | PerHead | Stack):
        raise SyntaxMistake(
            f"the text is {kind(value)}, not a pattern",
            where=marked(text, 0, len(text)),
            got=clipped(text),
            expected="a call such as sliding(1024), or calls joined by | & -",
            hint=A_PATTERN,
        )
    return value


def parse_predicate(text: str) -> Predicate:
    """The condition on q and k that a text states, as inside `where(...)`.

    >>> from sparsedsl.index import predicate_text
    >>> predicate_text(parse_predicate("0 <= q - k < 2**4 and not k % 4 == 3"))
    '(0 <= q - k < 16) & ~(k % 4 == 3)'

    """
    _check_text("where", text, expected="a condition on q and k", hint='where("q - k < 4")')
    value = Reader(text, {}, in_condition=True).whole_text().value
    if not isinstance(value, Predicate):
        raise SyntaxMistake(
            f"the text is {kind(value)}, not a condition",
            where=marked(text, 0, len(text)),
            got=clipped(text),
            expected="comparisons of q and k",
            hint='where("q - k < 4")',
        )
    return value


def _check_text(call: str, text: str, *, expected: str, hint: str) -> None:
    where = f"{call}({shown(text)})"
    if not isinstance(text, str):
        got = f"{shown(text)} of type {type(text).__name__}"
        raise WrongType(f"{call} reads a text", where=where, got=got, expected=f"a str: {expected}", hint=hint)
    if len(text) > LONGEST_TEXT:
        got, expected = f"{len(text)} characters", f"at most {LONGEST_TEXT} characters"
        hint = "a Python file that makes the pattern: FILE.py:NAME, or the constructors themselves"
        raise SyntaxMistake("the text is too long", where=where, got=got, expected=expected, hint=hint)
    if not text.strip():
        raise SyntaxMistake("the text is empty", where=where, got="no word", expected=expected, hint=hint)


def _where(condition: object) -> Pattern:
    """`where` as texts call it: the reader has made the condition."""
    if not isinstance(condition, Predicate):
        raise WrongType(
            "where takes a condition on q and k",
            got=kind(condition),
            expected="comparisons joined by & | ~",
            hint="where((q - k < 4) & (k % 2 == 0))",
        )
    return Where(condition)


_CONSTRUCTORS: Names = {
    "Stack": Stack,
    "causal": constructors.causal,
    "chunked": constructors.chunked,
    "cycle": constructors.cycle,
    "dilated": constructors.dilated,
    "empty": constructors.empty,
    "full": constructors.full,
    "offsets": constructors.offsets,
    "per_head": constructors.per_head,
    "power": constructors.power,
    "random_blocks": constructors.random_blocks,
    "sink": constructors.sink,
    "sliding": constructors.sliding,
    "strided": constructors.strided,
    "where": _where,
}
