"""Head dims, types, addresses past 2**31 elements, and lengths that compile nothing new, on the GPU."""

from __future__ import annotations

import pytest
import torch

import sparsedsl as sd
from benchmarks.timing import compilations
from sparsedsl.patterns.power import power_attention
from tests.codegen.oracle import assert_within_rule, dense_mask, random_inputs
from tests.gpu.test_catalogue import dense_results, results

pytestmark = pytest.mark.gpu

POWER = power_attention(block=64)


@pytest.mark.parametrize("head_dim", [32, 64, 80, 96, 128, 256])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=["bf16", "fp16", "fp32"])
def test_head_dims_and_types(head_dim: int, dtype: torch.dtype) -> None:
    tensors = random_inputs(4, 2, 701, 1103, head_dim, dtype, "cuda")
    mask = dense_mask(POWER, 4, 701, 1103, None).cuda()
    *leaves, weight = (each.detach().requires_grad_() for each in tensors)
    got = results(sd.compile(POWER)(*leaves, return_lse=True), leaves, weight, mask.any(-1))
    assert_within_rule(got, dense_results(tensors, mask, torch.float64), dense_results(tensors, mask, dtype))


def test_one_query_and_one_key() -> None:
    for q_len, k_len in ((1, 1), (239, 1), (1, 239), (64, 64)):
        tensors = random_inputs(2, 2, q_len, k_len, 64, torch.float16, "cuda")
        mask = dense_mask(POWER, 2, q_len, k_len, None).cuda()
        *leaves, weight = (each.detach().requires_grad_() for each in tensors)
        got = results(sd.compile(POWER)(*leaves, return_lse=True), leaves, weight, mask.any(-1))
        assert_within_rule(
            got, dense_results(tensors, mask, torch.float64), dense_results(tensors, mask, torch.float16)
        )


def test_addresses_past_31_bits() -> None:
    """The last head's rows stand beyond 2**31 elements; a window makes them computable by themselves."""
    heads, length, head_dim, window, shown = 17, 1_000_003, 128, 200, 700
    assert heads * length * head_dim > 1 << 31
    pattern = sd.sliding(window)
    torch.manual_seed(0)
    tensors = [torch.randn(1, heads, length, head_dim, device="cuda", dtype=torch.bfloat16) for _ in range(4)]
    *leaves, weight = (each.requires_grad_() for each in tensors)
    live = torch.ones(1, device="cuda", dtype=torch.bool)
    out, *gradients = results(sd.compile(pattern)(*leaves, return_lse=True), leaves, weight, live)
    # The last rows' output and dq need `window` keys before them; the last keys' gradients only later rows.
    part = [each[:, -1:, -shown - window :].detach() for each in tensors]
    mask = dense_mask(pattern, 1, shown + window, shown + window, None).cuda()
    exact, eager = (dense_results(part, mask, dtype) for dtype in (torch.float64, torch.bfloat16))
    ends = [each[:, -1:, -shown:] for each in (out, *gradients)]
    assert_within_rule(ends, *([each[:, :, -shown:] for each in every] for every in (exact, eager)))


# Two parts, whose splits stand one behind the other, also where the rows of one are no multiple of 16 bytes.
@pytest.mark.parametrize(
    "pattern", [sd.sliding(777) | sd.sink(5) & sd.causal(), sd.sliding(256) | sd.dilated(256, 16)], ids=str
)
def test_a_new_length_compiles_nothing(pattern: sd.Pattern) -> None:
    attention = sd.compile(pattern)

    def compiled_after(q_len: int, k_len: int) -> int:
        q, k, v = (
            torch.randn(1, 2, length, 64, device="cuda", dtype=torch.float16).requires_grad_()
            for length in (q_len, k_len, k_len)
        )
        attention(q, k, v).sum().backward()
        return compilations()

    # All forms of a call: many queries, with long columns split and not; few over keys that are split and that are not.
    first, *_, all_forms = [compiled_after(*each) for each in ((1024, 1024), (8192, 8192), (1, 5003), (1, 1))]
    assert first >= 4  # the counter counts: forward, rows, dq, dk and dv
    assert all_forms > first  # few queries have kernels of their own
    lengths = (4096, 4096), (5003, 5003), (17, 17), (64, 64), (3, 3), (16, 16), (2, 4099), (300, 70)
    assert [compiled_after(*each) for each in lengths] == [all_forms] * len(lengths)
