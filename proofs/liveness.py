"""How many cached keys can still be read at each step of a generation, and when each kind of key dies.

At step t the query at position t reads. A key k <= t is live then if some query at t or later reads it, at any length:
a cache that does not know when generation ends must keep exactly these.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from json import dumps
from typing import TYPE_CHECKING

from sparsedsl.errors import HeadMismatch, UnknownName, WrongType, WrongValue, shown
from sparsedsl.layers import Layer, PerHead, Stack
from sparsedsl.lifetimes import Lifetimes, lifetimes
from sparsedsl.pattern import Pattern, whole
from sparsedsl.proofs.fates import Fate, fates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1}
DEFAULT_KEY_HEADS = 8
MOST_TOKENS = 1 << 28


@dataclass(frozen=True, slots=True)
class LayerLiveness:
    """One pattern of the stack, and the layers that have it.

    `peak` counts (key, key head) pairs: the most that are live at one step, first at `peak_step`; `full` is what a
    cache that keeps everything holds at the end. `fates` says when each kind of key dies, for each different key head.
    """

    pattern: str
    layers: int
    key_heads: int
    peak: int
    peak_step: int
    full: int
    fates: tuple[tuple[Fate, ...], ...]


@dataclass(frozen=True, slots=True)
class Liveness:
    """What `liveness` returns; `str` is the report, `to_json` the same as one object.

    `peak` counts (key, key head) pairs over all layers at one step, the first such `peak_step`; the layers' own peaks
    may lie at other steps.
    """

    pattern: str
    seq_len: int
    head_dim: int
    dtype: str
    by_pattern: tuple[LayerLiveness, ...]
    peak: int
    peak_step: int
    full: int

    def bytes_of(self, entries: int) -> int:
        """The bytes of so many keys with their values."""
        return entries * 2 * self.head_dim * BYTES[self.dtype]

    def to_json(self) -> str:
        """One JSON object; a lifetime of null is endless, -1 unread; sizes also in bytes."""
        told = asdict(self)
        for each in told["by_pattern"]:
            each["peak_bytes"], each["full_bytes"] = self.bytes_of(each["peak"]), self.bytes_of(each["full"])
        return dumps({**told, "peak_bytes": self.bytes_of(self.peak), "full_bytes": self.bytes_of(self.full)})

    def __str__(self) -> str:
        lines = [f"tokens      {_spaced(self.seq_len)}, generated one by one"]
        for each in self.by_pattern:
            lines += [f"pattern     {each.pattern}", f"layers      {each.layers}, {each.key_heads} key heads each"]
            for number, kinds in enumerate(each.fates):
                name = "keys" if len(each.fates) == 1 else f"heads {number}"
                lines += [f"{name if not at else '':<12}{kind}" for at, kind in enumerate(kinds)]
            mean = len(each.fates) > 1
            lines.append(f"a layer     {self._held(each.peak, each.full, each.key_heads, each.peak_step, mean=mean)}")
        heads = sum(each.layers * each.key_heads for each in self.by_pattern)
        if sum(each.layers for each in self.by_pattern) > 1:
            mean = len(self.by_pattern) > 1 or len(self.by_pattern[0].fates) > 1
            lines.append(f"all layers  {self._held(self.peak, self.full, heads, self.peak_step, mean=mean)}")
        return "\n".join(lines)

    def _held(self, peak: int, full: int, key_heads: int, step: int, *, mean: bool) -> str:
        keys = _spaced(peak // key_heads) if peak % key_heads == 0 else f"{peak / key_heads:.1f}"
        held = f"{_size(self.bytes_of(peak))} of {_size(self.bytes_of(full))} ({100 * peak / full:.2f}%)"
        return f"at most {keys} keys a head{' on average' if mean else ''}, {held}, first at step {_spaced(step)}"


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _size(count: int) -> str:
    """Bytes in the largest binary unit that leaves a number >= 1."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.1f} {units[0]}" if value != int(value) else f"{int(value)} {units[0]}"


def liveness(
    pattern: Pattern | PerHead | Stack,
    *,
    seq_len: int,
    layers: int | None = None,
    key_heads: int | None = None,
    head_dim: int = 128,
    dtype: str = "bfloat16",
) -> Liveness:
    """Count the cached keys that can still be read, at the worst step of a generation of seq_len tokens.

    Set
        Live at step t: the keys k <= t such that (q, k) is in the pattern for some q >= t, whatever the length. Pairs
        that look ahead take no part. A key that no later query reads within 2**31 positions counts as dead.
    Units
        Tokens. Sizes count keys and values, for `key_heads` heads of `head_dim` numbers. With per_head, key head g
        serves heads / key_heads query heads and keeps what any of them reads.
    Cost
        O(seq_len) time and memory for each different pattern, beside `lifetimes`.
    Raises
        NoNormalForm: lifetimes can't be told (random choices, no period).
        HeadMismatch: key_heads does not divide the heads of a per_head pattern.
    Example
        >>> from sparsedsl.constructors import causal, sink, sliding
        >>> found = liveness(sliding(1024) | sink(4) & causal(), seq_len=131072, key_heads=8)
        >>> found.peak // 8, found.peak_step, found.bytes_of(found.peak)
        (1028, 1027, 4210688)

    """
    import numpy as np

    if not isinstance(pattern, Pattern | PerHead | Stack):
        raise WrongType(
            "liveness takes a pattern",
            where=f"liveness({shown(pattern)})",
            got=f"{shown(pattern)} of type {type(pattern).__name__}",
            expected="a Pattern, a PerHead or a Stack",
            hint="liveness(sliding(1024), seq_len=131072)",
        )
    seq_len = whole("liveness", "seq_len", seq_len, least=1, most=MOST_TOKENS)
    head_dim = whole("liveness", "head_dim", head_dim, least=1)
    if dtype not in BYTES:
        raise UnknownName(
            "there is no such type of cached keys",
            where=f"liveness(dtype={dtype!r})",
            got=dtype,
            expected=", ".join(BYTES),
            hint='liveness(..., dtype="bfloat16")',
        )
    counted = _layers(pattern, layers)
    total = np.zeros(seq_len, dtype=np.int64)
    told = []
    for layer, times in counted.items():
        heads = _key_heads(layer, key_heads)
        groups = _groups(layer, heads)
        curve = np.zeros(seq_len, dtype=np.int64)
        for group, served in groups.items():
            curve += served * live_keys(group, seq_len)
        total += times * curve
        step = int(curve.argmax())
        shapes = tuple(dict.fromkeys(fates(group) for group in groups))
        told.append(LayerLiveness(str(layer), times, heads, int(curve[step]), step, heads * seq_len, shapes))
    step = int(total.argmax())
    full = sum(each.layers * each.full for each in told)
    return Liveness(str(pattern), seq_len, head_dim, dtype, tuple(told), int(total[step]), step, full)


def _layers(pattern: Pattern | PerHead | Stack, layers: int | None) -> dict[Layer, int]:
    """Every different layer, and how many there are of it."""
    if not isinstance(pattern, Stack):
        return {pattern: 1 if layers is None else whole("liveness", "layers", layers, least=1)}
    if layers is not None and layers != len(pattern):
        raise WrongValue(
            "the stack has its own number of layers",
            where=f"liveness({shown(pattern)}, layers={layers})",
            got=f"layers = {layers}",
            expected=f"{len(pattern)}, or none given",
            hint="cycle([...], layers=...) with another number",
        )
    counts: dict[Layer, int] = {}
    for each in pattern:
        counts[each] = counts.get(each, 0) + 1
    return counts


def _key_heads(layer: Layer, key_heads: int | None) -> int:
    own = len(layer.heads) if isinstance(layer, PerHead) else None
    heads = own or DEFAULT_KEY_HEADS
    if key_heads is not None:
        heads = whole("liveness", "key_heads", key_heads, least=1)
    if own is not None and own % heads:
        raise HeadMismatch(
            "the key heads do not divide the heads of the pattern",
            where=f"liveness({shown(layer)}, key_heads={heads})",
            got=f"{own} head patterns, {heads} key heads",
            expected="a divisor of the number of head patterns",
            hint=f"liveness(..., key_heads={own})",
        )
    return heads


def _groups(layer: Layer, key_heads: int) -> dict[tuple[Lifetimes, ...], int]:
    """What the query heads of a key head ask for, and how many key heads are alike in it."""
    if isinstance(layer, Pattern):
        return {(lifetimes(layer),): key_heads}
    share = len(layer.heads) // key_heads
    counts: dict[tuple[Lifetimes, ...], int] = {}
    for head in range(key_heads):
        group = tuple(dict.fromkeys(map(lifetimes, layer.heads[head * share : (head + 1) * share])))
        counts[group] = counts.get(group, 0) + 1
    return counts


def live_keys(group: tuple[Lifetimes, ...], seq_len: int) -> NDArray[np.int64]:
    """The number of live keys at each step 0, ..., seq_len - 1, a key being live if any of the lifetimes says so."""
    import numpy as np

    keys = np.arange(seq_len, dtype=np.int64)
    last = np.maximum.reduce([each.last_readers(0, seq_len) for each in group])
    read = last >= keys
    # Born at its own step, dead after its last reader.
    change = 1 * read
    change = np.concatenate([change, [0]])
    change -= np.bincount(np.minimum(last[read], seq_len - 1) + 1, minlength=seq_len + 1)
    return np.cumsum(change[:seq_len])
