"""Declare a sparse attention pattern once; check what a stack of it sees, and compile it to Triton kernels.

>>> import sparsedsl as sd
>>> pattern = (sd.sliding(5) | sd.power() | sd.sink(1)).blocks(256) & sd.causal()
>>> sd.parse(str(pattern)) == pattern
True

Importing this package loads neither torch nor triton: what needs them, and the commands, are imported on first use.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

# A checkout works from its root without an install: the sister folders are found beside this one.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and str(_root) not in __path__:
    __path__.append(str(_root))

from sparsedsl.arithmetic import where  # noqa: E402
from sparsedsl.constructors import (  # noqa: E402
    causal,
    chunked,
    cycle,
    dilated,
    empty,
    full,
    offsets,
    per_head,
    power,
    random_blocks,
    sink,
    sliding,
    strided,
)
from sparsedsl.errors import SparseDSLError  # noqa: E402  (the path above must be known first)
from sparsedsl.layers import PerHead, Stack  # noqa: E402
from sparsedsl.pattern import Pattern  # noqa: E402
from sparsedsl.text import parse  # noqa: E402
from sparsedsl.windows import from_window  # noqa: E402

if TYPE_CHECKING:
    from sympy import Symbol

    from sparsedsl.codegen.block_mask import to_block_mask
    from sparsedsl.codegen.build import compile
    from sparsedsl.codegen.explain import explain
    from sparsedsl.codegen.from_block_mask import from_block_mask
    from sparsedsl.codegen.mask_mod import to_mask, to_mask_mod
    from sparsedsl.codegen.pattern_cache import PatternCache
    from sparsedsl.integrations import nn
    from sparsedsl.proofs.certificate import Certificate, certify
    from sparsedsl.proofs.depth.prover import prove
    from sparsedsl.proofs.flow import flow
    from sparsedsl.proofs.liveness import liveness
    from sparsedsl.proofs.repair import repair
    from sparsedsl.proofs.synthesis import synthesise
    from sparsedsl.proofs.verdict import check
    from sparsedsl.proofs.verifier import verify

    q: Symbol
    k: Symbol

__version__ = "0.1.0"

__all__ = [
    "Certificate",
    "Pattern",
    "PatternCache",
    "PerHead",
    "SparseDSLError",
    "Stack",
    "causal",
    "certify",
    "check",
    "chunked",
    "compile",
    "cycle",
    "dilated",
    "empty",
    "explain",
    "flow",
    "from_block_mask",
    "from_window",
    "full",
    "liveness",
    "nn",
    "offsets",
    "parse",
    "per_head",
    "power",
    "prove",
    "random_blocks",
    "repair",
    "sink",
    "sliding",
    "strided",
    "synthesise",
    "to_block_mask",
    "to_mask",
    "to_mask_mod",
    "verify",
    "where",
]


# Where the names live that are imported on first use.
_LATE = {
    "Certificate": "sparsedsl.proofs.certificate",
    "PatternCache": "sparsedsl.codegen.pattern_cache",
    "certify": "sparsedsl.proofs.certificate",
    "check": "sparsedsl.proofs.verdict",
    "compile": "sparsedsl.codegen.build",
    "explain": "sparsedsl.codegen.explain",
    "flow": "sparsedsl.proofs.flow",
    "from_block_mask": "sparsedsl.codegen.from_block_mask",
    "liveness": "sparsedsl.proofs.liveness",
    "prove": "sparsedsl.proofs.depth.prover",
    "repair": "sparsedsl.proofs.repair",
    "synthesise": "sparsedsl.proofs.synthesis",
    "to_block_mask": "sparsedsl.codegen.block_mask",
    "to_mask": "sparsedsl.codegen.mask_mod",
    "to_mask_mod": "sparsedsl.codegen.mask_mod",
    "verify": "sparsedsl.proofs.verifier",
}


def __getattr__(name: str) -> object:
    """What is imported on first use: the commands, the bridges to torch, and sympy's symbols `q` and `k`."""
    from importlib import import_module

    if name in ("q", "k"):
        from sympy import Symbol

        return Symbol(name, integer=True, nonnegative=True)
    if name == "nn":
        return import_module("sparsedsl.integrations.nn")
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module 'sparsedsl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
