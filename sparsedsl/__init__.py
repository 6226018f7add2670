"""Declare a sparse attention pattern once; check what a stack of it sees, and compile it to Triton kernels.

>>> import sparsedsl as sd
>>> pattern = (sd.sliding(5) | sd.power() | sd.sink(1)).blocks(256) & sd.causal()
>>> sd.parse(str(pattern)) == pattern
True

Importing this package loads neither torch nor triton: `check`, `prove`, `flow`, `repair`, `synthesise`,
`compile`, `explain` and `nn` are imported on first use.
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

if TYPE_CHECKING:
    from sympy import Symbol

    from sparsedsl.codegen.build import compile
    from sparsedsl.codegen.explain import explain
    from sparsedsl.integrations import nn
    from sparsedsl.proofs.certificate import Certificate, certify
    from sparsedsl.proofs.depth.prover import prove
    from sparsedsl.proofs.flow import flow
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
    "full",
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
    if name == "explain":
        from sparsedsl.codegen.explain import explain

        return explain
    if name == "nn":
        from sparsedsl.integrations import nn

        return nn
    raise AttributeError(f"module 'sparsedsl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
