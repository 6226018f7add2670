"""Stock models of transformers over a pattern on the GPU: Triton kernels, bf16, compiled static caches."""

from __future__ import annotations

from inspect import signature

import pytest
import torch
from torch import Tensor

import sparsedsl as sd

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'sparsedsl[transformers]'")

from sparsedsl.integrations.transformers import register
from tests.integrations.models import model_of, register_oracle, words

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]  # the library's compilation warns in many ways

STACK = sd.cycle([(sd.sliding(2) | sd.power() | sd.sink(1)).blocks(64) & sd.causal(), sd.sliding(48)], layers=2)


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gemma3"])
def test_training_in_bf16_follows_float64(family: str) -> None:
    register(STACK, "on_gpu")
    register_oracle("on_gpu_oracle", STACK)
    squares: list[Tensor] = []  # [parameter, whose error: ours, eager's, and the exact gradient itself]
    for seed in range(3):  # one batch's errors in a small gradient are nearly one number, seen by several parameters
        tokens = words(2, 1000, seed).cuda()
        results = []
        for name, dtype in (
            ("on_gpu", torch.bfloat16),
            ("on_gpu_oracle", torch.bfloat16),
            ("on_gpu_oracle", torch.float64),
        ):
            model = model_of(family, name, max_position_embeddings=1024).to("cuda", dtype).train()
            loss = model(tokens, labels=tokens, use_cache=False).loss
            results.append([each.double() for each in torch.autograd.grad(loss, [*model.parameters()])])
        far = [(ours - exact, eager - exact, exact) for ours, eager, exact in zip(*results, strict=True)]
        squares.append(torch.stack([torch.stack([each.square().sum() for each in three]) for three in far]))
    ours, eager, exact = torch.stack(squares).sum(0).sqrt().unbind(1)
    assert (ours <= 2 * eager + 1e-3 * exact).all(), ours / eager


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generation_with_padded_prompts_equals_each_alone(cache: str) -> None:
    register(STACK, "on_gpu")
    model = model_of("llama", "on_gpu").to("cuda", torch.float32)
    tokens, mask = words(2, 90).cuda(), torch.ones(2, 90, device="cuda")
    mask[1, :37] = 0
    options = {"max_new_tokens": 20, "do_sample": False}
    got = model.generate(tokens, attention_mask=mask, cache_implementation=cache, **options)
    for row, start in enumerate((0, 37)):
        alone = tokens[row : row + 1, start:]
        for _ in range(20):
            with torch.no_grad():
                alone = torch.cat([alone, model(alone, use_cache=False).logits[:, -1:].argmax(-1)], 1)
        assert torch.equal(got[row, -20:], alone[0, -20:])


def test_a_captured_decode_step_follows_the_cache() -> None:
    """A step over a static cache as a CUDA graph, replayed at lengths that it was not captured at."""
    from transformers import StaticCache

    register(STACK, "on_gpu")
    model, tokens = model_of("llama", "on_gpu").to("cuda", torch.float32), words(1, 90).cuda()
    name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
    filled, last = {name: StaticCache(model.config, 128)}, torch.zeros(1, 1, dtype=torch.int64, device="cuda")
    with torch.no_grad():
        model(tokens[:, :70], **filled, use_cache=True)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for place in (70, 71):
                model(last.copy_(tokens[:, place : place + 1]), **filled, use_cache=True)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = model(last, **filled, use_cache=True).logits
        for place in range(72, 90):
            last.copy_(tokens[:, place : place + 1])
            graph.replay()
            want = model(tokens[:, : place + 1], use_cache=False).logits[:, -1:]
            torch.testing.assert_close(logits, want, rtol=1e-3, atol=1e-3)
