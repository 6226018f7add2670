"""Small stock models of transformers with random weights, and dense oracles for them."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from tests.codegen.oracle import dense_attention, dense_mask

HEADS, KEY_HEADS, WORDS = 4, 2, 61
SIZES = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_HEADS,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
# What makes each stock config one that a pattern alone can honour.
CONFIGS: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("LlamaConfig", {}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "gemma2": (
        "Gemma2Config",
        {"attn_logit_softcapping": None, "final_logit_softcapping": None, "layer_types": ["full_attention"] * 2},
    ),
    "gemma3": ("Gemma3TextConfig", {"layer_types": ["full_attention"] * 2}),
}


def model_of(family: str, implementation: str, *, layers: int = 2, **changes: object) -> Any:
    """A model in float64; the same weights for the same family and sizes."""
    config_class, own = CONFIGS[family]
    config = getattr(transformers, config_class)(**{**SIZES, "num_hidden_layers": layers, **own, **changes})
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    return model.double().eval()


def register_oracle(name: str, pattern: Pattern | PerHead | Stack, *, window: int | None = None) -> None:
    """Dense attention over each layer's boolean matrix, for unpadded batches: no code of the integration."""

    def attention(
        module: Any, q: Tensor, k: Tensor, v: Tensor, attention_mask: object, **others: Any
    ) -> tuple[Tensor, None]:
        layer = pattern[module.layer_idx] if isinstance(pattern, Stack) else pattern
        mask = dense_mask(layer, q.shape[1], q.shape[2], k.shape[2], None)
        if window is not None and others.get("sliding_window"):
            distance = torch.arange(q.shape[2])[:, None] + k.shape[2] - q.shape[2] - torch.arange(k.shape[2])
            mask = mask & (distance < window)
        out, _ = dense_attention(q, k, v, mask.to(q.device), others["scaling"])
        return out.transpose(1, 2), None

    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, lambda **sizes: None)


def words(batch: int, length: int, seed: int = 0) -> Tensor:
    """Random tokens, none of them the padding."""
    return torch.randint(1, WORDS, (batch, length), generator=torch.Generator().manual_seed(seed))


def greedy(model: Any, prompt: Tensor, new: int) -> Tensor:
    """Greedy tokens with everything recomputed at each: no cache, no generate."""
    with torch.no_grad():
        for _ in range(new):
            prompt = torch.cat([prompt, model(prompt, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    return prompt
