"""`explain` counts what the compiler does: against dense matrices, emitted modules, and recorded runs."""

from __future__ import annotations

import json
import re
import shlex
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch

import sparsedsl as sd
from benchmarks.cases import CASES
from sparsedsl.cli import main
from sparsedsl.codegen.build import load
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.explanation import ExplainedLayer, Explanation, Pass
from sparsedsl.codegen.gpus import H200, KernelCost
from sparsedsl.codegen.plan import plan
from sparsedsl.codegen.tile_counts import pairs_of
from sparsedsl.codegen.tiling import TILINGS
from sparsedsl.patterns.bigbird import bigbird
from sparsedsl.patterns.longnet import longnet
from sparsedsl.patterns.power import power_attention
from tests.sparsedsl.five_lines import assert_five_lines

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
PAGE = RESULTS.parents[1] / "docs" / "explain.md"
HALF128 = TILINGS[0]
PER_HEAD = sd.per_head([sd.sliding(100), sd.dilated(20, 4), sd.sliding(100)])
SPLIT = sd.sliding(256) | sd.dilated(256, 16)
SHORT_PARTS, LONG_PARTS = (sd.sliding(window) | sd.dilated(window, 16) for window in (64, 600))
POWERS = (sd.sliding(2) | sd.power() | sd.sink(1)).blocks(64) & sd.causal()
OWN_CLASSES = longnet(segments=[64, 4096], dilations=[1, 4], heads=4)


def recorded(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def only_layer(
    pattern: sd.Pattern | sd.PerHead,
    seq_len: int,
    *,
    heads: int | None = None,
    key_heads: int | None = None,
    head_dim: int = 128,
) -> ExplainedLayer:
    (layer,) = sd.explain(pattern, seq_len=seq_len, heads=heads, key_heads=key_heads, head_dim=head_dim).layers
    return layer


# --- tiles and pairs, against dense matrices


@cache
def tiles_of(pattern: sd.Pattern, length: int, block_m: int, block_n: int) -> tuple[int, int]:
    """(FULL, PARTIAL); a tile is FULL by the pattern, whatever of it lies beyond the sequence."""
    rows, columns = -(-length // block_m), -(-length // block_n)
    dense = pattern.dense(rows * block_m, columns * block_n, q_start=0)
    tiles = dense.reshape(rows, block_m, columns, block_n)
    full = tiles.all((1, 3)).sum()
    return int(full), int(tiles.any((1, 3)).sum() - full)


@pytest.mark.parametrize("seq_len", [1, 64, 700, 1000])
@pytest.mark.parametrize(
    "pattern",
    [
        sd.sliding(100),
        sd.sliding(200) | sd.sink(3),
        POWERS,
        sd.dilated(90, 4),
        SHORT_PARTS,
        LONG_PARTS,
        sd.sliding(30, ahead=40),
        PER_HEAD,
        OWN_CLASSES,
    ],
    ids=str,
)
def test_tiles_and_pairs_are_those_of_dense(pattern: sd.Pattern | sd.PerHead, seq_len: int) -> None:
    heads = len(pattern.heads) if isinstance(pattern, sd.PerHead) else 3
    layer = only_layer(pattern, seq_len, heads=heads)
    if pattern is OWN_CLASSES:
        assert [(part.step, part.classes) for part in layer.parts] == [(4, 4), (1, 1)]
    dense = pattern.dense(seq_len)
    assert layer.live_pairs == dense.sum() * (1 if isinstance(pattern, sd.PerHead) else heads)
    assert sum(part.live_pairs for part in layer.parts) == layer.live_pairs
    for part, planned in zip(layer.parts, plan(pattern).parts, strict=True):
        assert part.hopper is not None
        # A mask that looks distances up in a set is too long for the backward one; several short parts go without.
        assert (part.hopper_backward is None) == (pattern in (POWERS, SHORT_PARTS, OWN_CLASSES))
        for kernel in (*part.kernels, part.hopper, part.hopper_backward):
            if kernel is None:
                continue
            full = partial = 0
            for head in range(heads):
                own = planned.kinds[planned.kind_of[head] if planned.kind_of else 0]
                for residue in planned.classes[head if len(planned.classes) > 1 else 0]:
                    length = len(range(residue, seq_len, part.step))
                    found = tiles_of(own, length, kernel.block_m, kernel.block_n) if length else (0, 0)
                    full, partial = full + found[0], partial + found[1]
            assert (kernel.full, kernel.partial) == (full, partial)
            assert kernel.executed == (full + partial) * kernel.block_m * kernel.block_n


@pytest.mark.parametrize("length", [1, 30, 101])
@pytest.mark.parametrize(
    "pattern",
    [
        sd.random_blocks(8, 2),
        sd.random_blocks(8, 2) & sd.causal(),
        sd.random_blocks(8, 1) | sd.sliding(5, ahead=3),
        (sd.random_blocks(8, 1, seed=3) - sd.sliding(2).blocks(8)) & sd.causal(),
    ],
    ids=str,
)
def test_pairs_without_a_normal_form(pattern: sd.Pattern, length: int) -> None:
    assert pairs_of(pattern, length) == pattern.dense(length).sum()


def test_orders_are_named_with_their_costs() -> None:
    layer = only_layer(sd.dilated(512, 8), 4096)
    assert [(part.step, part.classes) for part in layer.parts] == [(8, 8)]
    # In tiles of 64 at 65536 tokens: a window of 512 ranks is 8 or 9 tiles, a window of 4096 tokens 63 at mean or more.
    assert layer.choice.parts is not None
    assert layer.choice.identity is not None
    assert 8 < layer.choice.parts <= 9
    assert 60 < layer.choice.identity < 65
    split = only_layer(SPLIT, 4096)
    assert [part.step for part in split.parts] == [1, 16]
    plain = only_layer(sd.sliding(256), 4096)
    assert plain.choice.identity is plain.choice.parts is None


# --- the module that is emitted


def test_long_columns_are_named_where_they_are_split() -> None:
    """Half the shares for twice the heads, none for many; the sums of shares stay the same."""
    found = {}
    for heads in (1, 2, 16):
        explanation = sd.explain(power_attention(), seq_len=131072, heads=heads)
        (layer,) = explanation.layers
        dkdv, special = layer.parts[0].kernels[-1], layer.parts[0].hopper_backward
        assert special is not None
        sums = [
            each.bytes
            for held in (layer.backward_memory, layer.hopper_backward_memory)
            for each in held
            if each.name == "dk and dv of shares, float32"
        ]
        found[heads] = ((dkdv.split, dkdv.shares), (special.split, special.shares), sums)
        assert ("that all later queries read" in str(explanation)) == (heads < 16)
    # A sink of 256 keys; 64 KiB of dk and dv in float32 for each 64 of them.
    assert found[1] == ((4, 24), (2, 24), [4 * 24 * 65536] * 2)
    assert found[2] == ((8, 12), (4, 12), [8 * 12 * 65536] * 2)
    assert found[16] == ((0, 1), (0, 1), [])


@pytest.mark.parametrize("pattern", [power_attention(), sd.sliding(1024), LONG_PARTS], ids=str)
def test_tile_sizes_are_those_of_the_module(pattern: sd.Pattern) -> None:
    source = emit(pattern, HALF128)
    kernels = re.findall(
        r"def (forward|dq|dkdv)_kernel(?:_\d)?\(.*?BLOCK_M: tl.constexpr = (\d+)\s+BLOCK_N: tl.constexpr = (\d+)",
        source,
        re.DOTALL,
    )
    parts = only_layer(pattern, 2048).parts
    assert [(k.name, str(k.block_m), str(k.block_n)) for part in parts for k in part.kernels] == kernels
    for name, attribute in (("hopper_kernel", "hopper"), ("hopper_gradients_kernel", "hopper_backward")):
        sizes = re.findall(
            rf"def {name}\w*\((?:(?!\ndef ).)*?BLOCK_M: gl.constexpr = (\d+)\s+BLOCK_N: gl.constexpr = (\d+)",
            source,
            re.DOTALL,
        )
        own = [getattr(part, attribute) for part in parts]
        assert [(str(each.block_m), str(each.block_n)) for each in own] == sizes


def test_where_there_is_no_kernel_for_hopper_none_is_told() -> None:
    for layer in (only_layer(bigbird(block=64), 1000), sd.explain(sd.sliding(9), seq_len=99, dtype="fp32").layers[0]):
        assert [(part.hopper, part.hopper_backward) for part in layer.parts] == [(None, None)]
        assert layer.forward.hopper_ms is layer.backward.hopper_ms is None
        assert layer.hopper_backward_memory == ()
    text = str(sd.explain(bigbird(block=64), seq_len=1000))
    assert "on Hopper the plain forward: its own takes 16-bit" in text
    assert "on Hopper the plain dq and dk/dv: its own takes 16-bit" in text
    # Forward only: where one part's mask has a set in it, and for the narrowest heads.
    for pattern, head_dim in ((sd.power() | sd.dilated(256, 16), 128), (sd.sliding(9), 16)):
        layer = only_layer(pattern, 1000, head_dim=head_dim)
        assert all(part.hopper is not None and part.hopper_backward is None for part in layer.parts)
        assert layer.hopper_backward_memory == ()


def test_constants_are_those_of_the_module() -> None:
    pattern = sd.offsets({0, 100, 701, 2203, 2907, 5011, 9001, 9100, 12345}) & sd.causal()
    layer = only_layer(pattern, 2048)
    source = emit(pattern, HALF128)
    module = load(source)
    assert layer.constants == len(module.CONSTANTS) > 0
    assert layer.parts[0].kinds[0].road == "lists"
    read = {
        name
        for name in ("forward", "dq", "dkdv")
        if re.search(rf"def {name}_kernel\w*\(\s+constants,", emit(pattern, HALF128))
    }
    assert {kernel.name for kernel in layer.parts[0].kernels if kernel.constants} == read
    assert layer.parts[0].hopper is not None
    assert layer.parts[0].hopper.constants == bool(re.search(r"def hopper_kernel\(\s+constants,", source))
    special = layer.parts[0].hopper_backward
    assert (special is not None) == ("def hopper_gradients_kernel" in source)
    looks_up = bool(re.search(r"def hopper_gradients_kernel\(\s+constants,", source))
    assert (special is not None and special.constants) == looks_up


def test_tables_are_those_of_the_module() -> None:
    pattern = bigbird(block=64)
    layer = only_layer(pattern, 3000, heads=2)
    assert layer.parts[0].kinds[0].road == "table"
    module = load(emit(pattern, HALF128))
    row_starts, row_tiles, column_starts, column_tiles = module.tile_tables(64, 64, 0, 3000, 3000, torch.device("cpu"))
    arrays = (row_starts, row_tiles, column_starts, column_tiles)
    for kernel in layer.parts[0].kernels:
        assert kernel.table == sum(each.nbytes for each in arrays)
        assert kernel.full + kernel.partial == 2 * len(row_tiles)
    assert layer.live_pairs == 2 * pattern.dense(3000).sum()
    assert {item.name: item.bytes for item in layer.forward_memory}["tables of tiles"] == layer.parts[0].kernels[
        0
    ].table


# --- work


def test_flops_and_bytes_by_hand() -> None:
    """causal() on 128 tokens, 4 heads on 2 key heads, head dim 48: three live tiles of 64 x 64, or two of 128 x 64."""
    layer = only_layer(sd.causal(), 128, heads=4, key_heads=2, head_dim=48)
    forward, dq, dkdv = layer.parts[0].kernels
    pairs = 128 * 129 // 2
    assert (forward.block_m, dq.block_m, dkdv.block_m) == (128, 64, 64)
    assert layer.live_pairs == 4 * pairs
    assert layer.forward.useful_flops == 4 * 48 * 4 * pairs
    assert layer.backward.useful_flops == 10 * 48 * 4 * pairs
    # Computed 64 wide: two products forward, three for dq, four for dk and dv.
    assert layer.forward.executed_flops == forward.flops == 2 * 2 * 64 * 4 * 2 * 128 * 64
    assert layer.backward.executed_flops == dq.flops + dkdv.flops == 2 * (3 + 4) * 64 * 4 * 3 * 64 * 64
    q, k, lse = 4 * 128 * 48 * 2, 2 * 128 * 48 * 2, 4 * 128 * 4
    assert layer.forward.floor_bytes == q + k + k + q + lse
    assert layer.backward.floor_bytes == 4 * q + 4 * k + 2 * lse
    assert forward.loaded == 4 * (128 * 96 + 2 * 2 * 64 * 96)
    assert dq.loaded == 4 * (2 * 64 * (2 * 96 + 8) + 3 * 2 * 64 * 96)
    assert dkdv.loaded == 2 * 2 * 2 * 64 * 96 + 4 * 3 * 64 * (2 * 96 + 8)
    assert layer.forward.loaded_bytes == forward.loaded + q + lse


@pytest.mark.parametrize(("head_dim", "width"), [(96, 128), (48, 64), (24, 32)])
def test_the_backward_kernel_for_hopper_by_hand(head_dim: int, width: int) -> None:
    """causal() on 128 tokens, 4 heads on 2 key heads: a key tile that both query tiles of 64 read."""
    layer = only_layer(sd.causal(), 128, heads=4, key_heads=2, head_dim=head_dim)
    found = layer.parts[0].hopper_backward
    assert found is not None
    assert (found.block_m, found.block_n, found.own, found.full, found.partial) == (64, 128, 2, 0, 8)
    assert found.executed == 4 * 128 * 128
    assert found.waste == found.executed / layer.live_pairs
    # Computed as wide as the next power of two: all five products once; the sums for dq are as wide.
    assert found.flops == 2 * 5 * width * found.executed
    row = 2 * head_dim
    assert found.loaded == 2 * 2 * 128 * row + 8 * (2 * 64 * (row + 4) + 64 * width * 4)
    extra = sum(each.bytes for each in layer.hopper_backward_memory) - sum(e.bytes for e in layer.backward_memory)
    assert extra == 4 * 128 * width * 4
    found_all = sd.explain(sd.causal(), seq_len=128, heads=4, key_heads=2, head_dim=head_dim)
    (entry,) = json.loads(found_all.to_json())["layers"]
    assert entry["backward"]["hopper_peak_bytes"] - entry["backward"]["peak_bytes"] == extra


def test_parts_pay_for_merging() -> None:
    layer = only_layer(SPLIT, 2048, heads=2, key_heads=1)
    q, k = 2 * 2048 * 128 * 4, 2048 * 128 * 4  # in float32, written by the first part and read by the second
    assert layer.forward.merged_bytes == 2 * q
    assert layer.backward.merged_bytes == 2 * (q + 2 * k)
    assert {item.name: item.bytes for item in layer.forward_memory}["output so far, float32"] == q


# --- recorded runs

RUN = recorded("attention_h200.json")
NAMES = [each.name for each in CASES]
OURS = [each for each in RUN["timings"] if each["peer"] == "sparsedsl, plain" and each["case"] in NAMES]


@cache
def explained(case: str, tokens: int) -> ExplainedLayer:
    return only_layer(next(each.pattern for each in CASES if each.name == case), tokens)


@pytest.mark.parametrize("case", NAMES)
def test_memory_is_what_was_measured(case: str) -> None:
    """The peak beside the inputs: q, k, v, and for the backward pass the gradient of the output."""
    for each in OURS:
        if each["case"] != case:
            continue
        layer = explained(case, each["tokens"])
        held = layer.forward_memory if each["direction"] == "forward" else layer.backward_memory
        new = sum(item.bytes for item in held if item.name not in ("q", "k", "v", "output's gradient"))
        assert new / 2**20 == pytest.approx(each["peak_mib"], rel=0.005)


def error(each: dict[str, Any]) -> float:
    """Predicted over measured, less one."""
    found: Pass = getattr(explained(each["case"], each["tokens"]), each["direction"])
    assert found.useful_flops == each["flops"]
    assert found.predicted_ms is not None
    assert found.floor_ms is not None
    assert found.floor_ms < each["ms"]
    return found.predicted_ms / float(each["ms"]) - 1


def test_predictions_against_all_measured_cases() -> None:
    """The table of docs/explain.md is the one that the data gives; no case is off by more than a tenth."""
    text = PAGE.read_text(encoding="utf-8")
    for each in OURS:
        off = error(each)
        assert abs(off) < 0.10, (each["case"], each["tokens"], each["direction"], off)
        row = f"| {each['case']} | {each['tokens']} | {each['direction']} | {each['ms']:.2f} |"
        assert re.search(rf"{re.escape(row)} [\d.]+ \| {re.escape(f'{off:+.1%}')} \|", text), (row, off)


def cost(first: tuple[ExplainedLayer, float], second: tuple[ExplainedLayer, float], direction: str) -> KernelCost:
    """The two numbers that explain two measured times."""
    equations, times = [], []
    for layer, ms in (first, second):
        (kernel,) = (
            k for part in layer.parts for k in part.kernels if k.name == {"forward": "forward"}.get(direction, "dq")
        )
        equations.append((kernel.full + kernel.partial, kernel.own))
        times.append(ms * 1e6)
    visited, own = np.linalg.solve(np.array(equations, dtype=float), np.array(times))
    if own < 0:
        visited, own = sum(times) / sum(tiles for tiles, _ in equations), 0.0
    return KernelCost(visited, own)


def test_costs_are_derived_from_the_recorded_runs() -> None:
    long = {(each["case"], each["direction"]): each["ms"] for each in OURS if each["tokens"] == 131072}
    ceilings = recorded("ceilings_h200.json")
    windows = {(each["head_dim"], each["window"], each["direction"]): each["ms"] for each in ceilings["kernels"]}

    def by_cases(direction: str, *cases: str) -> KernelCost:
        first, second = ((explained(case, 131072), long[case, direction]) for case in cases)
        return cost(first, second, direction)

    def by_windows(direction: str, head_dim: int, *sizes: int) -> KernelCost:
        first, second = (
            (only_layer(sd.sliding(w), 32768, head_dim=head_dim), windows[head_dim, w, direction]) for w in sizes
        )
        return cost(first, second, direction)

    derived = {
        ("forward", (64, 64, 64)): by_windows("forward", 64, 512, 1024),
        ("forward", (64, 128, 64)): by_windows("forward", 64, 4096, 8192),
        ("forward", (128, 64, 64)): by_cases("forward", "sliding 1024", "dilated 512 x 8"),
        ("forward", (128, 128, 64)): by_cases("forward", "sliding 4096", "power 256"),
        ("forward", (256, 128, 64)): by_windows("forward", 256, 1024, 4096),
        ("backward", (64, 64, 64)): by_windows("backward", 64, 1024, 4096),
        ("backward", (128, 64, 64)): by_cases("backward", "dilated 512 x 8", "sliding 4096"),
        ("backward", (256, 64, 64)): by_windows("backward", 256, 1024, 4096),
    }
    kept = {(name, shape): each for name in ("forward", "backward") for shape, each in getattr(H200, name)}
    assert kept.keys() == derived.keys()
    for key, each in kept.items():
        assert (each.visited, each.own) == pytest.approx((derived[key].visited, derived[key].own), rel=1e-3), key
    names = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
    assert dict(H200.matrix) == {names[each["dtype"]]: each["tflops"] for each in ceilings["matrix"]}
    assert H200.copy == ceilings["copy"]["terabytes_per_s"]
    for place, direction in enumerate(("forward", "backward")):
        host = [
            each[f"{direction}_host_ms"] / len(explained(each["case"], 32768).parts)
            for each in RUN["preparations"]
            if each["case"] in NAMES
        ]
        assert H200.call[place] == pytest.approx(median(host), rel=1e-2)
        rates = {
            e["tokens"]: e["tflops"] for e in RUN["timings"] if (e["peer"], e["direction"]) == ("cuDNN", direction)
        }
        assert {each.tokens: getattr(each, direction) for each in H200.dense} == rates


def of_default(direction: str) -> list[dict[str, Any]]:
    """The default's passes."""
    own = [each for each in RUN["timings"] if (each["peer"], each["direction"]) == ("sparsedsl", direction)]
    return [each for each in own if each["case"] in NAMES]


def on_hopper(direction: str) -> list[dict[str, Any]]:
    """Those of them that run the kernels for Hopper: backward of two short parts does not."""
    return [each for each in of_default(direction) if (direction, each["case"]) != ("backward", "local and dilated")]


@pytest.mark.parametrize(
    ("direction", "kernel", "shape"),
    [("forward", "hopper", (128, 128, 128)), ("backward", "hopper_backward", (128, 64, 128))],
)
def test_the_costs_of_the_kernels_for_hopper_are_derived_from_their_record(
    direction: str, kernel: str, shape: tuple[int, int, int]
) -> None:
    equations, times = [], []
    for each in of_default(direction):
        if each["tokens"] == 131072 and each["case"] in ("sliding 1024", "sliding 4096"):
            (part,) = explained(each["case"], 131072).parts
            work = getattr(part, kernel)
            equations.append((work.full + work.partial, work.own))
            times.append(median(each["samples_ms"]) * 1e6)
    visited, own = np.linalg.solve(np.array(equations, dtype=float), np.array(times))
    ((known, kept),) = getattr(H200, kernel)
    assert known == shape
    assert (kept.visited, kept.own) == pytest.approx((visited, own), rel=1e-3)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_predictions_on_hopper_against_their_record(direction: str) -> None:
    """The table of docs/explain.md is what the data gives, and so are the errors that it names."""
    heading = f"### {direction.capitalize()} on Hopper"
    text = PAGE.read_text(encoding="utf-8").partition(heading)[2].partition("\n#")[0]
    timings = on_hopper(direction)
    assert len(timings) == {"forward": 12, "backward": 10}[direction]
    off = []
    for each in timings:
        found = getattr(explained(each["case"], each["tokens"]), direction)
        assert found.floor_ms < each["ms"]
        ms = median(each["samples_ms"])
        error = found.hopper_ms / ms - 1
        marked = each["tokens"] == 131072 and each["case"] in ("sliding 1024", "sliding 4096")
        assert not marked or abs(error) < 1e-3
        off += [] if marked else [abs(error)]
        # Residue order is what two numbers do not tell.
        assert abs(error) < 0.10 or "dilated" in each["case"]
        known = "yes" if marked else ""
        row = f"| {each['case']} | {each['tokens']} | {ms:.3f} | {found.hopper_ms:.3f} | {error:+.1%} | {known} |"
        assert row in text, row
    assert f"off by {sum(off) / len(off):.1%} on average, {max(off):.1%} at most" in " ".join(text.split())


def test_memory_on_hopper_is_what_was_measured() -> None:
    for each in of_default("backward"):
        layer = explained(each["case"], each["tokens"])
        held = layer.hopper_backward_memory or layer.backward_memory
        new = sum(item.bytes for item in held if item.name not in ("q", "k", "v", "output's gradient"))
        assert new / 2**20 == pytest.approx(each["peak_mib"], rel=0.005)


def test_dense_attention_takes_what_was_measured() -> None:
    for each in RUN["timings"]:
        if each["peer"] == "cuDNN":
            found: Pass = getattr(explained("sliding 1024", each["tokens"]), each["direction"])
            assert found.dense_ms == pytest.approx(each["ms"], rel=1e-3)


def test_nothing_is_predicted_that_was_not_measured() -> None:
    layer = sd.explain(sd.sliding(64), seq_len=1000, dtype="fp32").layers[0]
    assert layer.forward.predicted_ms is layer.forward.dense_ms is None
    assert layer.forward.matrix_ms is not None
    assert only_layer(sd.sliding(64), 1000, head_dim=64).forward.dense_ms is None
    assert only_layer(sd.sliding(64, ahead=3), 1000).forward.dense_ms is None
    # A short call takes what its launches take.
    short = only_layer(sd.sliding(64), 100).forward
    assert short.predicted_ms == short.launch_ms == H200.call[0]


# --- stacks, text, JSON, errors


def test_each_pattern_of_a_stack_once() -> None:
    found = sd.explain(sd.cycle([sd.sliding(64), PER_HEAD], layers=5), seq_len=500)
    assert (found.heads, [each.layers for each in found.layers]) == (3, [(1, 3, 5), (2, 4)])
    assert [each.pattern for each in found.layers] == [str(sd.sliding(64)), str(PER_HEAD)]
    assert [kind.heads for kind in found.layers[1].parts[0].kinds] == [(0, 2), (1,)]
    text = str(found)
    assert "layers      1, 3, 5 (3 in all)" in text
    assert "heads 0, 2: sliding(100)" in text


def test_command_prints_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["explain", "sliding(256) | dilated(256, 16)", "--seq-len", "4096", "--heads", "4", "--key-heads", "2"])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "pattern     sliding(256) | dilated(window=256, dilation=16)",
        "inputs      4 096 tokens, batch 1, 4 heads, 2 key heads, head dim 128, bf16; tiling half128",
        "plan        2 disjoint parts, merged by log-sum-exp: 13.88 tiles a query tile, 63 in identity order (64 x 64, "
        "65 536",
        "            tokens)",
        "part 0      identity order: tiles hold neighbouring positions",
    ]
    assert "part 1      residue(16): tiles hold every 16th position, in 16 classes" in lines
    assert all(len(line) <= 118 for line in lines)
    assert any(line.startswith("on h200     forward ") and "predicted (launches)" in line for line in lines)


def test_the_page_shows_real_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.findall(r"^\$ sparsedsl (explain .*)\n((?:.+\n)+?)```", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(shown) == 4
    for words, text in shown:
        assert main(shlex.split(words)) == 0
        assert capsys.readouterr().out == text


def test_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "sliding(64)", "--seq-len", "1000", "--json", "--dtype", "fp16", "--head-dim", "64"]) == 0
    found = json.loads(capsys.readouterr().out)
    told: Explanation = sd.explain(sd.sliding(64), seq_len=1000, dtype="fp16", head_dim=64)
    assert {key: found[key] for key in ("seq_len", "heads", "key_heads", "head_dim", "dtype", "tiling", "gpu")} == {
        "seq_len": 1000,
        "heads": 16,
        "key_heads": 16,
        "head_dim": 64,
        "dtype": "fp16",
        "tiling": "half128",
        "gpu": "h200",
    }
    (layer,) = found["layers"]
    assert layer["live_pairs"] == told.layers[0].live_pairs
    assert layer["forward"]["floor_ms"] == told.layers[0].forward.floor_ms
    assert layer["forward"]["peak_bytes"] == sum(each["bytes"] for each in layer["forward_memory"])
    assert [kernel["name"] for kernel in layer["parts"][0]["kernels"]] == ["forward", "dq", "dkdv"]
    assert layer["parts"][0]["hopper_backward"]["name"] == "hopper_backward"
    assert layer["backward"]["hopper_peak_bytes"] == sum(each["bytes"] for each in layer["hopper_backward_memory"])
    assert main(["explain", "sliding(64)", "--seq-len", "1000", "--json", "--head-dim", "16"]) == 0
    (layer,) = json.loads(capsys.readouterr().out)["layers"]
    assert layer["parts"][0]["hopper_backward"] is layer["backward"]["hopper_peak_bytes"] is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--gpu", "H20"], "UnknownName: no GPU of this name was measured"),
        (["--dtype", "bf8"], "UnknownName: no kernel takes this type"),
        (["--seq-len", "0"], "WrongValue: seq_len is out of range"),
        (["--head-dim", "100"], "WrongValue: no kernel takes this head dimension"),
        (["--head-dim", "512"], "WrongValue: no kernel takes this head dimension"),
        (["--heads", "6", "--key-heads", "4"], "HeadMismatch: the key heads do not divide the query heads"),
        (["--heads", "0"], "WrongValue: heads is out of range"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_get_five_lines(capsys: pytest.CaptureFixture[str], options: list[str], told: str) -> None:
    assert main(["explain", "sliding(64)", *options]) == 2
    text = capsys.readouterr().err
    assert_five_lines(text)
    assert text.startswith(told)


def test_bad_calls_get_five_lines() -> None:
    calls: tuple[tuple[Any, dict[str, Any]], ...] = (
        ("sliding(64)", {}),
        (PER_HEAD, {"heads": 4}),
        (sd.Stack([PER_HEAD, OWN_CLASSES]), {}),
        (sd.sliding(3), {"dtype": 16}),
    )
    for pattern, options in calls:
        with pytest.raises(sd.SparseDSLError) as caught:
            sd.explain(pattern, seq_len=10, **options)
        assert_five_lines(str(caught.value))
