"""Peers that may be missing: what they are asked, and that nothing they do ends a run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import sparsedsl as sd
from benchmarks import peers
from benchmarks.cases import CASES, DENSE, Case, dilated_mask, power_mask, window_mask
from benchmarks.optional_peers import FLASH4, NATTEN, cute_mask, ready, stored_by_length
from benchmarks.oracle import Inputs
from sparsedsl.patterns.power import power_attention

LENGTH = 90
TILE = 128
WINDOW = Case("window", sd.sliding(20), window_mask(20), (20, 1))
DILATED = Case("dilated", sd.dilated(10, 4), dilated_mask(10, 4), (10, 4))
BLOCKS = Case("blocks", power_attention(block=16, window=2), power_mask(16, 2))
Attend = Callable[..., object]


class BlockSparseTensorsTorch(NamedTuple):
    """As FlashAttention-4 names them: how many tiles a row (backward: a column) of tiles has, and which."""

    mask_block_cnt: Tensor
    mask_block_idx: Tensor
    full_block_cnt: Tensor
    full_block_idx: Tensor
    block_size: tuple[int, int]

    def listed(self, length: int) -> Tensor:
        """For each pair of positions: 2 in a full tile, 1 in one with a mask, 0 in one that is not listed."""
        tiles = -(-length // TILE)
        found = torch.zeros(tiles, tiles, dtype=torch.int64)
        lists = ((1, self.mask_block_cnt, self.mask_block_idx), (2, self.full_block_cnt, self.full_block_idx))
        for kind, counts, indices in lists:
            for row in range(tiles):
                found[row, indices[0, 0, row, : int(counts[0, 0, row])].long()] += kind
        return found.repeat_interleave(TILE, 0).repeat_interleave(TILE, 1)[:length, :length]


def attended(q: Tensor, k: Tensor, v: Tensor, distances: Callable[[Tensor], Tensor]) -> Tensor:
    """Dense attention in (batch, length, heads, head_dim) over the distances that a rule keeps."""
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    positions = torch.arange(q.shape[2])
    keep = distances(positions[:, None] - positions[None, :])
    return (
        torch.softmax((q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~keep, float("-inf")), -1).matmul(v).transpose(1, 2)
    )


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = False,
    window_size: tuple[int | None, int | None] = (None, None),
    mask_mod: Callable[..., Tensor] | None = None,
    block_sparse_tensors: BlockSparseTensorsTorch | None = None,
    block_sparse_tensors_bwd: BlockSparseTensorsTorch | None = None,
) -> tuple[Tensor, None]:
    """As FlashAttention-4 has it: `left` keys before the query's own, `right` after it; or tiles and a mask."""
    if mask_mod is not None:
        assert block_sparse_tensors
        assert block_sparse_tensors_bwd
        assert block_sparse_tensors.block_size == block_sparse_tensors_bwd.block_size == (TILE, TILE)
        length = q.shape[1]
        rows, zero = torch.arange(length), torch.zeros((), dtype=torch.int64)
        tiles = block_sparse_tensors.listed(length)
        assert torch.equal(tiles, block_sparse_tensors_bwd.listed(length).mT)
        live = mask_mod(zero, zero, rows[:, None], rows[None, :], None, None)
        return attended(q, k, v, lambda d: (tiles == 2) | ((tiles == 1) & live)), None
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
        ("flash_attn.cute.block_sparsity", {"BlockSparseTensorsTorch": BlockSparseTensorsTorch} if flash else None),
        ("cutlass", {} if flash else None),
        ("cutlass.cute", {"jit": lambda function: function} if flash else None),
        ("natten", {"na1d": natten} if natten else None),
    ):
        module = ModuleType(name)
        vars(module).update(functions or {})
        # None: an import raises ImportError, whether or not the library is there.
        monkeypatch.setitem(sys.modules, name, module if functions is not None else None)


def tried(case: Case, length: int = LENGTH, **options: Any) -> tuple[list[str], list[str]]:
    inputs = Inputs.random(2, length, 16, dtype=torch.float32, device="cpu")
    found, absences = ready(case, inputs, peers.ours(case).results(inputs), **options)
    return [peer.name for peer in found], absences


def test_what_is_installed_and_right_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, flash_attn_func, na1d)
    assert tried(WINDOW) == ([FLASH4, NATTEN], [])
    assert tried(DILATED) == ([FLASH4, NATTEN], [])
    assert tried(DENSE) == ([FLASH4], [f"dense causal: {NATTEN} is not measured: neither a window nor a dilation"])


@pytest.mark.parametrize("length", [90, 400])
def test_other_patterns_go_to_flash_attention_as_tiles_and_a_mask(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    install(monkeypatch, flash_attn_func, na1d)
    assert tried(BLOCKS, length) == ([FLASH4], [f"blocks: {NATTEN} is not measured: neither a window nor a dilation"])


def test_a_mask_keeps_its_name_from_process_to_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name that compiled kernels are kept under tells cases apart, and holds no address."""
    install(monkeypatch, flash_attn_func)
    names = [cute_mask(case).__cute_hash__ for case in CASES]
    assert len(set(names)) == len(CASES)
    assert not any("0x" in name for name in names)


def test_what_failed_before_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, flash_attn_func, na1d)
    assert tried(WINDOW, failed={FLASH4: "it hangs"}) == (
        [NATTEN],
        [f"window, {LENGTH} tokens: {FLASH4} is not measured: it hangs"],
    )


def test_inputs_are_the_same_in_another_order_of_memory() -> None:
    inputs = Inputs.random(2, 8, 4, dtype=torch.float32, device="cpu")
    stored = stored_by_length(inputs)
    for name in ("q", "k", "v", "d_out"):
        one, other = getattr(inputs, name), getattr(stored, name)
        assert torch.equal(one, other)
        assert other.transpose(1, 2).is_contiguous()
        assert not other.is_contiguous()


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
