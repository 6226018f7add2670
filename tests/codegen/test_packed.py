"""Packed documents: kernels in Triton's interpreter and the CPU road, against dense block-diagonal attention."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import sparsedsl as sd
from sparsedsl.codegen import plan as planning
from sparsedsl.codegen.emit import emit
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from sparsedsl.patterns.catalogue import CATALOGUE
from tests.codegen.modules import SMALL, imported, module_of, source_of
from tests.codegen.oracle import assert_within_rule, dense_attention, dense_mask
from tests.codegen.test_golden import layer_of
from tests.codegen.test_kernels import IN_PARTS, PATTERNS, road

__all__ = ["road"]

pytestmark = pytest.mark.filterwarnings(
    *(f"ignore:{words}:RuntimeWarning" for words in ("divide by zero", "invalid value", "overflow", "All-NaN"))
)

Attend = Callable[..., tuple[Tensor, Tensor]]
# A document of one token, of a whole tile, an empty one, one that ends in a tile, and padding behind them.
CUTS = (0, 1, 17, 17, 54, 61)
LENGTH = 66
# Every road and order of the kernels, which the interpreter walks slowly.
WALKED = ("power blocks", "both ways", "uneven steps ahead", "random, both ways", "heads on both roads")
OF_PARTS = ("local and dilated", "longnet")


def bounds(cuts: tuple[int, ...] | list[int]) -> Tensor:
    return torch.tensor(cuts, dtype=torch.int32)


def inputs(length: int, heads: int = 4, key_heads: int = 2, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """q, k, v and a weight for the output."""
    torch.manual_seed(length)
    return [torch.randn(1, each, length, 16).to(dtype) for each in (heads, key_heads, key_heads, heads)]


def results(outcome: tuple[Tensor, Tensor], leaves: list[Tensor], weight: Tensor) -> list[Tensor]:
    """Output, dq, dk, dv, log-sum-exp; the log-sum-exp takes part in the loss."""
    out, lse = outcome
    finite = torch.where(lse == float("-inf"), 0.0, lse)
    gradients = torch.autograd.grad((out * weight).sum() + finite.sin().sum(), leaves)
    return [out.detach(), *gradients, lse.detach()]


def packed(module: ModuleType, tensors: list[Tensor], **documents: Tensor) -> list[Tensor]:
    *leaves, weight = (each.detach().requires_grad_() for each in tensors)
    return results(module.attention(*leaves, return_lse=True, **documents), leaves, weight)


def block_diagonal(pattern: Pattern | PerHead, heads: int, length: int, cuts: tuple[int, ...]) -> Tensor:
    """(heads, length, length): in each document the pattern from position 0 on."""
    mask = torch.zeros(heads, length, length, dtype=torch.bool)
    for first, end in pairwise(cuts):
        if first < end:
            mask[:, first:end, first:end] = dense_mask(pattern, heads, end - first, end - first, None)
    return mask


def dense(pattern: Pattern | PerHead, tensors: list[Tensor], cuts: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    q, k, v, weight = (each.detach().to(dtype).requires_grad_() for each in tensors)
    mask = block_diagonal(pattern, q.shape[1], q.shape[2], cuts)
    out, lse = dense_attention(q, k, v, mask, 0.25)
    return results((out, torch.where(mask.any(-1), lse, float("-inf"))), [q, k, v], weight)


def some(pattern: Pattern | PerHead, length: int = LENGTH, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Inputs of two query heads to a key head, no more heads than the pattern asks for."""
    heads = len(pattern.heads) if isinstance(pattern, PerHead) else 2
    return inputs(length, heads, heads // 2, dtype)


def assert_equals_dense(
    module: ModuleType, pattern: Pattern | PerHead, tensors: list[Tensor], cuts: tuple[int, ...] = CUTS
) -> None:
    """By the rule for errors; closely where all is in float64, which only the CPU road takes."""
    exact = dense(pattern, tensors, cuts, torch.float64)
    if tensors[0].dtype == torch.float64:
        torch.testing.assert_close(packed(module, tensors, cu_seqlens=bounds(cuts)), exact)
        return
    got = packed(module, tensors, cu_seqlens=bounds(cuts))
    assert_within_rule(got[:4], exact[:4], dense(pattern, tensors, cuts, tensors[0].dtype)[:4])
    torch.testing.assert_close(got[4].double(), exact[4], rtol=1e-2, atol=1e-2)


# --- equal to dense attention over the block-diagonal mask


@pytest.mark.parametrize("name", WALKED)
def test_kernels_equal_dense(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert_equals_dense(module_of(PATTERNS[name]), PATTERNS[name], some(PATTERNS[name]))


@pytest.mark.parametrize("name", OF_PARTS)
def test_kernels_of_several_parts_equal_dense(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(planning, "GAIN", float("inf"))
    assert_equals_dense(imported(emit(IN_PARTS[name], SMALL)), IN_PARTS[name], some(IN_PARTS[name]))


@pytest.mark.parametrize("name", PATTERNS)
def test_cpu_road_equals_dense(name: str) -> None:
    assert_equals_dense(module_of(PATTERNS[name]), PATTERNS[name], some(PATTERNS[name], dtype=torch.float64))


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_catalogue_equals_dense(name: str) -> None:
    pattern = layer_of(name)
    assert_equals_dense(module_of(pattern), pattern, some(pattern, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_half_types_equal_dense(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    # The interpreter multiplies bf16 wrongly; that type takes the CPU road.
    if dtype == torch.float16:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert_equals_dense(module_of(PATTERNS["sliding"]), PATTERNS["sliding"], some(sd.sliding(20), dtype=dtype))


# --- exact properties


@pytest.mark.parametrize("name", ["strided", "random blocks"])
def test_each_document_is_an_ordinary_call_to_the_bit(name: str, road: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, tensors = module_of(PATTERNS[name]), some(PATTERNS[name])
    # A short ordinary call would split its keys, and sum in another order.
    monkeypatch.setattr(module, "FEW_QUERIES", 0)
    together = packed(module, tensors, cu_seqlens=bounds(CUTS))
    for first, end in ((0, 1), (17, 54), (54, 61)):
        alone = packed(module, [each[:, :, first:end] for each in tensors])
        for ours, want in zip(together, alone, strict=True):
            assert torch.equal(ours[:, :, first:end], want)


def test_one_document_is_the_ordinary_call_to_the_bit(road: str) -> None:
    module, tensors = module_of(PATTERNS["global"]), some(PATTERNS["global"], 40)
    got = packed(module, tensors, cu_seqlens=bounds((0, 40)))
    for ours, want in zip(got, packed(module, tensors), strict=True):
        assert torch.equal(ours, want)


def test_rows_of_no_document_are_exactly_empty(road: str) -> None:
    tensors = some(PATTERNS["both ways"])
    out, dq, dk, dv, lse = packed(module_of(PATTERNS["both ways"]), tensors, cu_seqlens=bounds((5, 20, 61)))
    for rows in (slice(0, 5), slice(61, None)):
        assert (lse[:, :, rows] == float("-inf")).all()
        for each in (out, dq, dk, dv):
            assert (each[:, :, rows] == 0).all()
    assert (lse[:, :, 5:61] > float("-inf")).all()


POISONED = ("both ways", "random, both ways")


def poisoned(module: ModuleType) -> tuple[list[Tensor], list[Tensor]]:
    """Results with NaN and infinity in the second document and in the padding, and without, less those rows."""
    tensors = inputs(LENGTH, 2, 1)
    clean = packed(module, tensors, cu_seqlens=bounds((0, 21, 38, 59)))
    for each, value in zip(tensors, ("nan", "inf", "nan", "-inf"), strict=True):
        each[:, :, 21:38] = float(value)
        each[:, :, 59:] = float("nan")
    dirty = packed(module, tensors, cu_seqlens=bounds((0, 21, 38, 59)))
    rows = [*range(21), *range(38, 59)]
    return [each[:, :, rows] for each in dirty], [each[:, :, rows] for each in clean]


@pytest.mark.parametrize("name", POISONED)
def test_another_documents_nan_does_not_leak(name: str, road: str) -> None:
    for ours, want in zip(*poisoned(module_of(PATTERNS[name])), strict=True):
        assert torch.equal(ours, want)


def test_tiles_that_run_past_their_document_would_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    source = source_of(PATTERNS["global"])
    longer = source.replace("first + q_len, END - q_len", "rows, END - rows + first")
    assert longer != source
    dirty, clean = poisoned(imported(longer))
    assert not all(torch.equal(ours, want) for ours, want in zip(dirty, clean, strict=True))


@settings(max_examples=3)
@given(st.lists(st.integers(0, 24), min_size=2, max_size=7).map(sorted))
def test_any_cuts_on_the_kernels(cuts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        pattern = sd.sliding(5, ahead=2)
        assert_equals_dense(module_of(pattern), pattern, inputs(24, 1, 1), tuple(cuts))


@settings(max_examples=20)
@given(st.lists(st.integers(0, 90), min_size=2, max_size=20).map(sorted), st.sampled_from(sorted(PATTERNS)))
def test_any_cuts_on_the_cpu_road(cuts: list[int], name: str) -> None:
    pattern = PATTERNS[name]
    assert_equals_dense(module_of(pattern), pattern, some(pattern, 90, torch.float64), tuple(cuts))


# --- documents by id


def test_document_ids_take_a_batch(road: str) -> None:
    module = module_of(PATTERNS["power blocks"])
    ids = torch.tensor([[7] * 5 + [3] * 17, [3] * 21 + [9]])
    torch.manual_seed(0)
    tensors = [torch.randn(2, heads, 22, 16) for heads in (2, 1, 1, 2)]
    got = packed(module, tensors, document_ids=ids)
    for row, cuts in enumerate(((0, 5, 22), (0, 21, 22))):
        one = packed(module, [each[row : row + 1] for each in tensors], cu_seqlens=bounds(cuts))
        for ours, want in zip(got, one, strict=True):
            assert torch.equal(ours[row : row + 1], want)


def test_document_starts() -> None:
    starts = module_of(PATTERNS["sliding"]).document_starts_op
    assert starts(torch.tensor([[0, 0, 1], [1, 5, 5]])).tolist() == [0, 2, 3, 4, 6, 6, 6]
    assert starts(torch.tensor([[4]], dtype=torch.int16)).tolist() == [0, 1]
    assert starts(torch.zeros(1, 3, dtype=torch.int32)).tolist() == [0, 3, 3, 3]


# --- torch


def test_opcheck() -> None:
    module, (q, k, v, _) = module_of(PATTERNS["sliding"]), inputs(LENGTH)
    leaves = [each.requires_grad_() for each in (q, k, v)]
    torch.library.opcheck(module.packed_attention_op, (*leaves, bounds(CUTS), 0.25))
    out, lse = (each.detach() for each in module.packed_attention_op(*leaves, bounds(CUTS), 0.25))
    plain = [each.detach() for each in leaves]
    gradients = (torch.randn_like(out), torch.randn_like(lse), *plain, bounds(CUTS), out, lse, 0.25)
    light = ("test_schema", "test_faketensor")
    torch.library.opcheck(module.packed_attention_backward_op, gradients, test_utils=light)
    torch.library.opcheck(module.document_starts_op, (torch.tensor([[0, 0, 1], [1, 5, 5]]),))


def test_gradcheck() -> None:
    module = module_of(PATTERNS["global"])
    leaves = [each.double().requires_grad_() for each in inputs(21, 2, 1)[:3]]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        out, lse = module.attention(q, k, v, return_lse=True, cu_seqlens=bounds((0, 4, 20)))
        return out, lse.masked_fill(lse == float("-inf"), 0.0)

    assert torch.autograd.gradcheck(attend, leaves, fast_mode=True)


def test_compiles_once_for_all_documents_and_lengths() -> None:
    torch._dynamo.reset()
    attn = cast(Attend, sd.compile(PATTERNS["power blocks"]))
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(attn, fullgraph=True, backend=counter)
    for cuts, length in (((0, 20, 30), 33), ((0, 1, 5, 9, 40), 40), ((0, 12, 25, 30), 77)):
        *leaves, weight = (each.requires_grad_() for each in inputs(length))
        for each in leaves:
            torch._dynamo.mark_dynamic(each, 2)
        documents = bounds(cuts)
        torch._dynamo.mark_dynamic(documents, 0)
        got = results(compiled(*leaves, return_lse=True, cu_seqlens=documents), leaves, weight)
        want = results(attn(*leaves, return_lse=True, cu_seqlens=documents), leaves, weight)
        for ours, plain in zip(got, want, strict=True):
            assert torch.equal(ours, plain)
    assert counter.frame_count == 1


def test_document_ids_compile() -> None:
    torch._dynamo.reset()
    attn, (q, k, v, _) = sd.compile(PATTERNS["sliding"]), inputs(30)
    ids = torch.tensor([[0] * 11 + [1] * 19])
    compiled = torch.compile(attn, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k, v, document_ids=ids), attn(q, k, v, document_ids=ids))


def test_meta_tensors_give_shapes() -> None:
    q, k = (torch.empty(1, heads, 100, 64, device="meta", dtype=torch.bfloat16) for heads in (8, 2))
    documents = torch.empty(5, device="meta", dtype=torch.int32)
    out, lse = sd.compile(sd.sliding(16))(q, k, k, return_lse=True, cu_seqlens=documents)
    assert (out.shape, out.dtype, lse.shape, lse.dtype) == (q.shape, torch.bfloat16, (1, 8, 100), torch.float32)


# --- mistakes


Q = torch.zeros(1, 2, 12, 16)
TWO = torch.zeros(2, 2, 12, 16)
MISTAKES: dict[str, tuple[tuple[Tensor, Tensor, dict[str, object]], str, str, str, str]] = {
    "both": (
        (Q, Q, {"cu_seqlens": bounds((0, 12)), "document_ids": torch.zeros(1, 12, dtype=torch.int64)}),
        "WrongValue: documents are told in two ways",
        "cu_seqlens and document_ids",
        "one of the two",
        "cu_seqlens alone, which costs less",
    ),
    "no tensor": (
        (Q, Q, {"cu_seqlens": [0, 12]}),
        "WrongType: cu_seqlens is no tensor",
        "cu_seqlens of type list",
        "an integer tensor",
        'cu_seqlens=torch.tensor(..., dtype=torch.int32, device="cpu")',
    ),
    "q_start": (
        (Q, Q, {"cu_seqlens": bounds((0, 12)), "q_start": 0}),
        "WrongValue: cu_seqlens and q_start can't both be given",
        "q_start = 0",
        "q_start=None: the positions of each document begin at 0",
        "q_start=None",
    ),
    "more keys": (
        (Q[:, :, 3:], Q, {"cu_seqlens": bounds((0, 9))}),
        "ShapeMismatch: with cu_seqlens there are as many queries as keys",
        "9 queries, 12 keys",
        "q_len == k_len: each document attends to itself",
        "attention without cu_seqlens for queries that follow cached keys",
    ),
    "ids of another shape": (
        (Q, Q, {"document_ids": torch.zeros(12, dtype=torch.int64)}),
        "ShapeMismatch: document_ids do not fit the tokens",
        "document_ids (12,), q (1, 2, 12, 16)",
        "(batch, length) = (1, 12)",
        "one id for each token, the same in all its rows",
    ),
    "no document": (
        (Q, Q, {"cu_seqlens": bounds((0,))}),
        "ShapeMismatch: cu_seqlens holds no document",
        "cu_seqlens (1,)",
        "(documents + 1,): where each document begins, and where the last one ends",
        "torch.tensor([0, length]) for one document",
    ),
    "a batch": (
        (TWO, TWO, {"cu_seqlens": bounds((0, 12))}),
        "ShapeMismatch: packed documents stand in one row",
        "a batch of 2",
        "batch 1 with cu_seqlens",
        "document_ids=, which takes a batch, or its rows side by side along the length",
    ),
    "wide numbers": (
        (Q, Q, {"cu_seqlens": torch.tensor([0, 12])}),
        "DtypeMismatch: cu_seqlens has another type",
        "torch.int64",
        "torch.int32",
        "cu_seqlens.to(torch.int32)",
    ),
    "ids that are no integers": (
        (Q, Q, {"document_ids": torch.zeros(1, 12)}),
        "DtypeMismatch: document_ids has another type",
        "torch.float32",
        "integers",
        "document_ids.to(torch.int32)",
    ),
    "another device": (
        (Q, Q, {"cu_seqlens": torch.empty(2, dtype=torch.int32, device="meta")}),
        "DeviceMismatch: cu_seqlens and the tokens are on different devices",
        "cu_seqlens on meta, q on cpu",
        "one device",
        "cu_seqlens.to(q.device)",
    ),
    "falling": (
        (Q, Q, {"cu_seqlens": bounds((0, 9, 4))}),
        "OutOfRange: cu_seqlens does not ascend inside the tokens",
        "from 0 to 4, then 9 before 4; 12 tokens",
        "0 <= cu_seqlens[d] <= cu_seqlens[d + 1] <= length",
        "lengths.cumsum(0) behind a 0",
    ),
    "beyond the tokens": (
        (Q, Q, {"cu_seqlens": bounds((0, 13))}),
        "OutOfRange: cu_seqlens does not ascend inside the tokens",
        "from 0 to 13; 12 tokens",
        "0 <= cu_seqlens[d] <= cu_seqlens[d + 1] <= length",
        "lengths.cumsum(0) behind a 0",
    ),
    "an id that comes back": (
        (TWO, TWO, {"document_ids": torch.tensor([[1] * 12, [5] * 4 + [2] * 4 + [5] * 4])}),
        "WrongValue: an id comes back after another one",
        "runs of 5, 2, 5 in row 1",
        "the tokens of a document side by side",
        "ids that never decrease, or tokens sorted by id",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_in_five_lines(name: str) -> None:
    (q, k, options), what, got, expected, hint = MISTAKES[name]
    module = module_of(PATTERNS["sliding"])
    with pytest.raises(module.InputError) as caught:
        module.attention(q, k, k, **options)
    lines = [
        what,
        "  where     attention(q, k, v)",
        f"  got       {got}",
        f"  expected  {expected}",
        f"  try       {hint}",
    ]
    assert str(caught.value).splitlines() == lines


def test_transforms_are_refused() -> None:
    module = module_of(PATTERNS["sliding"])
    with pytest.raises(module.InputError, match=r"can't be transformed by torch\.func"):
        torch.func.vmap(lambda q: module.attention(q, q, q, cu_seqlens=bounds((0, 12))))(Q[None])
