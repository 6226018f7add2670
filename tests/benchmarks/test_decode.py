"""The benchmark of decoding: its peers against float64, its other launches, the account of its rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks import decode_peers
from benchmarks.decode import targets
from benchmarks.decode_peers import CPU, CUDA, PATTERNS, Caches, distance, expected, flex, flex_at_once, ours_and_dense
from benchmarks.decode_variants import VARIANTS, Variant, launched_as, module_of

SETTINGS = replace(CPU, tokens=8192, heads=28, key_heads=4, sequences=4)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_every_peer_is_attention_over_its_keys(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention in one piece, and in two where the keys are many; it is not compiled here."""
    monkeypatch.setattr(torch, "compile", lambda call, **options: call)
    caches, every = Caches.random(SETTINGS), torch.arange(SETTINGS.tokens)
    live = torch.from_numpy(PATTERNS[name].dense(1, SETTINGS.tokens)[0].nonzero()[0])
    assert len(live) < len(every)
    for peer, call in ours_and_dense(PATTERNS[name], caches, SETTINGS).items():
        keys = every if peer in (decode_peers.DENSE, decode_peers.GROUPED) else live
        assert distance(call(slice(1, 3)), expected(caches, keys, slice(1, 3))) < 1e-5, peer
    whole = SETTINGS.sequences * SETTINGS.key_heads * SETTINGS.tokens * SETTINGS.head_dim
    for elements, pieces in ((whole + 1, 1), (whole, 2)):
        monkeypatch.setattr(decode_peers, "FLEX_ELEMENTS", elements)
        assert flex_at_once(SETTINGS) == SETTINGS.sequences // pieces
        call = flex(name, caches, SETTINGS)
        for own in (slice(0, 4), slice(2, 3)):
            assert distance(call(own), expected(caches, live, own)) < 1e-5


def test_flex_attention_never_counts_past_int32() -> None:
    assert flex_at_once(CUDA) * CUDA.key_heads * CUDA.tokens * CUDA.head_dim < 1 << 31


def test_a_variant_changes_launches_inside_alone() -> None:
    module = module_of("sliding(4096)", 128)
    before = module.DECODE_PARTS
    with launched_as(module, Variant(5, 8, 4)):
        (part,) = module.DECODE_PARTS
        assert (part.splits(1, 100, False, torch.device("cpu")), part.few_warps, part.few_stages) == (5, 8, 4)
        assert part.few is before[0].few
    assert module.DECODE_PARTS is before
    with launched_as(module, VARIANTS[0]):
        assert module.DECODE_PARTS is before
    assert module_of("sliding(4096)", 64).DECODE_PARTS[0].few_keys == 64


def test_the_gain_is_held_against_the_fewer_keys() -> None:
    def row(peer: str, ms: float, graph_ms: float | None, keys: int) -> dict[str, Any]:
        shown: dict[str, Any] = {"pattern": "sliding(4096)", "batch": 32, "peer": peer, "keys": keys}
        return shown | {"ms": ms, "graph_ms": graph_ms, "fraction_of_copy": 0.75}

    rows = [row("sparsedsl", 0.3, 0.1, 4096), row("dense", 4.0, 3.0, 131072), row("dense, grouped", 2.0, None, 131072)]
    assert targets({"rows": rows}) == [
        "sliding(4096), batch 32: 32.0 x fewer keys, 20.0 x faster than dense: 0.62 of it (wanted 0.8); 0.75 of the "
        "copy's rate (wanted 0.7)."
    ]
