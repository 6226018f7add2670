"""Attention for Hugging Face's transformers: `register` a pattern under a name, load a stock model with that name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from sparsedsl.codegen.build import CompiledAttention, compile
from sparsedsl.constructors import sliding
from sparsedsl.errors import LayerMismatch, NoNormalForm, Unsupported, WrongType, WrongValue, shown
from sparsedsl.integrations.spans import runs, sequence_starts, spans
from sparsedsl.layers import Layer, PerHead, Stack
from sparsedsl.normal import normalise
from sparsedsl.pattern import Pattern

# What models hand to their attention and what changes nothing there. Anything else asks for something: soft-capping,
# sinks, biases, indices of chosen keys, packed caches ...
CHANGES_NOTHING = (
    "cache_position",
    "cu_seq_lens_k",  # looked at by `cu_seqlens`
    "cu_seq_lens_q",
    "deterministic",
    "is_causal",  # looked at by itself
    "logits_to_keep",
    "max_length_k",
    "max_length_q",
    "num_items_in_batch",
    "output_hidden_states",
    "output_router_logits",
    "position_embeddings",
    "position_ids",  # sequences that restart come with the mask
    "return_dict",
    "use_cache",
)
# New tokens up to this many read a static cache as far as the device says that it is filled, and no value is read. More
# are a prefill, for which reading one number is cheaper than the kernels for caches.
FEW_TOKENS = 16


def register(
    pattern: Pattern | PerHead | Stack, name: str = "sparsedsl", *, window: Literal["refuse", "intersect"] = "refuse"
) -> None:
    """Make a pattern an attention implementation of transformers: `from_pretrained(..., attn_implementation=name)`.

    Set
        A token sees the keys that the pattern names, counted from the first token of its own sequence, among those that
        the model's mask leaves it: padding, packed sequences and caches are honoured, and what can't be raises.
    Cost
        Tens of milliseconds a pattern. Packed sequences are one call; a batch whose rows are padded in different ways
        is run sequence by sequence, one kernel launch each, no mask. The lengths are read once a forward pass, not at
        all where cu_seq_lens_q tells them and positions do not restart.
    Raises
        WrongType, WrongValue: no pattern; a name that transformers gives a meaning of its own; another word for window.
        Unsupported: transformers is missing, or the pattern looks ahead. At the first call of the model: a Stack of
        another number of layers (LayerMismatch), dropout, soft-capping, and masks that can't be honoured; and, unless
        window="intersect", a layer with a sliding window that the pattern leaves.
    Example
        `register(sliding(1024) | sink(4) & causal(), "sparse")`, then `AutoModelForCausalLM.from_config(config,
        attn_implementation="sparse")`.
    """
    _check_name(name)
    if window not in ("refuse", "intersect"):
        raise WrongValue(
            "window says what to do with a layer's sliding window",
            where=f"register(..., window={shown(window)})",
            got=f"window = {shown(window)}",
            expected="'refuse' or 'intersect'",
            hint='window="intersect" for pattern & sliding(w)',
        )
    layers = Layers(pattern, intersect=window == "intersect")
    attention_interface, mask_interface, causal_mask_function = _interfaces()

    def attention_mask(
        *,
        batch_size: int,
        q_length: int,
        kv_length: int,
        q_offset: int | Tensor = 0,
        kv_offset: int = 0,
        mask_function: Callable[..., object],
        attention_mask: Tensor | None = None,
        device: torch.device | str = "cpu",
        **ignored: object,  # dtype, config and hints for other implementations
    ) -> Tensor | None:
        # Nothing but looking back: no value of a tensor is read, so torch.compile may trace it.
        plain = mask_function is causal_mask_function and attention_mask is None and kv_offset == 0
        if plain and isinstance(q_offset, int):
            filled = q_offset + q_length
            return None if kv_length == filled else keys_filled(filled, batch_size, device)
        if plain and isinstance(q_offset, Tensor) and q_length <= FEW_TOKENS and not torch.is_grad_enabled():
            return keys_in_use(q_offset + q_length, batch_size)
        found: Tensor | None = spans_untraced(
            batch_size=batch_size,
            q_length=q_length,
            kv_length=kv_length,
            q_offset=q_offset,
            kv_offset=kv_offset,
            mask_function=mask_function,
            attention_mask=attention_mask,
        )
        return found

    def attention(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        sliding_window: int | None = None,
        **others: object,
    ) -> tuple[Tensor, None]:
        check_call(module, dropout, others)
        if query.shape[2] > key.shape[2]:
            raise _more_queries(query, key)
        layer = layers.number(module)
        documents = cu_seqlens(module, query, key, others.get("cu_seq_lens_q"), others.get("cu_seq_lens_k"))
        if attention_mask is not None and not attention_mask.numel():
            filled, attention_mask = attention_mask.shape[3], None
            key, value = key[:, :, :filled], value[:, :, :filled]
        if attention_mask is None and sliding_window is None:
            out = layers.plain[layer](query, key, value, scale=scaling, cu_seqlens=documents)
        elif attention_mask is not None and attention_mask.dtype == torch.int32:
            attn = layers.plain[layer] if sliding_window is None else layers.windowed(layer, sliding_window)
            out = attn(query, key, value, scale=scaling, cache_seqlens=attention_mask.flatten())
        else:
            out = attend_spans(layers, layer, query, key, value, attention_mask, scaling, sliding_window, documents)
        return out.transpose(1, 2).contiguous(), None

    attention_interface.register(name, attention)
    mask_interface.register(name, attention_mask)


class Layers:
    """The compiled patterns of a model's layers, a cycle of them; with those cut to a window made on first use."""

    def __init__(self, pattern: Pattern | PerHead | Stack, *, intersect: bool) -> None:
        if not isinstance(pattern, Pattern | PerHead | Stack):
            raise WrongType(
                "register takes a pattern",
                where=f"register({shown(pattern)})",
                got=f"{shown(pattern)} of type {type(pattern).__name__}",
                expected="a Pattern, a PerHead or a Stack",
                hint="register(sliding(1024))",
            )
        self.patterns: tuple[Layer, ...] = pattern.patterns if isinstance(pattern, Stack) else (pattern,)
        self.count = len(pattern) if isinstance(pattern, Stack) else None
        self.intersect = intersect
        self.plain = tuple(_compiled(each) for each in self.patterns)

    def number(self, module: torch.nn.Module) -> int:
        """Which of the patterns belongs to the layer of this attention module."""
        if self.count is None:
            return 0
        layer = getattr(module, "layer_idx", None)
        count = getattr(getattr(module, "config", None), "num_hidden_layers", None)
        if layer is None or count != self.count:
            raise LayerMismatch(
                "the stack and the model disagree on the number of layers",
                where=f"register(stack, ...), called by layer {layer} of {type(module).__name__}",
                got=f"a Stack of {self.count} layers, a model of {count}",
                expected="one pattern for each layer of the model",
                hint=f"cycle([...], layers={count})",
            )
        return int(layer) % len(self.patterns)

    def windowed(self, layer: int, window: int) -> CompiledAttention:
        """The pattern of a layer inside a sliding window of so many keys, the query's own included."""
        pattern = self.patterns[layer]
        if _inside(pattern, window):
            return self.plain[layer]
        if self.intersect:
            return _compiled(pattern & sliding(window))
        raise Unsupported(
            "the layer has a sliding window, and the pattern leaves it",
            where=f"pattern {shown(pattern)}",
            got=f"sliding_window = {window}",
            expected=f"a pattern inside sliding({window}), or word on what to do",
            hint='register(..., window="intersect"), or sliding_window=None in the config',
        )


def keys_in_use(length: Tensor, batch_size: int) -> Tensor:
    """The keys that a static cache will hold, one number for all its rows and on the device.

    Four dimensions, because transformers passes a 4-D mask on as it is; int32, which no span is.

    Example
        >>> keys_in_use(torch.tensor(7), 2).flatten()
        tensor([7, 7], dtype=torch.int32)

    """
    return length.to(torch.int32).reshape(1, 1, 1, 1).expand(batch_size, 1, 1, 1)


def keys_filled(length: int, batch_size: int, device: torch.device | str = "cpu") -> Tensor:
    """The keys that a static cache will hold where the host knows it: a shape without content tells it.

    Example
        >>> keys_filled(7, 2).shape
        torch.Size([2, 1, 0, 7])

    """
    return torch.empty(batch_size, 1, 0, length, dtype=torch.int32, device=device)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def spans_untraced(*, q_offset: int | Tensor, **sizes: Any) -> Tensor | None:
    """`spans`; it reads values, so torch.compile runs it between two graphs."""
    return spans(q_offset=int(q_offset), **sizes)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend_spans(
    layers: Layers,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    spans: Tensor | None,
    scaling: float | None,
    window: int | None,
    documents: Tensor | None,
) -> Tensor:
    """Packed attention where all sequences begin here, run by run where not; rows of padding give 0."""
    if spans is not None:
        _check_spans(spans, query)
        wanted = int(spans[0, 2, 0, 0])
        window = min(window or wanted, wanted) if wanted else window
    attn = layers.plain[layer] if window is None else layers.windowed(layer, window)
    if spans is None:
        return attn(query, key, value, scale=scaling, cu_seqlens=documents)
    rows = spans[:, :, :, 0].cpu()
    starts = sequence_starts(rows, key.shape[2])
    if documents is not None and (starts is None or not torch.equal(starts, documents.cpu())):
        raise Unsupported(
            "cu_seq_lens_q and the positions or the mask tell different sequences",
            where="cu_seq_lens_q of the call",
            got=f"cu_seq_lens_q = {shown(documents.tolist())}",
            expected="the sequences at which position_ids restart, and no padding but at the end",
            hint="position_ids that restart, without cu_seq_lens_q and attention_mask",
        )
    if starts is not None and len(starts) > 2:
        if len(rows) == 1:
            return attn(query, key, value, scale=scaling, cu_seqlens=starts.to(query.device))
        return attn(query, key, value, scale=scaling, document_ids=rows[:, 0].to(query.device))
    entries: list[list[tuple[torch.Size, Tensor | None]]] = []
    lo = 0
    while lo < len(rows):
        hi = lo + 1
        while hi < len(rows) and torch.equal(rows[hi], rows[lo]):
            hi += 1
        # Entries with equal spans are run together.
        pieces: list[tuple[torch.Size, Tensor | None]] = []
        for run in runs(rows[lo]):
            q = query[lo:hi, :, run.rows]
            if run.begin is None:
                pieces.append((q.shape, None))
                continue
            keys = slice(max(run.begin, 0), run.stop)
            # What a sliding cache has dropped is never read: zeros in its place keep the positions.
            front = (0, 0, max(-run.begin, 0), 0)
            k, v = (torch.nn.functional.pad(each[lo:hi, :, keys], front) for each in (key, value))
            pieces.append((q.shape, attn(q, k, v, scale=scaling)))
        entries.append(pieces)
        lo = hi
    made = next((out for pieces in entries for _, out in pieces if out is not None), query)
    filled = [[made.new_zeros(shape) if out is None else out for shape, out in pieces] for pieces in entries]
    return torch.cat([torch.cat(pieces, 2) for pieces in filled])


def check_call(module: torch.nn.Module, dropout: float, others: dict[str, object]) -> None:
    """Raise Unsupported where a model asks for what attention over a pattern does not do."""
    asked = {
        name: value
        for name, value in others.items()
        if name not in CHANGES_NOTHING and value is not None and value is not False
    }
    if dropout:
        asked["dropout"] = dropout
    causal = others.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        asked["is_causal"] = False
    if asked:
        raise Unsupported(
            "the model asks for attention that a compiled pattern does not do",
            where=f"the attention of {type(module).__name__}",
            got=", ".join(f"{name} = {shown(value)}" for name, value in asked.items()),
            expected="no dropout, soft-capping, biases, weights or packed caches; attention that looks back",
            hint='attention_dropout=0.0 and attn_logit_softcapping=None in the config, or attn_implementation="eager"',
        )


def cu_seqlens(module: torch.nn.Module, query: Tensor, key: Tensor, cu_q: object, cu_k: object) -> Tensor | None:
    """The bounds of packed sequences that a model was given, as flash attention takes them; None without."""
    if cu_q is None and cu_k is None:
        return None
    fits = query.shape[0] == 1 and query.shape[2] == key.shape[2]
    if (
        fits
        and isinstance(cu_q, Tensor)
        and isinstance(cu_k, Tensor)
        and (cu_q is cu_k or torch.equal(cu_q.long(), cu_k.long()))
    ):
        return cu_q.to(query.device, torch.int32)
    raise Unsupported(
        "the model asks for packed sequences that a compiled pattern can't honour",
        where=f"the attention of {type(module).__name__}",
        got=f"cu_seq_lens_q = {shown(cu_q)}, cu_seq_lens_k = {shown(cu_k)}, {tuple(query.shape)} queries",
        expected="the same bounds for queries and keys, in a batch of 1, no cache",
        hint="position_ids that restart, without cu_seq_lens_q",
    )


def _more_queries(query: Tensor, key: Tensor) -> Unsupported:
    return Unsupported(
        "there are more queries than keys, so the queries are not the last tokens of the keys",
        where="the attention of a layer",
        got=f"{query.shape[2]} queries, {key.shape[2]} keys",
        expected="attention of a sequence to itself and to what a cache holds",
        hint='attn_implementation="sdpa" for attention to another sequence',
    )


def _check_spans(spans: Tensor, query: Tensor) -> None:
    if spans.dtype != torch.int64 or spans.shape != (query.shape[0], 3, query.shape[2], 1):
        raise Unsupported(
            "a 4-D mask can't be honoured: the pattern is the mask",
            where="attention_mask",
            got=f"a mask of shape {tuple(spans.shape)} and type {spans.dtype}",
            expected="the 2-D mask of padding, (batch, positions), or None",
            hint='attn_implementation="sdpa" for masks of one\'s own',
        )


@cache
def _compiled(pattern: Layer) -> CompiledAttention:
    attn = compile(pattern)
    if not attn.causal:
        raise Unsupported(
            "the pattern looks ahead, a decoder does not",
            where=f"register({shown(pattern)})",
            got="keys after their query",
            expected="a pattern inside causal()",
            hint="pattern & causal()",
        )
    return attn


@cache
def _inside(pattern: Layer, window: int) -> bool:
    """Whether the pattern is known to lie inside a sliding window."""
    if isinstance(pattern, PerHead):
        return all(_inside(head, window) for head in pattern.heads)
    try:
        rest = normalise(pattern - sliding(window))
    except NoNormalForm:
        return False
    return not any(row for _, cell in rest.pieces() for row in cell.rows)


def _check_name(name: str) -> None:
    taken = ("eager", "sdpa", "flex_attention")
    # transformers reads "flash" as one of its flash kernels, "/" as a kernel to download, "|" as a paged cache.
    if str(name).isidentifier() and "flash" not in name and name not in taken:
        return
    raise WrongValue(
        "transformers gives this name a meaning of its own, or none",
        where=f"register(..., {shown(name)})",
        got=f"name = {shown(name)}",
        expected="letters, digits and _, without 'flash', not one of eager, sdpa, flex_attention",
        hint='register(pattern, "sparse")',
    )


def _interfaces() -> tuple[Any, Any, Callable[..., object]]:
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import causal_mask_function
    except ImportError as reason:
        raise Unsupported(
            "transformers is missing, or too old",
            where="register(...)",
            got=str(reason),
            expected="transformers 5.17 or newer",
            hint="pip install 'sparsedsl[transformers]'",
        ) from None
    return AttentionInterface, AttentionMaskInterface, causal_mask_function
