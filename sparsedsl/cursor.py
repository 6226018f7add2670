"""Going through the tokens of a pattern text: what comes next, what was read, and errors with the place marked."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, NoReturn

from sparsedsl.errors import SparseDSLError, SyntaxMistake, clipped, marked
from sparsedsl.tokens import A_CONDITION, A_PATTERN, Token, tokens

# Parentheses and operators inside each other; Python's stack bounds what can be read, printed and lowered.
DEEPEST = 100

CLOSING = {"(": ")", "[": "]", "{": "}"}


class Found(NamedTuple):
    """A value, the part source[start:end] that states it, and how deep its operators are nested."""

    value: object
    start: int
    end: int
    height: int = 0


class Cursor:
    """A text, its tokens and the place of the next one; in a condition, `q` and `k` are known."""

    def __init__(self, source: str, *, start: int = 0, end: int | None = None, in_condition: bool = False) -> None:
        self.source = source
        self.tokens = tokens(source, start, len(source) if end is None else end)
        self.at = 0
        self.in_condition = in_condition

    @property
    def token(self) -> Token:
        """The next token."""
        return self.tokens[self.at]

    def accept(self, *texts: str) -> bool:
        """Step over the next token if it is one of these signs or words."""
        if self.token.kind not in ("sign", "name") or self.token.text not in texts:
            return False
        self.at += 1
        return True

    def built(self, make: Callable[[], object], start: int, *parts: Found) -> Found:
        """The value of `make()`, stated from `start` to the last token; its errors are marked there."""
        end = self.tokens[self.at - 1].end
        height = 1 + max((part.height for part in parts), default=0)
        if height > DEEPEST:
            self.too_deep(start, end)
        try:
            return Found(make(), start, end, height)
        except SparseDSLError as error:
            error.where = marked(self.source, start, end)
            raise error from None

    def mistake(self, what: str, start: int, end: int, *, expected: str, hint: str = "", got: str = "") -> NoReturn:
        """Raise, with the place marked; what stands there is what was got, unless `got` says more."""
        raise SyntaxMistake(
            what,
            where=marked(self.source, start, end),
            got=got or clipped(self.source[start:end]) or "the end of the text",
            expected=expected,
            hint=hint or (A_CONDITION if self.in_condition else A_PATTERN),
        )

    def unexpected(self, expected: str, hint: str = "") -> NoReturn:
        """Raise, for a next token that cannot stand where it does."""
        token = self.token
        what = "the text ends too early" if token.kind == "end" else f"{token.text} cannot stand here"
        self.mistake(what, token.start, token.end, expected=expected, hint=hint)

    def too_deep(self, start: int, end: int) -> NoReturn:
        """Raise, for parentheses or operators inside each other beyond DEEPEST."""
        self.mistake(
            "the text is nested too deeply",
            start,
            end,
            got=f"more than {DEEPEST} levels of parentheses and operators inside each other",
            expected=f"at most {DEEPEST} levels",
            hint="the parts by name in Python: near | far",
        )

    def close(self, opening: Token) -> None:
        """Step over the sign that closes `opening`."""
        closing = CLOSING[opening.text]
        if self.accept(closing):
            return
        if self.token.kind == "end":
            self.mistake(
                f"{opening.text} is not closed",
                opening.start,
                opening.end,
                got="the end of the text",
                expected=closing,
                hint=f"{closing} where what {opening.text} opens ends",
            )
        self.unexpected(f"an operator, or {closing}", hint="== to compare" if self.token.text == "=" else "")
