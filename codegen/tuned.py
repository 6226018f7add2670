"""The data file of `sparsedsl tune`: every tile that was measured on one GPU for one request, and those that won.

The file is written anew after each candidate, so that it is its own state: the same command goes on where it stood.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

from sparsedsl.codegen.hopper_choice import MOST_STAGES, NARROW, WIDE, WIDEST_OUTPUT
from sparsedsl.codegen.tiling import HopperTiles, Tiles, Tiling, tiling_for, tilings_on
from sparsedsl.errors import StateMismatch, WrongValue, clipped, shown
from sparsedsl.files import write_whole

FORMAT, VERSION = "sparsedsl tiles", 1
PASSES = ("forward", "hopper", "dq", "dkdv")
DTYPES = {"bf16": 2, "fp16": 2, "fp32": 4}
# Of the pass hopper, the forward pass by the kernel for Hopper, a candidate with four numbers is the plain kernel.
Candidate = Tiles | HopperTiles
# A tile must take this share of the default's time at most: machines repeat themselves to about 2 %.
GAIN = 0.98


@dataclass(frozen=True, slots=True)
class Request:
    """What is measured and where; a file belongs to one request."""

    pattern: str
    seq_len: int
    heads: int
    key_heads: int
    head_dim: int
    dtype: str
    passes: tuple[str, ...]
    gpu: str
    capability: tuple[int, int]
    shared_memory: int
    torch: str
    triton: str

    @property
    def tiling(self) -> Tiling:
        """The tiles that are the default for this head dim and type."""
        found = tiling_for(self.head_dim, DTYPES[self.dtype], tilings_on(self.capability))
        assert found is not None, self
        return found


@dataclass(frozen=True, slots=True)
class Measured:
    """One candidate of one pass: its milliseconds, or why it has none."""

    tiles: Candidate
    ms: float | None
    refused: str = ""


@dataclass(slots=True)
class TunedTiles:
    """What has been measured so far, by pass, the default first; `winners` when all is. None: the default stays."""

    request: Request
    command: str
    how: str
    candidates: dict[str, list[Measured]] = field(default_factory=dict)
    winners: dict[str, Candidate | None] | None = None

    def tiling(self) -> Tiling:
        """The default tiling with the tiles that won in their places; `origin` says where they come from."""
        tiling = self.request.tiling
        for name, tiles in (self.winners or {}).items():
            if tiles is not None:
                tiling = with_tiles_of(name, tiles, tiling)
        return replace(
            tiling,
            origin=f"{self.request.gpu}, {clipped(self.request.pattern)}, {self.request.seq_len} tokens",
        )

    def write(self, path: Path) -> None:
        """Write the file in one step: a reader finds the old one or the new one, never a part.

        Raises
            WrongValue: the file can't be written.
        """
        try:
            write_whole(path, self.to_json())
        except OSError as error:
            raise WrongValue(
                "the tiles can't be written",
                got=f"{path}: {error.strerror}",
                expected="a file in a folder that exists and may be written",
                hint="-o tiles.json",
            ) from None

    def to_json(self) -> str:
        """The text of the file: one candidate a line."""
        head = {"format": FORMAT, "version": VERSION, "command": self.command, "how": self.how}
        lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
        lines.append(f'  "request": {json.dumps(asdict(self.request))}')
        passes = []
        for name, found in self.candidates.items():
            rows = [f"      {json.dumps(_row(each))}" for each in found]
            passes.append(f"    {json.dumps(name)}: [\n" + ",\n".join(rows) + "\n    ]")
        lines.append('  "candidates": {\n' + ",\n".join(passes) + "\n  }")
        winners = None
        if self.winners is not None:
            winners = {name: None if each is None else _numbers(each) for name, each in self.winners.items()}
        lines.append(f'  "winners": {json.dumps(winners)}')
        return "{\n" + ",\n".join(lines) + "\n}\n"


def with_tiles_of(name: str, tiles: Candidate, base: Tiling) -> Tiling:
    """The tiling with these tiles for one pass, and no other change."""
    if isinstance(tiles, HopperTiles):
        return replace(base, hopper=tiles)
    if name == "hopper":
        return replace(base, plain_forward=True)
    if name == "forward":
        return replace(base, forward=tiles, tall=None)
    return replace(base, dq=tiles) if name == "dq" else replace(base, dkdv=tiles)


def best(candidates: Mapping[str, list[Measured]]) -> dict[str, Candidate | None]:
    """The tiles to take for each pass, from what was measured; the first of each list is the default.

    Both backward kernels have query tiles of one height: they are chosen together, and where one of them was not
    measured, the other keeps its height. None where nothing beats the default by GAIN.

    >>> low, high = Tiles(64, 64, 4, 2), Tiles(128, 64, 8, 2)
    >>> best({"forward": [Measured(low, 2.0), Measured(high, 1.5)]})
    {'forward': Tiles(block_m=128, block_n=64, warps=8, stages=2)}
    >>> best({"dq": [Measured(low, 2.0), Measured(high, 1.5)], "dkdv": [Measured(low, 3.0), Measured(high, 3.6)]})
    {'dq': None, 'dkdv': None}

    """
    found: dict[str, Candidate | None] = {}
    for name in ("forward", "hopper"):
        if name in candidates:
            found[name], *_ = _best([(each,) for each in candidates[name]])
    dq, dkdv = candidates.get("dq", []), candidates.get("dkdv", [])
    backward: list[tuple[Measured, ...]] = [pair for pair in product(dq, dkdv) if _height(pair[0]) == _height(pair[1])]
    if not dq or not dkdv:
        alone = dq or dkdv
        backward = [(each,) for each in alone if _height(each) == _height(alone[0])]
    return found | dict(zip((name for name in candidates if name not in found), _best(backward), strict=True))


def as_tiles(each: Candidate) -> Tiles:
    """The query rows, keys, warps and stages of a candidate."""
    return each.tiles if isinstance(each, HopperTiles) else each


def _height(each: Measured) -> int:
    return as_tiles(each.tiles).block_m


def _best(choices: Sequence[tuple[Measured, ...]]) -> tuple[Candidate | None, ...]:
    """The tiles of the fastest choice that is not like the first, the default, where it is faster by GAIN."""
    if not choices:
        return ()
    default = choices[0]
    found = min(choices, key=_total)
    if _total(found) > GAIN * _total(default) or _total(found) == inf:
        return (None,) * len(default)
    pairs = zip(found, default, strict=True)
    return tuple(None if each.tiles == usual.tiles else each.tiles for each, usual in pairs)


def _total(choice: tuple[Measured, ...]) -> float:
    """The milliseconds of the passes together; infinite where one has none."""
    return sum(inf if each.ms is None else each.ms for each in choice)


def read_tiles(path: str | Path) -> Tiling:
    """The tiling that a finished file of `sparsedsl tune` gives.

    Raises
        StateMismatch: no such file, or not a finished one.
    """
    found = read(Path(path))
    if found.winners is None:
        done = sum(map(len, found.candidates.values()))
        raise StateMismatch(
            "the tuning is not finished",
            got=f"{path}: {done} candidates measured, no winners",
            expected="a file whose sparsedsl tune came to its end",
            hint=found.command or "the command of sparsedsl tune once more",
        )
    return found.tiling()


def read(path: Path) -> TunedTiles:
    """The file, finished or not.

    Raises
        StateMismatch: it can't be read, or is no such file.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _mismatch("the tiles can't be read", path, str(error)) from None
    if not isinstance(saved, dict) or saved.get("format") != FORMAT or saved.get("version") != VERSION:
        raise _mismatch("the file holds no tiles of this version", path, shown(saved))
    try:
        asked = saved["request"]
        request = Request(**{**asked, "passes": tuple(asked["passes"]), "capability": tuple(asked["capability"])})
        winners = saved["winners"]
        found = TunedTiles(
            request,
            str(saved["command"]),
            str(saved["how"]),
            {name: [_measured(row) for row in rows] for name, rows in saved["candidates"].items()},
            None if winners is None else {name: each and _tiles(each) for name, each in winners.items()},
        )
        _verify(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _mismatch("the tiles are damaged", path, f"{type(error).__name__}: {error}") from None
    return found


def _verify(found: TunedTiles) -> None:
    """Raise ValueError for tiles that no kernel can have: what is read becomes source text."""
    tiles = [(name, each.tiles) for name, rows in found.candidates.items() for each in rows]
    winners = found.winners or {}
    tiles += [(name, each) for name, each in winners.items() if each is not None]
    for name, each in tiles:
        if isinstance(each, HopperTiles):
            _verify_hopper(name, each, found.request.head_dim)
            continue
        numbers = (each.block_m, each.block_n, each.warps, each.stages)
        if not all(type(number) is int and number >= 1 for number in numbers):
            raise ValueError(f"{numbers} are no four whole numbers")
        if any(number & (number - 1) for number in numbers[:3]) or min(numbers[:2]) < 16:
            raise ValueError(f"{numbers}: tiles and warps are powers of two, tiles at least 16")
    if tiling_for(found.request.head_dim, DTYPES[found.request.dtype]) is None:
        raise ValueError(f"no kernel takes head dim {found.request.head_dim}")
    whole = found.tiling()
    if whole.dq.block_m != whole.dkdv.block_m:
        raise ValueError("dq and dkdv have query tiles of different heights")


def _verify_hopper(name: str, tiles: HopperTiles, head_dim: int) -> None:
    numbers = (tiles.block_n, tiles.stages)
    if name != "hopper":
        raise ValueError(f"{tiles} are no tiles of {name}")
    if not all(type(number) is int for number in numbers) or type(tiles.dynamic) is not bool:
        raise ValueError(f"{tiles} are no two whole numbers and a bool")
    widest = NARROW if head_dim > WIDEST_OUTPUT else WIDE
    if tiles.block_n not in (NARROW, widest) or not 2 <= tiles.stages <= MOST_STAGES:
        raise ValueError(f"{tiles}: {NARROW} or {widest} keys a tile, 2 to {MOST_STAGES} stages")


def _row(each: Measured) -> dict[str, object]:
    tiles = {"tiles": _numbers(each.tiles)}
    return {**tiles, "refused": each.refused} if each.ms is None else {**tiles, "ms": each.ms}


def _measured(row: dict[str, object]) -> Measured:
    tiles, ms = row["tiles"], row.get("ms")
    if not isinstance(tiles, list) or not (ms is None or isinstance(ms, int | float)):
        raise TypeError(f"{shown(row)} is no candidate")
    return Measured(_tiles(tiles), None if ms is None else float(ms), str(row.get("refused", "")))


def _tiles(numbers: Sequence[Any]) -> Candidate:
    return HopperTiles(*numbers) if len(numbers) == 3 else Tiles(*numbers)


def _numbers(tiles: Candidate) -> list[int | bool]:
    if isinstance(tiles, HopperTiles):
        return [tiles.block_n, tiles.stages, tiles.dynamic]
    return [tiles.block_m, tiles.block_n, tiles.warps, tiles.stages]


def _mismatch(what: str, path: Path, got: str) -> StateMismatch:
    return StateMismatch(
        what, got=f"{path}: {got}", expected="what sparsedsl tune wrote", hint="sparsedsl tune PATTERN -o FILE"
    )
