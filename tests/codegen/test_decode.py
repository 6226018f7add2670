"""Attention over caches, in Triton's interpreter and on the CPU road, against dense attention in float64."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

import sparsedsl as sd
from sparsedsl.codegen import plan as planning
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.tiling import TILINGS
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.patterns import catalogue
from tests.codegen.caches import NOWHERE, Cache, assert_like_dense
from tests.codegen.modules import SMALL, imported, module_of
from tests.codegen.test_kernels import IN_PARTS, PATTERNS

pytestmark = pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
ROOT = Path(__file__).resolve().parents[2]
POWER = PATTERNS["power blocks"]
HEADS = PATTERNS["per head"]
# What the interpreter runs in full; the CPU road runs them all.
SHOWN = (
    "power blocks",
    "power tokens",
    "strided",
    "both ways",
    "rows without keys",
    "random blocks",
    "heads on both roads",
)


@pytest.fixture(params=["interpreter", "cpu"])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "interpreter":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    new = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **o: new(*a, **o).fill_(float("nan")))
    return str(request.param)


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")


def heads_of(pattern: Pattern | PerHead, otherwise: int = 4) -> int:
    return len(pattern.heads) if isinstance(pattern, PerHead) else otherwise


def assert_generates(module: ModuleType, pattern: Pattern | PerHead, lengths: range, page_size: int | None) -> None:
    """Every token by itself, each a sequence of the batch that ends there, against one dense pass over them all."""
    heads, last = heads_of(pattern), lengths[-1]
    whole = Cache.random(heads, 2, last, (last,), last)
    exact, exact_lse = whole.expected(pattern)
    rows = [length - 1 for length in lengths]
    q = whole.q[0, :, rows].transpose(0, 1)[:, :, None]
    k, v = (each.expand(len(rows), *each.shape[1:]) for each in (whole.k, whole.v))
    cache = Cache(q, k, v, tuple(lengths))
    (q, *keys), options = cache.contiguous() if page_size is None else cache.paged(page_size)
    out, lse = module.attention(q, *(keys if page_size else (k, v)), return_lse=True, **options)
    # A pattern that looks ahead reads no key that is not there yet: it has no single pass to compare with.
    if all(module.CAUSAL for _ in rows):
        torch.testing.assert_close(out[:, :, 0], exact[0, :, rows].transpose(0, 1).float(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(lse[:, :, 0], exact_lse[0, :, rows].T.float(), rtol=1e-4, atol=1e-5)
    else:
        assert_like_dense((out, lse), cache, pattern)


@pytest.mark.parametrize("name", PATTERNS)
def test_token_by_token_equals_one_pass(name: str, road: str) -> None:
    if road == "cpu":
        assert_generates(module_of(PATTERNS[name]), PATTERNS[name], range(1, 130, 7), None)
        assert_generates(module_of(PATTERNS[name]), PATTERNS[name], range(3, 130, 25), 16)
    elif name in SHOWN:
        assert_generates(module_of(PATTERNS[name]), PATTERNS[name], range(1, 131, 64), 16)
    else:
        assert_generates(module_of(PATTERNS[name]), PATTERNS[name], range(129, 130), None)


@pytest.mark.parametrize("name", IN_PARTS)
def test_parts_token_by_token(name: str, road: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "GAIN", float("inf"))
    module = imported(emit(IN_PARTS[name], SMALL))
    assert any(part.step > 1 for part in module.DECODE_PARTS)
    lengths = range(1, 131, 3) if road == "cpu" else range(5, 140, 60)
    assert_generates(module, IN_PARTS[name], lengths, None if road == "cpu" else 16)


@pytest.mark.parametrize("name", catalogue.CATALOGUE)
def test_the_catalogue_over_pages(name: str) -> None:
    """On the CPU road, at full size: the last tokens of two long sequences."""
    pattern = catalogue.CATALOGUE[name]()
    pattern = pattern[min(3, len(pattern) - 1)] if isinstance(pattern, Stack) else pattern
    heads = heads_of(pattern)
    cache = Cache.random(heads, heads, 2, (1500, 300), 1536, head_dim=8)
    arguments, options = cache.paged(64)
    module = imported(emit(pattern, TILINGS[0]))
    assert_like_dense(module.attention(*arguments, return_lse=True, **options), cache, pattern)


CASES = {
    "28 over 4": (28, 4, 1, (77, 3), 16),
    "4 over 1, no key yet": (4, 1, 1, (0, 64, 65), 64),
    "16 over 4, pages of 256": (16, 4, 1, (131, 257), 256),
    "speculative": (4, 2, 5, (160, 3), 16),
    "sixteen": (2, 1, 16, (97,), 64),
    "a chunk": (2, 1, 17, (150, 9), 16),
    "a long chunk": (1, 1, 83, (40, 120), 64),
}


@pytest.mark.parametrize("paged", [False, True], ids=["contiguous", "paged"])
@pytest.mark.parametrize("case", CASES)
def test_batches_of_different_lengths(case: str, paged: bool, road: str) -> None:
    heads, key_heads, q_len, lengths, page_size = CASES[case]
    if road == "interpreter" and not paged and case not in ("28 over 4", "a long chunk"):
        pytest.skip("slow, and the pages have shown it")
    cache = Cache.random(heads, key_heads, q_len, lengths, 260)
    arguments, options = cache.paged(page_size) if paged else cache.contiguous()
    assert_like_dense(module_of(POWER).attention(*arguments, return_lse=True, **options), cache, POWER)


@pytest.mark.parametrize("name", ["strided", "both ways", "random blocks", "heads on both roads", "strided and local"])
@pytest.mark.parametrize("q_len", [3, 20])
def test_chunks_of_other_patterns(name: str, q_len: int, road: str) -> None:
    cache = Cache.random(heads_of(PATTERNS[name], 1), 1, q_len, (40, 17), 48)
    arguments, options = cache.paged(16)
    got = module_of(PATTERNS[name]).attention(*arguments, return_lse=True, **options)
    assert_like_dense(got, cache, PATTERNS[name])


def test_chunks_in_classes_of_heads(road: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each head has its own residue class; more queries than a program for each would be good for."""
    monkeypatch.setattr(planning, "GAIN", float("inf"))
    pattern = IN_PARTS["longnet"]
    module = imported(emit(pattern, SMALL))
    cache = Cache.random(4, 2, 66, (70,), 80)
    arguments, options = cache.contiguous()
    assert_like_dense(module.attention(*arguments, return_lse=True, **options), cache, pattern)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("head_dim", [64, 96, 128, 256])
def test_types_and_head_dims(head_dim: int, dtype: torch.dtype, road: str) -> None:
    if road == "interpreter" and dtype == torch.bfloat16:
        pytest.skip("the interpreter's product of bfloat16 is wrong")
    if road == "interpreter" and head_dim == 64:
        pytest.skip("as 96")
    tiling = "single256" if dtype == torch.float32 else "half128" if head_dim <= 128 else "half256"
    module = imported(emit(POWER, next(each for each in TILINGS if each.name == tiling)))
    cache = Cache.random(2, 1, 2, (130, 1), 160, head_dim, dtype)
    arguments, options = cache.paged(64)
    assert_like_dense(module.attention(*arguments, scale=-0.1, return_lse=True, **options), cache, POWER, -0.1)


# --- what is read, and by which kernels


@pytest.mark.parametrize("name", ["power tokens", "power blocks", "strided", "squares", "random blocks", "per head"])
def test_a_position_reads_live_keys_only(name: str, interpreter: None) -> None:
    """Everything else is NaN: neither dead keys of a live tile, nor pages without a live key, are loaded."""
    pattern, module = PATTERNS[name], module_of(PATTERNS[name])
    cache = Cache.random(4, 4, 1, (150, 131), 160)
    for number, length in enumerate(cache.lengths):
        for head in range(4):
            mask = torch.from_numpy(pattern.dense(1, length)).expand(4, 1, length)[head, 0]
            dead = ~mask.nonzero().new_tensor(mask.tolist(), dtype=torch.bool)
            for each in (cache.k, cache.v):
                each[number, head, :length][dead] = float("nan")
    arguments, options = cache.paged(16)
    out, lse = module.attention(*arguments, return_lse=True, **options)
    clean = Cache(cache.q, cache.k.nan_to_num(0.0), cache.v.nan_to_num(0.0), cache.lengths)
    assert_like_dense((out, lse), clean, pattern)


def test_few_queries_of_an_ordinary_call_take_the_split_kernels(
    interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(POWER)
    whole = Cache.random(2, 1, 5, (90,), 90)

    def unwanted(*_: object) -> None:
        raise AssertionError("the forward kernel ran")

    monkeypatch.setattr(module, "launch_forward", unwanted)
    q, k, v = (each.requires_grad_() for each in (whole.q, whole.k, whole.v))
    out, lse = module.attention(q, k, v, return_lse=True)
    assert_like_dense((out.detach(), lse.detach()), whole, POWER)
    exact_inputs = [each.detach().double().requires_grad_() for each in (q, k, v)]
    exact, _ = Cache(exact_inputs[0], exact_inputs[1], exact_inputs[2], (90,)).expected(POWER)
    weight = torch.randn_like(exact)
    wants = torch.autograd.grad((exact * weight).sum(), exact_inputs)
    for ours, want in zip(torch.autograd.grad((out * weight.float()).sum(), (q, k, v)), wants, strict=True):
        torch.testing.assert_close(ours.double(), want, rtol=1e-3, atol=1e-4)
    with pytest.raises(AssertionError, match="the forward kernel ran"):
        module.attention(*(torch.zeros(1, 2, 17, 16) for _ in range(3)))


@pytest.mark.parametrize("multiprocessors", [1, 1000])
def test_any_number_of_splits_gives_the_same(
    multiprocessors: int, interpreter: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = PATTERNS["strided and local"]
    module = module_of(pattern)
    monkeypatch.setattr(module, "multiprocessors", lambda device: multiprocessors)
    for q_len in (1, 17):
        cache = Cache.random(1, 1, q_len, (70,), 80)
        arguments, options = cache.contiguous()
        out, lse = module.attention(*arguments, return_lse=True, **options)
        assert_like_dense((out, lse), cache, pattern)
        again, lse_again = module.attention(*arguments, return_lse=True, **options)
        assert torch.equal(out, again)
        assert torch.equal(lse, lse_again)


def test_splits_follow_the_pattern_and_the_machine() -> None:
    (short,) = module_of(sd.sliding(40)).DECODE_PARTS
    (long,) = module_of(sd.causal()).DECODE_PARTS
    device = torch.device("cpu")  # counts as 8 multiprocessors
    # A window of 40 keys over tiles of 16, from any position in them.
    assert short.splits(1, 1 << 20, False, device) == 4
    # 16 programs at once, at least 128 tiles: 16 splits take 8 turns, 15 take 9.
    assert [long.splits(programs, 1 << 20, False, device) for programs in (1, 4, 16, 1000)] == [15, 4, 1, 1]
    assert [long.splits(1, capacity, False, device) for capacity in (1, 16, 17, 100)] == [1, 1, 2, 7]


def test_heads_that_read_the_same_keys_share_a_program() -> None:
    by_group = sd.per_head([sd.sliding(4), sd.sliding(4), sd.sliding(9), sd.sliding(9)])
    (part,) = module_of(by_group).DECODE_PARTS
    assert [part.heads_together(4, group) for group in (1, 2, 4)] == [1, 2, 1]
    assert module_of(POWER).DECODE_PARTS[0].heads_together(28, 7) == 7


def test_what_leads_out_of_the_cache_counts_as_its_end(interpreter: None) -> None:
    """On a GPU nobody looks at the values: the kernels themselves stay inside."""
    module = module_of(POWER)
    cache = Cache.random(4, 2, 1, (64, 64), 64)
    want = module.launch_cached(cache.q, cache.k, cache.v, cache.seqlens(), None, 0.25, 0)
    too_long = torch.tensor([64, 9999], dtype=torch.int32)
    got = module.launch_cached(cache.q, cache.k, cache.v, too_long, None, 0.25, 0)
    assert torch.equal(got[0], want[0])
    negative = module.launch_cached(cache.q, cache.k, cache.v, too_long - 9999, None, 0.25, 0)
    assert (negative[0] == 0).all()
    (q, k, v), options = cache.paged(16)
    wild = options["page_table"].clone()
    wild[0, 1], wild[1, 2] = NOWHERE, 1 << 30
    k, v = (each.nan_to_num(0.0) for each in (k, v))
    out, _ = module.launch_cached(q, k, v, options["cache_seqlens"], wild, 0.25, 0)
    assert not out.isnan().any()


def test_a_table_is_made_again_when_the_cache_has_doubled(interpreter: None) -> None:
    module = module_of(PATTERNS["random blocks"])
    module.cache_table.cache_clear()
    for capacity in (70, 128, 129):
        cache = Cache.random(2, 2, 1, (capacity,), capacity)
        arguments, options = cache.contiguous()
        got = module.attention(*arguments, return_lse=True, **options)
        assert_like_dense(got, cache, PATTERNS["random blocks"])
    assert module.cache_table.cache_info().misses == 2


def test_without_its_masks_the_comparison_fails(interpreter: None) -> None:
    pattern = sd.sliding(20)
    source, changed = re.subn(
        r"(def mask_\d+\(q, k\):\n    return ).*", r"\g<1>(q == q) & (k == k)", emit(pattern, SMALL)
    )
    assert changed
    module = imported(source)
    for q_len in (1, 40):
        cache = Cache.random(2, 2, q_len, (97, 60), 100)
        arguments, options = cache.contiguous()
        with pytest.raises(AssertionError):
            assert_like_dense(module.attention(*arguments, return_lse=True, **options), cache, pattern)


# --- torch


def call(attn: object, cache: Cache, page_size: int | None) -> Tensor:
    arguments, options = cache.contiguous() if page_size is None else cache.paged(page_size)
    out: Tensor = attn(*arguments, **options)  # type: ignore[operator]
    return out


def test_opcheck() -> None:
    module = module_of(HEADS)
    for page_size in (None, 16):
        (q, k, v), options = (
            (cache := Cache.random(4, 2, 3, (33, 5), 48)).contiguous() if page_size is None else cache.paged(16)
        )
        arguments = (q, k, v, options["cache_seqlens"], options.get("page_table"), 0.5)
        torch.library.opcheck(module.cached_attention_op, arguments)


def test_compiles_once_for_all_caches() -> None:
    torch._dynamo.reset()
    attn = sd.compile(POWER)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(attn, fullgraph=True, backend=counter, dynamic=True)
    for batch, capacity in ((3, 80), (7, 96), (5, 160)):
        cache = Cache.random(4, 2, 1, tuple(range(20, 20 + batch)), capacity)
        torch.testing.assert_close(call(compiled, cache, 16), call(attn, cache, 16))
    assert counter.frame_count == 1


def test_vmap_says_no(interpreter: None) -> None:
    (q, k, v), options = Cache.random(4, 2, 1, (20,), 32).contiguous()
    with pytest.raises(NotImplementedError, match="no vmap"):
        torch.vmap(lambda each: module_of(POWER).attention(each, k, v, **options))(q[None])


# --- mistakes


def mistakes() -> dict[str, tuple[dict[str, object], str, str]]:
    lengths = torch.tensor([3, 60], dtype=torch.int32)
    table = torch.zeros(2, 4, dtype=torch.int32)
    pages = torch.zeros(5, 2, 16, 16)
    paged: dict[str, object] = {"k": pages, "v": pages, "page_table": table}
    return {
        "no lengths": ({**paged, "cache_seqlens": None}, "MissingArgument", "page_table without cache_seqlens"),
        "packed": ({"cu_seqlens": lengths}, "WrongValue", "cache_seqlens, and cu_seqlens or document_ids"),
        "two places": ({"q_start": 3}, "WrongValue", "q_start = 3"),
        "a list": ({"cache_seqlens": [3, 60]}, "DtypeMismatch", "cache_seqlens of list"),
        "int64": ({"cache_seqlens": lengths.long()}, "DtypeMismatch", "cache_seqlens of torch.int64"),
        "batch": ({"cache_seqlens": lengths[:1]}, "ShapeMismatch", "cache_seqlens (1,), q (2, 4, 1, 16)"),
        "table": ({**paged, "page_table": table[0]}, "ShapeMismatch", "page_table (4,), q (2, 4, 1, 16)"),
        "device": ({"cache_seqlens": lengths.to("meta")}, "DeviceMismatch", "cache_seqlens on meta, q on cpu"),
        "layout": ({"k": torch.zeros(2, 2, 16, 64).mT}, "LayoutMismatch", "strides k (2048, 1024, 1, 64)"),
        "cache too short": ({"q": torch.zeros(2, 4, 65, 16)}, "CacheTooShort", "q_len = 65, room for 64 keys"),
        "table too small": (
            {**paged, "q": torch.zeros(2, 4, 65, 16)}, "PageTableTooSmall", "q_len = 65, room for 64 keys",
        ),
        "too long": ({"cache_seqlens": lengths + 9}, "CacheTooShort", "cache_seqlens from 12 to 69, room for 64 keys"),
        "negative": ({"cache_seqlens": lengths - 9}, "CacheTooShort", "cache_seqlens from -6 to 51, room for 64 keys"),
        "too few pages": ({**paged, "cache_seqlens": lengths + 9}, "PageTableTooSmall", "cache_seqlens from 12 to 69"),
        "no such page": ({**paged, "page_table": table + 5}, "OutOfRange", "pages from 5 to 5"),
        "gradient": ({"q": torch.zeros(2, 4, 1, 16, requires_grad=True)}, "NoGradient", "q, k or v asks for one"),
        "q_start": ({"cache_seqlens": None, "q_start": 64}, "OutOfRange", "q_start = 64, q_len = 1, k_len = 64"),
    }  # fmt: skip


@pytest.mark.parametrize("name", mistakes())
def test_mistakes(name: str) -> None:
    changed, code, got = mistakes()[name]
    usual: dict[str, object] = {
        "q": torch.zeros(2, 4, 1, 16),
        "k": torch.zeros(2, 2, 64, 16),
        "v": torch.zeros(2, 2, 64, 16),
        "cache_seqlens": torch.tensor([3, 60], dtype=torch.int32),
    }
    module = module_of(POWER)
    with pytest.raises(module.InputError) as caught:
        module.attention(**{**usual, **changed})
    lines = str(caught.value).splitlines()
    assert [line.split()[0] for line in lines] == [f"{code}:", "where", "got", "expected", "try"]
    assert got in lines[2]
    assert all(len(line.split()) > 1 for line in lines)


def test_a_negative_place_or_no_gradient_mode_is_no_mistake() -> None:
    module = module_of(POWER)
    (q, k, v), options = Cache.random(4, 2, 2, (1,), 16).contiguous()
    with torch.no_grad():
        out, lse = module.attention(q.requires_grad_(), k, v, return_lse=True, **options)
    assert (out[:, :, 0] == 0).all()
    assert (lse[:, :, 0] == float("-inf")).all()


# --- for a GPU that is not there


def test_compiled_kernels_spill_nothing_and_copy_16_bytes_at_once() -> None:
    """Pages come as 4 bytes each. In a process of its own: this one's Triton interprets."""
    command = [sys.executable, "-m", "tests.codegen.sm90", "half128", "power()"]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 5, done.stderr
    for line in lines:
        assert "stack 0," in line
        assert re.search(r"asynchronous copies of (16|16 4|4 16) bytes", line)
