"""`sparsedsl synth`: search for patterns with few keys, little depth and much influence."""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
from pathlib import Path

from sparsedsl.commands.shared import DONE, NO, Commands, add_seq_len
from sparsedsl.progress import Interrupted, Progress


def declare(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "synth", help="search for patterns that are complete with few keys", allow_abbrev=False
    )
    add_seq_len(parser, default=None)
    parser.add_argument("--layers", type=int, required=True, metavar="L", help="layers of the model")
    parser.add_argument("--block", type=int, default=256, metavar="B", help="tokens of a block (default: 256)")
    parser.add_argument("--max-depth", type=int, metavar="D", help="complete within D layers (default: all)")
    parser.add_argument("--budget", type=int, metavar="KEYS", help="keys per query, in tokens of the worst row")
    parser.add_argument("--schedule", action="store_true", help="also patterns that differ from layer to layer")
    parser.add_argument("--alpha", type=float, default=0.9, metavar="A", help="the residual's share (default: 0.9)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the heuristics (default: 0)")
    parser.add_argument("--resume", metavar="FILE", help="go on from FILE if it is there, and keep the state in it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the front; NO where it holds no pattern."""
    from sparsedsl.proofs.synthesis import synthesise

    state = Path(options.resume) if options.resume is not None else _unused_file()
    try:
        with Progress("searching") as progress:
            front = synthesise(
                seq_len=options.seq_len,
                layers=options.layers,
                block=options.block,
                max_depth=options.max_depth,
                budget=options.budget,
                schedule=options.schedule,
                alpha=options.alpha,
                seed=options.seed,
                resume=state,
                progress=progress,
            )
    except KeyboardInterrupt:
        raise Interrupted(f"go on with the same options and --resume {shlex.quote(str(state))}") from None
    if options.resume is None:
        state.unlink(missing_ok=True)
    print(front.to_json() if options.json else front)
    return DONE if front.points else NO


def _unused_file() -> Path:
    """Where the state goes if the run is interrupted and no file was named."""
    folder = Path() if os.access(".", os.W_OK) else Path(tempfile.gettempdir())
    names = (folder / f"synth-state{number}.json" for number in ("", *map(str, range(2, 1000))))
    return next((each for each in names if not each.exists()), folder / f"synth-state-{os.getpid()}.json")
