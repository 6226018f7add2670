"""`sparsedsl check`: say whether every token reaches every earlier one."""

from __future__ import annotations

import argparse
from json import dumps
from pathlib import Path

from sparsedsl.commands.shared import DONE, NO, Commands, add_pattern, add_seq_len, resolved
from sparsedsl.errors import WrongValue
from sparsedsl.files import write_whole
from sparsedsl.progress import working


def declare(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("check", help="does every token reach every earlier one?", allow_abbrev=False)
    add_pattern(parser)
    add_seq_len(parser)
    parser.add_argument("--layers", type=int, metavar="L", help="layers (default: as many as it takes)")
    parser.add_argument("--no-residual", action="store_true", help="no edge from each token to itself")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--path", type=int, nargs=2, metavar=("Q", "K"), help="show a path from Q to K instead")
    parser.add_argument("--repair", action="store_true", help="show the cheapest edits that complete it instead")
    parser.add_argument("--certificate", metavar="FILE", help="write the answer with its evidence, for `verify`")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the verdict, a repair, a path or a certificate's claim; NO where it is incomplete, or there is no path."""
    if options.repair:
        return _repair(options)
    if options.path is not None:
        return _path(options)
    if options.certificate is not None:
        return _certificate(options)
    from sparsedsl.proofs.verdict import check

    pattern = resolved(options)
    with working("checking"):
        verdict = check(pattern, seq_len=options.seq_len, layers=options.layers, residual=not options.no_residual)
    print(verdict.to_json() if options.json else verdict)
    return DONE if verdict.complete else NO


def _repair(options: argparse.Namespace) -> int:
    from sparsedsl.proofs.repair import repair

    for name, given in (("--no-residual", options.no_residual), ("--path", options.path is not None)):
        if given:
            raise WrongValue(
                f"--repair does not go with {name}",
                got=f"--repair {name}",
                expected="one of them; repair counts the residual connection as an edge",
            )
    found = repair(resolved(options), seq_len=options.seq_len, layers=options.layers)
    print(found.to_json() if options.json else found)
    # Mended or not, the pattern that was asked about is not complete.
    return DONE if found.complete else NO


def _path(options: argparse.Namespace) -> int:
    from sparsedsl.proofs.report import path_report
    from sparsedsl.proofs.witness import witness

    q, k = options.path
    pattern = resolved(options)
    residual = not options.no_residual
    with working("searching a path"):
        path = witness(pattern, q, k, seq_len=options.seq_len, layers=options.layers, residual=residual)
    if options.json:
        print(dumps({"pattern": str(pattern), "seq_len": options.seq_len, "q": q, "k": k, "path": path}))
    else:
        print(path_report(q, k, path))
    return NO if path is None else DONE


def _certificate(options: argparse.Namespace) -> int:
    from sparsedsl.proofs.certificate import certify

    pattern = resolved(options)
    with working("certifying"):
        found = certify(pattern, seq_len=options.seq_len, layers=options.layers, residual=not options.no_residual)
        text = found.to_json()
    try:
        write_whole(Path(options.certificate), text)
    except OSError as error:
        raise WrongValue(
            "the certificate can't be written",
            got=f"{options.certificate}: {error.strerror}",
            expected="a file in a folder that exists and may be written",
        ) from None
    if options.json:
        claim = {"pattern": found.pattern, "complete": found.complete, "layers": found.layers, "claim": str(found)}
        print(dumps({**claim, "file": options.certificate, "bytes": len(text.encode())}))
    else:
        print(f"claim       {found}\nwrote       {options.certificate}, {len(text.encode())} bytes")
    return DONE if found.complete else NO
