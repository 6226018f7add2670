"""The command line: check a pattern, build its kernels, list the library.

    sparsedsl check "power_attention(block=256)" --seq-len 131072 --layers 28
    sparsedsl build "sliding(1024) | sink(4)" -o attention.py
    sparsedsl patterns

Exit status: 0 complete (or done), 1 incomplete (or no path), 2 bad usage, with one error of five lines.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from json import dumps
from typing import NoReturn

from sparsedsl.errors import SparseDSLError, WrongValue
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern

COMPLETE, INCOMPLETE, BAD_USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = _parser().parse_args(words)
        status: int = options.run(options)
    except SparseDSLError as error:
        print(error.located(f"sparsedsl {shlex.join(words)}".rstrip()), file=sys.stderr)
        return BAD_USAGE
    return status


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints look like all others of the house."""

    def error(self, message: str) -> NoReturn:
        raise WrongValue(
            f"the command line does not fit: {message}",
            expected=" ".join(self.format_usage().removeprefix("usage: ").split()),
            hint=f"{self.prog} --help",
        )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sparsedsl", description="Sparse attention patterns: what they see, and their kernels.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pattern_help = "an expression such as 'sliding(1024) | sink(4)', a catalogue call, or FILE.py[:NAME]"

    check = commands.add_parser("check", help="does every token reach every earlier one?", allow_abbrev=False)
    check.add_argument("pattern", metavar="PATTERN", help=pattern_help)
    check.add_argument("--seq-len", type=int, default=131072, metavar="N", help="tokens (default: 131072)")
    check.add_argument("--layers", type=int, metavar="L", help="layers (default: as many as it takes)")
    check.add_argument("--no-residual", action="store_true", help="no edge from each token to itself")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.add_argument("--path", type=int, nargs=2, metavar=("Q", "K"), help="show a path from Q to K instead")
    check.set_defaults(run=_check)

    build = commands.add_parser("build", help="write a stand-alone module of kernels", allow_abbrev=False)
    build.add_argument("pattern", metavar="PATTERN", help=pattern_help)
    build.add_argument("-o", "--output", required=True, metavar="FILE", help="the module to write")
    build.set_defaults(run=_build)

    patterns = commands.add_parser("patterns", help="list the library", allow_abbrev=False)
    patterns.set_defaults(run=_patterns)
    return parser


def _resolved(text: str) -> Pattern | PerHead | Stack:
    from sparsedsl.resolve import resolve

    return resolve(text)


def _check(options: argparse.Namespace) -> int:
    if options.path is not None:
        return _path(options)
    from sparsedsl.proofs.verdict import check

    verdict = check(
        _resolved(options.pattern),
        seq_len=options.seq_len,
        layers=options.layers,
        residual=not options.no_residual,
    )
    print(verdict.to_json() if options.json else verdict)
    return COMPLETE if verdict.complete else INCOMPLETE


def _path(options: argparse.Namespace) -> int:
    from sparsedsl.proofs.report import path_report
    from sparsedsl.proofs.witness import witness

    q, k = options.path
    pattern = _resolved(options.pattern)
    path = witness(pattern, q, k, seq_len=options.seq_len, layers=options.layers, residual=not options.no_residual)
    if options.json:
        print(dumps({"pattern": str(pattern), "seq_len": options.seq_len, "q": q, "k": k, "path": path}))
    else:
        print(path_report(q, k, path))
    return INCOMPLETE if path is None else COMPLETE


def _build(options: argparse.Namespace) -> int:
    pattern = _resolved(options.pattern)
    from sparsedsl.codegen.build import build_module

    try:
        build_module(pattern, options.output)
    except OSError as error:
        raise WrongValue(
            "the module can't be written",
            got=f"{options.output}: {error.strerror}",
            expected="a file in a folder that exists and may be written",
        ) from None
    print(f"wrote {options.output}")
    return COMPLETE


def _patterns(options: argparse.Namespace) -> int:
    from sparsedsl.patterns.catalogue import CATALOGUE, summary

    width = max(map(len, CATALOGUE))
    for name in CATALOGUE:
        print(f"{name:<{width}}  {summary(name)}")
    return COMPLETE


if __name__ == "__main__":
    sys.exit(main())
