"""`sparsedsl tune`: measure tiles of the kernels on this machine's GPU, for `build --tiles`."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from sparsedsl.commands.shared import DONE, Commands, add_pattern, add_seq_len, resolved
from sparsedsl.progress import Interrupted, Progress

if TYPE_CHECKING:
    from sparsedsl.codegen.tuned import Candidate, TunedTiles


def declare(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("tune", help="measure tiles of the kernels on this GPU", allow_abbrev=False)
    add_pattern(parser)
    add_seq_len(parser)
    parser.add_argument("--heads", type=int, metavar="H", help="query heads (default: 16, or the pattern's)")
    parser.add_argument("--key-heads", type=int, metavar="G", help="key heads (default: as many as query heads)")
    parser.add_argument("--head-dim", type=int, default=128, metavar="D", help="head dimension (default: 128)")
    parser.add_argument("--dtype", default="bf16", metavar="TYPE", help="bf16 (default), fp16 or fp32")
    parser.add_argument(
        "--passes", metavar="LIST", help="what to measure: forward,hopper,dq,dkdv (default: all that there is)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the data file; one that is there is continued (default: named by GPU)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, write the file, print what won."""
    pattern = resolved(options)
    from sparsedsl.codegen.tune import tune

    try:
        with Progress("preparing") as progress:
            found, path = tune(
                pattern,
                path=options.output,
                seq_len=options.seq_len,
                heads=options.heads,
                key_heads=options.key_heads,
                head_dim=options.head_dim,
                dtype=options.dtype,
                passes=options.passes and options.passes.split(","),
                command=_command(options),
                progress=progress,
            )
    except KeyboardInterrupt:
        raise Interrupted("the same command goes on where this one stood") from None
    print(report(found))
    print(f"wrote {path}; use it with: sparsedsl build PATTERN -o attention.py --tiles {shlex.quote(str(path))}")
    return DONE


def report(found: TunedTiles) -> str:
    """The default, the winner and the refused candidates of each pass."""
    request = found.request
    lines = [
        f"{request.gpu}, {request.pattern}, {request.seq_len} tokens, head dim {request.head_dim}, {request.dtype}"
    ]
    for name, rows in found.candidates.items():
        default, won = rows[0], (found.winners or {}).get(name)
        chosen = default if won is None else next(each for each in rows if each.tiles == won)
        times = [f"{'not measured' if each.ms is None else f'{each.ms:.3f} ms'}" for each in (chosen, default)]
        beside = " (the default)" if won is None else f" (default {times[1]})"
        refused = sum(each.ms is None for each in rows)
        lines.append(
            f"{name:8} {_told(name, chosen.tiles)}: {times[0]}{beside}; {len(rows)} candidates, {refused} refused"
        )
    return "\n".join(lines)


def _told(name: str, tiles: Candidate) -> str:
    if hasattr(tiles, "dynamic"):
        shared = "handed out one by one" if tiles.dynamic else "in fixed shares"
        return f"128 x {tiles.block_n}, {tiles.stages} stages, query tiles {shared}"
    sizes = f"{tiles.block_m} x {tiles.block_n}, {tiles.warps} warps, {tiles.stages} stages"
    return f"the plain kernel, {sizes}" if name == "hopper" else sizes


def _command(options: argparse.Namespace) -> str:
    words = ["sparsedsl", "tune", options.pattern, "--seq-len", str(options.seq_len)]
    words += ["--head-dim", str(options.head_dim), "--dtype", options.dtype]
    for flag, value in (
        ("--passes", options.passes),
        ("--heads", options.heads),
        ("--key-heads", options.key_heads),
        ("-o", options.output),
    ):
        words += [] if value is None else [flag, str(value)]
    return shlex.join(words)
