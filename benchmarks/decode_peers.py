"""Who decodes over a long cache: our kernels, dense attention in two forms, and FlexAttention's decoding kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import triton
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import pad, scaled_dot_product_attention

import sparsedsl as sd
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.power import power_attention

OURS, PAGED, DENSE, GROUPED, FLEX = "sparsedsl", "sparsedsl, pages", "dense", "dense, grouped", "FlexAttention"
PATTERNS: dict[str, Pattern] = {"power_attention()": power_attention(), "sliding(4096)": sd.sliding(4096)}
# From this many elements on, FlexAttention's kernel counts in int64, and Triton 3.6 and 3.7 refuse its text: "Ternary
# expression with dynamic condition has inconsistent types int64 and int32". Such a batch goes through it in pieces.
FLEX_ELEMENTS = 1 << 31

Attend = Callable[..., Any]
# A range of sequences to the tokens' output.
Call = Callable[[slice], Tensor]


@dataclass(frozen=True, slots=True)
class Settings:
    """The shapes of a run."""

    device: str
    tokens: int
    sequences: int
    heads: int
    key_heads: int
    head_dim: int
    page_size: int
    dtype: torch.dtype
    rounds: int

    @property
    def cuda(self) -> bool:
        """Whether kernels of a GPU run."""
        return self.device == "cuda"

    @property
    def group(self) -> int:
        """Query heads to a key head."""
        return self.heads // self.key_heads


CUDA = Settings("cuda", 131072, 32, 28, 4, 128, 64, torch.bfloat16, 8)
CPU = Settings("cpu", 2048, 3, 8, 2, 32, 64, torch.float32, 2)


@dataclass(frozen=True, slots=True)
class Caches:
    """A query token, keys and values of each sequence, contiguous and the same in shuffled pages."""

    q: Tensor
    k: Tensor
    v: Tensor
    lengths: Tensor
    k_pages: Tensor
    v_pages: Tensor
    page_table: Tensor

    @staticmethod
    def random(settings: Settings, *, paged: bool = True) -> Caches:
        """Standard normal numbers. Two copies of all keys and values: 17 GB at the settings of a GPU."""
        torch.manual_seed(0)
        batch, size = settings.sequences, settings.page_size
        columns = settings.tokens // size
        options: dict[str, Any] = {"device": settings.device, "dtype": settings.dtype}
        q = torch.randn(batch, settings.heads, 1, settings.head_dim, **options)
        shape = (batch, settings.key_heads, settings.tokens, settings.head_dim)
        order = torch.randperm(batch * columns, device=settings.device)
        found, pages = [], []
        for _ in range(2):
            each = torch.randn(shape, **options)
            found.append(each)
            if paged:
                parts = each.unflatten(2, (columns, size)).transpose(1, 2).flatten(0, 1)
                store = torch.empty_like(parts)
                store[order] = parts
                pages.append(store)
        (k, v), (k_pages, v_pages) = found, pages or found
        lengths = torch.full((batch,), settings.tokens, dtype=torch.int32, device=settings.device)
        return Caches(q, k, v, lengths, k_pages, v_pages, order.reshape(batch, columns).to(torch.int32))


def ours_and_dense(pattern: Pattern, caches: Caches, settings: Settings) -> dict[str, Call]:
    """Ours over both kinds of cache, and dense attention as the library has it."""
    attention: Attend = sd.compile(pattern)

    def contiguous(own: slice) -> Tensor:
        q = caches.q[own]
        out: Tensor = attention(q, caches.k[own], caches.v[own], cache_seqlens=caches.lengths[: len(q)])
        return out

    def paged(own: slice) -> Tensor:
        q = caches.q[own]
        tables = {"cache_seqlens": caches.lengths[: len(q)], "page_table": caches.page_table[own]}
        out: Tensor = attention(q, caches.k_pages, caches.v_pages, **tables)
        return out

    def dense(own: slice) -> Tensor:
        return scaled_dot_product_attention(caches.q[own], caches.k[own], caches.v[own], enable_gqa=True)

    def grouped(own: slice) -> Tensor:
        # One token sees every key, so the heads that share a key head may stand as queries of one head.
        q = caches.q[own].unflatten(1, (settings.key_heads, -1)).squeeze(3)
        return scaled_dot_product_attention(q, caches.k[own], caches.v[own]).flatten(1, 2).unsqueeze(2)

    return {OURS: contiguous, PAGED: paged, DENSE: dense, GROUPED: grouped}


def flex(name: str, caches: Caches, settings: Settings) -> Call:
    """FlexAttention with the pattern's last query as its mask, written by hand.

    Its kernel for decoding takes 1, 2, 4, 8, ... query heads to a key head, and leaves 7 to a slower one: it gets 8,
    the last of them zero, made before the clock starts. They are rows of its tile in any case. The mask of one query is
    small enough to be made without a compiler.
    """
    block_mask = create_block_mask(
        mask_of(name, settings.tokens), None, None, 1, settings.tokens, device=settings.device
    )
    call: Attend = partial(torch.compile(flex_attention, dynamic=False), block_mask=block_mask, enable_gqa=True)
    room = triton.next_power_of_2(settings.group) - settings.group
    padded = pad(caches.q.unflatten(1, (settings.key_heads, -1)), (0, 0, 0, 0, 0, room)).flatten(1, 2)
    most = flex_at_once(settings)

    def attend(own: slice) -> Tensor:
        pieces = [slice(first, min(first + most, own.stop)) for first in range(own.start, own.stop, most)]
        outs = [call(padded[each], caches.k[each], caches.v[each]) for each in pieces]
        grouped = (outs[0] if len(outs) == 1 else torch.cat(outs)).unflatten(1, (settings.key_heads, -1))
        out: Tensor = grouped[:, :, : settings.group].flatten(1, 2)
        return out

    return attend


def flex_at_once(settings: Settings) -> int:
    """How many sequences FlexAttention takes in one call: half of them where all are too many elements."""
    most = settings.sequences
    while most > 1 and most * settings.key_heads * settings.tokens * settings.head_dim >= FLEX_ELEMENTS:
        most = (most + 1) // 2
    return most


def mask_of(name: str, tokens: int) -> Callable[..., Tensor]:
    """A pattern's last query as a mask of FlexAttention."""
    last = tokens - 1

    def power(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        distance = last // 256 - k // 256
        return (distance < 5) | (distance & (distance - 1) == 0) | (k < 256)

    def sliding(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return last - k < 4096

    return dict(zip(PATTERNS, (power, sliding), strict=True))[name]


def expected(caches: Caches, live: Tensor, own: slice) -> Tensor:
    """Attention over the live keys in float64."""
    q, k, v = caches.q[own].double(), caches.k[own][:, :, live].double(), caches.v[own][:, :, live].double()
    scores = q.unflatten(1, (k.shape[1], -1)).squeeze(3) @ k.mT * q.shape[3] ** -0.5
    return (torch.softmax(scores, -1) @ v).flatten(1, 2).unsqueeze(2)


def distance(got: Tensor, want: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite where a number is missing."""
    error = ((got.double() - want).abs().amax() / want.abs().amax()).item()
    return error if error == error else float("inf")
