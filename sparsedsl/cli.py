"""The command line: check a pattern, build its module, list the library.

Exit status: 0 complete (or done), 1 incomplete (or no path), 2 bad usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sparsedsl.errors import SparseDSLError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors of the user's go to stderr in five lines."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except SparseDSLError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sparsedsl", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    what = "a library call such as 'power_attention(block=256)', an expression, or FILE.py[:NAME]"

    check = commands.add_parser("check", help="does every token reach every earlier token?")
    check.add_argument("pattern", metavar="PATTERN", help=what)
    check.add_argument("--seq-len", type=int, default=131072, metavar="N", help="tokens (131072)")
    check.add_argument("--layers", type=int, metavar="L", help="layers; as many as it takes, or the stack's own")
    check.add_argument("--no-residual", action="store_true", help="without the residual connection: exactly L edges")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.add_argument("--path", type=int, nargs=2, metavar=("Q", "K"), help="show a path from query Q down to key K")
    check.set_defaults(run=_check)

    build = commands.add_parser("build", help="write the stand-alone module of a pattern")
    build.add_argument("pattern", metavar="PATTERN", help=what)
    build.add_argument("-o", "--output", required=True, metavar="FILE")
    build.add_argument("--tiling", default="half128", help="half128 (default), half256 or single256")
    build.set_defaults(run=_build)

    patterns = commands.add_parser("patterns", help="list the library")
    patterns.set_defaults(run=_patterns)
    return parser


def _check(options: argparse.Namespace) -> int:
    from sparsedsl.resolve import resolve

    pattern = resolve(options.pattern)
    if options.path:
        from sparsedsl.proofs.witness import witness

        query, key = options.path
        path = witness(
            pattern,
            query,
            key,
            seq_len=options.seq_len,
            layers=options.layers,
            residual=not options.no_residual,
        )
        if path is None:
            print(f"no path from query {query} to key {key}")
            return 1
        print(" -> ".join(map(str, path)))
        return 0
    from sparsedsl.proofs.verdict import check

    verdict = check(pattern, seq_len=options.seq_len, layers=options.layers, residual=not options.no_residual)
    print(verdict.to_json() if options.json else verdict)
    return 0 if verdict.complete else 1


def _build(options: argparse.Namespace) -> int:
    from sparsedsl.codegen.build import build_module
    from sparsedsl.resolve import resolve

    print(build_module(resolve(options.pattern), options.output, tiling=options.tiling))
    return 0


def _patterns(_: argparse.Namespace) -> int:
    from sparsedsl.patterns.catalogue import CATALOGUE, summary

    width = max(map(len, CATALOGUE))
    for name in CATALOGUE:
        print(f"{name:<{width}}  {summary(name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
