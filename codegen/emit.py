"""Emit a stand-alone module for a pattern: text in, text out, the same bytes each time."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from string import Template

from sparsedsl.codegen import backward_text, forward_text, host, launch_text, templates
from sparsedsl.codegen.constants import Constants
from sparsedsl.codegen.header import header
from sparsedsl.codegen.kernel_walk import DKDV, DQ, FORWARD, Masks, TableRoad, Walker
from sparsedsl.codegen.part_text import PartText, top_holes
from sparsedsl.codegen.plan import Part, plan
from sparsedsl.codegen.programs import LoopProgram, Program, TableProgram, program_of
from sparsedsl.codegen.tiling import Tiles, Tiling
from sparsedsl.integers import INFINITY
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern

CPU_TILES = Tiles(256, 64, 0, 0)


def emit(pattern: Pattern | PerHead, tiling: Tiling) -> str:
    """The source of a module with forward and backward kernels for a pattern, and a CPU road beside them.

    Cost
        Some milliseconds; the text does not depend on any length.
    Raises
        Unsupported: random choices finer than any tile.
    """
    parts = plan(pattern).parts
    tiling, cpu_tiles = _fitted(parts, tiling)
    assert tiling.dq.block_m == tiling.dkdv.block_m, tiling
    constants = Constants()
    masks, tables = Masks(constants), TableRoad()
    found = [_PartSource(part, number, parts, tiling, cpu_tiles, masks, tables) for number, part in enumerate(parts)]
    code = "".join(each.code for each in found)
    cpu_parts = "".join(f"    {each.cpu_part},\n" for each in found)
    mask_source = masks.source()
    holes = {
        "pattern": _string(str(pattern)),
        "causal": str(not any(each.ahead for each in found)),
        "head_count": str(None if isinstance(pattern, Pattern) else len(pattern.heads)),
        "head_dim": str(tiling.head_dim),
        "dtypes": "(torch.float16, torch.bfloat16)" if tiling.bytes == 2 else "(torch.float32,)",
        "cpu_block_m": str(cpu_tiles.block_m),
        "cpu_block_n": str(cpu_tiles.block_n),
        "cpu_runs": "\n".join(each.cpu_runs for each in found),
        "cpu_parts": cpu_parts,
        "constants": constants.source(),
        "predicates": tables.source(),
        **top_holes(parts),
    }
    everything = "".join([code, mask_source, holes["cpu_runs"]])
    in_classes = any(part.step > 1 for part in parts)
    with_tables = bool(tables.patterns)
    texts = [
        templates.CONSTANTS if constants else "",
        templates.LISTS if "listed_below(" in everything or "listed_tiles(" in everything else "",
        templates.SETS if "listed(" in everything else "",
        templates.JUMPS if "jump(" in everything or "tiles_in_jumps(" in everything else "",
        mask_source,
        forward_text.SHARED,
        forward_text.MERGE if len(parts) > 1 else "",
        *(each.kernels for each in found),
        embedded("executor.py"),
        embedded("table.py") + host.TABLE_ROAD if with_tables else "",
        host.CPU_ROAD,
        launch_text.SHARED,
        launch_text.DESCRIPTOR if any(part.step == 1 for part in parts) else "",
        launch_text.CLASSES if in_classes else "",
        *(each.launches for each in found),
        launch_text.ONE_PART if len(parts) == 1 else launch_text.PARTS,
        host.OPERATOR,
        host.MAIN,
    ]
    holes["table_imports"] = templates.TABLE_IMPORTS if with_tables else ""
    holes["cache_import"] = "from functools import lru_cache\n" if constants or with_tables else ""
    holes["digest"] = sha256("".join([*texts, *holes.values()]).encode()).hexdigest()[:12]
    body = "\n".join(_filled(text, holes) for text in (templates.IMPORTS, *texts) if text)
    head = header(pattern, tiling, [(each.part, each.forward) for each in found])
    lines = (line.rstrip() for line in (head + body).splitlines())
    return "\n".join(_two_blanks_at_most(lines)) + "\n"


class _PartSource:
    """One part of a module as text."""

    def __init__(
        self,
        part: Part,
        number: int,
        parts: tuple[Part, ...],
        tiling: Tiling,
        cpu_tiles: Tiles,
        masks: Masks,
        tables: TableRoad,
    ) -> None:
        self.part = part
        self.forward, dq, dkdv, cpu = (
            tuple(program_of(kind, tiles) for kind in part.kinds)
            for tiles in (tiling.forward, tiling.dq, tiling.dkdv, cpu_tiles)
        )
        self.ahead = any(program.looks_ahead for program in self.forward)
        text = PartText(part, number, len(parts), masks.constants)
        walker = Walker(part, number, text, masks, tables, ragged_keys=self.ahead)
        deeper = 4 if text.class_of_head else 0
        walks = {
            "walk": walker.kernel_walk(self.forward, FORWARD, 4),
            "dq_walk": walker.kernel_walk(dq, DQ, 4),
            "dkdv_walk": walker.kernel_walk(dkdv, DKDV, 8 + deeper),
        }
        self.cpu_runs, self.cpu_part = walker.cpu_runs(cpu)
        sizes = {
            **_tile_holes("", tiling.forward),
            **_tile_holes("dq_", tiling.dq),
            **_tile_holes("dkdv_", tiling.dkdv),
            "early_tiles": str(_early_tiles(dkdv)),
        }
        inner = {name: _filled(value, sizes) for name, value in text.holes().items()}
        reads = "".join([*walks.values(), text.class_of_head or ""])
        pointers = _pointer_holes(walks, tiling, text, 16 if text.in_classes else 12)
        holes = {**sizes, **walks, **inner, **pointers}
        self.kernels = _filled(forward_text.KERNEL, holes) + _filled(backward_text.KERNELS, holes)
        self.launches = _filled(launch_text.PART_IN_CLASSES if text.in_classes else launch_text.PART, holes)
        self.code = reads + self.kernels


def _fitted(parts: tuple[Part, ...], tiling: Tiling) -> tuple[Tiling, Tiles]:
    """The tilings of the kernels and of the CPU road, made smaller where random choices ask for it."""
    cpu = CPU_TILES
    for kind in (kind for part in parts for kind in part.kinds):
        program = program_of(kind, tiling.forward)
        if isinstance(program, TableProgram):
            fitted = program.masks.fitted
            tiling = replace(tiling, forward=fitted(tiling.forward), dq=fitted(tiling.dq), dkdv=fitted(tiling.dkdv))
            cpu = fitted(cpu)
    return tiling, cpu


def _pointer_holes(walks: dict[str, str], tiling: Tiling, text: PartText, indent: int) -> dict[str, str]:
    """The arrays that each kernel reads beside its tensors, as parameters and as arguments."""
    kernels = (
        ("forward", walks["walk"], tiling.forward, ":2", 12),
        ("dq", walks["dq_walk"], tiling.dq, ":2", indent),
        ("dkdv", walks["dkdv_walk"], tiling.dkdv, "2:", indent),
    )
    holes = {}
    for name, walk, tiles, part, depth in kernels:
        parameters, arguments = [], []
        if re.search(r"\bconstants\b", walk + (text.class_of_head or "")):
            parameters.append("constants")
            arguments.append("constants_on(q.device)")
        if re.search(r"\bstarts\b", walk):
            parameters += ["starts", "tiles"]
            sizes = f"{tiles.block_m}, {tiles.block_n}"
            arguments.append(f"*tile_tables({sizes}, q_start, q_len, k_len, q.device)[{part}]")
        holes[f"{name}_pointers"] = "".join(f"{parameter}, " for parameter in parameters)
        holes[f"{name}_arrays"] = "".join(f"{' ' * depth}{argument},\n" for argument in arguments)
    return holes


def _early_tiles(programs: tuple[Program, ...]) -> int:
    """The leading key tiles that an endless run of queries reads, where the rest of the keys has an end: sinks."""
    ends = [
        group.rows[1]
        for program in programs
        if isinstance(program, LoopProgram)
        for group in program.transposed.groups
        if group.rows[1] != INFINITY and any(not visits.is_finite for visits in group.visits)
    ]
    return max(ends, default=0)


def embedded(file: str) -> str:
    """The text of a file of this package that emitted modules contain, less its docstring and imports."""
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    first = next(node for node in ast.parse(text).body if not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr))
    start = first.decorator_list[0].lineno if isinstance(first, ast.ClassDef) else first.lineno
    return "\n" + "\n".join(text.splitlines()[start - 1 :]) + "\n"


def _filled(text: str, holes: dict[str, str]) -> str:
    return Template(text).substitute(holes) if "$" in text else text


def _two_blanks_at_most(lines: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for line in lines:
        if line or kept[-2:] != ["", ""]:
            kept.append(line)
    return kept


def _string(text: str) -> str:
    """The text as a Python string, over several lines where it is long."""
    pieces = [text[start : start + 100] for start in range(0, len(text), 100)]
    if len(pieces) == 1:
        return repr(text)
    return "(\n" + "".join(f"    {piece!r}\n" for piece in pieces) + ")"


def _tile_holes(prefix: str, tiles: Tiles) -> dict[str, str]:
    return {
        f"{prefix}block_m": str(tiles.block_m),
        f"{prefix}block_n": str(tiles.block_n),
        f"{prefix}warps": str(tiles.warps),
        f"{prefix}stages": str(tiles.stages),
    }
