"""`sparsedsl flow`: say over what distances the layers carry information, and how well."""

from __future__ import annotations

import argparse

from sparsedsl.commands.shared import DONE, Commands, add_pattern, add_seq_len, resolved


def declare(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("flow", help="hops, paths and influence by distance", allow_abbrev=False)
    add_pattern(parser)
    add_seq_len(parser)
    parser.add_argument("--layers", type=int, metavar="L", help="layers; a stack brings its own")
    parser.add_argument("--alpha", type=float, default=0.9, metavar="A", help="weight of the residual (default: 0.9)")
    parser.add_argument(
        "--fraction", type=float, default=0.01, metavar="F", help="for the effective reach (default: 0.01)"
    )
    parser.add_argument("--block", type=int, metavar="B", help="coarser units of B tokens")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the flow."""
    from sparsedsl.proofs.flow import flow

    found = flow(
        resolved(options),
        seq_len=options.seq_len,
        layers=options.layers,
        alpha=options.alpha,
        fraction=options.fraction,
        block=options.block,
    )
    print(found.to_json() if options.json else found)
    return DONE
