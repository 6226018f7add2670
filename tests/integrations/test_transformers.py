"""Stock models of transformers over a registered pattern, beside dense oracles and each sequence alone."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pytest
import torch
from torch import Tensor

import sparsedsl as sd
from sparsedsl.codegen.build import CompiledAttention
from sparsedsl.errors import LayerMismatch, SparseDSLError, Unsupported, WrongType, WrongValue
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'sparsedsl[transformers]'")

from transformers import AttentionInterface, DynamicCache, StaticCache
from transformers.masking_utils import and_masks, causal_mask_function, packed_sequence_mask_function

from sparsedsl.integrations.spans import spans
from sparsedsl.integrations.transformers import register
from tests.integrations.models import CONFIGS, greedy, model_of, register_oracle, words

POWER = (sd.sliding(2) | sd.power() | sd.sink(1)).blocks(4) & sd.causal()
HEADS = sd.per_head([sd.sliding(4), sd.dilated(3, 3), sd.causal(), sd.sink(2) & sd.causal() | sd.sliding(1)])
PATTERNS: dict[str, Pattern | PerHead | Stack] = {
    "power blocks": POWER,
    "per head": HEADS,
    "stack": Stack([sd.sliding(5), HEADS]),
}

NAMES = {label: (f"sparse_{number}", f"oracle_{number}") for number, label in enumerate(PATTERNS)}
for label, (name, oracle_name) in NAMES.items():
    register(PATTERNS[label], name)
    register_oracle(oracle_name, PATTERNS[label])
POWER_NAME = NAMES["power blocks"][0]


def loss_and_gradients(model: Any, tokens: Tensor, **inputs: Any) -> list[Tensor]:
    model.train()
    out = model(tokens, labels=inputs.pop("labels", tokens), use_cache=False, **inputs)
    return [out.loss.detach(), *torch.autograd.grad(out.loss, [*model.parameters()])]


@pytest.mark.parametrize(
    ("family", "label"), [("llama", "power blocks"), ("llama", "per head"), *((each, "stack") for each in CONFIGS)]
)
def test_training_equals_dense_attention(family: str, label: str) -> None:
    ours, oracle = (model_of(family, name) for name in NAMES[label])
    tokens = words(2, 41)
    for got, want in zip(loss_and_gradients(ours, tokens), loss_and_gradients(oracle, tokens), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("family", "cache"),
    [*((each, "dynamic") for each in CONFIGS), *((each, "static") for each in ("llama", "gemma3")), ("llama", None)],
)
def test_generation_equals_recomputation(family: str, cache: str | None) -> None:
    label = "stack" if family == "llama" else "power blocks"
    ours, oracle = (model_of(family, name) for name in NAMES[label])
    prompt = words(2, 9)
    kind = {"use_cache": False} if cache is None else {"cache_implementation": cache}
    got = ours.generate(prompt, max_new_tokens=12, do_sample=False, **kind)
    assert torch.equal(got, greedy(oracle, prompt, 12))


def test_the_pattern_is_what_decides() -> None:
    """A model over another pattern differs: the tests above can fail."""
    tokens = words(1, 41)
    register(sd.sliding(3), "narrow")
    assert not torch.allclose(model_of("llama", "narrow")(tokens).logits, model_of("llama", POWER_NAME)(tokens).logits)


def test_chunked_prefill_equals_one_pass() -> None:
    model, tokens = model_of("llama", POWER_NAME), words(2, 30)
    # The argument's name has changed from one release to the next; the cache is filled in place.
    name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
    filled = {name: DynamicCache(config=model.config)}
    whole = model(tokens).logits
    parts = [model(part, **filled, use_cache=True).logits for part in tokens.split([7, 1, 15, 7], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole)


# --- padding and packing: each sequence as if it were alone


def padded(lengths: list[int], side: str) -> tuple[list[Tensor], Tensor, Tensor]:
    each, longest = [words(1, n, seed=n)[0] for n in lengths], max(lengths)
    tokens, mask = torch.zeros(len(each), longest, dtype=torch.int64), torch.zeros(len(each), longest)
    for row, sequence in enumerate(each):
        place = slice(longest - len(sequence), None) if side == "left" else slice(len(sequence))
        tokens[row, place], mask[row, place] = sequence, 1
    return each, tokens, mask


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("label", PATTERNS)
def test_padded_sequences_are_as_if_alone(side: str, label: str) -> None:
    model = model_of("llama", NAMES[label][0])
    each, tokens, mask = padded([19, 26, 19, 5], side)
    logits = model(tokens, attention_mask=mask).logits
    assert logits.isfinite().all()
    for row, sequence in enumerate(each):
        torch.testing.assert_close(logits[row, mask[row] == 1], model(sequence[None]).logits[0])


@pytest.mark.parametrize("side", ["left", "right"])
def test_gradients_of_padded_sequences_are_the_sums(side: str) -> None:
    model = model_of("qwen3", POWER_NAME)
    each, tokens, mask = padded([19, 26, 5], side)
    weight = [*model.parameters()]

    def total(logits: Tensor) -> Tensor:
        return (logits * torch.arange(logits.shape[-1])).square().sum()

    # Rotary angles are rounded to float32: the same positions give the same rounding.
    places = (mask.cumsum(1) - 1).clamp_min(0).long()
    logits = model(tokens, attention_mask=mask, position_ids=places).logits
    got = torch.autograd.grad(total(logits[mask == 1]), weight)
    alone = [torch.autograd.grad(total(model(sequence[None]).logits[0]), weight) for sequence in each]
    for ours, parts in zip(got, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(ours, sum(parts[1:], parts[0]))


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_left_padded_prompts_generate_as_if_alone(cache: str) -> None:
    model = model_of("llama", POWER_NAME)
    each, tokens, mask = padded([6, 13, 10], "left")
    options = {"max_new_tokens": 9, "do_sample": False}
    got = model.generate(tokens, attention_mask=mask, cache_implementation=cache, **options)
    for row, sequence in enumerate(each):
        assert torch.equal(got[row, -9:], model.generate(sequence[None], **options)[0, -9:])


def test_packed_sequences_are_as_if_alone() -> None:
    model = model_of("llama", POWER_NAME)
    lengths = [[9, 1, 20], [14, 16]]
    each = [[words(1, n, seed=n) for n in row] for row in lengths]
    tokens = torch.cat([torch.cat(row, 1) for row in each])
    places = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])
    logits = model(tokens, position_ids=places, use_cache=False).logits
    for row, sequences in enumerate(each):
        alone = torch.cat([model(sequence).logits for sequence in sequences], 1)
        torch.testing.assert_close(logits[row : row + 1], alone)


def test_packed_sequences_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of one by cu_seqlens, others by document ids; gradients are those of the sequences alone."""
    calls: list[dict[str, object]] = []
    attend = CompiledAttention.__call__

    def counted(self: CompiledAttention, *tensors: Tensor, **options: Any) -> Any:
        calls.append({name: each for name, each in options.items() if isinstance(each, Tensor)})
        return attend(self, *tensors, **options)

    monkeypatch.setattr(CompiledAttention, "__call__", counted)
    model, each = model_of("llama", POWER_NAME), [words(1, n, seed=n) for n in (9, 1, 20)]
    tokens, places = torch.cat(each, 1), torch.cat([torch.arange(n) for n in (9, 1, 20)])[None]
    bounds = torch.tensor([0, 9, 10, 30], dtype=torch.int32)
    weight = [*model.parameters()]
    alone = [model(sequence, use_cache=False).logits for sequence in each]
    want = torch.autograd.grad(torch.cat(alone, 1).square().sum(), weight)
    for extra in ({}, {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": 20, "max_length_k": 20}):
        calls.clear()
        logits = model(tokens, position_ids=places, use_cache=False, **extra).logits
        torch.testing.assert_close(logits, torch.cat(alone, 1))
        got = torch.autograd.grad(logits.square().sum(), weight)
        for ours, theirs in zip(got, want, strict=True):
            torch.testing.assert_close(ours, theirs)
        assert [[*call] for call in calls] == [["cu_seqlens"]] * 2
        assert all(torch.equal(call["cu_seqlens"], bounds) for call in calls)  # type: ignore[arg-type]
    calls.clear()
    model(tokens.expand(2, 30), position_ids=places.expand(2, 30), use_cache=False)
    assert [[*call] for call in calls] == [["document_ids"]] * 2


def test_bounds_that_differ_from_positions_are_refused() -> None:
    model, tokens = model_of("llama", POWER_NAME), words(1, 12)
    places = torch.cat([torch.arange(5), torch.arange(7)])[None]
    other = torch.tensor([0, 6, 12], dtype=torch.int32)
    with pytest.raises(Unsupported, match="tell different sequences"):
        model(tokens, position_ids=places, use_cache=False, cu_seq_lens_q=other, cu_seq_lens_k=other)
    with pytest.raises(Unsupported, match="packed sequences that a compiled pattern"):
        model(tokens, use_cache=False, cu_seq_lens_q=other, cu_seq_lens_k=torch.tensor([0, 5, 12]))


def test_batches_of_full_length_take_the_plain_road() -> None:
    """A mask of ones, and positions that count up, ask for nothing: one call for the batch."""
    model, tokens = model_of("llama", POWER_NAME), words(3, 20)
    plain = model(tokens).logits
    assert torch.equal(model(tokens, attention_mask=torch.ones(3, 20)).logits, plain)
    assert torch.equal(model(tokens, position_ids=torch.arange(20).expand(3, 20)).logits, plain)


# --- sliding windows


@pytest.mark.parametrize(
    ("family", "cache"),
    [("mistral", "static"), ("mistral", "dynamic"), ("gemma3", "static"), ("gemma2", "dynamic"), ("qwen2", "dynamic")],
)
def test_patterns_and_windows_intersect_where_asked(family: str, cache: str) -> None:
    changes: dict[str, Any] = {"sliding_window": 6}
    if family != "mistral":
        changes["layer_types"] = ["sliding_attention", "full_attention"]
    if family == "qwen2":
        changes["use_sliding_window"] = True
    register(POWER, "cut", window="intersect")
    register_oracle("cut_oracle", POWER, window=6)
    ours, oracle = model_of(family, "cut", **changes), model_of(family, "cut_oracle", **changes)
    tokens, prompt = words(2, 30), words(2, 9)
    torch.testing.assert_close(ours(tokens).logits, oracle(tokens, use_cache=False).logits)
    got = ours.generate(prompt, max_new_tokens=14, do_sample=False, cache_implementation=cache)
    assert torch.equal(got, greedy(oracle, prompt, 14))


def test_a_pattern_inside_the_window_needs_no_word() -> None:
    inside = sd.sliding(1).blocks(4) & sd.causal()
    register(inside, "inside")
    register_oracle("inside_oracle", inside)
    ours, oracle = (model_of("mistral", name, sliding_window=5) for name in ("inside", "inside_oracle"))
    prompt = words(2, 9)
    got = ours.generate(prompt, max_new_tokens=14, do_sample=False)
    assert torch.equal(got, greedy(oracle, prompt, 14))
    each, tokens, mask = padded([12, 7], "left")
    logits = ours(tokens, attention_mask=mask).logits
    torch.testing.assert_close(logits[1, 5:], oracle(each[1][None], use_cache=False).logits[0])


# --- training for real, compilation, checkpointing


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(reentrant: bool) -> None:
    tokens = words(2, 33)
    plain, saving = model_of("llama", POWER_NAME), model_of("llama", POWER_NAME)
    # Renamed between the releases that this is tested with.
    enable = getattr(saving, "activation_checkpointing_enable", saving.gradient_checkpointing_enable)
    enable({"use_reentrant": reentrant})
    want = loss_and_gradients(plain, tokens)
    saving.train()
    loss = saving(tokens, labels=tokens, use_cache=False).loss
    saving.zero_grad()
    torch.autograd.backward([loss])
    for got, expected in zip([loss.detach(), *(p.grad for p in saving.parameters())], want, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # Dynamo asks
def test_a_compiled_model_equals_eager() -> None:
    torch._dynamo.reset()
    tokens = words(2, 33)
    model = model_of("llama", POWER_NAME, layers=1)
    want = loss_and_gradients(model, tokens)
    compiled: Any = torch.compile(model, backend="aot_eager")
    for got, expected in zip(loss_and_gradients(compiled, tokens), want, strict=True):
        torch.testing.assert_close(got, expected)
    each, padded_tokens, mask = padded([19, 26], "left")
    logits = compiled(padded_tokens, attention_mask=mask, use_cache=False).logits
    torch.testing.assert_close(logits[0, 7:], model(each[0][None]).logits[0])


def test_training_lowers_the_loss() -> None:
    register(Stack([sd.sliding(8), POWER]), "trained")
    model = model_of("llama", "trained").float().train()
    tokens = (torch.arange(32) * 7 % 50 + 3).expand(2, 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    losses = []
    for _ in range(10):
        loss = model(tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


# --- what can't be honoured raises


def five_lines(error: SparseDSLError) -> None:
    assert [line[:11].strip() for line in str(error).splitlines()[1:]] == ["where", "got", "expected", "try"]


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("gemma2", {"attn_logit_softcapping": 50.0}, "softcap = 50.0"),
        ("llama", {"attention_dropout": 0.1}, "dropout = 0.1"),
        ("mistral", {"sliding_window": 5}, "sliding_window = 5"),
        ("gemma3", {"sliding_window": 5, "layer_types": ["sliding_attention"] * 2}, "sliding_window = 5"),
        ("llama", {"is_causal": False}, "a part 'bidirectional_mask_function' of the mask"),
    ],
)
def test_a_model_that_asks_for_more_is_refused(family: str, changes: dict[str, Any], message: str) -> None:
    model = model_of(family, POWER_NAME, **changes).train()
    with pytest.raises(Unsupported, match=message) as caught:
        model(words(1, 12))
    five_lines(caught.value)


def test_masks_that_are_not_honoured_are_refused() -> None:
    model, tokens = model_of("llama", POWER_NAME), words(2, 12)
    hole = torch.ones(2, 12)
    hole[1, 4] = 0
    square = torch.ones(2, 1, 12, 12, dtype=torch.bool).tril()
    for mask, message in ((hole, "padding between"), (square, "a mask of shape"), (square.double(), "4-D mask")):
        with pytest.raises(Unsupported, match=message) as caught:
            model(tokens, attention_mask=mask)
        five_lines(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_mask": torch.ones(2, 11)}, r"a mask of shape \(2, 11\) for 2 sequences of 12 tokens"),
        ({"attention_mask": torch.ones(3, 12)}, r"a mask of shape \(3, 12\)"),
        ({"seq_idx": torch.zeros(2, 12, dtype=torch.int32)}, "seq_idx = tensor"),
        ({"cu_seqlens": torch.tensor([0, 5, 12])}, "cu_seqlens = tensor"),
        ({"indices": torch.zeros(2, 12, 4, dtype=torch.int64)}, "indices = tensor"),
        ({"sinks": torch.zeros(4)}, "sinks = tensor"),
        ({"some_bias_of_a_later_release": torch.zeros(4)}, "some_bias_of_a_later_release = tensor"),
        ({"is_causal": False}, "a part 'bidirectional_mask_function' of the mask"),
    ],
)
def test_nothing_that_is_asked_is_ignored(changes: dict[str, Any], message: str) -> None:
    """A model hands what it does not know on to its attention."""
    with pytest.raises(Unsupported, match=message) as caught:
        model_of("llama", POWER_NAME)(words(2, 12), **changes)
    five_lines(caught.value)


def test_a_mask_of_the_new_tokens_alone_is_refused_after_a_cache() -> None:
    model, tokens = model_of("llama", POWER_NAME), words(2, 12)
    name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
    filled = {name: DynamicCache(config=model.config)}
    model(tokens[:, :9], **filled, use_cache=True)
    with pytest.raises(Unsupported, match=r"a mask of shape \(2, 3\) for 2 sequences of 12 tokens") as caught:
        model(tokens[:, 9:], attention_mask=torch.ones(2, 3), **filled, use_cache=True)
    five_lines(caught.value)


def test_attention_to_another_sequence_is_refused() -> None:
    """Without a mask or a word about causality: more queries than keys can't be the last tokens of the keys."""
    attend = AttentionInterface()[POWER_NAME]
    q, k = torch.zeros(1, 4, 7, 8), torch.zeros(1, 2, 5, 8)
    with pytest.raises(Unsupported, match="7 queries, 5 keys") as caught:
        attend(torch.nn.Module(), q, k, k, None)
    five_lines(caught.value)


def test_packings_that_can_t_be_told_apart_are_refused() -> None:
    packed = packed_sequence_mask_function(torch.tensor([[0, 0, 1, 1]]))
    sizes: dict[str, Any] = {"batch_size": 1, "q_length": 4, "kv_offset": 0, "attention_mask": None}
    twice = and_masks(causal_mask_function, packed, packed)
    with pytest.raises(Unsupported, match="two packings") as caught:
        spans(**sizes, kv_length=4, q_offset=0, mask_function=twice)
    five_lines(caught.value)
    with pytest.raises(Unsupported, match="packed sequences and keys of earlier calls") as caught:
        spans(**sizes, kv_length=9, q_offset=5, mask_function=and_masks(causal_mask_function, packed))
    five_lines(caught.value)


def test_stack_of_another_height_is_refused() -> None:
    register(sd.cycle([sd.sliding(4), POWER], layers=3), "tall")
    with pytest.raises(LayerMismatch, match="a Stack of 3 layers, a model of 2") as caught:
        model_of("llama", "tall")(words(1, 12))
    five_lines(caught.value)


def test_heads_of_another_number_are_refused() -> None:
    register(sd.per_head([sd.sliding(4)] * 3), "three")
    with pytest.raises(ValueError, match="3 head patterns"):
        model_of("llama", "three")(words(1, 12))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((sd.sliding(4, ahead=1), "ahead"), Unsupported),
        (("sliding(4)", "text"), WrongType),
        ((sd.sliding(4), "sdpa"), WrongValue),
        ((sd.sliding(4), "my_flash"), WrongValue),
        ((sd.sliding(4), "hub/kernel"), WrongValue),
    ],
)
def test_mistakes_at_registration(arguments: tuple[Any, ...], error: type[SparseDSLError]) -> None:
    with pytest.raises(error) as caught:
        register(*arguments)
    five_lines(caught.value)


def test_a_word_for_the_window_is_one_of_two() -> None:
    with pytest.raises(WrongValue, match="window"):
        register(sd.sliding(4), "sparse", window="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize(("family", "new"), [("llama", 3), ("qwen2", 1)])
def test_decoding_from_a_static_cache_reads_no_value(family: str, new: int) -> None:
    """One graph for every length: the whole step is traced, and a value that is read would break the graph."""
    torch._dynamo.reset()
    model, tokens = model_of(family, POWER_NAME), words(2, 40)
    name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
    filled = {name: StaticCache(model.config, 64)}
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph

    step: Any = torch.compile(model, backend=count, fullgraph=True, dynamic=False)
    with torch.no_grad():
        model(tokens[:, :30], **filled, use_cache=True)
        for first in range(30, 30 + 3 * new, new):
            got = step(tokens[:, first : first + new], **filled, use_cache=True).logits
            want = model(tokens[:, : first + new], use_cache=False).logits[:, -new:]
            torch.testing.assert_close(got, want)
    assert len(graphs) == 1


def test_the_prefill_of_a_static_cache_breaks_no_graph() -> None:
    """The layers are traced whole, attention in the same graph: what the cache holds is told without reading it."""
    torch._dynamo.reset()
    model, tokens = model_of("llama", POWER_NAME), words(2, 30)
    name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph

    prefill: Any = torch.compile(model, backend=count, fullgraph=True, dynamic=False)
    with torch.no_grad():
        want = model(tokens, use_cache=False).logits
        for each in (model, prefill):
            filled = {name: StaticCache(model.config, 64)}
            torch.testing.assert_close(each(tokens, **filled, use_cache=True).logits, want)
            got = model(tokens[:, :3], **filled, use_cache=True).logits
            torch.testing.assert_close(got, model(torch.cat([tokens, tokens[:, :3]], 1)).logits[:, -3:])
    assert len(graphs) == 1
