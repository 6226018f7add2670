"""The cases of `benchmarks.sanitize`: patterns, the kernels they are to run, the comparison with dense attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import sparsedsl as sd
from sparsedsl.codegen.hopper_choice import Backend
from sparsedsl.codegen.plan import plan
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.longnet import longnet

HEADS, KEY_HEADS = 4, 2
FARTHEST = {torch.bfloat16: 2e-2, torch.float32: 1e-4}
# Queries and keys: odd, more keys than queries, more queries than keys, a single query.
SHAPES = ((333, 333), (77, 301), (130, 67), (1, 129))
# Documents: one token, a whole tile, an empty one, an end inside a tile, padding behind.
CUTS, PACKED = (0, 1, 65, 65, 200, 310), 333
# Sequences in a cache, the room it has, rows of a page; queries for a program each, and for tiles of queries.
LENGTHS, ROOM, PAGE = (301, 0, 64), 320, 16
FEW, MANY = 3, 40
Attend = Callable[..., Any]
Passes = Iterator[tuple[str, Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Case:
    """A pattern, and in how many parts and orders it must be planned to be the case that its name says."""

    pattern: Pattern | PerHead
    parts: int = 1
    step: int = 1
    backend: Backend = "triton"
    call: str = "plain"  # or packed, cached, paged
    head_dim: int = 64


_PLAIN = {
    "one part": Case(sd.sliding(100) | sd.sink(3) & sd.causal()),
    "both ways": Case(sd.sliding(40, ahead=70)),
    "rows without keys": Case(sd.sliding(90) & sd.where("q % 3 == 1")),
    "residue order": Case(sd.dilated(30, 8), step=8),
    "parts": Case(sd.sliding(256) | sd.dilated(256, 16), parts=2),
    "classes of heads": Case(longnet(segments=[256, 4096], dilations=[1, 16], heads=HEADS), parts=2),
    "lists": Case(sd.sliding(3) | sd.offsets(n * n for n in range(2, 15))),
    "by head": Case(sd.per_head([sd.sliding(90), sd.sliding(90), sd.power(), sd.sink(64) & sd.causal()])),
}
_TABLE = {"table": Case((sd.random_blocks(64, 1, seed=0) | sd.sliding(70)) & sd.causal())}
# Roads that packed calls and caches have kernels of their own for.
_ROADS = {name: case for name, case in (_PLAIN | _TABLE).items() if name in ("one part", "residue order", "table")}
_HOPPER = {name: replace(case, backend="hopper", head_dim=128) for name, case in _PLAIN.items()}
CASES = {
    **_PLAIN,
    **_TABLE,
    **{f"Hopper: {name}": case for name, case in _HOPPER.items()},
    # Computed 64 and 32 wide: K lies in narrower pieces.
    "Hopper: one part, head dim 64": replace(_HOPPER["one part"], head_dim=64),
    "Hopper: residue order, head dim 24": replace(_HOPPER["residue order"], head_dim=24),
    **{
        f"{call}: {name}": replace(case, call=call)
        for call in ("packed", "cached", "paged")
        for name, case in _ROADS.items()
    },
}


def checked(case: Case, device: str) -> str:
    """What is wrong with a case, or nothing: the kernels' results beside dense attention in float64 on the CPU."""
    parts = plan(case.pattern).parts
    if len(parts) != case.parts or not any(part.step == case.step for part in parts):
        return f"planned as {[part.step for part in parts]}"
    attention = sd.compile(case.pattern, backend=case.backend)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    calls = {"plain": _plain, "packed": _packed, "cached": _cached, "paged": _cached}
    for name, got, exact in calls[case.call](case, attention, dtype, device):
        got, exact = got.detach().double().cpu(), exact.detach()
        distance = float((got - exact).norm() / exact.norm().clamp_min(1e-6))
        if not distance <= FARTHEST[dtype]:
            return f"{name} is {distance:.1e} away"
    return ""


def _plain(case: Case, attention: Attend, dtype: torch.dtype, device: str) -> Passes:
    """Ordinary calls, forward and backward."""
    for q_len, k_len in SHAPES:
        *inputs, d_out = _random(q_len, k_len, case.head_dim, dtype)
        got = _passes(attention, inputs, d_out, device)
        want = _passes(
            lambda *tensors: dense(case.pattern, tensors), [each.double() for each in inputs], d_out.double()
        )
        for name, ours, exact in zip(("output", "dq", "dk", "dv"), got, want, strict=True):
            yield f"{name} at {q_len} x {k_len}", ours, exact


def _packed(case: Case, attention: Attend, dtype: torch.dtype, device: str) -> Passes:
    """Documents in one row, forward and backward; rows behind the last one get zeros."""
    *inputs, d_out = _random(PACKED, PACKED, case.head_dim, dtype)
    bounds = torch.tensor(CUTS, dtype=torch.int32, device=device)
    got = _passes(lambda *tensors: attention(*tensors, cu_seqlens=bounds), inputs, d_out, device)

    def by_document(*tensors: Tensor) -> Tensor:
        outs = [dense(case.pattern, [each[:, :, a:b] for each in tensors]) for a, b in pairwise(CUTS) if a < b]
        return torch.cat([*outs, torch.zeros_like(tensors[0][:, :, CUTS[-1] :])], 2)

    want = _passes(by_document, [each.double() for each in inputs], d_out.double())
    for name, ours, exact in zip(("output", "dq", "dk", "dv"), got, want, strict=True):
        yield f"{name} of documents", ours, exact


def _cached(case: Case, attention: Attend, dtype: torch.dtype, device: str) -> Passes:
    """Sequences of different lengths in a cache, in one tensor or in shuffled pages; what is not in use is NaN."""
    for q_len in (1, FEW, MANY):
        torch.manual_seed(q_len)
        batch = len(LENGTHS)
        q = torch.randn(batch, HEADS, q_len, case.head_dim).to(dtype)
        k, v = (torch.randn(batch, KEY_HEADS, ROOM, case.head_dim).to(dtype) for _ in range(2))
        for number, length in enumerate(LENGTHS):
            k[number, :, length:] = v[number, :, length:] = float("nan")
        options = {"cache_seqlens": torch.tensor(LENGTHS, dtype=torch.int32)}
        keys, values = k, v
        if case.call == "paged":
            columns = ROOM // PAGE
            order = torch.randperm(batch * columns)
            keys, values = (_pages(each, order) for each in (k, v))
            options["page_table"] = order.reshape(batch, columns).to(torch.int32)
        with torch.no_grad():
            tensors = (each.to(device) for each in (q, keys, values))
            got = attention(*tensors, **{name: each.to(device) for name, each in options.items()})
        exact = torch.zeros(q.shape, dtype=torch.float64)
        for number, length in enumerate(LENGTHS):
            # Rows of a sequence shorter than the queries stand before its first position, and read nothing.
            rows = min(q_len, length)
            if rows:
                own = (
                    q[number : number + 1, :, q_len - rows :],
                    *(each[number : number + 1, :, :length] for each in (k, v)),
                )
                exact[number, :, q_len - rows :] = dense(case.pattern, [each.double() for each in own])[0]
        yield f"output of {q_len} queries", got, exact


def _pages(each: Tensor, order: Tensor) -> Tensor:
    """(sequences, key heads, room, head dim) as pages that `order` numbers."""
    parts = each.unflatten(2, (ROOM // PAGE, PAGE)).transpose(1, 2).flatten(0, 1)
    pages = torch.empty_like(parts)
    pages[order] = parts
    return pages


def _random(q_len: int, k_len: int, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """q, k, v, and the gradient of the output."""
    torch.manual_seed(q_len)
    shapes = ((HEADS, q_len), (KEY_HEADS, k_len), (KEY_HEADS, k_len), (HEADS, q_len))
    return tuple(torch.randn(1, *shape, head_dim).to(dtype) for shape in shapes)


def _passes(attention: Attend, inputs: Sequence[Tensor], d_out: Tensor, device: str = "cpu") -> list[Tensor]:
    """Output, dq, dk, dv."""
    leaves = [each.to(device).requires_grad_() for each in inputs]
    out = attention(*leaves)
    return [out, *torch.autograd.grad(out, leaves, d_out.to(device))]


def dense(pattern: Pattern | PerHead, tensors: Sequence[Tensor]) -> Tensor:
    """Dense attention over the pattern's boolean matrix; a row without a key gives 0."""
    q, k, v = tensors
    heads = pattern.heads if isinstance(pattern, PerHead) else (pattern,) * HEADS
    found = {each: torch.from_numpy(each.dense(q.shape[2], k.shape[2])) for each in dict.fromkeys(heads)}
    mask = torch.stack([found[each] for each in heads])
    k, v = (each.repeat_interleave(HEADS // KEY_HEADS, 1) for each in (k, v))
    scores = (q @ k.mT * q.shape[3] ** -0.5).masked_fill(~mask, float("-inf"))
    return torch.softmax(scores, -1).masked_fill(~mask, 0.0) @ v
