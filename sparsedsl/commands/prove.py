"""`sparsedsl prove`: depth as a function of the length, for every length."""

from __future__ import annotations

import argparse

from sparsedsl.commands.shared import DONE, NO, Commands, add_pattern, resolved
from sparsedsl.progress import working


def declare(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("prove", help="completeness and depth for every length", allow_abbrev=False)
    add_pattern(parser)
    parser.add_argument("--no-residual", action="store_true", help="no edge from each token to itself")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print the proof as Markdown")
    form.add_argument("--latex", action="store_true", help="print the proof as LaTeX (amsmath, amsthm)")
    form.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the statement and its proof, checked; NO unless the pattern is complete for every length."""
    from sparsedsl.proofs.depth.prover import prove

    pattern = resolved(options)
    with working("proving"):
        proof = prove(pattern, residual=not options.no_residual)
        proof.verify()
    if options.json:
        print(proof.to_json())
    elif options.markdown:
        print(proof.to_markdown())
    elif options.latex:
        print(proof.to_latex())
    else:
        print(proof)
    return DONE if proof.complete else NO
