"""How many tiles the kernels of a part visit at one length, and how many of their pairs are live.

Query i stands at position i, as many queries as keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from sparsedsl.codegen.plan import Part
from sparsedsl.codegen.programs import LoopProgram, program_of
from sparsedsl.codegen.table import live_tiles
from sparsedsl.codegen.table_masks import TableMasks, encoded
from sparsedsl.codegen.tiling import Tiles
from sparsedsl.errors import NoNormalForm
from sparsedsl.live import live_pairs
from sparsedsl.pattern import Pattern
from sparsedsl.rows import Rows, block_size, never_ahead


@dataclass(frozen=True, slots=True)
class Sequences:
    """Equal stretches of work: `count` pairs of a head and a class, each `length` ranks long, under one pattern."""

    kind: int
    length: int
    count: int


@dataclass(frozen=True, slots=True)
class TileCounts:
    """Tiles of one kernel over all heads and classes: those it owns, and the FULL and PARTIAL ones it visits."""

    own: int
    full: int
    partial: int

    @property
    def visited(self) -> int:
        """FULL and PARTIAL tiles."""
        return self.full + self.partial


def sequences(part: Part, heads: int, seq_len: int) -> tuple[Sequences, ...]:
    """What the part's kernels walk: one sequence for each head and each of its classes.

    >>> from sparsedsl.codegen.plan import plan
    >>> from sparsedsl.constructors import dilated
    >>> sequences(plan(dilated(64, 4)).parts[0], heads=2, seq_len=1001)
    (Sequences(kind=0, length=251, count=2), Sequences(kind=0, length=250, count=6))

    """
    found: Counter[tuple[int, int]] = Counter()
    for head in range(heads):
        kind = part.kind_of[head] if part.kind_of else 0
        for residue in part.classes[head if len(part.classes) > 1 else 0]:
            found[kind, ranks(seq_len, part.step, residue)] += 1
    return tuple(Sequences(kind, length, count) for (kind, length), count in found.items() if length)


def ranks(seq_len: int, step: int, residue: int) -> int:
    """How many of the positions below `seq_len` are in a class."""
    return max(0, -((residue - seq_len) // step))


def tile_counts(part: Part, tiles: Tiles, heads: int, seq_len: int) -> TileCounts:
    """The tiles of the part's kernel with these tile sizes, owned by queries.

    Cost
        O(tiles · segments) time for loops, O(live tiles) where a table tells them; once for each length.
    """
    own = full = partial = 0
    for each in sequences(part, heads, seq_len):
        counted = _counted(part.kinds[each.kind], tiles, each.length)
        rows = -(-each.length // tiles.block_m)
        own, full, partial = own + rows * each.count, full + counted[0] * each.count, partial + counted[1] * each.count
    return TileCounts(own, full, partial)


def part_pairs(part: Part, heads: int, seq_len: int) -> int:
    """The live pairs of the part, over all heads."""
    return sum(pairs_of(part.kinds[each.kind], each.length) * each.count for each in sequences(part, heads, seq_len))


@cache
def _counted(pattern: Pattern, tiles: Tiles, length: int) -> tuple[int, int]:
    rows, columns = -(-length // tiles.block_m), -(-length // tiles.block_n)
    program = program_of(pattern, tiles)
    if isinstance(program, LoopProgram):
        return program.tiles.counts(range(rows), columns)
    kinds = _table(program.masks, tiles, length)
    return kinds[0], sum(kinds) - kinds[0]


@cache
def _table(masks: TableMasks, tiles: Tiles, length: int) -> tuple[int, ...]:
    """The tiles of each kind in the table that a module makes for this pattern and length, FULL ones first."""
    rows, columns = -(-length // tiles.block_m), -(-length // tiles.block_n)
    predicate, choices = encoded(masks.predicate), [encoded(choice) for choice in masks.choices]
    with torch.device("cpu"):
        kinds = live_tiles(predicate, choices, tiles.block_m, tiles.block_n, range(rows), columns)[2]
        return tuple(torch.bincount(kinds, minlength=len(masks.masks)).tolist())


def table_numbers(part: Part, tiles: Tiles, patterns: Sequence[TableMasks], heads: int, seq_len: int) -> int:
    """The int32 numbers in the tables that the part's kernels of these tiles read; 0 where loops do.

    A table tells all `patterns` of the module, by query tile and by key tile, and there is one for each length.
    """
    if all(isinstance(program_of(kind, tiles), LoopProgram) for kind in part.kinds):
        return 0
    total = 0
    for length in {each.length for each in sequences(part, heads, seq_len)}:
        kinds = [each for masks in patterns for each in _table(masks, tiles, length)]
        ends = -(-length // tiles.block_m) + 1 + -(-length // tiles.block_n) + 1
        total += len(kinds) * ends + 2 * sum(kinds)
    return total


@cache
def pairs_of(pattern: Pattern, length: int) -> int:
    """The live pairs among `length` tokens, of periodic patterns and of all others.

    Cost
        That of `live_pairs`; without a normal form O((length / unit)²) bit operations, unit being the block.
    Example
        >>> from sparsedsl.constructors import random_blocks, causal
        >>> pattern = random_blocks(block=4, count=1) & causal()
        >>> pairs_of(pattern, 10) == int(pattern.dense(10).sum())
        True

    """
    try:
        return live_pairs(pattern, length)
    except NoNormalForm:
        return _pairs_by_rows(pattern, length)


def _pairs_by_rows(pattern: Pattern, length: int) -> int:
    predicate = pattern.predicate()
    # Blocks of a pattern that looks back are cut on the diagonal, and only there.
    unit = max(block_size(predicate), 1) if never_ahead(predicate) else 1
    count = -(-length // unit)
    rows = Rows(predicate, unit=unit, count=count)
    total = 0
    for query in range(count):
        row = rows.row(query)
        size = min(unit, length - query * unit)
        earlier = row & ((1 << query) - 1) if unit > 1 else row & ~(1 << query)
        total += size * unit * earlier.bit_count() + (row >> query & 1) * (size * (size + 1) // 2)
    return total
