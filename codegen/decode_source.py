"""One part of a module as text, over a cache: its two kernels, and what its launches must know."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparsedsl.codegen.decode_program import PositionProgram, most_tiles, position_program
from sparsedsl.codegen.decode_text import CHUNK, POSITION
from sparsedsl.codegen.decode_walk import CacheWalker
from sparsedsl.codegen.kernel_walk import Masks, TableRoad
from sparsedsl.codegen.part_text import PartText
from sparsedsl.codegen.programs import TableProgram, program_of
from sparsedsl.codegen.templates import filled
from sparsedsl.codegen.tiling import Tiles, Tiling
from sparsedsl.pattern import Pattern


@dataclass(frozen=True, slots=True)
class DecodeSource:
    """A part's kernels over a cache, and its entry in DECODE_PARTS."""

    kernels: str
    entry: str


def decode_source(
    text: PartText, tiling: Tiling, masks: Masks, tables: TableRoad, *, ragged_keys: bool
) -> DecodeSource:
    """The text of one part over a cache, in tiles like those of the forward kernel."""
    tiles = tiling.forward
    # float32 is multiplied outside the matrix units, in many registers: fewer warps would spill.
    wide = tiling.bytes == 4
    kinds = text.part.kinds
    many = tuple(program_of(kind, tiles) for kind in kinds)
    alone, few = _positions(tiling, kinds)
    walker = CacheWalker(text, masks, tables, ragged_keys)
    walks = {POSITION: walker.position_walk(few, tiles.block_m), CHUNK: walker.chunk_walk(many)}
    # What one of the two kernels reads beside its tensors is given to both.
    asks = "".join(walks.values()) + (text.class_of_head or "")
    pointers, arrays = [], []
    if re.search(r"\bconstants\b", asks):
        pointers.append("constants")
        arrays.append("constants_on(device)")
    if re.search(r"\bstarts\b", asks):
        pointers += ["starts", "tiles", "owners"]
        arrays.append(f"*cache_table({tiles.block_m}, {tiles.block_n}, ranks, device)")
    kernels = ""
    for kernel, walk in walks.items():
        holes = {
            "p": text.suffix,
            "pointers": "".join(f"{pointer}, " for pointer in pointers),
            "not_specialised": '"owners", ' if "owners" in pointers else "",
            "block_m": str(tiles.block_m),
            "block_n": str(alone.block_n if kernel == POSITION else tiles.block_n),
            "walk": walk,
            "set_key_tiles": _key_tiles(text, walk),
            **(_position_place(text) if kernel == POSITION else _chunk_place(text)),
        }
        kernels += filled(kernel, holes)
    fields = {
        "few": f"decode_kernel{text.suffix}",
        "many": f"chunk_kernel{text.suffix}",
        "arrays": f"lambda ranks, device: ({', '.join(arrays)}{',' * bool(arrays)})",
        "block_m": tiles.block_m,
        "few_keys": alone.block_n,
        "many_keys": tiles.block_n,
        "step": text.part.step,
        "classes": 1 if text.class_of_head else text.part.step,
        "head_kinds": _head_kinds(text),
        "most_tiles": most_tiles(few),
        "few_warps": 8 if wide else alone.warps,
        "few_at_once": 1 if alone.block_n > tiles.block_n else 2,
        "few_stages": 3 if tiles.stages > 2 else 2,
        "many_warps": 8 if wide else tiles.warps,
    }
    entry = "".join(f"        {name}={value},\n" for name, value in fields.items())
    return DecodeSource(kernels, f"    DecodePart(\n{entry}    ),\n")


def _positions(tiling: Tiling, kinds: Sequence[Pattern]) -> tuple[Tiles, tuple[PositionProgram | TableProgram, ...]]:
    """The tiles of single positions, and their programs: twice the keys where the GPU has room for three in flight.

    On an H200 a program then keeps its multiprocessor busy alone, and the keys of 128 programs need no split.
    """
    tiles = replace(tiling.forward, warps=4)
    usual = tuple(position_program(kind, tiles) for kind in kinds)
    if tiling.bytes == 2 and tiling.head_dim <= 128 and tiles.stages > 2:
        double = replace(tiles, block_n=2 * tiles.block_n, warps=8)
        programs = tuple(position_program(kind, double) for kind in kinds)
        # A table is one for both kernels.
        if not any(isinstance(each, TableProgram) for each in (*usual, *programs)):
            return double, programs
    return tiles, usual


def _head_kinds(text: PartText) -> tuple[int, ...]:
    """A number for each head, equal where heads read the same keys; empty where all do."""
    part = text.part
    if text.class_of_head:
        return tuple(own[0] for own in part.classes)
    return part.kind_of


def _key_tiles(text: PartText, walk: str) -> str:
    keys = "ranks" if text.in_classes else "length"
    lines = {
        "first_key_tile": "    first_key_tile = 0\n",
        "key_tiles": f"    key_tiles = ({keys} + BLOCK_N - 1) // BLOCK_N\n",
    }
    return "".join(line for name, line in lines.items() if re.search(rf"\b{name}\b", walk))


def _position_place(text: PartText) -> dict[str, str]:
    if not text.in_classes:
        return {"place": ""}
    step, own = text.part.step, text.class_of_head
    place = (
        f"    i_c, rank = position % {step}, position // {step}\n    ranks = (length - i_c + {step - 1}) // {step}\n"
    )
    if own:
        place += f"    # The other classes of this head have no pair.\n    here = here & (i_c == {own})\n"
    return {"place": place}


def _chunk_place(text: PartText) -> dict[str, str]:
    if not text.in_classes:
        return {
            "class_program": "",
            "place": "    first_rank = max(start, 0)\n",
            "row_of_rank": "o_m - start",
            "first_row": "i * BLOCK_M - start",
            "of_class": "",
        }
    step, own = text.part.step, text.class_of_head
    program = f"    i_c, program = program % {step}, program // {step}\n"
    ranks = f"    ranks = (length - i_c + {step - 1}) // {step}\n"
    return {
        "class_program": "" if own else program,
        "place": (f"    i_c = {own}\n" if own else "")
        + f"{ranks}    first_rank = max(start - i_c + {step - 1}, 0) // {step}\n",
        "row_of_rank": f"i_c + {step} * o_m - start",
        "first_row": f"i_c + {step} * max(i * BLOCK_M, first_rank) - start",
        "of_class": ", in one class",
    }
