"""The tile program visits every live tile once, no dead one, and its masks decide their tiles."""

from __future__ import annotations

import ast

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sparsedsl.arithmetic import where
from sparsedsl.codegen.runs import Listed, Stretch, runs_of
from sparsedsl.codegen.table import compressed, live_tiles
from sparsedsl.codegen.table_masks import TableMasks, encoded
from sparsedsl.codegen.tiles import TileProgram, schedule
from sparsedsl.codegen.tiling import Tiles
from sparsedsl.constructors import random_blocks, sliding
from sparsedsl.errors import NoNormalForm, Unsupported
from sparsedsl.index import TRUE, Constant, Q, binary, holds
from sparsedsl.pattern import Pattern
from tests.proofs.random_patterns import patterns

sizes = st.sampled_from([1, 2, 4, 8])
lengths = st.integers(1, 60)


def tile(dense: np.ndarray, i: int, j: int, block_m: int, block_n: int) -> np.ndarray:
    return dense[i * block_m : (i + 1) * block_m, j * block_n : (j + 1) * block_n]


@given(patterns(), sizes, sizes, lengths)
@example((where("q * k % 4 == 0") | sliding(3) - sliding(2)).blocks(2), 1, 1, 1)
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
    by_tile = np.asarray(sum(program.counts_by_tile(range(rows), columns)))
    assert (by_tile == live_tiles.sum(1)).all()
    assert sum(program.counts(range(rows), columns)) == live_tiles.sum()
    assert sum(program.counts(range(rows // 2, rows), columns)) == by_tile[rows // 2 :].sum()
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
                if isinstance(run, Listed):
                    for turns in range(80 if run.endless else 1):
                        for entry in run.entries[place]:
                            visited = home - run.sign * (run.base[place] + turns * run.turn + entry)
                            spelled += [visited] if low <= visited < high else []
                    continue
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
    try:
        masks = TableMasks.of(pattern)
    except Unsupported:
        assume(False)
    for choice in masks.choices:
        assume(choice.q == binary("//", Q, Constant(8)))
    rows, columns = -(-length // block_m), -(-length // block_n)
    dense = pattern.dense(rows * block_m, columns * block_n, q_start=0)
    predicate, *choices = (ast.literal_eval(repr(encoded(each))) for each in (masks.predicate, *masks.choices))
    i, j, kind = live_tiles(predicate, choices, block_m, block_n, range(rows), columns)
    visits = np.zeros((rows, columns), dtype=int)
    for row, column, number in zip(i.tolist(), j.tolist(), kind.tolist(), strict=True):
        visits[row, column] += 1
        q, k = np.mgrid[row * block_m : (row + 1) * block_m, column * block_n : (column + 1) * block_n]
        assert (holds(masks.masks[number], q, k) == tile(dense, row, column, block_m, block_n)).all()
    assert visits.max() <= 1
    assert (visits >= dense.reshape(rows, block_m, columns, block_n).any((1, 3))).all()
    starts, tiles = compressed(kind, i, j, len(masks.masks), rows)
    listed = [
        (number, row, int(column))
        for number in range(len(masks.masks))
        for row in range(rows)
        for column in tiles[starts[number, row] : starts[number, row + 1]]
    ]
    assert listed == sorted(zip(kind.tolist(), i.tolist(), j.tolist(), strict=True))


def test_random_choices_decide_the_tiles() -> None:
    masks = TableMasks.of(random_blocks(48, 2) | random_blocks(64, 1, seed=3))
    assert masks.fitted(Tiles(256, 64, 4, 2)) == Tiles(16, 16, 4, 2)
    with pytest.raises(Unsupported, match="a random choice changes inside a tile"):
        TableMasks.of(random_blocks(24, 2)).fitted(Tiles(64, 64, 4, 2))
