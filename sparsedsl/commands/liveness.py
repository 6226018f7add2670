"""`sparsedsl liveness`: say which cached keys a generation can still read, and how much memory they take."""

from __future__ import annotations

import argparse
from importlib import import_module

from sparsedsl.commands.shared import DONE, Commands, add_pattern, add_seq_len, resolved
from sparsedsl.progress import working


def declare(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("liveness", help="cached keys that can still be read", allow_abbrev=False)
    add_pattern(parser)
    add_seq_len(parser)
    parser.add_argument("--layers", type=int, metavar="L", help="layers (default: 1); a stack brings its own")
    parser.add_argument(
        "--key-heads", type=int, metavar="G", help="key/value heads (default: 8, or as many as per_head has)"
    )
    parser.add_argument("--head-dim", type=int, default=128, metavar="D", help="numbers in a head (default: 128)")
    parser.add_argument("--dtype", default="bfloat16", help="of the cache: float32, bfloat16, float16, float8")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report."""
    from sparsedsl.proofs.liveness import liveness

    pattern = resolved(options)
    # Ctrl-C in the middle of this import would end as an ImportError.
    import_module("numpy")
    with working("following the keys"):
        found = liveness(
            pattern,
            seq_len=options.seq_len,
            layers=options.layers,
            key_heads=options.key_heads,
            head_dim=options.head_dim,
            dtype=options.dtype,
        )
    print(found.to_json() if options.json else found)
    return DONE
