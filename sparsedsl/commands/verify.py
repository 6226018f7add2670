"""`sparsedsl verify`: accept or reject a certificate."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sparsedsl.commands.shared import DONE, NO, Commands
from sparsedsl.errors import Rejected
from sparsedsl.progress import working


def declare(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("verify", help="accept or reject a certificate", allow_abbrev=False)
    parser.add_argument("file", metavar="FILE", help="a certificate, as `check --certificate FILE` writes it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the claim; NO, with the step that fails, where its evidence does not prove it."""
    from sparsedsl.proofs.verifier import verify

    try:
        with working("verifying"):
            claim = verify(Path(options.file))
    except Rejected as error:
        if options.json:
            print(json.dumps({"accepted": False, "step": error.where, "reason": error.what}))
        else:
            print(error, file=sys.stderr)
        return NO
    if options.json:
        print(json.dumps({"accepted": True, **claim.as_dict()}))
    else:
        print(f"accepted    {claim.pattern}\nproved      {claim}")
    return DONE
