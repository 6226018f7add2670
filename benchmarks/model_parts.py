"""Parts of a benchmark of a whole model: the model, its cache, dense attention without a mask."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

DENSE, SPARSE, CAUSAL, UNMASKED = "sdpa", "power_benchmark", "causal_benchmark", "unmasked_benchmark"


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
    # The argument's name has changed from one release to the next.
    name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
    logits: Tensor = model(tokens, **{name: cache}, use_cache=True, logits_to_keep=1).logits
    return logits


def new_cache(model: Any, room: int) -> Any:
    """A static cache; it takes its memory at the first call."""
    from transformers import StaticCache

    return StaticCache(model.config, room)


def restart(cache: Any, last: Tensor, tokens: int) -> None:
    """The cache holds the prompt alone, and the next token to come is 0; the tensors stay where they are."""
    last.zero_()
    for layer in cache.layers:
        layer.cumulative_length.fill_(tokens)
