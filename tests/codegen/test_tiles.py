"""The tile program visits every live tile once, no dead one, and its masks decide their tiles."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from sparsedsl.codegen.runs import Stretch, runs_of
from sparsedsl.codegen.table import TableMasks, tile_table
from sparsedsl.codegen.tiles import TileProgram, schedule
from sparsedsl.errors import NoNormalForm, Unsupported
from sparsedsl.index import TRUE, holds
from sparsedsl.pattern import Pattern
from tests.proofs.random_patterns import patterns

sizes = st.sampled_from([1, 2, 4, 8])
lengths = st.integers(1, 60)


def tile(dense: np.ndarray, i: int, j: int, block_m: int, block_n: int) -> np.ndarray:
    return dense[i * block_m : (i + 1) * block_m, j * block_n : (j + 1) * block_n]


@given(patterns(), sizes, sizes, lengths)
def test_tiles_equal_dense(pattern: Pattern, block_m: int, block_n: int, length: int) -> None:
    try:
        program = schedule(pattern, block_m, block_n)
    except NoNormalForm:
        assume(False)
    rows, columns = -(-length // block_m), -(-length // block_n)
    dense = pattern.dense(rows * block_m, columns * block_n, q_start=0)
    visits = np.zeros((rows, columns), dtype=int)
    for i in range(rows):
        for j, mask in program.row(i, columns):
            visits[i, j] += 1
            live = tile(dense, i, j, block_m, block_n)
            q, k = np.mgrid[i * block_m : (i + 1) * block_m, j * block_n : (j + 1) * block_n]
            assert (mask == TRUE) == live.all()
            assert (holds(mask, q, k) == live).all()
    live_tiles = dense.reshape(rows, block_m, columns, block_n).any((1, 3))
    assert (visits == live_tiles).all()
    transposed = program.transposed()
    seen = np.zeros((rows, columns), dtype=int)
    for j in range(columns):
        for i, mask in transposed.row(j, rows):
            seen[i, j] += 1
            assert (mask == TRUE) == tile(dense, i, j, block_m, block_n).all()
    assert (seen == live_tiles).all()
    assert sum(program.counts(range(rows), columns)) == live_tiles.sum()
    for each in (program, transposed):
        assert_runs_spell_the_groups(each)


def assert_runs_spell_the_groups(program: TileProgram) -> None:
    for group in program.groups:
        try:
            runs = runs_of(program, group)
        except NoNormalForm:
            continue
        for own in range(24):
            if not group.rows[0] <= own < group.rows[1]:
                continue
            place, home = own % program.row_classes, program.column_classes * (own // program.row_classes)
            low, high = group.columns[0], min(group.columns[1], 40)
            spelled: list[int] = []
            for run in runs:
                if not run.present[place]:
                    continue
                if isinstance(run, Stretch):
                    spelled += [
                        visited
                        for visited in range(low, high)
                        if (run.nearest is None or home - visited >= run.nearest[place])
                        and (run.farthest is None or home - visited <= run.farthest[place])
                        and (home - visited - run.phase[place]) % run.step == 0
                    ]
                    continue
                for jump in (run.scale * run.base**t for t in range(run.count)):
                    for step in range(run.width):
                        visited = home - run.sign * (run.offset[place] + jump + step)
                        spelled += [visited] if low <= visited < high else []
            wanted = [home - y for y in group.visits[place].members(home - high + 1, home - low + 1)]
            assert sorted(spelled) == sorted(wanted)


@given(patterns(), sizes, sizes, lengths)
def test_a_table_covers_every_live_tile_once(pattern: Pattern, block_m: int, block_n: int, length: int) -> None:
    rows, columns = -(-length // block_m), -(-length // block_n)
    dense = pattern.dense(rows * block_m, columns * block_n, q_start=0)
    try:
        masks = TableMasks.of(pattern)
        by_row, by_column = tile_table(masks, block_m, block_n, range(rows), columns)
    except Unsupported:
        assume(False)
    visits, seen = np.zeros((rows, columns), dtype=int), np.zeros((rows, columns), dtype=int)
    for number, mask in enumerate(masks.masks):
        for i in range(rows):
            for j in by_row.tiles[by_row.starts[number, i] : by_row.starts[number, i + 1]]:
                visits[i, j] += 1
                q, k = np.mgrid[i * block_m : (i + 1) * block_m, j * block_n : (j + 1) * block_n]
                assert (holds(mask, q, k) == tile(dense, i, int(j), block_m, block_n)).all()
        for j in range(columns):
            for i in by_column.tiles[by_column.starts[number, j] : by_column.starts[number, j + 1]]:
                seen[i, j] += 1
    assert visits.max() <= 1
    assert (visits >= dense.reshape(rows, block_m, columns, block_n).any((1, 3))).all()
    assert (seen == visits).all()
