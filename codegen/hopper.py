"""The forward kernel of a part for Hopper GPUs: warp-specialised Gluon text from the same tile program.

Two warpgroups of 64 query rows each follow the program's loops, FULL tiles first; one warp brings the tiles in the
same order. Both sides count the tiles by the same closed form, so nothing is handed over but the tiles.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from string import Template

from sparsedsl.codegen import hopper_text
from sparsedsl.codegen.describe import describe
from sparsedsl.codegen.hopper_choice import MOST_STAGES, WIDEST_OUTPUT, balanced, halves, usually_one, values_ahead
from sparsedsl.codegen.hopper_masks import forward_lines, shortened
from sparsedsl.codegen.kernel_walk import Masks, broken, kind_source
from sparsedsl.codegen.part_text import PartText, quoted
from sparsedsl.codegen.plan import Part
from sparsedsl.codegen.programs import LoopProgram
from sparsedsl.codegen.terms import predicate_source
from sparsedsl.codegen.tiles import TileProgram
from sparsedsl.codegen.tiling import HopperTiles
from sparsedsl.codegen.walk import Names, Section, home_lines, section_lines, used_lines
from sparsedsl.index import TRUE, Predicate


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop of the kernel: for each kind of head that has it the section's number; `mask` is None for FULL tiles.

    A `ragged` loop holds the tile that the last key ends in, of the FULL tiles before it. One that runs `once` is no
    loop: every query tile has one such tile, or takes zeros for it; `columns` are the first column and the number of
    columns of it that each warpgroup reads.
    """

    sections: dict[int, int]
    mask: int | None
    ragged: bool = False
    once: bool = False
    columns: tuple[tuple[int, int], ...] = ()


def hopper_launches(parts: Sequence[Part]) -> Iterator[str]:
    """The Python functions that the launches of all parts share."""
    yield hopper_text.HOST
    if any(part.step == 1 for part in parts):
        yield hopper_text.DESCRIPTOR
    if any(part.step > 1 for part in parts):
        yield hopper_text.CLASS_DESCRIPTOR


class HopperText:
    """The kernel of one part as text."""

    def __init__(
        self, text: PartText, programs: Sequence[LoopProgram], masks: Masks, choice: HopperTiles, ragged_keys: bool
    ) -> None:
        self.text, self.programs, self.choice, self.ragged_keys = text, programs, choice, ragged_keys
        self.tiles = choice.tiles
        self.walks: list[str] = []
        self.masks: list[tuple[str, ...]] = []
        self.names = Names("i", "j", "0", "key_tiles", masks.constants, "tl.load(constants + {})")
        self.loops = self._found_loops(masks)
        self.look_up = read_constants(self.walks, self.masks, text.class_of_head)

    def kernels(self) -> str:
        """The kernel and the functions it calls."""
        holes = self.text.holes() | self._holes()
        texts = [filled_text(each, holes) for each in self.walks]
        if self.masks:
            texts.append(filled_text(hopper_text.MASKED, holes))
        texts.append(filled_text(hopper_text.KERNEL, holes))
        whole = _placed("".join(texts), bool(self.text.class_of_head))
        return "\n".join(piece for line in whole.splitlines() for piece in broken(line)) + "\n"

    def launch(self) -> str:
        """The Python function that launches it."""
        text = hopper_text.LAUNCH_IN_CLASSES if self.text.in_classes else hopper_text.LAUNCH
        return filled_text(text, self.text.holes() | self._holes())

    def _found_loops(self, masks: Masks) -> list[Loop]:
        """FULL tiles of all kinds first, as one loop; then each masked section of each kind."""
        full: dict[int, int] = {}
        masked = []
        for kind, program in enumerate(self.programs):
            for section in program.sections:
                number = self._add_walk(program, section)
                if section.mask is None:
                    full[kind] = number
                    continue
                masked.append(Loop({kind: number}, self._mask_number(section.mask, masks)))
                if len(self.programs) == 1 and usually_one(program.tiles, section.mask, self.text.part.step):
                    columns = halves(self.text.part.kinds[0], program.tiles, section.mask)
                    masked[-1] = replace(masked[-1], once=True, columns=columns)
        # Without FULL tiles the first masked tile is read before the loops, and whole.
        leading = 0 if full or len(self.programs) > 1 else 1
        lead = [replace(loop, columns=()) for loop in masked[:leading]]
        masked = masked[len(lead) :]
        if not balanced([loop.columns for loop in masked if loop.once]):
            masked = [replace(loop, columns=()) for loop in masked]
        masked.sort(key=lambda loop: loop.once)
        loops = [Loop(full, None)] if full or len(self.programs) > 1 else []
        if full and self.ragged_keys:
            loops.append(Loop(full, self._mask_number(TRUE, masks), ragged=True))
        return loops + lead + masked or [Loop({}, None)]

    def _mask_number(self, mask: Predicate, masks: Masks) -> int:
        lines = forward_lines(mask, masks, ragged_keys=self.ragged_keys)
        if lines not in self.masks:
            self.masks.append(lines)
        return self.masks.index(lines)

    def _add_walk(self, program: LoopProgram, section: Section) -> int:
        """Write the functions that count the section's tiles and tell the u-th."""
        number = len(self.walks)
        end = f"{self.text.suffix}_{number}"
        self.walks.append(walk_text(hopper_text.WALK, end, program.tiles, section, self.names))
        return number

    def _holes(self) -> dict[str, str]:
        constants = ", constants" if self.look_up else ""
        first = self.loops[0]
        scalars = self.text.holes()["class_scalars"]
        names = re.findall(r"\w+", scalars)
        bound = self.text.class_of_head
        last = self.text.number == self.text.count - 1
        rows = self.text.row_numbers(packed=False)
        return {
            "constants": constants,
            "constants_first": "constants, " if self.look_up else "",
            "constants_given": "            constants_on(q.device),\n" if self.look_up else "",
            "masks": _masks_text(self.masks),
            "step_mask": self._step_mask() if self.masks else "",
            "first_mask": "" if first.mask is None else self._first_mask(first),
            "work": indented(self._work_lines(), 8),
            "bring_work": indented([*self._work_lines(), *_PLACE_LINES], 8),
            "v_stages": "STAGES + 1" if values_ahead(self.programs, self.text.part) else "STAGES",
            "kind": f"        kind = {kind_source(self.text.part)}\n" if len(self.programs) > 1 else "",
            "open": "        if (i_c >= 0) & (i_c < classes):\n" if bound else "",
            "counts": indented(self._by_kind("first", "0", first, self._count), 12),
            "first_tile": indented(self._first_tile(first), 12),
            "bring_loops": indented(self._loop_lines(self._bring_body), 12),
            "last_columns": ", ".join(_given(self._columns_before(None))),
            "attend_loops": indented(self._loop_lines(self._attend_body), 12),
            "class_given": scalars,
            "one": "1, " if self.text.in_classes else "",
            "merge_lse": _MERGE_LSE if self.text.number else "",
            "merge_out": filled_text(_MERGE_OUT, rows) if self.text.number else "",
            **rows,
            "block_m": str(self.tiles.block_m),
            "block_n": str(self.tiles.block_n),
            "stages": (
                f"min({self.choice.stages}, hopper_stages({self.tiles.block_n}, width))"
                if self.choice.stages < MOST_STAGES
                else f"hopper_stages({self.tiles.block_n}, width)"
            ),
            "dynamic": str(self.choice.dynamic),
            "counter": counter(self.choice.dynamic),
            # The copy engine's place is told by `i_bh` alone: a division less at the end of each query tile.
            "o_tensor": "out.view(1, -1, *out.shape[2:])" if last else "q",
            "o_by_tma": f"width <= {WIDEST_OUTPUT} and in_whole_tiles(q_start)" if last else "False",
            "class_names": quoted(names),
        }

    def _work_lines(self) -> list[str]:
        program = "work"
        lines = []
        if self.text.in_classes and not self.text.class_of_head:
            lines = ["i_c = work % classes", "program = work // classes"]
            program = "program"
        lines += [
            f"i_bh = {program} // row_tiles",
            f"i = first_row_tile + row_tiles - 1 - {program} % row_tiles",
        ]
        if self.text.class_of_head or len(self.programs) > 1:
            lines.append("i_h = i_bh % heads")
        if self.text.class_of_head:
            lines.append(f"i_c = {self.text.class_of_head} - first_class")
        return lines

    def _count(self, number: int, loop: Loop) -> str:
        def count(tiles: str) -> str:
            return f"hopper_count{self.text.suffix}_{number}(i, {tiles}{self._constants})"

        if loop.ragged:
            return f"{count('key_tiles')} - {count('k_len // BLOCK_N')}"
        return count(self._end(loop))

    def _tile(self, number: int, loop: Loop, u: str) -> str:
        if loop.ragged:
            return "key_tiles - 1"
        return f"hopper_tile{self.text.suffix}_{number}({u}, i, {self._end(loop)}{self._constants})"

    def _end(self, loop: Loop) -> str:
        """The tiles before this one take part; a tile that the last key ends in needs a mask."""
        return "k_len // BLOCK_N" if self.ragged_keys and loop.mask is None else "key_tiles"

    @property
    def _constants(self) -> str:
        return ", constants" if self.look_up else ""

    def _by_kind(self, name: str, default: str, loop: Loop, value: Callable[[int, Loop], str]) -> list[str]:
        """Assign to `name` what holds for the own kind of head."""
        if len(self.programs) == 1 and loop.sections:
            return [f"{name} = {value(loop.sections[0], loop)}"]
        lines = [f"{name} = {default}"] if default else []
        for kind, number in loop.sections.items():
            lines += [f"if kind == {kind}:", f"    {name} = {value(number, loop)}"]
        return lines

    def _first_tile(self, first: Loop) -> list[str]:
        if not first.sections:
            return []
        lines = self._by_kind("j", "", first, lambda number, loop: self._tile(number, loop, "0"))
        return ["if first > 0:", *(f"    {line}" for line in lines)]

    def _first_mask(self, first: Loop) -> str:
        lines = ["j = key_tiles + 1", *self._first_tile(first), self._masked(str(first.mask), "BLOCK_N", "True")]
        return indented(lines, 12) + "\n"

    def _step_mask(self) -> str:
        return indented(["if MASK >= 0:", f"    {self._masked('MASK', 'COLUMNS', 'present')}"], 4) + "\n"

    def _masked(self, mask: str, columns: str, present: str) -> str:
        first = "j * BLOCK_N" if columns == "BLOCK_N" else "j * BLOCK_N + FIRST"
        return (
            f"b_s = hopper_masked{self.text.suffix}(b_s, position, {first}, {present}, k_len{self._constants}, {mask}, "
            f"{columns})"
        )

    def _loop_lines(self, body: Callable[[Loop], list[str]]) -> list[str]:
        lines: list[str] = []
        for place, loop in enumerate(self.loops):
            if not loop.sections or (place == 0 and loop.once):
                continue
            if loop.once:
                lines += [*self._by_kind("many", "", loop, self._count), *body(loop)]
                continue
            inner = body(loop)
            u = "u" if re.search(r"\bu\b", " ".join(inner)) else "_"
            if place == 0:
                lines.append(f"for {u} in range(1, first):")
            elif len(self.programs) == 1:
                lines.append(f"for {u} in range({self._count(loop.sections[0], loop)}):")
            else:
                lines += [*self._by_kind("many", "0", loop, self._count), f"for {u} in range(many):"]
            lines += [f"    {line}" for line in inner]
        return lines

    def _tile_lines(self, loop: Loop) -> list[str]:
        """The tile of this turn of the loop. A masked loop belongs to one kind of head, the FULL one to several."""
        if loop.once:
            return ["j = key_tiles + 1", "if many > 0:", f"    j = {self._tile(loop.sections[0], loop, '0')}"]
        if len(loop.sections) == 1 or loop.ragged:
            return [f"j = {self._tile(next(iter(loop.sections.values())), loop, 'u')}"]
        return self._by_kind("j", "key_tiles", loop, lambda number, loop: self._tile(number, loop, "u"))

    def _bring_body(self, loop: Loop) -> list[str]:
        c = self.text.holes()["c"]
        bring = "bring({0}_desc, [i_b, i_g, {c}j * BLOCK_N, 0], {0}_ready, {0}_free, {0}_smem, {1}, KEY_BYTES)"
        return [
            *self._tile_lines(loop),
            bring.format("k", "slot, phase", c=c),
            bring.format("v", "v_slot, v_phase", c=f"{c}old_"),
            "old_j = j",
            "slot, phase = next_slot(slot, phase, STAGES)",
            "v_slot, v_phase = next_slot(v_slot, v_phase, V_STAGES)",
        ]

    def _attend_body(self, loop: Loop) -> list[str]:
        before = self._columns_before(loop)
        own = self._columns(loop)
        return [
            *(self._tile_lines(loop) if loop.mask is not None else []),
            *([f"{name}: gl.constexpr = {value}" for name, value in own.items() if not value.isdecimal()]),
            f"acc, weights, shrink, row_max, row_sum = hopper_step{self.text.suffix}(acc, weights, shrink, row_max, "
            "row_sum, b_q, k_smem, v_smem, k_ready, k_free, v_ready, v_free, slot, phase, v_slot, v_phase, "
            f"position, {'0' if loop.mask is None else 'j'}, {'many > 0' if loop.once else 'True'}, k_len, scale"
            f"{self._constants}, {-1 if loop.mask is None else loop.mask}, "
            f"{', '.join(_given(own))}, {', '.join(_given(before))}, BLOCK_N, D, DTYPE)",
            "slot, phase = next_slot(slot, phase, STAGES)",
            "v_slot, v_phase = next_slot(v_slot, v_phase, V_STAGES)",
        ]

    def _columns(self, loop: Loop) -> dict[str, str]:
        """Names and values of the first column and the number of columns that a warpgroup reads of a loop's tiles."""
        place = self.loops.index(loop)
        if not loop.columns or loop.columns == ((0, self.tiles.block_n),) * 2:
            return {f"FIRST_{place}": "0", f"COLUMNS_{place}": str(self.tiles.block_n)}
        named = zip((f"FIRST_{place}", f"COLUMNS_{place}"), zip(*loop.columns, strict=True), strict=True)
        return {name: str(a) if a == b else f"{a} if W == 0 else {b}" for name, (a, b) in named}

    def _columns_before(self, loop: Loop | None) -> dict[str, str]:
        """The same of the tile before: of the last one that runs once, if any; all others are whole."""
        place = len(self.loops) if loop is None else self.loops.index(loop)
        if place and self.loops[place - 1].once:
            return self._columns(self.loops[place - 1])
        return self._columns(self.loops[0])


# Where a query tile's head is.
_PLACE_LINES = ["i_b = i_bh // heads", "i_h = i_bh % heads", "i_g = i_h // group"]
_MERGE_LSE = """\
            b_before = gl.load(lse_ptr + row, mask=inside, other=float("-inf"))
            top = gl.maximum(b_lse, b_before)
            top = gl.where(top > float("-inf"), top, 0.0)
            weight = gl.exp(b_lse - top)
            before_weight = gl.exp(b_before - top)
            both = weight + before_weight
            some = gl.where(both > 0, both, 1.0)
            gain = gain * weight / some
            before_gain = before_weight / some
            b_lse = gl.where(both > 0, top + gl.log(some), float("-inf"))
"""
_MERGE_OUT = """\
            # Rows without a key so far were not written by the part before.
            before_gain = gl.expand_dims(gl.convert_layout(before_gain, O_ROWS), 1)
            row = ${token_row}
            o_place = gl.expand_dims(row, 1) * HEAD_DIM + gl.expand_dims(o_d, 0)
            b_o_before = gl.load(before_ptr + o_place, mask=o_inside & (before_gain > 0), other=0.0)
            b_o += b_o_before * before_gain
"""


def read_constants(walks: Sequence[str], masks: Sequence[tuple[str, ...]], class_of_head: str | None) -> bool:
    """Whether the walks, the masks or the heads' classes look something up in the module's constants."""
    read = " ".join([*walks, *(line for lines in masks for line in lines), class_of_head or ""])
    return re.search(r"\bconstants\b", read.replace("${constants}", "")) is not None


def counter(dynamic: bool) -> str:
    """What a launch gives for the counter by which tiles are handed out; any tensor where they are not."""
    return "torch.zeros(1, dtype=torch.int32, device=q.device)" if dynamic else "lse"


def walk_text(text: str, end: str, tiles: TileProgram, section: Section, names: Names) -> str:
    """Two functions, whose names have this end: how many tiles a section has for the own tile; which is the u-th."""
    home = home_lines(tiles, names)
    lines, counts, tile = section_lines(section, names, 0)
    # Which tile the u-th is does not depend on how many the last run has.
    which = [*(line for line in lines if not line.startswith(f"{counts[-1]} = ")), *tile]
    what = "FULL" if section.mask is None else f"PARTIAL, {predicate_source(section.mask)}"
    holes = {
        "s": end,
        "what": shortened(f"{what}: {describe(section, names.own)}.", 60),
        "count_lines": indented([*used_lines(home, lines), *lines], 4),
        "count": " + ".join(counts),
        "tile_lines": indented([*used_lines(home, which), *which], 4),
        "constants": "${constants}",
    }
    return Template(text).substitute(holes).replace("listed_below(", "hopper_listed_below(")


def _given(columns: dict[str, str]) -> list[str]:
    """The columns as arguments: numbers, or the names of constants."""
    return [value if value.isdecimal() else name for name, value in columns.items()]


def _masks_text(masks: Sequence[tuple[str, ...]]) -> str:
    """The masks of a part, each under its number."""
    lines = []
    for number, own in enumerate(masks):
        lines += [f"{'if' if number == 0 else 'elif'} MASK == {number}:", *(f"    {line}" for line in own)]
    return indented(lines, 4)


def indented(lines: Sequence[str], indent: int) -> str:
    """Lines as one text, moved to the right."""
    return "\n".join(" " * indent + line for line in lines)


def filled_text(text: str, holes: dict[str, str]) -> str:
    """The text with its holes filled; there may be more than it needs."""
    return Template(text).substitute(holes)


def _placed(text: str, conditional: bool) -> str:
    """The text with its blocks between #< and #> where they belong: under a condition, or one step to the left."""

    def block(found: re.Match[str]) -> str:
        return found[1] if conditional else re.sub(r"(?m)^    ", "", found[1])

    return re.sub(r"(?ms)^ *#<\n(.*?)^ *#>\n", block, text)
