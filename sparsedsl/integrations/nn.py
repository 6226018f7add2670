"""`SparseAttention`: projections around a compiled pattern, as a torch module."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from sparsedsl.codegen.build import compile
from sparsedsl.errors import HeadMismatch, ShapeMismatch, Unsupported, clipped
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern, wholes

KeysAndValues = tuple[Tensor, Tensor]


class SparseAttention(torch.nn.Module):
    """Multi-head self-attention over one layer's pattern; no positions are added, no dropout is applied.

    Shapes
        (batch, length, dim) in and out; key_heads (default: heads) divides heads; head_dim is dim // heads by default.
    Units
        Token i of the input stands at position i, or after what `past` holds.
    Cost
        The projections, and attention in proportion to the pattern's live tiles.
    Raises
        WrongType, WrongValue: sizes that are no positive numbers. HeadMismatch, ShapeMismatch: heads that don't divide,
        or as many head patterns as there are not heads; and the errors of `compile`.
    Example
        >>> from sparsedsl.constructors import causal, power, sliding
        >>> layer = SparseAttention(64, 4, sliding(16) | power(), key_heads=2)
        >>> x = torch.randn(1, 100, 64)
        >>> layer(x).shape
        torch.Size([1, 100, 64])
        >>> out, past = layer.extend(x[:, :99])
        >>> last, past = layer.extend(x[:, 99:], past)
        >>> torch.allclose(last[:, 0], layer(x)[:, 99], atol=1e-6)
        True

    """

    def __init__(
        self,
        dim: int,
        heads: int,
        pattern: Pattern | PerHead,
        *,
        key_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        key_heads = heads if key_heads is None else key_heads
        _check_heads(dim, heads, pattern, key_heads, head_dim)
        self.heads, self.key_heads = heads, key_heads
        self.head_dim = dim // heads if head_dim is None else head_dim
        self.attend = compile(pattern)
        self.q = torch.nn.Linear(dim, heads * self.head_dim, bias=bias)
        self.k = torch.nn.Linear(dim, key_heads * self.head_dim, bias=bias)
        self.v = torch.nn.Linear(dim, key_heads * self.head_dim, bias=bias)
        self.o = torch.nn.Linear(heads * self.head_dim, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Attention of a whole sequence to itself."""
        return self.extend(x)[0]

    def extend(self, x: Tensor, past: KeysAndValues | None = None) -> tuple[Tensor, KeysAndValues]:
        """Attention of the next tokens to themselves and to those before, whose keys and values `past` holds.

        Raises
            ShapeMismatch: not (batch, length, dim), or a past of another batch, other heads or another head dim.
            Unsupported: a past and a pattern that looks ahead: earlier tokens would miss the later ones.
        """
        self._check(x, past)
        q, k, v = (
            project(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for project in (self.q, self.k, self.v)
        )
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        out = self.attend(q, k, v)
        return cast(Tensor, self.o(out.transpose(1, 2).flatten(2))), (k, v)

    def _check(self, x: Tensor, past: KeysAndValues | None) -> None:
        if x.is_nested or x.dim() != 3 or x.shape[2] != self.q.in_features:
            raise ShapeMismatch(
                "the module takes a batch of sequences of one length",
                where="SparseAttention(...)(x)",
                got="a nested tensor" if x.is_nested else f"x of shape {tuple(x.shape)}",
                expected=f"(batch, length, {self.q.in_features}), no padding",
                hint="x[None] for a missing batch; one call for each length",
            )
        if past is None:
            return
        if not self.attend.causal:
            raise Unsupported(
                "the pattern looks ahead, so tokens can't be added one after another",
                where="SparseAttention(...).extend(x, past)",
                got=clipped(str(self.attend.pattern)),
                expected="a pattern inside causal()",
                hint="pattern & causal(), or one call for the whole sequence",
            )
        wanted = (x.shape[0], self.key_heads, self.head_dim)
        for each in past:
            if each.dim() != 4 or (each.shape[0], each.shape[1], each.shape[3]) != wanted:
                raise ShapeMismatch(
                    "the past is not this module's, or of another batch",
                    where="SparseAttention(...).extend(x, past)",
                    got=f"keys or values of shape {tuple(each.shape)}, x of shape {tuple(x.shape)}",
                    expected=f"({wanted[0]}, {wanted[1]}, length, {wanted[2]})",
                    hint="the past that the same module gave for the tokens before",
                )

    def extra_repr(self) -> str:
        """The pattern and the heads, for `print(module)`."""
        return f"{self.attend.pattern}, heads={self.heads}, key_heads={self.key_heads}"


def _check_heads(dim: int, heads: int, pattern: Pattern | PerHead, key_heads: int, head_dim: int | None) -> None:
    where = f"SparseAttention({dim}, {heads}, ..., key_heads={key_heads}, head_dim={head_dim})"
    wholes("SparseAttention", dim=dim, heads=heads, key_heads=key_heads, head_dim=1 if head_dim is None else head_dim)
    if heads % key_heads:
        raise HeadMismatch(
            "the key heads do not divide the heads",
            where=where,
            got=f"{heads} heads, {key_heads} key heads",
            expected="a number of key heads that divides the number of heads",
            hint=f"key_heads={heads}, or 1",
        )
    if isinstance(pattern, PerHead) and len(pattern.heads) != heads:
        raise HeadMismatch(
            "the pattern and the module disagree on the number of heads",
            where=where,
            got=f"{len(pattern.heads)} head patterns, {heads} heads",
            expected="one pattern for each head (key heads do not count)",
            hint=f"heads={len(pattern.heads)}",
        )
    if head_dim is None and dim % heads:
        raise ShapeMismatch(
            "the heads do not divide the dimension",
            where=where,
            got=f"dim = {dim}, heads = {heads}",
            expected="dim % heads == 0, or a head_dim",
            hint="head_dim=64",
        )
