"""What a mask of transformers asks for, told as spans: for each query row, the keys that its sequence offers.

transformers describes a mask as a function of (batch, head, query, key), put together from a few known ones, and a
2-D tensor of the keys that are no padding. Both are read here, in O(batch · length); the function is never evaluated
on N² points. Whatever is asked beyond sequences of neighbouring tokens and a window raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sparsedsl.errors import Unsupported

MASKS = "transformers.masking_utils"
PADDED = -1


@dataclass(frozen=True, slots=True)
class Asked:
    """What a mask function asks beyond looking back."""

    window: int | None = None
    packed: Tensor | None = None  # (batch, length): equal numbers mark one sequence


def asked(mask_function: Callable[..., object]) -> Asked:
    """Read a mask function of transformers, which is built of closures.

    Raises
        Unsupported: it holds a part that is neither the causal mask, a window, nor a packing of sequences.
    """
    causal = False
    window: int | None = None
    packed: Tensor | None = None
    for name, content in _parts(mask_function):
        if name == "causal_mask_function":
            causal = True
        elif name == "sliding_window_overlay" and isinstance(content.get("sliding_window"), int):
            wanted = content["sliding_window"]
            assert isinstance(wanted, int)
            window = wanted if window is None else min(window, wanted)
        elif name == "packed_sequence_mask_function" and isinstance(content.get("packed_sequence_mask"), Tensor):
            numbers = content["packed_sequence_mask"]
            assert isinstance(numbers, Tensor)
            if packed is not None:
                raise _not_honoured("two packings of sequences")
            packed = numbers
        else:
            raise _not_honoured(f"a part {name!r} of the mask")
    if not causal:
        raise _not_honoured("a mask that does not look back only")
    return Asked(window, packed)


def _parts(mask_function: Callable[..., object]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The parts of an intersection, each by its name and what its closure holds."""
    qualified = getattr(mask_function, "__qualname__", type(mask_function).__name__)
    if getattr(mask_function, "__module__", "") != MASKS:
        raise _not_honoured(f"a mask function of one's own, {qualified!r}")
    name = qualified.split(".")[0]
    names = getattr(mask_function, "__code__").co_freevars  # noqa: B009  (a Callable need not have it)
    cells = getattr(mask_function, "__closure__", None) or ()
    content = {key: cell.cell_contents for key, cell in zip(names, cells, strict=True)}
    if name == "and_masks":
        for each in content["mask_functions"]:
            yield from _parts(each)
    elif name == "remap_positions_for_packed_sequence":
        # Positions inside a sequence in place of indices: the same for what looks back by distance.
        yield from _parts(content["mask_function"])
    else:
        yield name, content


def spans(
    *,
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int,
    kv_offset: int,
    mask_function: Callable[..., object],
    attention_mask: Tensor | None,
) -> Tensor | None:
    """The span of each query row, or None where every row may see all keys up to its own.

    Shapes
        attention_mask (batch, positions), True for a token, False for padding. Result (batch, 3, q_length, 1), on the
        CPU; four dimensions, because transformers passes a 4-D mask on as it is.
    Units
        Indices into the key tensor. [:, 0]: where the row's sequence begins, below 0 where a sliding cache has dropped
        its first keys; [:, 1]: the row's own key, or PADDED; [:, 2]: the window asked for, 0 for none.
    Cost
        O(batch · positions), and one copy of the mask to the CPU.
    Raises
        Unsupported: a mask of other shape, or padding between the tokens of a sequence.
    """
    ask = asked(mask_function)
    position = torch.arange(q_length) + q_offset
    begin = torch.zeros(batch_size, q_length, dtype=torch.int64)
    own = position.expand(batch_size, q_length)
    plain = kv_offset == 0 and kv_length == q_offset + q_length and ask.window is None
    if ask.packed is not None:
        if q_offset or kv_offset or kv_length != q_length or ask.packed.shape[-1] != q_length:
            raise _not_honoured("packed sequences and keys of earlier calls")
        number = ask.packed.cpu().expand(batch_size, q_length)
        # Numbers never decrease along a row, so a sequence begins where its number is first met.
        begin = torch.searchsorted(number.contiguous(), number.contiguous())
        plain = plain and not begin.any()
    if attention_mask is not None:
        if attention_mask.dim() != 2:
            raise _not_honoured(f"a mask of shape {tuple(attention_mask.shape)}")
        token = attention_mask.to("cpu", torch.bool)
        if token.shape[0] not in (1, batch_size) or token.shape[1] < q_offset + q_length:
            so_far = f"{batch_size} sequences of {q_offset + q_length} tokens so far"
            raise _not_honoured(f"a mask of shape {tuple(token.shape)} for {so_far}")
        first = token.int().argmax(1, keepdim=True)
        begin = torch.maximum(begin, first)
        real = token[:, position]
        if (real & (token.cumsum(1)[:, position] != position - first + 1)).any():
            raise _not_honoured("padding between the tokens of a sequence")
        plain = plain and bool(real.all()) and not first.any()
        own = own.where(real, PADDED + kv_offset)
    if plain:
        return None
    if bool((own - kv_offset >= kv_length).any()):
        raise _not_honoured("queries that stand after the last key")
    window = torch.full_like(begin, ask.window or 0)
    return torch.stack([begin - kv_offset, own - kv_offset, window], 1)[..., None]


def sequence_starts(rows: Tensor, keys: int) -> Tensor | None:
    """Where each sequence begins, the batch's rows side by side, and where the last one ends, as int32.

    None where a row is padding, but for the end of a batch of one, or its sequence begins before this call.

    Shapes
        rows (batch, 2 or more, q_length): spans.
    Example
        >>> sequence_starts(torch.tensor([[[0, 0, 2, 2, 0], [0, 1, 2, 3, PADDED]]]), 5)
        tensor([0, 2, 4], dtype=torch.int32)

    """
    begin, own = rows[:, 0], rows[:, 1]
    batch, length = own.shape
    if length != keys:
        return None
    tokens = int((own != PADDED).sum()) if batch == 1 else length
    position = torch.arange(tokens)
    if not torch.equal(own[:, :tokens], position.expand(batch, tokens)) or bool((begin[:, :tokens] < 0).any()):
        return None
    starts = (begin[:, :tokens] == position).flatten().nonzero().flatten()
    return torch.cat([starts, torch.tensor([batch * tokens])]).int()


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring query rows [rows.start, rows.stop) of one sequence that begins at key `begin`; None: padding."""

    rows: slice
    begin: int | None
    stop: int  # one past the last row's own key


def runs(row_spans: Tensor) -> list[Run]:
    """The spans of one batch entry, (2 or more, q_length), as runs of rows.

    Example
        >>> [*runs(torch.tensor([[0, 0, 2, 2, 2], [0, 1, 2, 3, PADDED]]))]  # doctest: +NORMALIZE_WHITESPACE
        [Run(rows=slice(0, 2, None), begin=0, stop=2), Run(rows=slice(2, 4, None), begin=2, stop=4),
         Run(rows=slice(4, 5, None), begin=None, stop=0)]

    """
    begin, own = row_spans[0], row_spans[1]
    padded = own == PADDED
    follows = (begin[1:] == begin[:-1]) & (own[1:] == own[:-1] + 1) & ~padded[:-1] | padded[1:] & padded[:-1]
    cuts = [0, *((~follows).nonzero().flatten() + 1).tolist(), len(own)]
    found = []
    for lo, hi in pairwise(cuts):
        if lo < hi:
            start = None if padded[lo] else int(begin[lo])
            found.append(Run(slice(lo, hi), start, int(own[hi - 1]) + 1))
    return found


def _not_honoured(what: str) -> Unsupported:
    return Unsupported(
        "the model asks for a mask that a compiled pattern can't honour",
        where="the mask function of attn_implementation",
        got=what,
        expected="looking back, with a window at most, over sequences of neighbouring tokens; padding before or after",
        hint='attn_implementation="sdpa" for this model or batch',
    )
