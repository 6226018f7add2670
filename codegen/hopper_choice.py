"""What the kernel for Hopper chooses for a part: whether there is one, its tiles, how they are shared and masked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from sparsedsl.codegen.plan import Part
from sparsedsl.codegen.programs import LoopProgram, program_of
from sparsedsl.codegen.terms import predicate_source
from sparsedsl.codegen.tiles import TileProgram
from sparsedsl.codegen.tiling import HOPPER_ROWS, TILINGS, HopperTiles, Tiles, Tiling
from sparsedsl.errors import Unsupported
from sparsedsl.index import Predicate
from sparsedsl.integers import INFINITY, IntegerSet
from sparsedsl.pattern import Pattern

# auto: every pattern's plain kernels, and those for Hopper beside them where there are any.
Backend = Literal["auto", "triton", "hopper"]
BACKENDS: tuple[Backend, ...] = ("auto", "triton", "hopper")

# The backward kernel: 64 queries, and 64 keys for each of two warpgroups. Heads wider than the first of these widths,
# half of whose columns are narrower than any swizzle; up to the second, which is as wide as dk and dv leave registers
# for.
GRADIENT_TILES = Tiles(64, 128, 4, 2)
TOO_NARROW, GRADIENT_WIDTH = 16, 128
# Keys of a tile; more tiles in a ring than four are of no use, and two must fit.
WIDE, NARROW = 128, 64
MOST_STAGES = 4
# Beyond this width of a head there is no room for a tile of the output beside those of the inputs.
WIDEST_OUTPUT = 128
# Narrow key tiles where wide ones execute this many more pairs, or where a mask compares more often than this: its
# conditions on 128 keys would not fit the registers. `LENGTH` is what it is counted at.
WASTE, MOST_COMPARISONS, LENGTH = 1.05, 3, 32768
# Beside the output of a head wider than 128, conditions that compare more often may not fit even on 64 keys: of the
# library's patterns some with three or eight comparisons spill in their loops, others do not.
MOST_BESIDE_WIDE_HEADS = 1
# A row of tiles this much longer than the mean one makes it worth while to hand tiles out one by one: at 131072 tokens
# that saves 4 % of power 256 (1.15), and 2 % even of sliding 1024 (1.02); but a counter must be set for each call.
UNEVEN = 1.1
# A masked tile that nearly every query tile has needs no loop: the others take a tile of zeros for it.
NEARLY = 0.75
# So many key tiles a query tile, on the mean, are few: sliding 512 has 5 of them, sliding 1024 has 9.
FEW = 6
# Several parts whose key tiles are read by fewer query tiles than this, on the mean, run plain backward kernels. Two of
# 256 keys each, measured at 131072 tokens on an H200, take 0.93 of the time so; of 512 keys each it would be 1.1, by
# the times of the parts alone.
SHORT = 8
# Halves are looked for only where the tiles of this many query tiles tell those of all.
MOST_ROWS = 512


def hopper_type(tiling: Tiling) -> None:
    """Refuse a tiling of a type that the hopper backend has no kernel for."""
    if tiling.bytes != 2:
        raise Unsupported(
            "the hopper backend has no kernel for this type",
            where=f"tiling {tiling.name}",
            got=f"{tiling.bytes} bytes an element",
            expected="float16 or bfloat16, 2 bytes an element",
            hint="the backend triton, or the tiling half128",
        )


def hopper_choices(parts: Sequence[Part], tiling: Tiling, backend: Backend) -> tuple[HopperTiles | None, ...]:
    """For each part the tiles of its kernel for Hopper; None where the plain kernel is the only one.

    The backend auto takes it where there is one, and where the tiling is for Hopper.

    Raises
        Unsupported: the backend hopper, where a part has no such kernel.
    """
    if backend == "triton":
        return (None,) * len(parts)
    if backend == "hopper":
        hopper_type(tiling)
        return tuple(hopper_tiles(part, tiling) for part in parts)
    if tiling.plain_forward or not for_hopper(tiling):
        return (None,) * len(parts)
    return tuple(hopper_tiles(part, tiling) if in_closed_form(part) and fits(part, tiling) else None for part in parts)


def for_hopper(tiling: Tiling) -> bool:
    """Whether the tiling is for Hopper and of a type that its kernel takes."""
    return tiling.bytes == 2 and tiling.name in {each.name for each in TILINGS}


def in_closed_form(part: Part) -> bool:
    """Whether no table is needed to tell the part's tiles."""
    tiles = [Tiles(HOPPER_ROWS, block_n, 4, 2) for block_n in (WIDE, NARROW)]
    return all(isinstance(program_of(kind, each), LoopProgram) for kind in part.kinds for each in tiles)


def fits(part: Part, tiling: Tiling) -> bool:
    """Whether the registers hold the conditions of the masks in the narrower tiles, as far as is known."""
    most = max(map(_comparisons, _masks(hopper_programs(part, NARROW))), default=0)
    return tiling.head_dim <= WIDEST_OUTPUT or most <= MOST_BESIDE_WIDE_HEADS


def have_gradients(parts: Sequence[Part], tiling: Tiling, backend: Backend) -> bool:
    """Whether parts that all have a forward kernel for Hopper get a backward one: all of them, or none.

    The backend auto takes it where the registers hold the conditions of all masks, as far as is known, and where
    it is not slower than the plain one.
    """
    loops = [gradient_programs(part) for part in parts]
    if tiling.head_dim > GRADIENT_WIDTH or None in loops:
        return False
    masks = {section.mask for each in loops for program in each or () for section in program.transposed_sections}
    fit = all(_comparisons(mask) <= MOST_COMPARISONS for mask in masks if mask is not None)
    return backend == "hopper" or (fit and not _short(parts, [each or () for each in loops]))


def _short(parts: Sequence[Part], loops: Sequence[Sequence[LoopProgram]]) -> bool:
    """Whether there are several parts, whose key tiles few query tiles read."""
    if len(parts) == 1:
        return False
    counts = [count for part, programs in zip(parts, loops, strict=True) for count in column_counts(programs, part)]
    return sum(counts) < SHORT * len(counts)


def gradient_programs(part: Part) -> tuple[LoopProgram, ...] | None:
    """The tile programs of the part's kinds of heads in the backward kernel's tiles; None where a table is needed."""
    programs = [program_of(kind, GRADIENT_TILES) for kind in part.kinds]
    loops = tuple(each for each in programs if isinstance(each, LoopProgram))
    return loops if len(loops) == len(programs) else None


def gradients_run(head_dim: int) -> bool:
    """Whether these kernels are what runs for heads so wide, as `hopper_gradients` of an emitted module decides."""
    return TOO_NARROW < head_dim <= GRADIENT_WIDTH


def hopper_tiles(part: Part, tiling: Tiling) -> HopperTiles:
    """The tiles of a part's kernel for Hopper: the tiling's own, or what the rules above give.

    Cost
        Scheduling the part in both sizes of tiles.
    Raises
        Unsupported: a pattern whose tiles only a table tells.
    """
    wide, narrow = (hopper_programs(part, block_n) for block_n in (WIDE, NARROW))
    if tiling.hopper is not None:
        return tiling.hopper
    pairs = [sum(row_counts(programs, part)) * programs[0].tiles.block_n for programs in (wide, narrow)]
    too_wide = tiling.head_dim > WIDEST_OUTPUT or any(_comparisons(mask) > MOST_COMPARISONS for mask in _masks(wide))
    chosen = narrow if too_wide or pairs[0] > WASTE * pairs[1] else wide
    return HopperTiles(chosen[0].tiles.block_n, MOST_STAGES, uneven(row_counts(chosen, part)))


def hopper_candidates(part: Part, tiling: Tiling) -> list[HopperTiles]:
    """The tiles to try for a part's kernel for Hopper, those that the rules give first."""
    found = [hopper_tiles(part, tiling)]
    for block_n in (WIDE, NARROW)[tiling.head_dim > WIDEST_OUTPUT :]:
        for stages in range(2, ring(block_n, tiling.head_dim) + 1):
            found += [HopperTiles(block_n, stages, dynamic) for dynamic in (False, True)]
    room = replace(found[0], stages=min(found[0].stages, ring(found[0].block_n, tiling.head_dim)))
    return [found[0], *(each for each in found[1:] if each != room)]


def ring(block_n: int, width: int) -> int:
    """How many key tiles of K there is room for, as `hopper_stages` of an emitted module counts."""
    return max(2, min(MOST_STAGES, 32768 // (block_n * width)))


def values_ahead(programs: Sequence[LoopProgram], part: Part) -> bool:
    """Whether V gets a slot more than K: where query tiles have few key tiles, or scattered ones.

    V's slot comes free only after a softmax; with one more, loads run further ahead. At 131072 tokens on an H200 it
    takes 0.79 instead of 0.87 of the time before for sliding 256, 0.67 instead of 0.71 for dilated 256x16, 0.93
    instead of 0.95 for power 128; but 1.00 instead of 0.98 for sliding 4096, whose neighbouring query tiles read the
    same keys at the same time.
    """
    counts = row_counts(programs, part)
    return sum(counts) <= FEW * len(counts) or not all(
        _last_row_is_one_run(program.tiles, part) for program in programs
    )


def _last_row_is_one_run(tiles: TileProgram, part: Part) -> bool:
    rows, columns = _extent(tiles, part.step)
    seen = [j for j, _ in tiles.row(rows - 1, columns)]
    return len(seen) == max(seen, default=-1) - min(seen, default=0) + 1


def uneven(counts: Sequence[int]) -> bool:
    """Whether rows or columns of tiles differ in length by so much that a fixed share of them would leave some idle."""
    return max(counts) * len(counts) > UNEVEN * sum(counts)


def _masks(programs: Sequence[LoopProgram]) -> set[Predicate]:
    return {section.mask for program in programs for section in program.sections if section.mask is not None}


def _comparisons(mask: Predicate) -> int:
    """How many comparisons decide a mask; a look-up in a set counts for many."""
    text = predicate_source(mask)
    return len(re.findall(r">=|<|==|!=", text)) + 2 * MOST_COMPARISONS * text.count(" in a set of ")


def row_counts(programs: Sequence[LoopProgram], part: Part) -> list[int]:
    """How many key tiles each query tile reads, for one head of each kind."""
    return [count for program in programs for count in _own_counts(program.tiles, part)]


def column_counts(programs: Sequence[LoopProgram], part: Part) -> list[int]:
    """How many query tiles read each key tile, for one head of each kind."""
    return [count for program in programs for count in _own_counts(program.transposed, part)]


def _extent(tiles: TileProgram, step: int) -> tuple[int, int]:
    """How many rows and columns of tiles one residue class has at the length that is counted at."""
    length = LENGTH // step
    return -(-length // tiles.block_m), -(-length // tiles.block_n)


def _own_counts(tiles: TileProgram, part: Part) -> list[int]:
    own, visited = _extent(tiles, part.step)
    full, partial = tiles.counts_by_tile(range(own), visited)
    counts: list[int] = (full + partial).tolist()
    return counts


def scores_ahead(programs: Sequence[LoopProgram]) -> bool:
    """Whether a step of the backward kernel begins the scores of the next tile: for sliding windows.

    That is, one unbroken run of query tiles reads each key tile, as long for each; in residue order too. At 131072
    tokens on an H200 it takes 0.96 of the time on sliding 1024 and 0.95 on sliding 4096, but 1.04 on dense causal
    attention, whose columns have one run of many lengths, and 1.01 and 1.05 on power 128 and 256, which have many.
    """
    return all(_one_run(program.transposed) for program in programs)


def _one_run(columns: TileProgram) -> bool:
    lengths = set()
    for place in range(columns.row_classes):
        visits = [group.visits[place] for group in columns.groups]
        if not all(each.is_finite for each in visits):
            return False
        seen = sorted(y for each in visits for y in _members(each))
        if not seen or seen[-1] - seen[0] + 1 != len(seen):
            return False
        lengths.add(len(seen))
    return len(lengths) == 1


def hopper_programs(part: Part, block_n: int) -> tuple[LoopProgram, ...]:
    """The tile programs of the part's kinds of heads, in tiles of 128 queries and so many keys.

    Raises
        Unsupported: a kind whose tiles only a table tells.
    """
    found = []
    for kind in part.kinds:
        program = program_of(kind, Tiles(HOPPER_ROWS, block_n, 4, 2))
        if not isinstance(program, LoopProgram):
            raise Unsupported(
                "the hopper backend walks closed-form tile programs only",
                where=str(kind),
                got="a pattern whose tiles a table tells",
                expected="a periodic pattern with a short form in tiles",
                hint="the backend triton",
            )
        found.append(program)
    return tuple(found)


def usually_one(program: TileProgram, mask: Predicate, step: int) -> bool:
    """Whether no query tile has two tiles under this mask, and nearly all have one."""
    groups = [group for group in program.groups if group.mask == mask]
    if len(groups) != 1:
        return False
    (group,) = groups
    narrow = group.columns[1] - group.columns[0] == 1
    if not narrow and not all(each.is_finite and len(list(_members(each))) <= 1 for each in group.visits):
        return False
    rows, columns = _extent(program, step)
    alone = replace(program, groups=(group,))
    return sum(alone.counts(range(rows), columns)) >= NEARLY * rows


def _members(visits: IntegerSet) -> Iterator[int]:
    return visits.members(visits.minimum, visits.maximum + 1) if visits else iter(())


def halves(pattern: Pattern, program: TileProgram, mask: Predicate) -> tuple[tuple[int, int], ...]:
    """(first column, columns) of the tiles under a mask of one group that the rows of each warpgroup may read at all.

    A warpgroup has 64 rows. Where one half of its columns is empty in every tile, it need not be multiplied.
    """
    whole = ((0, program.block_n),) * 2
    (group,) = (group for group in program.groups if group.mask == mask)
    edges = [edge for edge in (*group.rows, *group.columns) if edge != INFINITY]
    far = max((abs(y) for each in group.visits if each.is_finite for y in _members(each)), default=0)
    # From here on every superperiod is like the one before.
    rows = max(edges) + far + 2 * program.row_classes
    fine = program_of(pattern, Tiles(64, 64, 4, 2))
    if program.block_n != 128 or rows > MOST_ROWS or not isinstance(fine, LoopProgram):
        return whole
    columns = program.column_classes * (rows // program.row_classes + 1) + far + 1
    live = [[False, False], [False, False]]
    alone = replace(program, groups=(group,))
    for i in range(rows):
        tiles = [j for j, _ in alone.row(i, columns)]
        for w in range(2):
            read = {k for k, _ in fine.tiles.row(2 * i + w, 2 * columns)} if tiles else set()
            for half in range(2):
                live[w][half] |= any(2 * j + half in read for j in tiles)
    return tuple((0, 128) if a == b else (0, 64) if a else (64, 64) for a, b in live)


def balanced(found: Sequence[tuple[tuple[int, int], ...]]) -> bool:
    """Whether both warpgroups save as much: what one alone saves it spends waiting for the other."""
    first, second = (sum(each[w][1] for each in found) for w in range(2))
    return first == second
