"""`sparsedsl explain`: what the compiler decided, and what it will cost."""

from __future__ import annotations

import argparse

from sparsedsl.commands.shared import DONE, Commands, add_pattern, add_seq_len, resolved
from sparsedsl.progress import working


def declare(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("explain", help="what the compiler decides, and what it costs", allow_abbrev=False)
    add_pattern(parser)
    add_seq_len(parser)
    parser.add_argument("--heads", type=int, metavar="H", help="query heads (default: 16, or the pattern's)")
    parser.add_argument("--key-heads", type=int, metavar="G", help="key heads (default: as many as query heads)")
    parser.add_argument("--head-dim", type=int, default=128, metavar="D", help="head dimension (default: 128)")
    parser.add_argument("--dtype", default="bf16", metavar="TYPE", help="bf16 (default), fp16 or fp32")
    parser.add_argument("--gpu", default="h200", metavar="NAME", help="a GPU that was measured (default: h200)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the explanation."""
    pattern = resolved(options)
    with working("explaining"):
        from sparsedsl.codegen.explain import explain

        found = explain(
            pattern,
            seq_len=options.seq_len,
            heads=options.heads,
            key_heads=options.key_heads,
            head_dim=options.head_dim,
            dtype=options.dtype,
            gpu=options.gpu,
        )
    print(found.to_json() if options.json else found)
    return DONE
