"""Declare a sparse attention pattern once; check what a stack of it sees, and compile it to Triton kernels.

>>> import sparsedsl as sd
>>> pattern = (sd.sliding(5) | sd.power() | sd.sink(1)).blocks(256) & sd.causal()
>>> sd.parse(str(pattern)) == pattern
True

Importing this package loads neither torch nor triton: `check`, `prove`, `flow`, `repair`, `synthesise` and
`compile` are imported on first use.
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
    from sparsedsl.codegen.from_block_mask import from_block_mask
    from sparsedsl.codegen.mask_mod import to_mask, to_mask_mod
    from sparsedsl.codegen.pattern_cache import PatternCache
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
    "flow",
    "from_block_mask",
    "from_window",
    "full",
    "liveness",
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


def __getattr__(name: str) -> object:
    """The commands, and the symbols `q` and `k`: what is imported on first use."""
    if name in ("q", "k"):
        from sympy import Symbol

        return Symbol(name, integer=True, nonnegative=True)
    if name == "check":
        from sparsedsl.proofs.verdict import check

        return check
    if name == "synthesise":
        from sparsedsl.proofs.synthesis import synthesise

        return synthesise
    if name == "flow":
        from sparsedsl.proofs.flow import flow

        return flow
    if name == "repair":
        from sparsedsl.proofs.repair import repair

        return repair
    if name == "prove":
        from sparsedsl.proofs.depth.prover import prove

        return prove
    if name in ("Certificate", "certify"):
        from sparsedsl.proofs import certificate

        return getattr(certificate, name)
    if name == "verify":
        from sparsedsl.proofs.verifier import verify

        return verify
    if name == "compile":
        from sparsedsl.codegen.build import compile

        return compile
    if name == "liveness":
        from sparsedsl.proofs.liveness import liveness

        return liveness
    if name == "to_block_mask":
        from sparsedsl.codegen.block_mask import to_block_mask

        return to_block_mask
    if name == "from_block_mask":
        from sparsedsl.codegen.from_block_mask import from_block_mask

        return from_block_mask
    if name in ("to_mask", "to_mask_mod"):
        from sparsedsl.codegen import mask_mod

        return getattr(mask_mod, name)
    if name == "PatternCache":
        from sparsedsl.codegen.pattern_cache import PatternCache

        return PatternCache
    raise AttributeError(f"module 'sparsedsl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
