"""The backward kernel of a part for Hopper GPUs: warp-specialised Gluon text from the same tile program, transposed.

A key tile of 128 keys is walked over the query tiles that read it. Two warpgroups of 64 keys each keep dk and dv in
registers; each query tile's share of dq, of which each warpgroup multiplies half the columns, is added to memory, in
float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sparsedsl.codegen import hopper_backward_launch, hopper_backward_text
from sparsedsl.codegen.hopper import counter, filled_text, indented, read_constants, walk_text
from sparsedsl.codegen.hopper_choice import (
    GRADIENT_TILES,
    GRADIENT_WIDTH,
    TOO_NARROW,
    column_counts,
    scores_ahead,
    uneven,
)
from sparsedsl.codegen.hopper_masks import backward_lines
from sparsedsl.codegen.hopper_step_text import OWN_SCORES, SCORES_AHEAD
from sparsedsl.codegen.kernel_walk import Masks, broken, kind_source
from sparsedsl.codegen.part_text import PartText, argument_lines
from sparsedsl.codegen.programs import LoopProgram
from sparsedsl.codegen.split_text import (
    LongColumns,
    hopper_holes,
    hopper_launch_holes,
    split_work_lines,
)
from sparsedsl.codegen.walk import Names, Section, share_line


class HopperBackwardText:
    """The backward kernels of one part as text."""

    def __init__(
        self,
        text: PartText,
        programs: Sequence[LoopProgram],
        masks: Masks,
        early_tiles: int,
        columns: LongColumns | None = None,
    ) -> None:
        self.text, self.programs, self.early_tiles, self.columns = text, programs, early_tiles, columns
        self.order = SCORES_AHEAD if scores_ahead(programs) else OWN_SCORES
        self.walks: list[str] = []
        self.masks: list[tuple[str, ...]] = []
        self.names = Names("j", "i", "first_row_tile", "row_tiles", masks.constants, "tl.load(constants + {})")
        # For each kind of head its loops: the walk's number, the mask's number or -1.
        self.loops = [
            [
                (self._add_walk(program, section), self._mask_number(masks, section))
                for section in program.transposed_sections
            ]
            for program in programs
        ]
        self.look_up = read_constants(self.walks, self.masks, text.class_of_head)
        self.holes = self._found_holes()

    def kernels(self) -> str:
        """The kernels and the functions they call."""
        holes = self.holes
        texts = [filled_text(each, holes) for each in self.walks]
        fixed = (hopper_backward_launch.ROWS, self.order.step, hopper_backward_text.KERNELS)
        texts += [filled_text(each, holes) for each in fixed]
        return "\n".join(piece for line in "".join(texts).splitlines() for piece in broken(line)) + "\n"

    def launch(self) -> str:
        """The Python function that launches them."""
        text = hopper_backward_launch.LAUNCH_IN_CLASSES if self.text.in_classes else hopper_backward_launch.LAUNCH
        return filled_text(text, self.holes)

    def _add_walk(self, program: LoopProgram, section: Section) -> int:
        """Write the functions that count the section's tiles and tell the u-th."""
        number = len(self.walks)
        end = f"{self.text.suffix}_{number}"
        self.walks.append(walk_text(hopper_backward_text.WALK, end, program.transposed, section, self.names))
        return number

    def _mask_number(self, masks: Masks, section: Section) -> int:
        if section.mask is None:
            return -1
        # With scores ahead, bounds are slower than conditions pair by pair: 1.03 and 1.045 of the time on sliding 1024
        # and 4096, whose products ptxas then mixes otherwise with the powers of two.
        lines = backward_lines(section.mask, masks, by_bounds=self.order is not SCORES_AHEAD)
        if lines not in self.masks:
            self.masks.append(lines)
        return self.masks.index(lines)

    def _found_holes(self) -> dict[str, str]:
        own = self.text.holes()
        handed_out = uneven(column_counts(self.programs, self.text.part))
        in_classes, bound = self.text.in_classes, self.text.class_of_head
        single, later = self.text.count == 1, self.text.number > 0
        constants = "constants" if self.look_up else ""
        row_constants = "constants" if bound and "constants" in bound else ""
        deep = 16 if in_classes else 12
        results = ["dk_desc", "dv_desc"] if single else ["dk_ptr", "dv_ptr"]
        results += ["before_dk_ptr", "before_dv_ptr"] if later else []
        one = "1, " if in_classes else ""
        shares = hopper_holes(self.columns, self._store(own, single, later))
        return own | {
            "block_m": str(GRADIENT_TILES.block_m),
            "block_n": str(GRADIENT_TILES.block_n),
            "constants": f", {constants}" if constants else "",
            "constants_first": f"{constants}, " if constants else "",
            "constants_given": argument_lines(["constants_on(q.device)"] if constants else [], deep),
            "row_constants": f"{row_constants}, " if row_constants else "",
            "row_constants_given": argument_lines(["constants_on(q.device)"] if row_constants else [], deep),
            "place": "    place = told(place_smem, slot)\n" if self.masks else "",
            "step_mask": self._step_mask() if self.masks else "",
            **self.text.row_numbers(packed=False),
            "tile_row": own["tile_row"].removesuffix(" + first_slot"),
            "add_before": _ADD_BEFORE if later else "",
            "before_results": "before: Sequence[Tensor], " if later else "",
            "give_before": argument_lines(["before[0]"] if later else [], deep),
            "results": "".join(f"{name}, " for name in results),
            "give_results": argument_lines(self._given_results(single, later), deep),
            "key_scalars": own["key_scalars"].replace(" head_dim: tl.constexpr,", "").rstrip("\n "),
            "head_row": self._head_row(bound),
            "work": indented([*self._work_lines(share=True), *_HEAD_LINES], 8),
            # Where rows are written by pointers, the number of the head among all is enough.
            "own_key_heads": "    key_heads = heads // group\n" if single else "",
            "own_work": indented([*self._work_lines(), *(_HEAD_LINES if single else ())], 8),
            "bring_loops": indented(self._loop_lines(self._bring_body), 12),
            "count_lines": indented(self._count_lines(), 8),
            "one": one,
            "staging": filled_text(hopper_backward_text.STAGING, {"one": one}) if single else "",
            "staging_name": "o_smem, " if single else "",
            "both_done": hopper_backward_text.BOTH_DONE if single else "",
            "last_copied": hopper_backward_text.LAST_COPIED if single else "",
            "last_wait": "\n    tma.store_wait(0)" if single else "",
            "dynamic": str(handed_out),
            "counter": counter(handed_out),
            "column": self._column(shares["told_share"]),
            **self.order.holes,
            **shares,
            **hopper_launch_holes(self.columns, own, GRADIENT_TILES.block_m, GRADIENT_TILES.block_n),
        }

    def _given_results(self, single: bool, later: bool) -> list[str]:
        if not single:
            return ["dk", "dv", *(["*before[1:]"] if later else [])]
        if self.text.in_classes:
            sizes = f"{self.text.part.step}, each.first, each.count, k_len, 64"
            return [f"hopper_class_descriptor({name}, {sizes})" for name in ("dk", "dv")]
        return [f"hopper_descriptor({name}, 64)" for name in ("dk", "dv")]

    def _work_lines(self, *, share: bool = False) -> list[str]:
        lines = ["program = work", "all_heads = works // key_tiles"]
        if self.text.in_classes:
            lines = ["i_c = work % classes", "program = work // classes", "all_heads = works // classes // key_tiles"]
        if self.columns:
            return split_work_lines(self.columns, share=share)
        return [
            *lines,
            "# Key tiles that every query reads take longest: those of all heads start first.",
            f"early = min(key_tiles, {self.early_tiles})",
            "later = max(program - early * all_heads, 0)",
            "i_bg = later // max(key_tiles - early, 1)",
            "j = early + later % max(key_tiles - early, 1)",
            "if program < early * all_heads:",
            "    i_bg = program % all_heads",
            "    j = program // all_heads",
        ]

    def _head_row(self, bound: str | None) -> str:
        """The number of the head's first query tile among all."""
        row = "i_b * heads + i_h"
        if self.text.in_classes and not bound:
            row = f"({row}) * classes + i_c"
        return f"({row}) * (row_tiles - first_row_tile) - first_row_tile"

    def _loop_lines(self, body: Callable[[str, str, int], list[str]]) -> list[str]:
        """The lines of `body`, given the number of tiles, the u-th tile and the mask, for each loop of the own kind."""
        lines: list[str] = []
        if len(self.programs) > 1:
            lines.append(f"kind = {kind_source(self.text.part)}")
        own = self.text.class_of_head
        if own:
            lines.append(f"mine = {own} == first_class + i_c")
        for kind, loops in enumerate(self.loops):
            inner: list[str] = []
            for number, mask in loops:
                end = f"{self.text.suffix}_{number}"
                count, tile = f"hopper_row_count{end}({self._edges})", f"hopper_row_tile{end}(u, {self._edges})"
                inner += body(count, tile, mask)
            conditions = [f"kind == {kind}"] if len(self.programs) > 1 else []
            conditions += ["mine"] if own else []
            if conditions and inner:
                joined = " & ".join(f"({each})" for each in conditions) if len(conditions) > 1 else conditions[0]
                inner = [f"if {joined}:", *(f"    {line}" for line in inner)]
            lines += inner
        return lines or ["pass"]

    @property
    def _edges(self) -> str:
        return f"j, first_row_tile, row_tiles{', constants' if self.look_up else ''}"

    def _count_lines(self) -> list[str]:
        """`total`: how many query tiles read the key tile, of all heads of the group."""
        alike = len(self.programs) == 1 and not self.text.class_of_head
        if alike and not self.columns:
            counts = self._loop_lines(lambda count, tile, mask: [count])
            return [f"total = group * ({' + '.join(counts)})" if self.loops[0] else "total = 0"]
        loops = self._loop_lines(
            lambda count, tile, mask: (
                [share_line(count), "total += end_u - first_u"] if self.columns else [f"total += {count}"]
            )
        )
        if alike:
            return ["total = 0", *loops, "total *= group"]
        heads = "for i_h in range(i_g * group, (i_g + 1) * group):"
        return ["total = 0", heads, *(f"    {line}" for line in loops)]

    def _bring_body(self, count: str, tile: str, mask: int) -> list[str]:
        c = "i_c, " if self.text.in_classes else ""
        place = f"{len(self.masks) + 1} * i + {mask + 1}" if self.masks else "i"
        share = [share_line(count)] if self.columns else []
        return [
            *share,
            f"for u in range({'first_u, end_u' if share else count}):",
            f"    i = {tile}",
            f"    q_at = [i_b, i_h, {c}i * BLOCK_M - q_start, 0]",
            f"    bring_queries(q_desc, rows_desc, q_at, head_row + i, {place}, q_ready, {self.order.freed}, "
            "q_smem, rows_smem, row_smem, place_smem, slot, QUERY_BYTES)",
            "    slot, phase = next_slot(slot, phase, STAGES)",
            f"    bring(do_desc, q_at, do_ready, {self.order.do_freed}, do_smem, turn, turn_phase, BLOCK_M * D * 2)",
            "    turn, turn_phase = next_slot(turn, turn_phase, 2)",
        ]

    def _column(self, told_share: str) -> str:
        """The steps of a key tile."""
        order = self.order
        calls = {name: indented(self._step_lines(carried, which), deep) for name, deep, carried, which in order.calls}
        return filled_text(order.column, calls | {"told_share": told_share})

    def _step_lines(self, carried: str, which: str) -> list[str]:
        constants = ", constants" if self.look_up else ""
        q_free, do_free = (self.order.holes[name] for name in ("q_free", "do_free"))
        return [
            f"{self.order.results} = hopper_gradient_step{self.text.suffix}(dk, dv, pairs, next_phase, k_smem, v_smem, "
            f"q_smem, do_smem, rows_smem, ds_smem, row_smem, place_smem, q_ready, {q_free}do_ready, {do_free}ds_ready, "
            f"ds_free, slot, phase, step, dq_blocks_ptr, {carried}, j, scale{constants}, "
            f"{which}, W, BLOCK_M, BLOCK_N, D, STAGES, DTYPE)",
            "slot, phase = next_slot(slot, phase, STAGES)",
            "step += 1",
        ]

    def _step_mask(self) -> str:
        """Each mask under its number: one loop goes over all tiles, FULL and PARTIAL."""
        kinds = len(self.masks) + 1
        lines = []
        for number, cut in enumerate(self.masks, 1):
            lines += [
                f"if place % {kinds} == {number}:",
                f"    q_first = place // {kinds} * BLOCK_M",
                "    k = j * BLOCK_N + W * 64 + gl.arange(0, 64, gl.SliceLayout(1, S_LAYOUT))",
                *(f"    {line}" for line in cut),
            ]
        return indented(lines, 4) + "\n"

    def _store(self, holes: dict[str, str], single: bool, later: bool) -> str:
        if single:
            return filled_text(hopper_backward_text.STORE_TILE, holes)
        row = "i_bg.to(gl.int64) * k_len + o_n"
        if self.text.in_classes:
            row = f"i_bg.to(gl.int64) * keys + first_class + i_c + {self.text.part.step} * o_n"
        text = filled_text(hopper_backward_text.STORE_ROWS, {"key_row": row})
        for name in ("dv", "dk"):
            text += hopper_backward_text.ADD_ROWS.format(name) if later else ""
            text += hopper_backward_text.PUT_ROWS.format(name)
        return text


_HEAD_LINES = ("i_b = i_bg // key_heads", "i_g = i_bg % key_heads")
_ADD_BEFORE = "        b_dq += tl.load(before_ptr + place, mask=here, other=0.0)\n"


def hopper_backward_shared() -> str:
    """The Python functions that the launches of all parts share."""
    return filled_text(hopper_backward_launch.HOST, {"narrowest": str(TOO_NARROW), "widest": str(GRADIENT_WIDTH)})
