"""A cache of keys and values that keeps what a pattern can still read, for generation token by token.

It is plain torch on any device: the keys that the new queries read are gathered and given to
`scaled_dot_product_attention` with a boolean mask. The emitted decode kernels address keys by absolute position in a
full cache and take no part here.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparsedsl.codegen.build import one_layer
from sparsedsl.errors import HeadMismatch, NoNormalForm, OutOfRange, ShapeMismatch, Unsupported
from sparsedsl.index import Predicate, holds, lowered
from sparsedsl.layers import PerHead
from sparsedsl.lifetimes import ENDLESS, Lifetimes, lifetimes
from sparsedsl.normal import normalise
from sparsedsl.pattern import Pattern
from sparsedsl.rows import never_ahead

LEAST_CAPACITY = 64


class PatternCache:
    """The live keys and values of one layer, beside their positions.

    Set
        After `append` of the tokens at positions [t, t + n): every key that some query at t or later reads, plus dead
        ones that are not compacted yet. Without lifetimes (random choices, no period) nothing dies.
    Shapes
        k, v (batch, key_heads, n, head_dim); q (batch, heads, m, head_dim), key_heads dividing heads, m <= n: the
        last m of the tokens that were appended last.
    Cost
        Memory at most 2 · (live keys + n) tokens, rounded up to 64: O(window) for windows with sinks, whatever was
        generated. `append` copies n tokens; when the store is full it drops the dead and moves the live, O(1) per
        token on average if a constant share dies or the store doubles. `attend` decides (m · stored) pairs on the
        host with NumPy, and gathers and multiplies the keys that some of its queries read.
    Example
        >>> from sparsedsl.constructors import sliding
        >>> cache = PatternCache(sliding(2))
        >>> for token in range(200):
        ...     k = torch.full((1, 1, 1, 4), float(token))
        ...     keys, values, positions = cache.append(k, k)
        >>> cache.length, cache.live, cache.capacity, cache.attend(k)[0, 0, 0, 0].item()
        (200, 2, 64, 199.0)

    """

    def __init__(self, pattern: Pattern | PerHead) -> None:
        self.pattern = one_layer("PatternCache", pattern)
        heads = self.pattern.heads if isinstance(self.pattern, PerHead) else (self.pattern,)
        kinds = list(dict.fromkeys(heads))
        for kind in kinds:
            _check_looks_back(kind)
        self._kind_of_head = [kinds.index(head) for head in heads]
        self._predicates: list[Predicate] = [lowered(kind.predicate()) for kind in kinds]
        self._lifetimes = _lifetimes_of(kinds)
        self.length = 0  # tokens appended so far
        self._step = 0  # the first position of the tokens appended last
        self._size = 0  # tokens stored
        self._store: tuple[Tensor, Tensor] | None = None
        self._positions: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._last: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def __repr__(self) -> str:
        return f"<PatternCache of {self.pattern}: {self.length} tokens, {self.live} live, room for {self.capacity}>"

    @property
    def capacity(self) -> int:
        """The tokens that the store has room for."""
        return len(self._positions)

    @property
    def positions(self) -> NDArray[np.int64]:
        """The positions of the stored keys, rising; some may be dead."""
        return self._positions[: self._size]

    @property
    def live(self) -> int:
        """How many stored keys the last appended tokens or later ones can read."""
        return int((self._last[: self._size] >= self._step).sum())

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
        """Take in the keys and values of the next tokens; return all stored ones and their positions.

        The tensors are views of the store, true until the next call.

        Raises
            ShapeMismatch: k or v is not (batch, key_heads, n, head_dim), or does not fit what is stored.
        """
        self._check(k, v)
        new, self._step = k.shape[2], self.length
        if self._size + new > self.capacity:
            self._make_room(k, v, new)
        assert self._store is not None
        place = slice(self._size, self._size + new)
        self._store[0][:, :, place], self._store[1][:, :, place] = k, v
        self._positions[place] = np.arange(self.length, self.length + new)
        self._last[place] = self._last_readers(self.length, self.length + new)
        self._size += new
        self.length += new
        return self._store[0][:, :, : self._size], self._store[1][:, :, : self._size], self.positions

    def attend(self, q: Tensor, *, scale: float | None = None) -> Tensor:
        """Attention of the last tokens over the pattern; a row without a key gives 0.

        Raises
            OutOfRange: more queries than tokens appended last: earlier ones may have lost their keys.
            HeadMismatch: heads that do not fit the pattern or the keys.
        """
        if self._store is None or q.dim() != 4 or q.shape[2] > self.length - self._step:
            raise OutOfRange(
                "a query needs the keys of its own step",
                where="cache.attend(q)",
                got=f"q of shape {tuple(q.shape)} after an append of {self.length - self._step} tokens",
                expected="(batch, heads, m, head_dim), m at most the tokens appended last",
                hint="cache.append(k, v), then cache.attend(q) with the same tokens",
            )
        keys, values = self._store
        heads, kinds = q.shape[1], self._kind_of_head
        if heads % keys.shape[1] or len(kinds) not in (1, heads):
            raise HeadMismatch(
                "the query heads do not fit",
                where="cache.attend(q)",
                got=f"{heads} query heads, {keys.shape[1]} key heads, {len(kinds)} head patterns",
                expected="key heads that divide the query heads, and one pattern for each query head or for all",
                hint=f"q with {max(keys.shape[1], len(kinds))} heads",
            )
        places = np.arange(self.length - q.shape[2], self.length, dtype=np.int64)[:, None]
        masks = np.stack([holds(each, places, self.positions[None, :]) for each in self._predicates])
        masks &= self.positions <= places
        read = np.flatnonzero(masks.any((0, 1)))
        if not len(read):
            return torch.zeros(*q.shape[:3], values.shape[3], dtype=q.dtype, device=q.device)
        mask = torch.from_numpy(masks[kinds][:, :, read]).to(q.device)
        chosen = torch.from_numpy(read).to(q.device)
        b_k, b_v = keys.index_select(2, chosen), values.index_select(2, chosen)
        share = heads // keys.shape[1]
        b_k, b_v = b_k.repeat_interleave(share, 1), b_v.repeat_interleave(share, 1)
        out = torch.nn.functional.scaled_dot_product_attention(q, b_k, b_v, attn_mask=mask, scale=scale)
        # What a row without a key gives differs between torch's own kernels.
        return out.masked_fill(~mask.any(-1, keepdim=True), 0.0)

    def _last_readers(self, start: int, stop: int) -> NDArray[np.int64]:
        if self._lifetimes is None:
            return np.full(stop - start, ENDLESS, dtype=np.int64)
        last: NDArray[np.int64] = np.maximum.reduce([each.last_readers(start, stop) for each in self._lifetimes])
        return last

    def _make_room(self, k: Tensor, v: Tensor, new: int) -> None:
        """Drop what no query from the next step on reads; a larger store if half of it would still be in use."""
        kept = np.flatnonzero(self._last[: self._size] >= self._step)
        needed = len(kept) + new
        capacity = self.capacity
        if 2 * needed > capacity:
            capacity = -(-2 * needed // LEAST_CAPACITY) * LEAST_CAPACITY
        old = self._store
        keys, values = (each.new_empty(*each.shape[:2], capacity, each.shape[3]) for each in (k, v))
        self._store = keys, values
        if old is not None:
            chosen = torch.from_numpy(kept).to(k.device)
            for target, source in zip(self._store, old, strict=True):
                target[:, :, : len(kept)] = source.index_select(2, chosen)
        for name in ("_positions", "_last"):
            longer = np.zeros(capacity, dtype=np.int64)
            longer[: len(kept)] = getattr(self, name)[kept]
            setattr(self, name, longer)
        self._size = len(kept)

    def _check(self, k: Tensor, v: Tensor) -> None:
        fits = k.dim() == 4 and v.dim() == 4 and k.shape[:3] == v.shape[:3] and k.shape[2] > 0
        if fits and self._store is not None:
            fits = all(
                (each.shape[:2], each.shape[3], each.dtype, each.device)
                == (own.shape[:2], own.shape[3], own.dtype, own.device)
                for each, own in zip((k, v), self._store, strict=True)
            )
        if not fits:
            stored = "" if self._store is None else f", stored {tuple(self._store[0].shape)} {self._store[0].dtype}"
            raise ShapeMismatch(
                "the new keys and values do not fit",
                where="cache.append(k, v)",
                got=f"k {tuple(k.shape)} {k.dtype}, v {tuple(v.shape)} {v.dtype}{stored}",
                expected="(batch, key_heads, n, head_dim), n >= 1, all but n as before",
                hint="a new PatternCache for another batch or model",
            )


def _check_looks_back(pattern: Pattern) -> None:
    """Raise unless no query reads a later key: there is none yet when tokens come one by one."""
    if never_ahead(pattern.predicate()):
        return
    try:
        ahead = normalise(pattern).looks_ahead
    except NoNormalForm:
        ahead = True
    if ahead:
        raise Unsupported(
            "the pattern may read later keys",
            where=f"PatternCache({pattern})",
            got="pairs with k > q",
            expected="a pattern that looks back, because later tokens are not there yet",
            hint=f"PatternCache(({pattern}) & causal())",
        )


def _lifetimes_of(kinds: list[Pattern]) -> list[Lifetimes] | None:
    """The lifetimes of every kind of head; None where they can't be told, so that nothing dies."""
    try:
        return [lifetimes(kind) for kind in kinds]
    except NoNormalForm:
        return None
