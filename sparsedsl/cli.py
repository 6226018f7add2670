"""The command line: check a pattern, prove its depth, search for one, build and explain its kernels, list the library.

    sparsedsl check "power_attention(block=256)" --seq-len 131072 --layers 28
    sparsedsl prove "power_attention(block=256)"
    sparsedsl synth --seq-len 131072 --layers 28 --max-depth 8
    sparsedsl flow "power_attention(block=256)" --layers 28 --alpha 0.9
    sparsedsl liveness "streaming_llm()" --seq-len 131072 --layers 28
    sparsedsl build "sliding(1024) | sink(4)" -o attention.py
    sparsedsl tune "sliding(1024) | sink(4)" -o tiles.json
    sparsedsl explain "power_attention()" --seq-len 131072
    sparsedsl check "power_attention()" --seq-len 131072 --layers 28 --certificate power.json
    sparsedsl verify power.json
    sparsedsl patterns

Exit status: 0 complete (or done), 1 incomplete (or no path, no proof, nothing found, rejected), 2 bad usage, with one
error of five lines, 130 ended by Ctrl-C.
"""

from __future__ import annotations

import argparse
import gc
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

from sparsedsl.commands import build, check, explain, flow, liveness, patterns, prove, synth, tune, verify
from sparsedsl.commands.shared import BAD_USAGE
from sparsedsl.errors import SparseDSLError, WrongValue
from sparsedsl.progress import INTERRUPTED_STATUS

# In the order in which --help lists them.
COMMANDS = (check, verify, prove, flow, liveness, synth, build, tune, explain, patterns)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Proofs make millions of small tuples and no cycles: looking for those as often as usual takes a sixth of the time.
    gc.set_threshold(100_000, 50, 50)
    try:
        options, unknown = _parser().parse_known_args(words)
        if unknown:
            options.parser.error(f"unrecognized arguments: {shlex.join(unknown)}")
        status: int = options.run(options)
    except SparseDSLError as error:
        print(error.located(f"sparsedsl {shlex.join(words)}".rstrip()), file=sys.stderr)
        return BAD_USAGE
    except KeyboardInterrupt as stop:
        print(": ".join(("sparsedsl: interrupted", *map(str, stop.args))), file=sys.stderr)
        return INTERRUPTED_STATUS
    return status


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints look like all others of the house."""

    def error(self, message: str) -> NoReturn:
        raise WrongValue(
            "the command line does not fit",
            got=message,
            expected=" ".join(self.format_usage().removeprefix("usage: ").split()),
            hint=f"{self.prog} --help",
        )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sparsedsl", description="Sparse attention patterns: what they see, and their kernels.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.declare(commands)
    for each in commands.choices.values():
        # Left-over words are reported with the usage of the command that they were given to.
        each.set_defaults(parser=each)
    return parser


if __name__ == "__main__":
    sys.exit(main())
