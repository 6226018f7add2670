"""`sparsedsl build`: write stand-alone kernels, as a module or as a package."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sparsedsl.commands.shared import DONE, Commands, add_pattern, resolved
from sparsedsl.errors import WrongValue
from sparsedsl.progress import working

if TYPE_CHECKING:
    from sparsedsl.codegen.ahead import Ahead

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


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
        help="half128, half256, single128 or single256: type and head dim; half128_small, half256_small: for GPUs that "
        "are not Hopper; a module has one (default half128), a package those that are named (default the first four)",
    )
    parser.add_argument(
        "--aot",
        metavar="ARCHS",
        help="compile the kernels of a package for these GPUs, such as sm_90 or sm_80,sm_90; needs no GPU",
    )
    parser.add_argument(
        "--calls",
        metavar="KINDS",
        help="compiled by --aot: ordinary (default), packed, cached, several with commas between",
    )
    parser.add_argument("--page-size", type=int, action="append", metavar="N", help="of cached calls; default none")
    parser.add_argument("--head-dim", type=int, action="append", metavar="D", help="compiled by --aot; default 128")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="compiled by --aot; default bf16")
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="auto (default): on GPUs of compute capability 9.0 the kernels for Hopper, where there are any; triton: "
        "plain kernels alone; hopper: a module for these GPUs alone",
    )
    parser.add_argument(
        "--tiles", metavar="FILE", help="tiles measured by sparsedsl tune, for their head dims and type"
    )
    parser.add_argument("--force", action="store_true", help="write also where files stand that no build wrote")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the module or the package."""
    pattern = resolved(options)
    from sparsedsl.codegen.build import build_module, tiling_named, with_tiles
    from sparsedsl.codegen.package import build_package
    from sparsedsl.codegen.tiling import TILINGS
    from sparsedsl.codegen.tuned import read_tiles

    names = options.tiling or []
    a_module = options.output.endswith(".py")
    if a_module and len(names) > 1:
        raise WrongValue(
            "a module has one tiling",
            got=f"--tiling {' --tiling '.join(names)}",
            expected="one, or a package",
            hint=f"-o {Path(options.output).stem}/",
        )
    if a_module and options.aot:
        raise WrongValue(
            "a module holds text only",
            got=f"--aot {options.aot}",
            expected="a package where kernels are compiled ahead",
            hint=f"-o {Path(options.output).stem}/",
        )
    tiles = None if options.tiles is None else read_tiles(options.tiles)
    try:
        with working("emitting"):
            if a_module:
                tiling = names[0] if names else None
                build_module(
                    pattern, options.output, tiling=tiling, backend=options.backend, tiles=tiles, force=options.force
                )
            else:
                tilings = with_tiles([tiling_named(name) for name in names] or TILINGS, tiles)
                build_package(
                    pattern,
                    options.output,
                    tilings=tilings,
                    backend=options.backend,
                    ahead=_ahead(options),
                    force=options.force,
                )
    except OSError as error:
        raise WrongValue(
            "the kernels can't be written",
            got=f"{options.output}: {error.strerror}",
            expected="a place that may be written: a file in a folder that exists, or a folder",
            hint="-o attention.py",
        ) from None
    print(f"wrote {options.output}")
    return DONE


def _ahead(options: argparse.Namespace) -> list[Ahead]:
    """What to compile: every combination of the architectures, types and head dims that were named."""
    if options.aot is None:
        return []
    import torch

    from sparsedsl.codegen.ahead import Ahead
    from sparsedsl.codegen.ahead_calls import CALLS

    names = options.aot.split(",")
    if not all(re.fullmatch(r"sm_\d{2,3}", name) for name in names):
        raise WrongValue(
            "no such GPU architecture",
            got=f"--aot {options.aot}",
            expected="sm_ and a compute capability, several with commas between",
            hint="--aot sm_90",
        )
    wanted = (options.calls or CALLS[0]).split(",")
    if not {*wanted} <= {*CALLS}:
        raise WrongValue(
            "no such kind of call",
            got=f"--calls {options.calls}",
            expected=f"of {', '.join(CALLS)}, several with commas between",
            hint=f"--calls {','.join(CALLS)}",
        )
    calls = tuple(call for call in CALLS if call in wanted)
    return [
        Ahead(
            int(name.removeprefix("sm_")),
            getattr(torch, DTYPES[dtype]),
            head_dim,
            calls,
            tuple(options.page_size or ()),
        )
        for name in names
        for dtype in options.dtype or ["bf16"]
        for head_dim in options.head_dim or [128]
    ]
