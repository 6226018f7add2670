"""`sparsedsl build`: write a stand-alone module of kernels."""

from __future__ import annotations

import argparse

from sparsedsl.commands.shared import DONE, Commands, add_pattern, resolved
from sparsedsl.errors import WrongValue


def declare(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("build", help="write a stand-alone module of kernels", allow_abbrev=False)
    add_pattern(parser)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the module to write")
    parser.add_argument("--tiling", metavar="NAME", help="half128 (default), half256 or single256: type and head dim")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the module."""
    pattern = resolved(options)
    from sparsedsl.codegen.build import build_module

    try:
        if options.tiling is None:
            build_module(pattern, options.output)
        else:
            build_module(pattern, options.output, tiling=options.tiling)
    except OSError as error:
        raise WrongValue(
            "the module can't be written",
            got=f"{options.output}: {error.strerror}",
            expected="a file in a folder that exists and may be written",
            hint="-o attention.py",
        ) from None
    print(f"wrote {options.output}")
    return DONE
