"""The key tiles that one query position reads from a cache, and how many there may be at all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sparsedsl.codegen.constants import Constants
from sparsedsl.codegen.programs import TableProgram
from sparsedsl.codegen.runs import Listed
from sparsedsl.codegen.table_masks import TableMasks
from sparsedsl.codegen.tiles import TileProgram, visited
from sparsedsl.codegen.tiling import Tiles
from sparsedsl.codegen.walk import Names, Section, home_lines, section_lines, sections_of
from sparsedsl.errors import NoNormalForm
from sparsedsl.pattern import Pattern

# A tile program is one for all positions of a query tile. Keys are loaded where the position itself reads them, so a
# tile too many costs a turn of the loop and no byte. The lower height pays where it visits this share of the tiles.
TALL, LOW = 64, 16
GAIN = 0.8
# No position's key tiles are split further than this; counts of tiles beyond it are of no interest.
MOST_SPLITS = 128
# Positions of the query tiles that stand for all, in periods from the end of a cache.
SAMPLE = 8


@dataclass(frozen=True, slots=True)
class PositionProgram:
    """The tiles that a query tile of `height` positions reads; all ask the pattern's whole predicate."""

    height: int
    tiles: TileProgram
    sections: tuple[Section, ...]


@lru_cache(maxsize=256)
def position_program(pattern: Pattern, tiles: Tiles) -> PositionProgram | TableProgram:
    """The program for single positions; a table where loops are not short enough, in the tiles of other kernels.

    >>> from sparsedsl.constructors import offsets, sliding
    >>> tiles = Tiles(64, 64, 4, 3)
    >>> position_program(sliding(100), tiles).height, position_program(offsets({100, 300, 999}), tiles).height
    (64, 16)

    """
    found = [program for height in (TALL, LOW) if (program := _program(pattern, height, tiles.block_n))]
    if not found:
        return TableProgram(TableMasks.of(pattern))
    tall, low = found[0], found[-1]
    return low if _is_short(low) and _sampled(low) <= GAIN * _sampled(tall) else tall


def most_tiles(programs: tuple[PositionProgram | TableProgram, ...]) -> tuple[int, ...]:
    """For n = 0, 1, ...: about the most key tiles of a position in a cache of 2**n key tiles.

    The last number stands for all longer caches. Empty where a table tells.
    """
    loops = [program for program in programs if isinstance(program, PositionProgram)]
    if len(loops) < len(programs):
        return ()
    counts: list[int] = []
    for exponent in range(18):
        counts.append(max(1, *(max(_counts(program, 1 << exponent)) for program in loops)))
        if counts[-1] >= MOST_SPLITS:
            break
    while len(counts) > 1 and counts[-1] == counts[-2]:
        counts.pop()
    return tuple(counts)


def _program(pattern: Pattern, height: int, block_n: int) -> PositionProgram | None:
    try:
        tiles = visited(pattern, height, block_n)
        return PositionProgram(height, tiles, sections_of(tiles))
    except NoNormalForm:
        return None


def _is_short(program: PositionProgram) -> bool:
    """Whether plain arithmetic tells the tiles: no list, no number that is looked up."""
    if any(isinstance(run, Listed) for section in program.sections for run in section.runs):
        return False
    constants = Constants()
    names = Names("i", "j", "0", "key_tiles", constants, "{}")
    for number, section in enumerate(program.sections):
        home_lines(program.tiles, names)
        section_lines(section, names, number)
    return not constants


def _sampled(program: PositionProgram) -> int:
    return sum(_counts(program, 1 << 11))


def _counts(program: PositionProgram, key_tiles: int) -> list[int]:
    """Key tiles of some query tiles at the end of a cache."""
    last = -(-key_tiles * program.tiles.block_n // program.height) - 1
    step = max(1, program.tiles.row_classes // SAMPLE)
    rows = [last - step * number for number in range(SAMPLE) if step * number <= last]
    return [sum(program.tiles.counts(range(i, i + 1), key_tiles)) for i in rows]
