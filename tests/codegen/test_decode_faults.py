"""Attention over caches at its edges: addresses, numbers that are none, a scale of 0, and patterns drawn at random."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sparsedsl as sd
from sparsedsl.codegen.emit import emit
from sparsedsl.errors import Unsupported
from sparsedsl.pattern import Pattern
from tests.codegen.bounds import watched
from tests.codegen.caches import Cache, assert_like_dense
from tests.codegen.modules import SMALL, imported, module_of
from tests.codegen.test_decode import heads_of
from tests.codegen.test_kernels import PATTERNS
from tests.fuzz import with_random_blocks
from tests.strategies import periodic_patterns

pytestmark = pytest.mark.filterwarnings(
    "ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning", "ignore:All-NaN:RuntimeWarning"
)


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.mark.parametrize(("q_len", "lengths"), [(1, (64, 0)), (20, (64, 3))], ids=["one", "a chunk"])
@pytest.mark.parametrize("name", ["power blocks", "random blocks", "heads on both roads"])
def test_no_address_leaves_the_tensors(name: str, q_len: int, lengths: tuple[int, ...]) -> None:
    """At a full cache, where a query tile after the last query is none of a table's."""
    cache = Cache.random(heads_of(PATTERNS[name]), 2, q_len, lengths, 64)
    arguments, options = cache.paged(16)
    with watched() as seen:
        got = module_of(PATTERNS[name]).attention(*arguments, return_lse=True, **options)
    assert seen[0] > 1000
    assert_like_dense(got, cache, PATTERNS[name])


def test_an_address_outside_is_noticed() -> None:
    source = emit(sd.sliding(20), SMALL)
    outside = source.replace("b_k = tl.load(k_ptr + k_place", "b_k = tl.load(k_ptr + (1 << 40) + k_place")
    assert outside != source
    arguments, options = Cache.random(2, 2, 1, (40,), 64).contiguous()
    with watched(), pytest.raises(Exception, match="OutOfBounds"):
        imported(outside).attention(*arguments, **options)


@pytest.mark.parametrize("multiprocessors", [1, 1000])
@pytest.mark.parametrize("where", ["q", "k", "v"])
def test_a_number_that_is_none_reaches_the_output(
    where: str, multiprocessors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many splits there are: a split of such a sum is not one without keys."""
    module = module_of(sd.sliding(40))
    monkeypatch.setattr(module, "multiprocessors", lambda device: multiprocessors)
    for q_len in (1, 20):
        cache = Cache.random(2, 2, q_len, (50,), 64)
        getattr(cache, where)[0, 0, -1 if where == "q" else 49, 3] = float("nan")
        arguments, options = cache.contiguous()
        out, lse = module.attention(*arguments, return_lse=True, **options)
        assert out[0, 0, -1].isnan().any()
        assert where == "v" or lse[0, 0, -1].isnan()
        assert not out[0, 1].isnan().any()


def test_a_scale_of_zero_is_the_mean() -> None:
    pattern = sd.sliding(40)
    for q_len in (1, 20):
        cache = Cache.random(2, 2, q_len, (50,), 64)
        arguments, options = cache.contiguous()
        got = module_of(pattern).attention(*arguments, scale=0.0, return_lse=True, **options)
        assert_like_dense(got, cache, pattern, 0.0)
        whole = Cache(cache.q, cache.k[:, :, :50], cache.v[:, :, :50], (50,))
        q, k, v = (each.clone().requires_grad_() for each in (whole.q, whole.k, whole.v))
        out, lse = module_of(pattern).attention(q, k, v, scale=0.0, return_lse=True)
        assert_like_dense((out.detach(), lse.detach()), whole, pattern, 0.0)
        d_q, d_k, d_v = torch.autograd.grad(out.sum(), (q, k, v))
        assert (d_q == 0).all()
        assert (d_k == 0).all()
        live = torch.from_numpy(pattern.dense(q_len, 50)).float()
        weights = live / live.sum(1, keepdim=True)
        torch.testing.assert_close(d_v, weights.sum(0)[None, None, :, None].expand_as(v))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(periodic_patterns(2), periodic_patterns(2).map(lambda each: each & sd.causal()), with_random_blocks()),
    st.sampled_from([1, 5, 17, 33]),
    st.tuples(st.integers(0, 100), st.integers(0, 100)),
    st.sampled_from([None, 16, 64]),
)
def test_any_pattern(pattern: Pattern, q_len: int, lengths: tuple[int, int], page_size: int | None) -> None:
    try:
        source = emit(pattern, SMALL)
    except Unsupported:
        return
    cache = Cache.random(4, 2, q_len, lengths, max(*lengths, q_len) + 7)
    arguments, options = cache.contiguous() if page_size is None else cache.paged(page_size)
    with watched():
        got = imported(source).attention(*arguments, return_lse=True, **options)
    assert_like_dense(got, cache, pattern)
