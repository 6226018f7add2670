"""A pattern as FlexAttention's `BlockMask`, read off its tile program: no step looks at all N² pairs or tiles.

FlexAttention asks for index tables as wide as there are tiles in a row. Here they are views: each row of the table
starts where the one before has its last used entry, and reads on into the next rows, whose entries FlexAttention never
looks at. So the shape is the one asked for, and the memory is the number of rows times the longest row.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparsedsl.codegen.build import one_layer
from sparsedsl.codegen.mask_mod import block_sides, to_mask_mod
from sparsedsl.codegen.table import Rectangles, judged
from sparsedsl.codegen.table_masks import encoded
from sparsedsl.codegen.tiles import Group, TileProgram, schedule
from sparsedsl.errors import NoNormalForm
from sparsedsl.index import lowered
from sparsedsl.integers import IntegerSet, Segment
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern, whole

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

# Tile numbers, one for each tile of a list.
Places = NDArray[np.int64]

_LONGEST = (1 << 31) - 1


def to_block_mask(
    pattern: Pattern | PerHead,
    q_len: int,
    k_len: int | None = None,
    *,
    block_size: int | tuple[int, int] = 128,
    q_start: int | None = None,
    device: torch.device | str = "cpu",
    backward: bool = True,
) -> BlockMask:
    """The pattern as a `torch.nn.attention.flex_attention.BlockMask`, for `flex_attention(q, k, v, block_mask=...)`.

    Alignment as everywhere here: the last query sits on the last key unless `q_start` says otherwise. The tiles are
    those of the tile program where the pattern has one and q_start is a multiple of the block, else rectangles judged
    by interval arithmetic, which may call a tile PARTIAL that is EMPTY or FULL; never the other way round.

    Shapes
        block_size: one number, or (queries, keys). Result: batch 1, and 1 head or as many as `per_head` has.
    Cost
        O(live tiles) time. Memory 4 bytes · tile rows · the most tiles of a row, for PARTIAL and for FULL tiles. With
        `backward`, the same for the transposed tables, in which a key tile that every query tile reads (a sink)
        asks for 4 bytes · (tile rows)² in address space, of which the CPU touches only what is used. A mask made with
        backward=False serves the forward pass.
    Raises
        Unsupported: a stack, whose layers have a mask each.
    Example
        >>> from sparsedsl.constructors import sink, sliding
        >>> mask = to_block_mask(sliding(256), 1024)
        >>> mask.kv_num_blocks[0, 0].tolist(), mask.full_kv_num_blocks[0, 0].tolist()
        ([1, 1, 2, 2, 2, 2, 2, 2], [0, 1, 1, 1, 1, 1, 1, 1])
        >>> mask.shape
        (1, 1, 1024, 1024)

    """
    from torch.nn.attention.flex_attention import BlockMask

    pattern = one_layer("to_block_mask", pattern)
    q_len = whole("to_block_mask", "q_len", q_len, least=1, most=_LONGEST)
    k_len = q_len if k_len is None else whole("to_block_mask", "k_len", k_len, least=1, most=_LONGEST)
    start = k_len - q_len if q_start is None else whole("to_block_mask", "q_start", q_start, least=-_LONGEST)
    block_m, block_n = block_sides("to_block_mask", block_size)
    rows, columns = -(-q_len // block_m), -(-k_len // block_n)
    heads = pattern.heads if isinstance(pattern, PerHead) else (pattern,)
    found = {head: _tiles(head, q_len, k_len, start, block_m, block_n) for head in dict.fromkeys(heads)}
    tables: list[list[Tensor] | list[None]] = []
    for turned in (False, True):
        for full in (False, True):
            parts = []
            for i, j, whole_tile in (found[head] for head in heads):
                own = whole_tile == full
                parts.append((j[own], i[own]) if turned else (i[own], j[own]))
            shape = (columns, rows) if turned else (rows, columns)
            tables.append(_tables(parts, *shape, device) if backward or not turned else [None, None])
    (kv_count, kv_tiles), (full_kv_count, full_kv_tiles), (q_count, q_tiles), (full_q_count, full_q_tiles) = tables
    assert kv_count is not None
    assert kv_tiles is not None
    return BlockMask(
        (q_len, k_len),
        kv_count,
        kv_tiles,
        full_kv_count,
        full_kv_tiles,
        q_count,
        q_tiles,
        full_q_count,
        full_q_tiles,
        BLOCK_SIZE=(block_m, block_n),
        mask_mod=to_mask_mod(pattern, q_start=start, length=max(k_len, start + q_len, 1), device=device),
    )


def _tables(parts: list[tuple[Places, Places]], rows: int, columns: int, device: torch.device | str) -> list[Tensor]:
    """(counts [1, H, rows], tiles [1, H, rows, columns]) of (row, tile) lists, one for each head.

    The tiles are a view: row r starts at r · width of one stretch of memory, and width is the longest row.
    """
    counts = np.stack([np.bincount(own, minlength=rows) for own, _ in parts])
    width = max(1, int(counts.max()))
    stride = rows * width + columns
    # Fresh pages are zero, and take no memory before something is written to them.
    flat = torch.frombuffer(mmap(-1, 4 * len(parts) * stride), dtype=torch.int32)
    for head, ((own, tile), count) in enumerate(zip(parts, counts, strict=True)):
        order = np.argsort(own * columns + tile, kind="stable")
        own, tile = own[order], tile[order]
        place = np.arange(len(own)) - (np.cumsum(count) - count)[own]
        flat.numpy()[head * stride + own * width + place] = tile
    tiles = flat.to(device).as_strided((1, len(parts), rows, columns), (len(parts) * stride, stride, width, 1))
    return [torch.from_numpy(counts.astype(np.int32))[None].to(device), tiles]


def _tiles(
    pattern: Pattern, q_len: int, k_len: int, start: int, block_m: int, block_n: int
) -> tuple[Places, Places, NDArray[np.bool_]]:
    """(row, column, whether FULL) of every tile that may hold a live pair; row 0 begins at position `start`.

    A tile that sticks out of the lengths, or into negative positions, is never FULL.
    """
    rows, columns = -(-q_len // block_m), -(-k_len // block_n)
    program = _program(pattern, block_m, block_n) if start % block_m == 0 else None
    if program is None:
        i, j, full = _judged_tiles(pattern, rows, columns, start, block_m, block_n)
    else:
        first = start // block_m
        i, j, full = _of_program(program, range(max(first, 0), max(first + rows, 0)), columns)
        i = i - first
    inside = ((i + 1) * block_m <= q_len) & ((j + 1) * block_n <= k_len) & (start + i * block_m >= 0)
    return i, j, full & inside


def _program(pattern: Pattern, block_m: int, block_n: int) -> TileProgram | None:
    try:
        return schedule(pattern, block_m, block_n)
    except NoNormalForm:
        return None


def _of_program(program: TileProgram, rows: range, columns: int) -> tuple[Places, Places, NDArray[np.bool_]]:
    """(query tile, key tile, whether FULL) of every tile that the program visits, in absolute tiles."""
    nothing = np.zeros(0, dtype=np.int64)
    found = [(nothing, nothing, nothing.astype(bool))]
    for group in program.groups:
        for c, visits in enumerate(group.visits):
            pairs = _of_class(program, group, c, visits, rows, columns)
            found += [(i, j, np.full(len(i), group.full)) for i, j in pairs]
    i, j, full = (np.concatenate(column) for column in zip(*found, strict=True))
    return i, j, full


def _of_class(
    program: TileProgram, group: Group, c: int, visits: IntegerSet, rows: range, columns: int
) -> Iterator[tuple[Places, Places]]:
    """The (query tile, key tile) pairs of one group and one class of query tiles, segment by segment."""
    low, high = max(rows.start, group.rows[0]), min(rows.stop, group.rows[1])
    low += (c - low) % program.row_classes
    if low >= high:
        return
    own = np.arange(low, high, program.row_classes)
    home = own // program.row_classes * program.column_classes
    first, end = home - min(group.columns[1], columns) + 1, home - group.columns[0] + 1
    for segment in visits.segments:
        if segment.lo >= end[-1] or segment.hi <= first[0]:
            continue
        for residue, step in _progressions(segment):
            # The y of one residue between the bounds of each row: from `near` on, `count` of them.
            near = np.maximum(first, segment.lo)
            near = near + (residue - near) % step
            count = np.maximum((np.minimum(end, segment.hi) - near + step - 1) // step, 0)
            place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            yield np.repeat(own, count), np.repeat(home - near, count) - step * place


def _progressions(segment: Segment) -> list[tuple[int, int]]:
    """The (residue, step) pairs of a segment's members."""
    _, _, period, word = segment
    return [(residue, period) for residue in range(period) if word >> residue & 1]


def _judged_tiles(
    pattern: Pattern, rows: int, columns: int, start: int, block_m: int, block_n: int
) -> tuple[Places, Places, NDArray[np.bool_]]:
    """The same by interval arithmetic on rectangles, quartered along the keys down to single tiles."""
    predicate = encoded(lowered(pattern.predicate()))
    i = torch.arange(max(0, -start) // block_m, rows)
    j, size = torch.zeros_like(i), 1
    while size < columns:
        size *= 4
    while True:
        top = start + i * block_m
        box = Rectangles(top.clamp(min=0), top + block_m - 1, j * block_n, (j + size) * block_n - 1)
        some, every = judged(predicate, box)
        i, j, every = i[some], j[some], every[some]
        if size == 1:
            return i.numpy(), j.numpy(), every.numpy()
        size //= 4
        i, j = i.repeat_interleave(4), (j[:, None] + size * torch.arange(4)).ravel()
        i, j = i[j < columns], j[j < columns]
