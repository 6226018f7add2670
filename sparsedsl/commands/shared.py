"""What the commands share: exit statuses, how a pattern is given, and errors of files."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sparsedsl.layers import PerHead, Stack
    from sparsedsl.pattern import Pattern

# Done, or complete; the answer is no: incomplete, no path, rejected; bad usage.
DONE, NO, BAD_USAGE = 0, 1, 2


class Commands(Protocol):
    """Where a command is declared; what `ArgumentParser.add_subparsers` returns."""

    def add_parser(self, name: str, *, help: str, allow_abbrev: bool) -> argparse.ArgumentParser:
        """A new command."""


def add_pattern(parser: argparse.ArgumentParser) -> None:
    """The first argument of most commands."""
    parser.add_argument(
        "pattern",
        metavar="PATTERN",
        help="an expression such as 'sliding(1024) | sink(4)', a catalogue call, or FILE.py[:NAME]",
    )


def add_seq_len(parser: argparse.ArgumentParser, default: int | None = 131072) -> None:
    """The length that a command looks at; `--seq-len`."""
    told = "tokens" if default is None else f"tokens (default: {default})"
    parser.add_argument("--seq-len", type=int, default=default, metavar="N", help=told, required=default is None)


def resolved(options: argparse.Namespace) -> Pattern | PerHead | Stack:
    """The pattern that the options name."""
    from sparsedsl.resolve import resolve

    return resolve(options.pattern)
