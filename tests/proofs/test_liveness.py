"""Live keys at each step, counted on boolean matrices; figures, reports and mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sparsedsl as sd
from sparsedsl.cli import main
from sparsedsl.errors import HeadMismatch, NoNormalForm, UnknownName, WrongType, WrongValue
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from sparsedsl.proofs.liveness import liveness
from tests.strategies import head_patterns, periodic_patterns

STEPS, LENGTH = 40, 2000


def counted(pattern: Pattern) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """[step, key]: the key is there and some query from the step on reads it."""
    matrix = pattern.dense(LENGTH)[:, :STEPS]
    read_later = np.flip(np.logical_or.accumulate(np.flip(matrix, 0)), 0)[:STEPS]
    live: np.ndarray[tuple[int, int], np.dtype[np.bool_]] = read_later & np.tri(STEPS, dtype=np.bool_)
    return live


@settings(max_examples=40)
@given(st.one_of(periodic_patterns(4), head_patterns()), st.integers(1, 3))
def test_the_peak_equals_brute_force(pattern: Pattern | PerHead, layers: int) -> None:
    heads = pattern.heads if isinstance(pattern, PerHead) else (pattern,) * 2
    try:
        found = liveness(pattern, seq_len=STEPS, layers=layers, key_heads=len(heads))
    except NoNormalForm:
        assume(False)
    curve = layers * sum(counted(head).sum(1) for head in heads)
    assert (found.peak, found.peak_step) == (int(curve.max()), int(curve.argmax()))
    assert found.full == layers * len(heads) * STEPS


def test_query_heads_that_share_a_key_head_keep_what_any_reads() -> None:
    pattern = sd.per_head([sd.sliding(3), sd.offsets({0, 9}), sd.sliding(5), sd.sliding(2)])
    found = liveness(pattern, seq_len=STEPS, key_heads=2)
    curve = (counted(pattern.heads[0]) | counted(pattern.heads[1])).sum(1)
    curve += (counted(pattern.heads[2]) | counted(pattern.heads[3])).sum(1)
    assert found.peak == int(curve.max()) == 10 + 5


@pytest.mark.parametrize(
    ("text", "peak"),
    [
        ("sliding(100)", 100),
        ("sliding(100) | sink(4)", 104),
        ("dilated(window=10, dilation=4)", 37),
        ("(sliding(9) | sink(1)).blocks(16) & causal()", 160),
        ("power()", 4096),
        ("strided(64) & causal()", 4096),
        ("chunked(128) & causal()", 128),
        ("where(k % 8 == 7) & causal()", 512),
    ],
)
def test_figures(text: str, peak: int) -> None:
    found = liveness(sd.parse(text), seq_len=4096, key_heads=1)
    assert found.peak == peak
    assert found.bytes_of(peak) == peak * 2 * 128 * 2


def test_a_stack_peaks_at_one_step() -> None:
    """A chunk is full at its end, when a strict second chunk of another size may be half empty."""
    stack = sd.cycle([sd.chunked(6) & sd.causal(), sd.chunked(4) & sd.causal()], layers=4)
    found = liveness(stack, seq_len=STEPS, key_heads=1)
    curve = 2 * counted(sd.chunked(6) & sd.causal()).sum(1) + 2 * counted(sd.chunked(4) & sd.causal()).sum(1)
    assert (found.peak, found.peak_step) == (int(curve.max()), int(curve.argmax()))
    assert [each.peak for each in found.by_pattern] == [6, 4]


def test_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["liveness", "sliding(1024) | sink(4)", "--seq-len", "131072", "--layers", "28"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "tokens      131 072, generated one by one",
        "pattern     sliding(1024) | sink(4)",
        "layers      28, 8 key heads each",
        "keys        0 .. 3: never die",
        "            from 4 on: die 1023 steps after their own, a ring of 1024",
        "a layer     at most 1 028 keys a head, 4.0 MiB of 512 MiB (0.78%), first at step 1 027",
        "all layers  at most 1 028 keys a head, 112.4 MiB of 14 GiB (0.78%), first at step 1 027",
    ]
    words = ["liveness", "sparse_transformer_fixed(stride=32, summary=4)", "--seq-len", "256", "--json"]
    assert main([*words, "--key-heads", "2", "--head-dim", "64", "--dtype", "float32"]) == 0
    told = json.loads(capsys.readouterr().out)
    # 7 earlier blocks keep 4 keys each, the last all of its 32; 2 heads.
    assert told["peak"] == 2 * (7 * 4 + 32)
    assert told["peak_bytes"] == told["peak"] * 2 * 64 * 4
    assert [each["until"] for each in told["by_pattern"][0]["fates"][0]] == [31, None]


def test_mistakes() -> None:
    with pytest.raises(WrongType, match="liveness takes a pattern"):
        liveness("sliding(4)", seq_len=8)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="no such type of cached keys"):
        liveness(sd.sliding(4), seq_len=8, dtype="int4")
    with pytest.raises(HeadMismatch, match="key heads do not divide"):
        liveness(sd.per_head([sd.sliding(4)] * 3), seq_len=8, key_heads=2)
    with pytest.raises(WrongValue, match="its own number of layers"):
        liveness(sd.cycle([sd.sliding(4)], layers=3), seq_len=8, layers=4)
    with pytest.raises(NoNormalForm, match="for how long"):
        liveness(sd.random_blocks(16, 2), seq_len=64)
