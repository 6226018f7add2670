"""`sparsedsl check`: say whether every token reaches every earlier one."""

from __future__ import annotations

import argparse
from json import dumps

from sparsedsl.commands.shared import DONE, NO, Commands, add_pattern, add_seq_len, resolved


def declare(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("check", help="does every token reach every earlier one?", allow_abbrev=False)
    add_pattern(parser)
    add_seq_len(parser)
    parser.add_argument("--layers", type=int, metavar="L", help="layers (default: as many as it takes)")
    parser.add_argument("--no-residual", action="store_true", help="no edge from each token to itself")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--path", type=int, nargs=2, metavar=("Q", "K"), help="show a path from Q to K instead")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the verdict, or a path; NO where it is incomplete, or there is none."""
    if options.path is not None:
        return _path(options)
    from sparsedsl.proofs.verdict import check

    verdict = check(
        resolved(options),
        seq_len=options.seq_len,
        layers=options.layers,
        residual=not options.no_residual,
    )
    print(verdict.to_json() if options.json else verdict)
    return DONE if verdict.complete else NO


def _path(options: argparse.Namespace) -> int:
    from sparsedsl.proofs.report import path_report
    from sparsedsl.proofs.witness import witness

    q, k = options.path
    pattern = resolved(options)
    path = witness(pattern, q, k, seq_len=options.seq_len, layers=options.layers, residual=not options.no_residual)
    if options.json:
        print(dumps({"pattern": str(pattern), "seq_len": options.seq_len, "q": q, "k": k, "path": path}))
    else:
        print(path_report(q, k, path))
    return NO if path is None else DONE
