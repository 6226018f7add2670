"""Peers that may be missing: what they are asked, and that nothing they do ends a run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

import sparsedsl as sd
from benchmarks import peers
from benchmarks.cases import CASES, DENSE, Case, dilated_mask, window_mask
from benchmarks.optional_peers import FLASH4, NATTEN, ready
from benchmarks.oracle import Inputs

LENGTH = 90
WINDOW = Case("window", sd.sliding(20), window_mask(20), (20, 1))
DILATED = Case("dilated", sd.dilated(10, 4), dilated_mask(10, 4), (10, 4))
Attend = Callable[..., object]


def attended(q: Tensor, k: Tensor, v: Tensor, distances: Callable[[Tensor], Tensor]) -> Tensor:
    """Dense attention in (batch, length, heads, head_dim) over the distances that a rule keeps."""
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    positions = torch.arange(q.shape[2])
    keep = distances(positions[:, None] - positions[None, :])
    return (
        torch.softmax((q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~keep, float("-inf")), -1).matmul(v).transpose(1, 2)
    )


def flash_attn_func(
    q: Tensor, k: Tensor, v: Tensor, causal: bool = False, window_size: tuple[int | None, int | None] = (None, None)
) -> tuple[Tensor, None]:
    """As FlashAttention's documentation says: `left` keys before the query's own, `right` after it."""
    left, right = window_size
    low = 0 if causal or right is None else -right
    return attended(q, k, v, lambda d: (d >= low) & ((d <= left) if left is not None else d == d)), None


def na1d(q: Tensor, k: Tensor, v: Tensor, kernel_size: int, dilation: int = 1, is_causal: bool = False) -> Tensor:
    """As NATTEN's documentation says, causal: the kernel_size last of every dilation-th key."""
    assert is_causal
    return attended(q, k, v, lambda d: (d >= 0) & (d % dilation == 0) & (d < kernel_size * dilation))


def install(monkeypatch: pytest.MonkeyPatch, flash: Attend | None = None, natten: Attend | None = None) -> None:
    for name, functions in (
        ("flash_attn", {} if flash else None),
        ("flash_attn.cute", {"flash_attn_func": flash} if flash else None),
        ("natten", {"na1d": natten} if natten else None),
    ):
        module = ModuleType(name)
        vars(module).update(functions or {})
        # None: an import raises ImportError, whether or not the library is there.
        monkeypatch.setitem(sys.modules, name, module if functions is not None else None)


def tried(case: Case) -> tuple[list[str], list[str]]:
    inputs = Inputs.random(2, LENGTH, 16, dtype=torch.float32, device="cpu")
    found, absences = ready(case, inputs, peers.ours(case).results(inputs))
    return [peer.name for peer in found], absences


def test_what_is_installed_and_right_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, flash_attn_func, na1d)
    assert tried(WINDOW) == ([FLASH4, NATTEN], [])
    assert tried(DILATED) == ([NATTEN], [f"dilated: {FLASH4} is not measured: it has no dilation"])
    assert tried(DENSE) == ([FLASH4], [f"dense causal: {NATTEN} is not measured: neither a window nor a dilation"])


def test_what_is_not_installed_is_one_line_for_all_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    found, absences = tried(WINDOW)
    assert found == []
    assert [line.split(" is not measured: ")[0] for line in absences] == [FLASH4, NATTEN]
    assert absences == tried(WINDOW)[1]


def test_another_result_is_an_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    def wider(q: Tensor, k: Tensor, v: Tensor, window_size: tuple[int, int]) -> tuple[Tensor, None]:
        return flash_attn_func(q, k, v, window_size=(window_size[0] + 1, 0))

    install(monkeypatch, wider, na1d)
    found, (line,) = tried(WINDOW)
    assert found == [NATTEN]
    assert line.startswith(f"window, {LENGTH} tokens: {FLASH4} is not measured: output is ")


def test_another_interface_is_an_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, lambda q, k, v: q, lambda q, k, v, kernel_size, dilation, is_causal: None)
    found, absences = tried(WINDOW)
    assert found == []
    assert [line.split(": ")[2] for line in absences] == ["TypeError", "TypeError"]


def test_keys_are_those_of_the_pattern() -> None:
    for case in (*CASES, DENSE, WINDOW, DILATED):
        if case.keys is None:
            continue
        window, dilation = case.keys
        row = case.pattern.dense(1, 5000)[0]
        want = [
            key for key in range(5000) if (4999 - key) % dilation == 0 and (4999 - key) < (window or 5000) * dilation
        ]
        assert row.nonzero()[0].tolist() == want
