"""The constructor functions: the words a pattern is declared with. `where` is in `sparsedsl.arithmetic`."""

from __future__ import annotations

from collections.abc import Iterable

from sparsedsl.errors import EmptyWindow, SparseDSLError, WrongType, WrongValue, shown
from sparsedsl.integers import LAST_POSITION
from sparsedsl.layers import Layer, PerHead, Stack, checked_layers, not_a_pattern
from sparsedsl.leaves import (
    Causal,
    Chunked,
    Dilated,
    Empty,
    Full,
    Offsets,
    Power,
    RandomBlocks,
    Sink,
    Sliding,
    Strided,
)
from sparsedsl.pattern import Pattern, whole


def sliding(window: int, *, ahead: int = 0) -> Pattern:
    """{(q, k) : -ahead <= q - k < window}.

    `window` keys, the query's own included, and `ahead` keys to the right.

    >>> sliding(2).dense(3).astype(int).tolist()
    [[1, 0, 0], [1, 1, 0], [0, 1, 1]]

    """
    return Sliding(_window("sliding", window), whole("sliding", "ahead", ahead, least=0))


def dilated(window: int, dilation: int) -> Pattern:
    """{(q, k) : q - k in {0, d, 2d, ..., (window - 1) d}}: `window` keys, `dilation` apart.

    >>> dilated(2, dilation=2).dense(4)[3].astype(int).tolist()
    [0, 1, 0, 1]

    """
    return Dilated(_window("dilated", window), whole("dilated", "dilation", dilation, least=1))


def _window(call: str, window: int) -> int:
    try:
        return whole(call, "window", window, least=1)
    except WrongValue:
        if window >= 1:
            raise
    raise EmptyWindow(
        "the window holds no key",
        where=f"{call}(window={shown(window)})",
        got=f"window = {shown(window)}",
        expected="window >= 1, because a window counts the query's own key",
        hint="sliding(1) for the diagonal, or drop the term",
    )


def power(*, base: int = 2) -> Pattern:
    """{(q, k) : q - k in {0} ∪ {base**t : t >= 0}}.

    >>> power().dense(6)[5].astype(int).tolist()
    [0, 1, 0, 1, 1, 1]

    """
    return Power(whole("power", "base", base, least=2))


def sink(count: int) -> Pattern:
    """{(q, k) : k < count}: the first `count` keys, for every query. Add `& causal()` to look back only."""
    return Sink(whole("sink", "count", count, least=1))


def strided(stride: int) -> Pattern:
    """{(q, k) : stride divides q - k}. Add `& causal()` to look back only."""
    return Strided(whole("strided", "stride", stride, least=1))


def chunked(size: int) -> Pattern:
    """{(q, k) : q // size = k // size}: the query's own chunk. Add `& causal()` to look back only."""
    return Chunked(whole("chunked", "size", size, least=1))


def offsets(distances: Iterable[int]) -> Pattern:
    """{(q, k) : q - k in distances}; a negative distance looks ahead.

    >>> str(offsets({5, 1, 0}))
    'offsets({0, 1, 5})'

    """
    try:
        listed = list(distances)
    except TypeError:
        raise WrongType(
            "offsets takes a set of distances",
            where=f"offsets({shown(distances)})",
            got=f"{shown(distances)} of type {type(distances).__name__}",
            expected="whole numbers, the distances q - k",
            hint="offsets({0, 1, 2, 4})",
        ) from None
    try:
        checked = {whole("offsets", "distance", each, least=-LAST_POSITION) for each in listed}
    except SparseDSLError as error:
        error.where, error.hint = f"offsets({shown(listed)})", "offsets({0, 1, 2, 4})"
        raise
    if not checked:
        raise EmptyWindow(
            "the set of distances is empty",
            where="offsets({})",
            got="no distance",
            expected="one distance or more",
            hint="empty() for the pattern without pairs",
        )
    return Offsets(tuple(sorted(checked)))


def causal() -> Pattern:
    """{(q, k) : k <= q}."""
    return Causal()


def full() -> Pattern:
    """Every pair (q, k)."""
    return Full()


def empty() -> Pattern:
    """No pair."""
    return Empty()


def random_blocks(block: int, count: int, *, seed: int = 0) -> Pattern:
    """{(q, k) : k // block in C(q // block)}, C(b) being `count` blocks drawn from 0..b by `seed`.

    All blocks 0..b where there are no more than `count`. The draw depends on (seed, b) only: it is the same
    for every length, machine and version. The query's own block may be drawn: add `& causal()`.
    """
    return RandomBlocks(
        whole("random_blocks", "block", block, least=1),
        whole("random_blocks", "count", count, least=1),
        whole("random_blocks", "seed", seed, least=0),
    )


def per_head(patterns: Iterable[Pattern]) -> PerHead:
    """One pattern for each query head of a layer.

    >>> str(per_head([sliding(4), power()] * 2) & causal()).count("& causal()")
    4

    """
    heads = []
    for each in checked_layers("per_head", patterns):
        if not isinstance(each, Pattern):
            raise not_a_pattern("per_head", each)
        heads.append(each)
    return PerHead(tuple(heads))


def cycle(patterns: Iterable[Layer], *, layers: int) -> Stack:
    """`layers` layers that repeat these patterns in turn, the first layer having the first pattern."""
    return Stack(checked_layers("cycle", patterns), layers=whole("cycle", "layers", layers, least=1))
