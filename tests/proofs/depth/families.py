"""The families that `prove` is held to, each with several parameters, as pattern texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.resolve import resolve


class Family(NamedTuple):
    """Patterns of one kind: whether their depth is known exactly, and whether they are complete for every N."""

    name: str
    texts: tuple[str, ...]
    exact: bool
    complete: bool

    def patterns(self) -> list[Pattern | PerHead | Stack]:
        """The patterns that the texts name."""
        return [resolve(text) for text in self.texts]


def _texts(make: Callable[..., str], *parameters: object) -> tuple[str, ...]:
    return tuple(make(*each) if isinstance(each, tuple) else make(each) for each in parameters)


FAMILIES = (
    Family("sliding", _texts("sliding({})".format, 33, 64, 2, 4, 9), True, True),
    Family("dilated", _texts("dilated({}, {})".format, (9, 2), (64, 8), (4, 3)), False, False),
    Family("power", _texts("power(base={})".format, 2, 3, 5, 10), True, True),
    Family(
        "powers and window",
        _texts("sliding({}) | power(base={})".format, (5, 2), (20, 3), (7, 5), (100, 2)),
        True,
        True,
    ),
    Family("power_theorem", ("power_theorem()",), True, True),
    Family("LogSparse", _texts("logsparse(window={})".format, 1, 6, 16), True, True),
    Family("LogSparse, restarted", _texts("logsparse(restart={})".format, 16, 11, 64), True, True),
    Family(
        "power_attention",
        _texts("power_attention(block={}, window={}, sink={})".format, (8, 5, 1), (1, 3, 2), (16, 2, 1), (5, 9, 3)),
        True,
        True,
    ),
    Family("sparse_transformer_strided", _texts("sparse_transformer_strided(stride={})".format, 16, 7, 50), True, True),
    Family(
        "window and stride",
        _texts("(sliding({}) | strided({})) & causal()".format, (4, 16), (2, 9), (7, 64)),
        True,
        True,
    ),
    Family(
        "stride_slash",
        _texts("stride_slash(block={}, window={}, stride={})".format, (4, 6, 32), (1, 3, 10), (7, 2, 5)),
        True,
        True,
    ),
    Family(
        "sparse_transformer_fixed",
        _texts("sparse_transformer_fixed(stride={}, summary={})".format, (16, 2), (9, 1), (32, 8)),
        True,
        True,
    ),
    Family("chunked", _texts("chunked({}) & causal()".format, 8, 33, 100), False, False),
    Family("StreamingLLM", _texts("streaming_llm(sink={}, window={})".format, (4, 16), (1, 9), (7, 64)), True, True),
    Family(
        "sliding_sink", _texts("sliding_sink(block={}, window={}, sink={})".format, (4, 9, 1), (8, 3, 2)), True, True
    ),
    Family("Longformer, one global", _texts("longformer(window={})".format, 16, 33), True, True),
    Family("Longformer, more globals", ("longformer(window=16, global_tokens=[0, 20, 50])",), True, True),
    Family(
        "finite distances",
        _texts(
            "offsets({{{}}})".format,
            "1, 4, 5",
            "1, 5, 24, 37",
            "0, 1, 7, 12, 43, 52",
            "1, 2, 30, 100",
            "1, 50",
            "1, 2, 3, 9",
        ),
        True,
        True,
    ),
    Family("finite distances without 1", _texts("offsets({{{}}})".format, "0", "20, 30, 45", "2, 3"), False, False),
    Family("Fibonacci", _texts("fibonacci(window={})".format, 1, 8), False, True),
    Family("squares", _texts("ppa(p=0.5, window={}, reach=1000)".format, 8, 1), True, True),
    Family("squares, as far as 131072", ("ppa()",), False, True),
    Family("causal", ("causal()",), True, True),
    Family("WaveNet", _texts("wavenet(kernel={}, layers={})".format, (2, 7), (3, 6), (4, 5)), True, False),
    Family("digits", _texts("digits(base={}, layers={})".format, (3, 5), (4, 4), (2, 12)), True, False),
    Family("cycle of windows", ("cycle([sliding(4), dilated(5, 4)], layers=9)",), True, False),
    Family(
        "cycle with a causal layer",
        ("cycle([chunked(16) & causal(), causal()], layers=6)", "cycle([sliding(4), sliding(4), causal()], layers=6)"),
        True,
        True,
    ),
    Family("window and chunks", ("(sliding(9) | chunked(12)) & causal()",), False, True),
    Family("powers within chunks", ("(sliding(4) | power() & chunked(64)) & causal()",), False, True),
    Family("BigBird", _texts("bigbird(block={}, window={}, random={})".format, (4, 4, 2), (1, 3, 1)), False, True),
    Family("per head", ("per_head([sliding(9), power(), dilated(5, 3)])",), True, True),
    Family(
        "window changed at the start",
        ("where('((q < 10) & (k <= q)) | ((q >= 10) & (q - k < 6) & (k <= q))')",),
        False,
        True,
    ),
)
