"""Print the walks of the kernels that read a cache: the tiles of all loops of a kind of head, split over programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparsedsl.codegen.decode_program import PositionProgram
from sparsedsl.codegen.describe import describe
from sparsedsl.codegen.kernel_walk import Masks, TableRoad, broken, kind_source
from sparsedsl.codegen.part_text import PartText
from sparsedsl.codegen.programs import LoopProgram, TableProgram
from sparsedsl.codegen.terms import predicate_source
from sparsedsl.codegen.tiles import TileProgram
from sparsedsl.codegen.walk import Names, Section, home_lines, section_lines, used_lines
from sparsedsl.index import FALSE, TRUE, Predicate

CALL = (
    "acc, row_max, row_sum = attend_cached(acc, row_max, row_sum, b_q, k_ptr, v_ptr, page_table, pages, k_page, k_row, "
    "v_page, v_row, {k}, live, {keep}, scale, {masked}, PAGE_SIZE, head_dim, D, PRECISION)"
)


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop over tiles: what it is, how its tiles are counted, the counts' names, the u-th tile, its mask."""

    what: str
    starts: list[str]
    counts: list[str]
    tile: list[str]
    mask: Predicate | None


@dataclass(frozen=True, slots=True)
class CacheWalker:
    """The walks of one part over a cache; masks and tables are the module's."""

    text: PartText
    masks: Masks
    tables: TableRoad
    ragged_keys: bool

    def position_walk(self, programs: Sequence[PositionProgram | TableProgram], block_m: int) -> str:
        """For the one position of a program: keys are loaded where the position reads them, and no others."""

        def body(mask: Predicate | None) -> list[str]:
            k, inside = self._key, f"{self._key} < {self._keys}"
            asked = inside if mask is None else f"{self.masks.call(mask, self._own, k)} & ({inside})"
            call = CALL.format(k=self._position, keep="live[None, :]", masked=True)
            return [f"{k} = j * BLOCK_N + o_n", f"live = {asked}", call]

        found = []
        for program in programs:
            if isinstance(program, PositionProgram):
                own = [f"i = {self._own} // {program.height}"]
                found.append(self._loops(own, program.tiles, program.sections, "tiles with live keys"))
            else:
                found.append(([f"i = {self._own} // {block_m}"], self._table_loops(program)))
        return self._walk(found, body)

    def chunk_walk(self, programs: Sequence[LoopProgram | TableProgram]) -> str:
        """For many positions of one head: FULL tiles without a mask, as in the forward kernel."""

        def body(mask: Predicate | None) -> list[str]:
            k = self._key
            conditions = [] if mask is None else [self.masks.call(mask, "o_m[:, None]", f"{k}[None, :]")]
            if self.ragged_keys:
                conditions.append("live[None, :]")
            call = CALL.format(k=self._position, keep=" & ".join(conditions) or "None", masked=bool(conditions))
            return [f"{k} = j * BLOCK_N + o_n", f"live = {k} < {self._keys}", call]

        found = []
        for program in programs:
            if isinstance(program, LoopProgram):
                found.append(self._loops([], program.tiles, program.sections))
            else:
                # The last query tile may begin after the last query, and be none of the table's.
                found.append((["i = min(i, owners - 1)"], self._table_loops(program)))
        return self._walk(found, body)

    @property
    def _own(self) -> str:
        return "rank" if self.text.in_classes else "position"

    @property
    def _key(self) -> str:
        return "k_rank" if self.text.in_classes else "k_pos"

    @property
    def _keys(self) -> str:
        return "ranks" if self.text.in_classes else "length"

    @property
    def _position(self) -> str:
        return f"i_c + {self.text.part.step} * k_rank" if self.text.in_classes else "k_pos"

    def _loops(
        self, lines: list[str], tiles: TileProgram, sections: tuple[Section, ...], name: str | None = None
    ) -> tuple[list[str], list[Loop]]:
        names = Names("i", "j", "first_key_tile", "key_tiles", self.masks.constants, "tl.load(constants + {})")
        found = []
        for number, section in enumerate(sections):
            mask = None if section.mask == TRUE else section.mask
            starts, counts, tile = section_lines(section, names, number)
            what = f"{name or _what(mask)}: {describe(section, 'i')}"
            found.append(Loop(what, starts, counts, tile, mask))
        following = [line for loop in found for line in (*loop.starts, *loop.counts, *loop.tile)]
        # A tile of the cache may be wider than the tile of queries: then no run asks for the place in the period.
        return [*lines, *used_lines(home_lines(tiles, names), following)] if sections else [], found

    def _table_loops(self, program: TableProgram) -> list[Loop]:
        found = []
        first = self.tables.first(program.masks)
        for number, mask in enumerate(program.masks.masks):
            if mask == FALSE:
                continue
            run, count, kind = f"run_{number}", f"count_{number}", first + number
            starts = [f"{run} = starts + {kind} * (owners + 1) + i", f"{count} = tl.load({run} + 1) - tl.load({run})"]
            own = None if mask == TRUE else mask
            what = f"{_what(own)}: tiles of kind {kind} in the table"
            found.append(Loop(what, starts, [count], [f"j = tl.load(tiles + tl.load({run}) + u)"], own))
        return found

    def _walk(self, found: list[tuple[list[str], list[Loop]]], body: Callable[[Predicate | None], list[str]]) -> str:
        lines: list[str] = []
        if len(found) > 1:
            lines.append(f"kind = {kind_source(self.text.part)}")
        for kind, (before, loops) in enumerate(found):
            inner = [*before, *_split(loops, body)] if loops else []
            if len(found) > 1:
                lines.append(f"if kind == {kind}:")
                inner = [f"    {line}" for line in inner or ["pass"]]
            lines += inner
        return "\n".join(piece for line in lines for piece in broken("    " + line))


def _split(loops: list[Loop], body: Callable[[Predicate | None], list[str]]) -> list[str]:
    """Count the tiles of all loops, take a share [first, end) of them, walk each loop's part of the share."""
    lines: list[str] = []
    totals: list[str] = []
    for number, loop in enumerate(loops):
        lines += [f"# {loop.what}", *loop.starts]
        earlier = [totals[-1]] if totals else []
        total = " + ".join([*earlier, *loop.counts])
        if len(loops) > 1:
            lines.append(f"tiles_{number} = {total}")
            total = f"tiles_{number}"
        totals.append(total)
    lines.append(f"first, end = split_of(tl.where(here, {totals[-1]}, 0), i_s, splits)")
    for number, loop in enumerate(loops):
        first = f"max(first - {totals[number - 1]}, 0)" if number else "first"
        own = " + ".join(loop.counts)
        end = f"min(end - {totals[number - 1]}, {own})" if number else "end" if len(loops) == 1 else f"min(end, {own})"
        lines.append(f"for u in range({first}, {end}):")
        lines += [f"    {line}" for line in (*loop.tile, *body(loop.mask))]
    return lines


def _what(mask: Predicate | None) -> str:
    return "FULL, no mask" if mask is None else f"PARTIAL, {predicate_source(mask)}"
