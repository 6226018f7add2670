"""Tuning without a GPU: which tiles are tried, which are taken, how a run goes on, and what uses its file."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import sparsedsl as sd
from sparsedsl.cli import main
from sparsedsl.codegen.build import build_module
from sparsedsl.codegen.build import compile as compile_attention
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.tiling import SMALL_TILINGS, TILINGS, HopperTiles, Tiles, Tiling
from sparsedsl.codegen.tune import Device, Unfit, candidates, file_name, placed, tune
from sparsedsl.codegen.tune_gpu import Bench
from sparsedsl.codegen.tuned import Measured, TunedTiles, as_tiles, best, read, read_tiles
from sparsedsl.commands.tune import report
from sparsedsl.errors import DeviceMismatch, SparseDSLError, StateMismatch, Unsupported
from sparsedsl.pattern import Pattern

CARD = Device("Made-up Card", (9, 0), 101376, "2.0", "3.0")
HALF128 = TILINGS[0]
FAST = Tiles(128, 32, 8, 2)
HANDED_OUT = HopperTiles(64, 3, True)


def model(name: str, tiling: Tiling) -> float:
    """An invented GPU: one forward tile is fast, one height suits both backward kernels, deep pipelines do not fit.

    Narrow tiles for Hopper that are handed out beat wide ones in fixed shares, which beat the plain kernel.
    """
    if name == "hopper":
        special = tiling.hopper
        return 1.5 if special is None else 1.0 if special == HANDED_OUT else 1.2
    tiles: Tiles = getattr(tiling, name)
    if tiles.stages == 3:
        raise Unfit("OutOfResources: shared memory")
    if name == "forward":
        return 1.0 if tiles == FAST else 2.0
    if tiles.block_m == 128:
        return 2.0 if name == "dq" else 3.0
    return 3.0 if name == "dq" or tiles.block_m != 64 else 2.5


def tuned(path: Path, pattern: Pattern | None = None, /, **options: object) -> TunedTiles:
    given: dict[str, object] = {"device": CARD, "measure": model, "seq_len": 4096, "command": "sparsedsl tune ..."}
    found, where = tune(sd.sliding(1024) if pattern is None else pattern, path=path, **{**given, **options})  # type: ignore[arg-type]
    assert where == path
    return found


# --- which tiles are tried


@pytest.mark.parametrize("tiling", TILINGS, ids=lambda each: each.name)
@pytest.mark.parametrize("name", ["forward", "dq", "dkdv"])
def test_every_candidate_can_be_emitted_and_the_default_comes_first(tiling: Tiling, name: str) -> None:
    pattern = (sd.sliding(700) | sd.sink(4)) & sd.causal()
    tried = candidates(pattern, tiling, name)
    assert len(tried) == len(set(tried)) > 8
    assert tried[0] in (getattr(tiling, name), tiling.tall)
    for each in map(as_tiles, tried):
        assert min(each.block_m, each.block_n) >= 16
        assert each.warps in (1, 2, 4, 8)
    for each in map(as_tiles, (tried[1], tried[-1])):
        side = f"BLOCK_M: tl.constexpr = {each.block_m}\n    BLOCK_N: tl.constexpr = {each.block_n}\n"
        assert side in emit(pattern, placed(tiling, name, each)).split(f"def {name}_kernel(")[1]


def test_candidates_respect_random_choices() -> None:
    pattern = (sd.random_blocks(32, 2, seed=1) | sd.sliding(64)) & sd.causal()
    for each in map(as_tiles, candidates(pattern, HALF128, "forward")):
        assert 32 % each.block_m == 0
        assert 32 % each.block_n == 0


def test_the_default_is_the_tall_tile_where_the_compiler_takes_it() -> None:
    assert HALF128.tall is not None
    assert candidates(sd.causal(), HALF128, "forward")[0] == HALF128.tall
    assert candidates(sd.sliding(256), HALF128, "forward")[0] == HALF128.forward


def test_candidates_of_the_kernel_for_hopper() -> None:
    """The rule first, both widths, each depth that there is room for, both ways to share; the plain kernel last."""
    tried = candidates(sd.sliding(1024), HALF128, "hopper")
    assert tried == [
        HopperTiles(128, 4, False),  # as deep as there is room for, which is two
        HopperTiles(128, 2, True),
        *[HopperTiles(64, stages, dynamic) for stages in (2, 3, 4) for dynamic in (False, True)],
        HALF128.forward,
    ]
    assert [each.block_n for each in candidates(sd.sliding(1024), TILINGS[1], "hopper")[:-1]] == [64, 64]
    for each in tried[:-1]:
        assert isinstance(each, HopperTiles)
        source = emit(sd.sliding(1024), placed(HALF128, "hopper", each))
        assert f"    BLOCK_N: gl.constexpr = {each.block_n}\n" in source
        assert f"DYNAMIC={each.dynamic}," in source
        least = f"min({each.stages}, hopper_stages({each.block_n}, width))"
        assert (f"STAGES={least}," in source) == (each.stages < 4)
    assert "hopper_kernel" not in emit(sd.sliding(1024), placed(HALF128, "hopper", tried[-1]))
    for pattern, tiling in ((sd.random_blocks(64, 2), HALF128), (sd.sliding(9), TILINGS[-1])):
        assert candidates(pattern, tiling, "hopper") == []
    assert candidates(sd.sliding(9), SMALL_TILINGS[0], "hopper") == []


# --- which are taken


def rows(*found: tuple[int, float | None]) -> list[Measured]:
    return [Measured(Tiles(height, 64, 4, number), ms) for number, (height, ms) in enumerate(found, 1)]


@pytest.mark.parametrize(
    ("dq", "dkdv", "want"),
    [
        ([(64, 2.0), (64, 1.0)], [(64, 3.0)], (2, None)),  # each by itself, of one height
        ([(64, 2.0), (128, 1.0)], [(64, 3.0), (128, 3.5)], (2, 2)),  # 4.5 against 5.0: one pays, both gain
        ([(64, 2.0), (128, 1.9)], [(64, 3.0), (128, 3.5)], (None, None)),
        ([(64, 2.0), (128, 1.0)], [(64, 3.0), (128, None)], (None, None)),  # no partner of that height
        ([(64, None), (64, 1.0)], [(64, 3.0)], (2, None)),  # the default itself does not fit
        ([(64, None)], [(64, 3.0)], (None, None)),  # nothing fits: nothing is claimed
        ([(64, 2.0), (64, 1.99)], [(64, 3.0)], (None, None)),  # within what a machine repeats itself to
    ],
)
def test_backward_tiles_are_chosen_together(
    dq: list[tuple[int, float | None]], dkdv: list[tuple[int, float | None]], want: tuple[int | None, int | None]
) -> None:
    found = best({"dq": rows(*dq), "dkdv": rows(*dkdv)})
    assert tuple(each and each.stages for each in found.values()) == want


def test_one_backward_kernel_alone_keeps_its_height() -> None:
    assert best({"dq": rows((64, 2.0), (128, 1.0), (64, 1.8))}) == {"dq": Tiles(64, 64, 4, 3)}


# --- a run


def test_a_run_measures_chooses_and_writes(tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    found = tuned(path)
    assert found.winners is not None
    assert found.winners["forward"] == FAST
    assert found.winners["hopper"] == HANDED_OUT
    heights = {as_tiles(each).block_m for each in (found.winners["dq"], found.winners["dkdv"]) if each is not None}
    assert heights == {128}
    refused = [each for each in found.candidates["forward"] if each.ms is None]
    assert refused
    assert all(as_tiles(each.tiles).stages == 3 and each.refused == "OutOfResources: shared memory" for each in refused)
    again = read(path)
    assert again == found
    assert json.loads(path.read_text())["request"]["gpu"] == "Made-up Card"
    assert [file.name for file in tmp_path.iterdir()] == ["tiles.json"]


def test_an_interrupted_run_goes_on_where_it_stood(tmp_path: Path) -> None:
    whole, path = tuned(tmp_path / "whole.json"), tmp_path / "tiles.json"
    calls = 0

    def interrupted(name: str, tiling: Tiling) -> float:
        nonlocal calls
        calls += 1
        if calls % 10 == 0:
            raise KeyboardInterrupt
        return model(name, tiling)

    stops = 0
    while True:
        try:
            found = tuned(path, measure=interrupted)
            break
        except KeyboardInterrupt:
            stops += 1
            with pytest.raises(StateMismatch, match="not finished"):
                read_tiles(path) if path.exists() else pytest.fail("nothing was kept")
    total = sum(map(len, whole.candidates.values()))
    assert calls == total + stops
    assert (found.candidates, found.winners) == (whole.candidates, whole.winners)
    assert tuned(path, measure=lambda name, tiling: pytest.fail("measured again")) == found


def test_a_file_of_another_request_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    tuned(path)
    others: tuple[dict[str, object], ...] = (
        {"seq_len": 8192},
        {"dtype": "fp16"},
        {"device": Device("Other Card", (8, 9), 101376)},
    )
    for options in others:
        with pytest.raises(StateMismatch, match="another request") as caught:
            tuned(path, None, **options)
        assert len(str(caught.value.located("sparsedsl tune")).splitlines()) == 5


def test_the_name_of_the_file_tells_gpu_and_tiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found, path = tune(sd.sliding(64), device=CARD, measure=model, passes=["forward"])
    assert path.name == file_name(found.request)
    assert path.name.startswith("tiles_made_up_card_half128_")
    assert set(found.candidates) == {"forward"}


# --- what uses the file


def test_a_module_is_built_with_measured_tiles(tmp_path: Path) -> None:
    path, pattern = tmp_path / "tiles.json", sd.sliding(1024)
    tuned(path)
    tiling = read_tiles(path)
    assert (tiling.name, tiling.forward, tiling.tall) == ("half128", FAST, None)
    assert (tiling.hopper, tiling.plain_forward) == (HANDED_OUT, False)
    text = build_module(pattern, tmp_path / "a.py", tiles=path).read_text()
    assert text == emit(pattern, tiling) != emit(pattern, HALF128)
    assert "Measured   tiles by sparsedsl tune: Made-up Card, sliding(1024), 4096 tokens" in text
    assert f"num_stages={FAST.stages}" in text
    assert "STAGES=min(3, hopper_stages(64, width)),\n            DYNAMIC=True," in text
    assert "--tiling half128 --tiles FILE" in text
    compile(text, "a.py", "exec")
    attn = compile_attention(pattern, tiles=path)
    assert attn.source() == text
    assert attn.source("half256") == emit(pattern, TILINGS[1])
    path.unlink()  # what was compiled does not need the file
    assert pickle.loads(pickle.dumps(attn)).source() == text


def test_the_report_names_the_tiles_of_both_forward_kernels(tmp_path: Path) -> None:
    lines = report(tuned(tmp_path / "tiles.json")).splitlines()
    assert lines[1].startswith("forward  128 x 32, 8 warps, 2 stages: 1.000 ms (default not measured); ")
    assert lines[2] == (
        "hopper   128 x 64, 3 stages, query tiles handed out one by one: 1.000 ms (default 1.200 ms); "
        "9 candidates, 0 refused"
    )


def test_the_plain_kernel_is_taken_where_it_is_the_faster_one(tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    tuned(path, measure=lambda name, tiling: 0.5 if tiling.plain_forward else model(name, tiling))
    assert json.loads(path.read_text())["winners"]["hopper"] == [64, 64, 4, 3]
    assert read_tiles(path).plain_forward
    assert "hopper" not in emit(sd.sliding(1024), read_tiles(path))


def test_without_a_kernel_for_hopper_nothing_of_it_is_measured(tmp_path: Path) -> None:
    others: tuple[dict[str, object], ...] = ({"dtype": "fp32"}, {"device": Device("Other Card", (8, 9), 101376)})
    for number, options in enumerate(others):
        found = tuned(tmp_path / f"{number}.json", None, **options)
        assert list(found.candidates) == ["forward", "dq", "dkdv"]
        with pytest.raises(Unsupported, match="no kernel for Hopper to measure") as caught:
            tuned(tmp_path / "other.json", None, **options, passes=["hopper"])
        assert len(str(caught.value).splitlines()) == 5


def test_tiles_of_another_kind_of_card(tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    tuned(path, device=Device("Small Card", (8, 9), 101376))
    tiling = read_tiles(path)
    assert (tiling.name, tiling.forward) == ("half128_small", FAST)
    attn = compile_attention(sd.sliding(1024), tiles=path)
    assert attn.source("half128_small") == emit(sd.sliding(1024), tiling)
    module = build_module(sd.sliding(1024), tmp_path / "a.py", tiling="half128", tiles=path)
    assert module.read_text() == emit(sd.sliding(1024), tiling)


def test_the_command_line_builds_with_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, module = tmp_path / "tiles.json", tmp_path / "a.py"
    tuned(path)
    assert main(["build", "sliding(1024)", "-o", str(module), "--tiles", str(path)]) == 0
    assert module.read_text() == emit(sd.sliding(1024), read_tiles(path))
    assert (
        main(["build", "cycle([sliding(64), causal()], layers=2)", "-o", f"{tmp_path}/p/", "--tiles", str(path)]) == 0
    )
    assert (tmp_path / "p" / "pattern_0_half128.py").read_text() == emit(sd.sliding(64), read_tiles(path))
    assert (tmp_path / "p" / "pattern_0_half256.py").read_text() == emit(sd.sliding(64), TILINGS[1])
    capsys.readouterr()
    assert main(["build", "sliding(64)", "-o", str(module), "--tiles", str(path), "--tiling", "half256"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == (
        "StateMismatch: the measured tiles are for another head dimension or type"
    )


DAMAGE: dict[str, Callable[[dict[str, object]], object]] = {
    "format": lambda saved: saved.update(format="else"),
    "request": lambda saved: saved.pop("request"),
    "zero": lambda saved: saved.update(winners={"forward": [0, 64, 4, 2]}),
    "no power": lambda saved: saved.update(winners={"forward": [48, 64, 4, 2]}),
    "text": lambda saved: saved.update(winners={"forward": ["64", 64, 4, 2]}),
    "heights": lambda saved: saved.update(winners={"dq": [32, 64, 4, 2]}),
    "short": lambda saved: saved.update(winners={"forward": [64]}),
    "hopper keys": lambda saved: saved.update(winners={"hopper": [96, 2, True]}),
    "hopper stages": lambda saved: saved.update(winners={"hopper": [64, 5, True]}),
    "hopper sharing": lambda saved: saved.update(winners={"hopper": [64, 2, 1]}),
    "hopper elsewhere": lambda saved: saved.update(winners={"dq": [64, 2, True]}),
    "candidates": lambda saved: saved.update(candidates={"forward": [{"tiles": 3}]}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    tuned(path)
    saved = json.loads(path.read_text())
    DAMAGE[damage](saved)
    path.write_text(json.dumps(saved))
    with pytest.raises(StateMismatch):
        read_tiles(path)


# --- mistakes


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_error_has_five_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DeviceMismatch):
        tune(sd.sliding(64))
    assert main(["tune", "sliding(64)"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["DeviceMismatch:", "where", "got", "expected", "try"]


@pytest.mark.parametrize(
    "options",
    [
        {"heads": 0},
        {"heads": 6, "key_heads": 4},
        {"dtype": "int8"},
        {"head_dim": 300},
        {"head_dim": 60},
        {"passes": []},
        {"passes": ["decode"]},
        {"seq_len": 0},
    ],
    ids=str,
)
def test_options_that_do_not_fit(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(SparseDSLError) as caught:
        tuned(tmp_path / "tiles.json", None, **options)
    assert len(str(caught.value.located("sparsedsl tune")).splitlines()) == 5


# --- running, comparing and timing a candidate, in Triton's interpreter


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_candidates_are_compared_with_the_default_before_they_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("SPARSEDSL_CACHE", str(tmp_path))
    pattern = sd.sliding(50) & sd.where("q % 5 < 4")  # some rows have no key
    request = tuned(tmp_path / "t.json", pattern, seq_len=150, heads=2, key_heads=1, head_dim=16, dtype="fp32").request
    timed: list[str] = []

    def clock(call: Callable[[], object]) -> float:
        call()
        timed.append("once")
        return 1.5

    bench = Bench(pattern, request, device="cpu", clock=clock)
    base = request.tiling
    for name, tiles in (("forward", Tiles(32, 32, 4, 1)), ("dq", Tiles(64, 32, 4, 1)), ("dkdv", Tiles(16, 64, 4, 1))):
        assert bench(name, placed(base, name, tiles)) == 1.5
    assert len(timed) == 3
    for name in bench.right:
        bench.right[name] = tuple(each + 0.5 for each in bench.right[name])
        with pytest.raises(Unfit, match="another result"):
            bench(name, base)
    with pytest.raises(Unfit):  # three rows are no tile: the failure is told, not raised
        bench("forward", placed(base, "forward", Tiles(3, 32, 4, 1)))
    assert len(timed) == 3
