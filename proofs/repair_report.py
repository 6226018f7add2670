"""A repair as text for one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsedsl.proofs.repair_search import MOST_SINK
from sparsedsl.proofs.report import number, shortened

if TYPE_CHECKING:
    from sparsedsl.proofs.repair import Edit, Repair


def report(repair: Repair) -> str:
    """The cheapest edit with its cost and the new pattern in full, then the best of the other kinds."""
    lines = [("pattern", shortened(repair.pattern)), ("asked", _question(repair))]
    if repair.complete:
        lines.append(("repair", "none needed: the pattern is complete"))
    else:
        lines += _edit(repair, repair.edits[0], "repair")
        for edit in repair.edits[1:]:
            lines += _edit(repair, edit, "or else")
        kinds = {edit.kind for edit in repair.edits}
        if "distance" not in kinds:
            lines.append(("or else", "no distance mends it: each was tried"))
        if "sink" not in kinds:
            units = "tokens" if repair.unit == 1 else "blocks"
            lines.append(("or else", f"no sink of at most {number(min(MOST_SINK, repair.units))} {units} mends it"))
    return "\n".join(f"{name:<12}{text}" for name, text in lines)


def _question(repair: Repair) -> str:
    units = f", {number(repair.units)} blocks of {number(repair.unit)}" if repair.unit > 1 else ""
    layers = "as many layers as it takes" if repair.layers is None else f"{number(repair.layers)} layers"
    return f"complete at {number(repair.seq_len)} tokens{units} in {layers}"


def _edit(repair: Repair, edit: Edit, name: str) -> list[tuple[str, str]]:
    each = " a layer" if repair.layers is None else ""
    depth = "" if edit.depth is None else f"; {number(edit.depth)} layer{'' if edit.depth == 1 else 's'} needed"
    cost = (
        f"{number(edit.extra_pairs)} more live pairs{each}, {edit.extra_keys:,.1f} keys a query on average, "
        f"{number(repair.degree)} -> {number(edit.degree)} in the worst row{depth}"
    )
    # The new pattern stands in full, however long: it is there to be copied.
    return [(name, _what(repair, edit)), ("  costs", cost), ("  pattern", str(edit.pattern))]


def _what(repair: Repair, edit: Edit) -> str:
    units = "block" if repair.unit > 1 else "token"
    many = f"{number(edit.amount)} {units}{'' if edit.amount == 1 else 's'}"
    what = {
        "distance": f"add the distance of {many}",
        "sink": f"add a sink of the first {many}",
        "window": f"widen the window to {many}",
    }[edit.kind]
    return f"{what}{_where(edit)}"


def _where(edit: Edit) -> str:
    if not edit.layers:
        return "" if edit.heads[0] is None else f" in head {edit.heads[0]}"
    listed = [
        number(layer) if head is None else f"{number(layer)} (head {head})"
        for layer, head in zip(edit.layers, edit.heads, strict=True)
    ]
    if len(listed) > 8:
        listed = [*listed[:6], "...", listed[-1]]
    return f" in layer{'' if len(edit.layers) == 1 else 's'} {', '.join(listed)}"
