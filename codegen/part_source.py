"""One part of a module as text: its kernels, its launches, its walk on the CPU."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparsedsl.codegen import backward_text, forward_text, launch_text
from sparsedsl.codegen.decode_source import DecodeSource, decode_source
from sparsedsl.codegen.hopper import HopperText
from sparsedsl.codegen.hopper_backward import HopperBackwardText
from sparsedsl.codegen.hopper_choice import gradient_programs, hopper_programs
from sparsedsl.codegen.kernel_walk import DKDV, DQ, FORWARD, Masks, TableRoad, Walker
from sparsedsl.codegen.part_text import PartText
from sparsedsl.codegen.plan import Part
from sparsedsl.codegen.programs import LoopProgram, Program, program_of
from sparsedsl.codegen.split_text import LongColumns, long_columns, plain_holes
from sparsedsl.codegen.templates import filled
from sparsedsl.codegen.tiling import HopperTiles, Tiles, Tiling
from sparsedsl.integers import INFINITY

# Higher tiles may execute this many more pairs than low ones before they lose, counted at this length.
TALL_WASTE, LENGTH = 1.02, 131072


@dataclass(frozen=True, slots=True)
class PartSource:
    """A part's text, and what the rest of the module must know of it."""

    part: Part
    forward: tuple[Program, ...]
    forward_tiles: Tiles
    kernels: str
    launches: str
    cpu_runs: str
    cpu_part: str
    # The kernels, of forward, dq, dkdv and hopper, that look numbers up in the module's constants.
    look_up: tuple[str, ...]
    decode: DecodeSource
    # The longest columns of dk and dv, where they can be split, in the tiles of the plain kernel.
    columns: LongColumns | None = None
    # The kernels for Hopper and their launches, where there are any.
    hopper_tiles: HopperTiles | None = None
    hopper_kernels: str = ""
    hopper_launch: str = ""
    hopper_backward: HopperBackwardText | None = None


def part_source(
    part: Part,
    number: int,
    count: int,
    tiling: Tiling,
    cpu_tiles: Tiles,
    masks: Masks,
    tables: TableRoad,
    *,
    ragged_keys: bool,
    hopper: HopperTiles | None = None,
    gradients: bool = False,
) -> PartSource:
    """The text of part `number` of `count`; its masks and tables join those of the module.

    `ragged_keys`: whether queries may stand past the last key, so that keys past it must be masked; `hopper`: the tiles
    of its forward kernel for Hopper, where it gets one; `gradients`: whether it gets a backward one then.
    """
    low, tiling = tiling, low_or_tall(part, tiling)
    forward, dq, dkdv, cpu = (
        tuple(program_of(kind, tiles) for kind in part.kinds)
        for tiles in (tiling.forward, tiling.dq, tiling.dkdv, cpu_tiles)
    )
    text = PartText(part, number, count, masks.constants)
    walker = Walker(text, masks, tables, ragged_keys)
    early = early_tiles(dkdv)
    columns = long_columns(part, dkdv, early)
    by_keys = replace(DKDV, in_shares=columns is not None)
    walks = {
        "walk": walker.kernel_walk(forward, FORWARD, 4),
        "dq_walk": walker.kernel_walk(dq, DQ, 4),
        "dkdv_walk": walker.kernel_walk(dkdv, by_keys, 12 if text.class_of_head else 8),
    }
    cpu_runs, cpu_part = walker.cpu_runs(cpu)
    sizes = {
        **_tile_holes("", tiling.forward),
        **_tile_holes("dq_", tiling.dq),
        **_tile_holes("dkdv_", tiling.dkdv),
        "early_tiles": str(early),
    }
    own = {name: filled(value, sizes) for name, value in text.holes().items()}
    own |= plain_holes(columns, own, sizes)
    holes = {**sizes, **walks, **own, **_pointer_holes(walks, tiling, text), **_set_up_holes(walks)}
    kernels = filled(forward_text.KERNEL, holes) + filled(backward_text.KERNELS, holes)
    launches = filled(launch_text.PART_IN_CLASSES if text.in_classes else launch_text.PART, holes)
    look_up = tuple(name for name in ("forward", "dq", "dkdv") if "constants" in holes[f"{name}_pointers"])
    decode = decode_source(text, low, masks, tables, ragged_keys=ragged_keys)
    found = PartSource(part, forward, tiling.forward, kernels, launches, cpu_runs, cpu_part, look_up, decode, columns)
    if hopper is None:
        return found
    special = HopperText(text, hopper_programs(part, hopper.block_n), masks, hopper, walker.ragged_keys)
    return replace(
        found,
        look_up=(*look_up, "hopper") if special.look_up else look_up,
        hopper_tiles=hopper,
        hopper_kernels=special.kernels(),
        hopper_launch=special.launch(),
        hopper_backward=_hopper_backward(text, masks) if gradients else None,
    )


def _hopper_backward(text: PartText, masks: Masks) -> HopperBackwardText:
    programs = gradient_programs(text.part)
    assert programs is not None, text.part
    early = early_tiles(programs)
    return HopperBackwardText(text, programs, masks, early, long_columns(text.part, programs, early))


def low_or_tall(part: Part, tiling: Tiling) -> Tiling:
    """The tiling whose forward tiles are the tall ones, where the part executes hardly more pairs in them."""
    if tiling.tall is None:
        return tiling
    low, tall = (_executed(part, tiles) for tiles in (tiling.forward, tiling.tall))
    return replace(tiling, forward=tiling.tall) if tall is not None and low and tall <= TALL_WASTE * low else tiling


def _executed(part: Part, tiles: Tiles) -> int | None:
    """The pairs that the visited tiles hold, of all kinds of heads; None where a table tells the tiles."""
    length = LENGTH // part.step
    total = 0
    for kind in part.kinds:
        program = program_of(kind, tiles)
        if not isinstance(program, LoopProgram):
            return None
        rows, columns = -(-length // tiles.block_m), -(-length // tiles.block_n)
        total += sum(program.tiles.counts(range(rows), columns)) * tiles.block_m * tiles.block_n
    return total


def _set_up_holes(walks: dict[str, str]) -> dict[str, str]:
    """The lines before a row kernel's walk that only some walks need."""
    lines = {
        "first_key_tile": "    first_key_tile = 0\n",
        "key_tiles": "    key_tiles = (k_len + BLOCK_N - 1) // BLOCK_N\n",
        "o_n": "    o_n = tl.arange(0, BLOCK_N)\n",
        "owners": "    owners = row_tiles if cu_ptr is None else (q_len + BLOCK_M - 1) // BLOCK_M\n",
    }
    by_key = "    owners = (k_len + BLOCK_N - 1) // BLOCK_N\n"
    holes = {"dkdv_set_owners": by_key if re.search(r"\bowners\b", walks["dkdv_walk"]) else ""}
    for prefix, walk in (("", walks["walk"]), ("dq_", walks["dq_walk"])):
        for name, text in lines.items():
            holes[f"{prefix}set_{name}"] = text if re.search(rf"\b{name}\b", walk) else ""
    return holes


def _pointer_holes(walks: dict[str, str], tiling: Tiling, text: PartText) -> dict[str, str]:
    """The arrays that each kernel reads beside its tensors, as parameters and as arguments."""
    indent = 16 if text.in_classes else 12
    kernels = (
        ("forward", walks["walk"], tiling.forward, ":2", 12),
        ("dq", walks["dq_walk"], tiling.dq, ":2", indent),
        ("dkdv", walks["dkdv_walk"], tiling.dkdv, "2:", indent),
    )
    holes = {}
    for name, walk, tiles, part, depth in kernels:
        parameters, arguments = [], []
        if re.search(r"\bconstants\b", walk + (text.class_of_head or "")):
            parameters.append("constants")
            arguments.append("constants_on(q.device)")
        if re.search(r"\bstarts\b", walk):
            parameters += ["starts", "tiles"]
            sizes = f"{tiles.block_m}, {tiles.block_n}"
            arguments.append(f"*tile_tables({sizes}, q_start, q_len, k_len, q.device)[{part}]")
        holes[f"{name}_pointers"] = "".join(f"{parameter}, " for parameter in parameters)
        holes[f"{name}_arrays"] = "".join(f"{' ' * depth}{argument},\n" for argument in arguments)
    return holes


def early_tiles(programs: Sequence[Program]) -> int:
    """The leading key tiles that an endless run of queries reads, where the rest of the keys has an end: sinks."""
    ends = [
        group.rows[1]
        for program in programs
        if isinstance(program, LoopProgram)
        for group in program.transposed.groups
        if group.rows[1] != INFINITY and any(not visits.is_finite for visits in group.visits)
    ]
    return max(ends, default=0)


def _tile_holes(prefix: str, tiles: Tiles) -> dict[str, str]:
    return {
        f"{prefix}block_m": str(tiles.block_m),
        f"{prefix}block_n": str(tiles.block_n),
        f"{prefix}warps": str(tiles.warps),
        f"{prefix}stages": str(tiles.stages),
    }
