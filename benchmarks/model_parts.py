"""Parts of a benchmark of a whole model: the model, its layers compiled, its cache, attentions to compare with."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

DENSE, SPARSE, CAUSAL, UNMASKED = "sdpa", "power_benchmark", "causal_benchmark", "unmasked_benchmark"
FLOOR = "floor_benchmark"


def model_of(options: argparse.Namespace) -> Any:
    """The model with random weights, made where it runs."""
    import transformers

    config = transformers.Qwen2Config(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=options.intermediate,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.key_heads,
        max_position_embeddings=options.tokens + options.steps,
        use_sliding_window=False,
        attention_dropout=0.0,
    )
    torch.manual_seed(0)
    with torch.device(options.device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation=DENSE, dtype=getattr(torch, options.dtype)
        )
    return model.eval()


def cache_name(forward: Callable[..., object]) -> str:
    """What a forward calls its cache; the name has changed from one release to the next."""
    return "cache" if "cache" in signature(forward).parameters else "past_key_values"


class LayerCache:
    """What a compiled layer sees of a cache: the keys and values of its own, whatever number it asks for."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def update(self, keys: Tensor, values: Tensor, number: int, **others: object) -> tuple[Tensor, Tensor]:
        """Add keys and values; all that the layer holds."""
        found: tuple[Tensor, Tensor] = self.layer.update(keys, values)
        return found


@contextmanager
def compiled_layers(model: Any, *, backend: str, tuned: bool) -> Iterator[None]:
    """Each decoder layer is one graph of torch.compile, compiled once for all layers; the rest of the model is eager.

    A layer looks its part of the cache up by its own number, which would be a constant of the graph. So all layers have
    number 0 here, and each is handed its own part of the cache; an attention that differs by layer has no place here.
    What is compiled anew is a shape or an attention. `tuned` is the compiler's coordinate_descent_tuning: it measures
    the tiles of what it emits, and emits kernels of its own for products with one row.
    """
    torch.compiler.reset()
    layers = list(model.model.layers)
    name = cache_name(type(layers[0]).forward)
    options: Any = {"coordinate_descent_tuning": True} if tuned else None
    one = type(layers[0]).forward
    compiled: Any = torch.compile(one, fullgraph=True, dynamic=False, backend=backend, options=options)

    def forward(number: int, hidden: Tensor, **others: Any) -> Any:
        layer, part = layers[number], others.pop(name).layers[number]
        if not part.is_initialized:  # a graph would make the tensors anew each time
            attention = layer.self_attn
            heads = attention.config.num_key_value_heads
            nothing = hidden.new_empty(hidden.shape[0], heads, 0, attention.head_dim)
            part.lazy_initialization(nothing, nothing)
        return compiled(layer, hidden, **others, **{name: LayerCache(part)})

    for number, layer in enumerate(layers):
        layer.self_attn.layer_idx = 0
        layer.forward = partial(forward, number)
    try:
        yield
    finally:
        for number, layer in enumerate(layers):
            layer.self_attn.layer_idx = number
            del layer.forward


@contextmanager
def few_layers(model: Any, count: int) -> Iterator[None]:
    """The model has its first layers only."""
    layers = model.model.layers
    model.model.layers = layers[:count]
    try:
        yield
    finally:
        model.model.layers = layers


def register_floor() -> None:
    """An attention that costs nothing and gives its queries: what is left is the least that any attention leaves."""
    from transformers import AttentionInterface, AttentionMaskInterface

    def attention(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: object, **others: object) -> tuple[Tensor, None]:
        return q.transpose(1, 2).contiguous(), None

    AttentionInterface.register(FLOOR, attention)
    AttentionMaskInterface.register(FLOOR, lambda **sizes: None)


def register_unmasked(*, grouped: bool) -> None:
    """Dense attention of one token to the whole static cache, by sdpa in one of two forms."""
    from transformers import AttentionInterface, AttentionMaskInterface

    def attention(
        module: Any, q: Tensor, k: Tensor, v: Tensor, attention_mask: object, scaling: float, **others: object
    ) -> tuple[Tensor, None]:
        out = FORMS["grouped" if grouped else "enable_gqa"](q, k, v, scale=scaling)
        return out.reshape(q.shape).transpose(1, 2).contiguous(), None

    AttentionInterface.register(UNMASKED, attention)
    AttentionMaskInterface.register(UNMASKED, lambda **sizes: None)


def by_groups(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """One token sees every key, so the heads that share a key head may stand as queries of one head."""
    return scaled_dot_product_attention(q.unflatten(1, (k.shape[1], -1)).squeeze(3), k, v, **options)


FORMS: dict[str, Callable[..., Tensor]] = {
    "enable_gqa": partial(scaled_dot_product_attention, enable_gqa=True),
    "grouped": by_groups,
}


def call(model: Any, tokens: Tensor, cache: Any) -> Tensor:
    """The logits of the last token; the cache grows."""
    logits: Tensor = model(tokens, **{cache_name(model.forward): cache}, use_cache=True, logits_to_keep=1).logits
    return logits


def new_cache(model: Any, room: int) -> Any:
    """A static cache; it takes its memory at the first call."""
    from transformers import StaticCache

    return StaticCache(model.config, room)


def repeated_cache(model: Any, cache: Any, batch: int) -> Any:
    """A cache of so many sequences, each a copy of the one that this cache holds."""
    if batch == 1:
        return cache
    wide = new_cache(model, cache.layers[0].max_cache_len)
    for one, many in zip(cache.layers, wide.layers, strict=True):
        keys, values = (each.expand(batch, -1, -1, -1) for each in (one.keys, one.values))
        many.lazy_initialization(keys, values)
        many.keys.copy_(keys)
        many.values.copy_(values)
    return wide


def restart(cache: Any, last: Tensor, tokens: int) -> None:
    """The cache holds the prompt alone, and the next token to come is 0; the tensors stay where they are."""
    last.zero_()
    for layer in cache.layers:
        layer.cumulative_length.fill_(tokens)
