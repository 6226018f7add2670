"""`sparsedsl build`: write stand-alone kernels, as a module or as a package."""

from __future__ import annotations

import argparse
from pathlib import Path

from sparsedsl.commands.shared import DONE, Commands, add_pattern, resolved
from sparsedsl.errors import WrongValue
from sparsedsl.progress import working


def declare(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("build", help="write stand-alone kernels", allow_abbrev=False)
    add_pattern(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="PATH",
        help="FILE.py: a module, for one layer and one tiling; else a folder: a package, for a pattern or a stack",
    )
    parser.add_argument(
        "--tiling",
        action="append",
        metavar="NAME",
        help="half128, half256 or single256: type and head dim; a module has one (default half128), "
        "a package those that are named (default all)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the module or the package."""
    pattern = resolved(options)
    from sparsedsl.codegen.build import build_module, tiling_named
    from sparsedsl.codegen.package import build_package
    from sparsedsl.codegen.tiling import TILINGS

    names = options.tiling or []
    a_module = options.output.endswith(".py")
    if a_module and len(names) > 1:
        raise WrongValue(
            "a module has one tiling",
            got=f"--tiling {' --tiling '.join(names)}",
            expected="one, or a package",
            hint=f"-o {Path(options.output).stem}/",
        )
    try:
        with working("emitting"):
            if a_module:
                build_module(pattern, options.output, tiling=names[0] if names else TILINGS[0].name)
            else:
                build_package(pattern, options.output, tilings=[tiling_named(name) for name in names] or TILINGS)
    except OSError as error:
        raise WrongValue(
            "the kernels can't be written",
            got=f"{options.output}: {error.strerror}",
            expected="a place that may be written: a file in a folder that exists, or a folder",
            hint="-o attention.py",
        ) from None
    print(f"wrote {options.output}")
    return DONE
