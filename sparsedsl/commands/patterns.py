"""`sparsedsl patterns`: list the library."""

from __future__ import annotations

import argparse

from sparsedsl.commands.shared import DONE, Commands


def declare(commands: Commands) -> None:
    """Add the command."""
    commands.add_parser("patterns", help="list the library", allow_abbrev=False).set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print a line for each entry."""
    from sparsedsl.patterns.catalogue import CATALOGUE, summary

    width = max(map(len, CATALOGUE))
    for name in CATALOGUE:
        print(f"{name:<{width}}  {summary(name)}")
    return DONE
