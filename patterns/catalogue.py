"""Every pattern of the library by name, as the command line and `resolve` know it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.bigbird import bigbird
from sparsedsl.patterns.chunked import block_local
from sparsedsl.patterns.dilated import dilated_paper_baseline, dilated_window
from sparsedsl.patterns.fibonacci import fibonacci
from sparsedsl.patterns.logsparse import logsparse
from sparsedsl.patterns.longformer import longformer
from sparsedsl.patterns.longnet import longnet, longnet_paper_baseline
from sparsedsl.patterns.power import power_attention, power_theorem
from sparsedsl.patterns.ppa import ppa
from sparsedsl.patterns.sliding import sliding_sink, sliding_window
from sparsedsl.patterns.sparse_transformer import (
    sparse_transformer_fixed,
    sparse_transformer_strided,
    stride_slash,
)
from sparsedsl.patterns.streaming_llm import streaming_llm
from sparsedsl.patterns.wavenet import digits, wavenet

CATALOGUE: Mapping[str, Callable[..., Pattern | PerHead | Stack]] = {
    "power_attention": power_attention,
    "power_theorem": power_theorem,
    "logsparse": logsparse,
    "fibonacci": fibonacci,
    "ppa": ppa,
    "sliding_window": sliding_window,
    "sliding_sink": sliding_sink,
    "streaming_llm": streaming_llm,
    "block_local": block_local,
    "dilated_window": dilated_window,
    "dilated_paper_baseline": dilated_paper_baseline,
    "sparse_transformer_strided": sparse_transformer_strided,
    "sparse_transformer_fixed": sparse_transformer_fixed,
    "stride_slash": stride_slash,
    "longformer": longformer,
    "bigbird": bigbird,
    "longnet": longnet,
    "longnet_paper_baseline": longnet_paper_baseline,
    "wavenet": wavenet,
    "digits": digits,
}


def summary(name: str) -> str:
    """The first line of an entry's docstring.

    >>> summary("power_theorem")
    "The bare powers of two, without the self edge: the graph of PowerAttention's Theorem B.1."
    """
    return (CATALOGUE[name].__doc__ or "").splitlines()[0]
