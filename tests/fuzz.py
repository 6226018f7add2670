"""Many random composed patterns: normal form, tile program and table against `dense`, pair by pair.

    python -m tests.fuzz --cases 20000 --seed 0 --out benchmarks/results/fuzz.json

Hypothesis draws the cases and shrinks the first one that fails; the same seed and versions draw the same cases. The
default run of the tests draws a few of the same kind (tests/test_fuzz.py).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from math import ceil

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import sparsedsl
from sparsedsl.codegen.plan import plan
from sparsedsl.codegen.table import live_tiles
from sparsedsl.codegen.table_masks import TableMasks, encoded
from sparsedsl.codegen.tiles import TileProgram, schedule
from sparsedsl.constructors import causal, random_blocks
from sparsedsl.errors import NoNormalForm, Unsupported
from sparsedsl.index import Predicate, holds
from sparsedsl.normal import normalise
from sparsedsl.pattern import Pattern
from tests import long_run
from tests.proofs import random_patterns
from tests.strategies import periodic_patterns

Matrix = NDArray[np.bool_]
TILES = ((1, 1), (2, 4), (4, 2), (8, 8), (3, 5), (16, 4))
# A plan takes longer than all the rest: one case in so many is planned too.
PLANNED = 20


@dataclass(frozen=True)
class Case:
    """A pattern, the two lengths, and two pairs of tile sizes."""

    pattern: Pattern
    q_len: int
    k_len: int
    tiles: tuple[tuple[int, int], ...]
    planned: bool


@dataclass
class Counts:
    """What the cases were, by kind."""

    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, *kinds: str) -> None:
        """One more of each."""
        self.kinds.update(kinds)


def with_random_blocks() -> st.SearchStrategy[Pattern]:
    """Random blocks that tiles can be aligned to, beside and inside other patterns."""
    drawn = st.builds(
        lambda block, count, seed: random_blocks(block, count, seed=seed),
        st.sampled_from([4, 8, 16]),
        st.integers(1, 3),
        st.integers(0, 9),
    )
    other = periodic_patterns(3)
    return st.one_of(
        st.builds(lambda a, b: (a | b) & causal(), drawn, other),
        st.builds(lambda a, b: a & b, drawn, other),
        st.builds(lambda a, b: b - a, drawn, other),
        st.builds(lambda a, b, c: (a - b) | (c & ~b), drawn, drawn, other),
    )


def cases() -> st.SearchStrategy[Case]:
    """Composed patterns of everything the language has, with lengths that differ."""
    return st.builds(
        Case,
        st.one_of(periodic_patterns(), random_patterns.patterns(), with_random_blocks()),
        st.integers(0, 40),
        st.integers(0, 40),
        st.lists(st.sampled_from(TILES), min_size=2, max_size=2, unique=True).map(tuple),
        st.integers(1, PLANNED).map(lambda number: number == PLANNED),
    )


def check_case(case: Case, counts: Counts) -> None:
    """Raise AssertionError where a stage says something else than `dense`."""
    counts.add("cases")
    if counts.kinds["cases"] % 1000 == 0:
        normalise.cache_clear()  # thousands of forms that no other case asks for
    pattern, start = case.pattern, case.k_len - case.q_len
    dense = pattern.dense(case.q_len, case.k_len)
    try:
        form = normalise(pattern)
    except NoNormalForm:
        counts.add("no normal form")
    else:
        counts.add("normal form")
        form.verify()
        assert np.array_equal(form.dense(case.q_len, case.k_len), dense), "normal form"
    for block_m, block_n in case.tiles:
        rows, columns = ceil(max(case.k_len, 1) / block_m), ceil(case.k_len / block_n)
        whole = pattern.dense(rows * block_m, columns * block_n, q_start=0)
        assert np.array_equal(whole[max(start, 0) : case.k_len, : case.k_len], dense[max(-start, 0) :]), "alignment"
        try:
            program = schedule(pattern, block_m, block_n)
        except NoNormalForm:
            counts.add(_check_table(pattern, block_m, block_n, rows, columns, whole))
            continue
        counts.add("tile programs")
        _check_program(program, rows, columns, whole)
    if case.planned:
        counts.add(_check_plan(pattern, max(case.q_len, case.k_len)))


def _check_program(program: TileProgram, rows: int, columns: int, whole: Matrix) -> None:
    """Each live tile is in one group, each tile of a group is live, FULL is full, masks decide; both ways round."""
    q, k = np.mgrid[: whole.shape[0], : whole.shape[1]]
    tile = np.ones((program.block_m, program.block_n), dtype=np.bool_)
    live = _tiled(whole, program.block_m, program.block_n).any((1, 3))
    turned = program.transposed()
    for by_row in (True, False):
        visits = np.zeros((rows, columns), dtype=np.int64)
        told = np.zeros_like(whole)
        full = np.zeros((rows, columns), dtype=np.bool_)
        # One membership matrix for each mask.
        places: dict[Predicate, Matrix] = {}
        for own in range(rows if by_row else columns):
            for visited, mask in program.row(own, columns) if by_row else turned.row(own, rows):
                place = (own, visited) if by_row else (visited, own)
                visits[place] += 1
                places.setdefault(mask, np.zeros((rows, columns), dtype=np.bool_))[place] = True
        for mask, inside in places.items():
            told |= np.kron(inside, tile) & holds(mask, q, k)
        for group in program.groups:
            if group.full and group.mask in places:
                full |= places[group.mask]
        assert (visits == live).all(), "every live tile once, no dead one"
        assert np.array_equal(told, whole), "masks"
        assert np.array_equal(full, _tiled(whole, program.block_m, program.block_n).all((1, 3))), "FULL"


def _tiled(matrix: Matrix, block_m: int, block_n: int) -> Matrix:
    """(row tile, row, column tile, column)."""
    return matrix.reshape(matrix.shape[0] // block_m, block_m, matrix.shape[1] // block_n, block_n)


def _check_table(pattern: Pattern, block_m: int, block_n: int, rows: int, columns: int, whole: Matrix) -> str:
    """Each tile at most once, every live one, and its mask decides it."""
    try:
        masks = TableMasks.of(pattern)
    except Unsupported:
        return "tables refused: too many random choices"
    aligned = all(
        size % block_m == 0 and other % block_n == 0
        for choice in masks.choices
        for size, other in [(_block(choice.q), _block(choice.k))]
    )
    if not columns:
        return "tables without a key tile"
    if not aligned:
        return "tables refused: a random choice changes inside a tile"
    choices = tuple(encoded(choice) for choice in masks.choices)
    found = live_tiles(encoded(masks.predicate), choices, block_m, block_n, range(rows), columns)
    q, k = np.mgrid[: whole.shape[0], : whole.shape[1]]
    tile = np.ones((block_m, block_n), dtype=np.bool_)
    visits = np.zeros((rows, columns), dtype=np.int64)
    told = np.zeros_like(whole)
    i, j, kinds = (each.numpy() for each in found)
    np.add.at(visits, (i, j), 1)
    for number, mask in enumerate(masks.masks):
        inside = np.zeros((rows, columns), dtype=np.bool_)
        inside[i[kinds == number], j[kinds == number]] = True
        told |= np.kron(inside, tile) & holds(mask, q, k)
    assert visits.max(initial=0) <= 1, "no tile twice"
    assert np.array_equal(told, whole), "table"
    return "tables"


def _block(term: object) -> int:
    """The size that a position is divided by in a random choice; 1 where it is another term."""
    match term:
        case sparsedsl.index.Binary("//", sparsedsl.index.Position(), sparsedsl.index.Constant(size)):
            return size
    return 1


def _check_plan(pattern: Pattern, length: int) -> str:
    """The parts are disjoint and together the pattern."""
    try:
        parts = plan(pattern).parts
    except Unsupported:
        return "plans refused"
    total = np.zeros((length, length), dtype=np.int64)
    for part in parts:
        (kind,) = part.kinds
        for residue in chain.from_iterable(part.classes[:1]):
            positions = np.arange(residue, length, part.step)
            total[np.ix_(positions, positions)] += kind.dense(len(positions))
    assert np.array_equal(total, pattern.dense(length).astype(np.int64)), f"plan: {parts}"
    return "plans in one part" if len(parts) == 1 else "plans in several parts"


def run(count: int, seed: int) -> Counts:
    """Draw and check so many cases."""
    counts = Counts()
    long_run.check_all(cases(), lambda case: check_case(case, counts), count, seed)
    return counts


def main() -> None:
    """Run, print and write the record; a failure ends in Hypothesis's report with the smallest case."""
    long_run.main(
        "tests.fuzz",
        (__doc__ or "").splitlines()[0],
        "random composed patterns: normal form, tile program, table and plan equal `dense`, pair by pair",
        lambda count, seed: run(count, seed).kinds,
        cases=20_000,
        packages=("hypothesis", "numpy", "torch"),
    )


if __name__ == "__main__":
    main()
