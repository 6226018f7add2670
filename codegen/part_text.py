"""Fill the fixed texts of one part: what its order and its place among the parts ask of kernels and launches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsedsl.codegen.constants import Constants
from sparsedsl.codegen.packed_text import (
    KEY_DOCUMENT,
    KEY_DOCUMENT_OF_CLASS,
    KEYS,
    KEYS_OF_CLASS,
    ROW_DOCUMENT,
    ROW_DOCUMENT_OF_CLASS,
    ROW_TILES,
    ROWS_DOCUMENT,
    ROWS_DOCUMENT_OF_CLASS,
)
from sparsedsl.codegen.plan import Part

Holes = dict[str, str]


@dataclass(frozen=True, slots=True)
class PartText:
    """A part as text: its number among all parts, and how its classes are reached."""

    part: Part
    number: int
    count: int
    constants: Constants

    @property
    def suffix(self) -> str:
        """What the names of the part's functions end with; nothing where there is one part."""
        return "" if self.count == 1 else f"_{self.number}"

    @property
    def in_classes(self) -> bool:
        """Whether the part is walked in residue order."""
        return self.part.step > 1

    @property
    def class_of_head(self) -> str | None:
        """The one class of head `i_h` that has pairs, as source; None where all classes of all heads have."""
        if not self.in_classes or self.part.covers_all_rows:
            return None
        classes = [own[0] for own in self.part.classes]
        if classes == [head % self.part.step for head in range(len(classes))]:
            return f"i_h % {self.part.step}"
        return f"tl.load(constants + {self.constants.numbers(classes, 'the residue class of each head')} + i_h)"

    def holes(self) -> Holes:
        """Everything but the walks and the tile sizes."""
        return {
            "p": self.suffix,
            "c": "i_c, " if self.in_classes else "",
            "at_c": "at_c, " if self.in_classes else "",
            "read": "tile_of_class" if self.in_classes else "tile_of_head",
            "step": str(self.part.step),
            **self._row_holes(),
            **self._key_holes(),
            **self._before_holes(),
        }

    def _filled(self, text: str) -> str:
        return text.strip("\n").replace("$step", str(self.part.step))

    def _row_holes(self) -> Holes:
        bound = self.class_of_head
        i = "    i = first_row_tile + row_tiles - 1 - {} % row_tiles"
        program = "    i_bh = tl.program_id(0) // row_tiles\n" + i.format("tl.program_id(0)")
        tile_row, row_class = "i_bh.to(tl.int64)", ""
        names: list[str] = []
        if self.in_classes:
            names = ["rows", "first_row", *(["first_class"] if bound else []), "classes"]
        if bound:
            row_class = f"\n    i_c = {bound} - first_class\n    if (i_c < 0) | (i_c >= classes):\n        return"
        elif self.in_classes:
            tile_row = "(i_bh.to(tl.int64) * classes + i_c)"
            program = (
                "    # Neighbouring programs take neighbouring classes: together they read whole stretches of memory.\n"
                "    i_c, program = tl.program_id(0) % classes, tl.program_id(0) // classes\n"
                "    i_bh = program // row_tiles\n" + i.format("program")
            )
        values = {"rows": "rows", "first_row": "each.first_row", "first_class": "each.first", "classes": "each.count"}
        given = [values[name] for name in names]
        rows_names = ["heads", *names] if bound else names
        return {
            "row_tiles": self._filled(ROW_TILES),
            "row_program": program,
            "row_document": self._filled(ROW_DOCUMENT_OF_CLASS if self.in_classes else ROW_DOCUMENT),
            "rows_document": self._filled(ROWS_DOCUMENT_OF_CLASS if self.in_classes else ROWS_DOCUMENT),
            "row_class": row_class,
            "rows_class": f"\n    i_h = i_bh % heads{row_class}" if bound else "",
            **self.row_numbers(packed=True),
            "tile_row": f"{tile_row} * row_tiles + i - first_row_tile + first_slot",
            "of_class": ", in one class" if self.in_classes else "",
            "class_names": quoted(names),
            "rows_names": quoted(rows_names),
            "class_scalars": _listed(names),
            "rows_scalars": _listed(rows_names),
            "each_count": "each.count * " if self.in_classes and not bound else "",
            "give_classes": argument_lines(given, 12),
            "give_classes_deeper": argument_lines(given, 16),
            "give_rows_classes": argument_lines(["heads", *given] if bound else given, 16),
        }

    def row_numbers(self, *, packed: bool) -> Holes:
        """Numbers of a tile's rows as source: in a contiguous tensor, in the output and in its gradient.

        `packed`: in a kernel that packed documents run too, whose rows begin where a document does.
        """
        rows, token = ("rows", "first + o_m - q_start") if packed else ("q_len", "o_m - q_start")
        if self.in_classes:
            rows, token = "rows", f"first_row + i_c + {self.part.step} * (o_m - q_start)"
        head, far = "i_bh.to(tl.int64)", f"({token}).to(tl.int64)"
        return {
            "token_row": f"{head} * {rows} + {token}",
            "out_row": f"{head} * o_head + {far} * o_token",
            "d_out_row": f"{head} * do_head + {far} * do_token",
        }

    def _key_holes(self) -> Holes:
        bound = self.class_of_head
        program = "    program, all_heads = tl.program_id(0), tl.num_programs(0) // key_tiles"
        head_row = "(i_b * heads + i_h).to(tl.int64)"
        row, names = "i_bg.to(tl.int64) * keys + first + o_n", []
        if self.in_classes:
            program = (
                "    i_c, program = tl.program_id(0) % classes, tl.program_id(0) // classes\n"
                "    all_heads = tl.num_programs(0) // classes // key_tiles"
            )
            row = f"i_bg.to(tl.int64) * keys + first + first_class + i_c + {self.part.step} * o_n"
            names = ["classes"] if self.count == 1 else ["keys", "first_class", "classes"]
            if not bound:
                head_row = f"({head_row} * classes + i_c)"
        heads = f"        head_row = ({head_row} * row_slots + first_slot) * BLOCK_M"
        if bound:
            heads += f"\n        # Only the heads that own this class.\n        if {bound} == first_class + i_c:"
        if self.count == 1:
            if self.in_classes:
                put = "    {0}_desc.store([at_b, i_g, at_c, at_n + j * BLOCK_N, 0], {1})"
                tile = "{0}.to({0}_desc.dtype).reshape(1, 1, 1, BLOCK_N, D)"
            else:
                put, tile = "    store_tile_of_head({0}_desc, at_b, i_g, at_n + j * BLOCK_N, {1}, BLOCK_N, D)", "{0}"
            store = "\n".join(put.format(name, tile.format(name)) for name in ("dk", "dv"))
        else:
            lines = ["    inside = o_n < k_len", f"    row = {row}"]
            # One after the other: both gradients with their float32 sums would not fit the registers.
            for name in ("dv", "dk"):
                if self.number:
                    lines.append(f"    {name} += load_rows(before_{name}_ptr, row, inside, head_dim, D)")
                lines.append(f"    store_rows({name}_ptr, row, {name}, inside, head_dim, D)")
            store = "\n".join(lines)
        keys = "" if self.count == 1 else KEYS_OF_CLASS if self.in_classes else KEYS
        values = {"keys": "k.shape[2]", "first_class": "each.first", "classes": "each.count"}
        return {
            "key_program": program,
            "key_document": keys + self._filled(KEY_DOCUMENT_OF_CLASS if self.in_classes else KEY_DOCUMENT),
            "key_heads": heads,
            "store_dkdv": store,
            "key_names": quoted(names),
            "key_scalars": _listed([*names, *([] if self.count == 1 else ["head_dim: tl.constexpr"])]),
            "give_key_classes": argument_lines([values[name] for name in names], 16),
        }

    def _before_holes(self) -> Holes:
        later = self.number > 0
        deep = 16 if self.in_classes else 12
        dkdv = ["dk_ptr, dv_ptr, "] if self.count > 1 else ["dk_desc, dv_desc, "]
        if self.count == 1 and self.in_classes:
            sizes = f"{self.part.step}, each.first, each.count, k_len, ${{dkdv_block_n}}, packed"
            given = [f"class_descriptor({name}, {sizes})" for name in ("dk", "dv")]
        elif self.count == 1:
            given = [f"tile_descriptor({name}, ${{dkdv_block_n}}, packed)" for name in ("dk", "dv")]
        else:
            given = ["dk", "dv", *(["*before[1:]"] if later else [])]
        merge = (
            '    b_before = tl.load(lse_ptr + row, mask=inside, other=float("-inf"))\n'
            '    b_o_before = load_rows(before_ptr, row, b_before > float("-inf"), head_dim, D)\n'
            "    b_o, b_lse = merged(b_o, b_lse, b_o_before, b_before)\n"
        )
        return {
            "before": "before_ptr, " if later else "",
            "merge": merge if later else "",
            "add_dq_before": "    acc += load_rows(before_ptr, row, inside, head_dim, D)\n" if later else "",
            "dkdv_results": "".join(dkdv) + ("before_dk_ptr, before_dv_ptr, " if later else ""),
            "before_out": "before: Tensor,\n    " if later else "",
            "before_results": "    before: Sequence[Tensor],\n" if later else "",
            "give_before": argument_lines(["before"] if later else [], 12),
            "give_before_dq": argument_lines(["before[0]"] if later else [], deep),
            "give_dkdv": argument_lines(given, deep),
            "dkdv_head_dim": "" if self.count == 1 else argument_lines(["head_dim=head_dim"], deep),
        }


def top_holes(
    parts: tuple[Part, ...], hopper: Sequence[bool], *, hopper_backward: bool = False, in_shares: Sequence[bool] = ()
) -> Holes:
    """The calls of several parts, one after the other.

    `hopper`: whether a part has a forward kernel for Hopper beside; `hopper_backward`: whether all have backward ones;
    `in_shares`: which of these have a form for long columns that are split.
    """
    forward, backward = [], []
    for number in range(len(parts)):
        last = number == len(parts) - 1
        own = "" if len(parts) == 1 else f"_{number}"
        before = "so_far, " if number else ""
        given = f"q, k, v, {'out' if last else 'so_far'}, lse, {before}scale, q_start"
        plain = f"forward_part{own}({given}, cu_seqlens)"
        if hopper[number]:
            forward.append(f"if cu_seqlens is not None or not ran_on_hopper(hopper_part{own}, {given}):")
            plain = f"    {plain}"
        forward.append(plain)
        tensors = f"*given, {'results' if last else 'so_far'}"
        if len(parts) == 1:
            tensors = "d_out, d_lse, q, k, v, out, lse, (dq, dk, dv)"
            if hopper_backward:
                backward.append(f"given = ({tensors})")
                tensors = "*given"
        given = f"{tensors}, {before}scale, q_start"
        plain = f"backward_part{own}({given}, cu_seqlens)"
        if hopper_backward:
            part = f"hopper_backward_part{own}"
            if in_shares[number]:
                backward.append(f"split = special and hopper_shares{own}(q, k, q_start) > 1")
                backward.append(f"part = hopper_split_part{own} if split else {part}")
                part = "part"
            backward.append(f"if not special or not ran_on_hopper({part}, {given}):")
            plain = f"    {plain}"
        backward.append(plain)
    if hopper_backward:
        backward.insert(0, "special = cu_seqlens is None and hopper_gradients(q)")
    return {
        "forward_parts": "".join(f"    {line}\n" for line in forward),
        "backward_parts": "".join(f"    {line}\n" for line in backward),
        "new_gradients": (
            f"torch.zeros if hollow or min(q.shape[2], k.shape[2]) < {parts[0].step} else torch.empty"
            if parts[0].covers_all_rows
            else "torch.zeros"
        ),
    }


def quoted(names: list[str]) -> str:
    """More entries of a list of names, on a line of their own."""
    return ",\n    " + ", ".join(f'"{name}"' for name in names) if names else ""


def _listed(names: list[str]) -> str:
    return "\n    " + ", ".join(names) + "," if names else ""


def argument_lines(items: list[str], indent: int) -> str:
    """Arguments of a call, each on a line of its own."""
    return "".join(f"{' ' * indent}{item},\n" for item in items)
