"""The road of a pattern under one pair of tile sizes: a tile program, or else a table made for each length."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sparsedsl.codegen.table_masks import TableMasks
from sparsedsl.codegen.tiles import TileProgram, schedule
from sparsedsl.codegen.tiling import Tiles
from sparsedsl.codegen.walk import Section, sections_of
from sparsedsl.errors import NoNormalForm
from sparsedsl.pattern import Pattern


@dataclass(frozen=True, slots=True)
class TableProgram:
    """Tiles that only a table tells; `masks` decide them."""

    masks: TableMasks

    @property
    def looks_ahead(self) -> bool:
        """Whether some query may read a key to its right."""
        return not self.masks.looks_back


@dataclass(frozen=True, slots=True)
class LoopProgram:
    """Tiles that loops walk: from the query tile over the key tiles, and from the key tile over the query tiles."""

    tiles: TileProgram
    sections: tuple[Section, ...]
    transposed: TileProgram
    transposed_sections: tuple[Section, ...]

    @property
    def looks_ahead(self) -> bool:
        """Whether some query reads a key to its right."""
        return self.tiles.looks_ahead


Program = LoopProgram | TableProgram


@lru_cache(maxsize=256)
def program_of(pattern: Pattern, tiles: Tiles) -> Program:
    """The program of a pattern: loops where they are short enough, a table for each length where not.

    Raises
        Unsupported: a table that random choices make too fine.
    """
    try:
        program = schedule(pattern, tiles.block_m, tiles.block_n)
        turned = program.transposed()
        return LoopProgram(program, sections_of(program), turned, sections_of(turned))
    except NoNormalForm:
        return TableProgram(TableMasks.of(pattern))
