"""Emit a stand-alone module for a pattern: text in, text out, the same bytes each time."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from string import Template

from sparsedsl.codegen import host, templates
from sparsedsl.codegen.constants import Constants
from sparsedsl.codegen.header import header
from sparsedsl.codegen.kernel_walk import DKDV, DQ, FORWARD, HeadKinds, Masks, TableRoad, Walker
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
    kinds = HeadKinds.of(pattern)
    tiling, cpu_tiles = _fitted(kinds, tiling)
    assert tiling.dq.block_m == tiling.dkdv.block_m, tiling
    forward, dq, dkdv, cpu = (
        tuple(program_of(kind, tiles) for kind in kinds.patterns)
        for tiles in (tiling.forward, tiling.dq, tiling.dkdv, cpu_tiles)
    )
    constants = Constants()
    ahead = any(program.looks_ahead for program in forward)
    walker = Walker(kinds, Masks(constants), TableRoad(), ragged_keys=ahead)
    walks = {
        "walk": walker.kernel_walk(forward, FORWARD, 4),
        "dq_walk": walker.kernel_walk(dq, DQ, 4),
        "dkdv_walk": walker.kernel_walk(dkdv, DKDV, 8),
    }
    cpu_runs = walker.cpu_runs(cpu)
    masks = walker.masks.source()
    holes = {
        "pattern": _string(str(pattern)),
        "causal": str(not ahead),
        "head_count": str(len(kinds.heads) or None),
        "head_dim": str(tiling.head_dim),
        "dtypes": "(torch.float16, torch.bfloat16)" if tiling.bytes == 2 else "(torch.float32,)",
        "cpu_block_m": str(cpu_tiles.block_m),
        "cpu_block_n": str(cpu_tiles.block_n),
        "cpu_runs": cpu_runs,
        "early_tiles": str(_early_tiles(dkdv)),
        "constants": constants.source(),
        "predicates": walker.tables.source(),
        **_tile_holes("", tiling.forward),
        **_tile_holes("dq_", tiling.dq),
        **_tile_holes("dkdv_", tiling.dkdv),
        **walks,
        **_pointer_holes(walks, tiling),
    }
    code = "".join([*walks.values(), cpu_runs, masks])
    tables = any(isinstance(program, TableProgram) for walk in (forward, dq, dkdv, cpu) for program in walk)
    texts = [
        templates.CONSTANTS if constants else "",
        templates.LISTS if "listed_below(" in code or "listed_tiles(" in code else "",
        templates.SETS if "listed(" in code else "",
        templates.JUMPS if "jump(" in code or "tiles_in_jumps(" in code else "",
        masks,
        templates.FORWARD,
        templates.BACKWARD,
        embedded("executor.py"),
        embedded("table.py") + host.TABLE_ROAD if tables else "",
        host.CPU_ROAD,
        templates.LAUNCH,
        host.OPERATOR,
        host.MAIN,
    ]
    holes["table_imports"] = templates.TABLE_IMPORTS if tables else ""
    holes["cache_import"] = "from functools import lru_cache\n" if constants or tables else ""
    holes["digest"] = sha256("".join([*texts, *holes.values()]).encode()).hexdigest()[:12]
    body = "\n".join(_filled(text, holes) for text in (templates.IMPORTS, *texts) if text)
    lines = (line.rstrip() for line in (header(pattern, tiling, forward, kinds.heads) + body).splitlines())
    return "\n".join(_two_blanks_at_most(lines)) + "\n"


def _fitted(kinds: HeadKinds, tiling: Tiling) -> tuple[Tiling, Tiles]:
    """The tilings of the kernels and of the CPU road, made smaller where random choices ask for it."""
    cpu = CPU_TILES
    for kind in kinds.patterns:
        program = program_of(kind, tiling.forward)
        if isinstance(program, TableProgram):
            fitted = program.masks.fitted
            tiling = replace(tiling, forward=fitted(tiling.forward), dq=fitted(tiling.dq), dkdv=fitted(tiling.dkdv))
            cpu = fitted(cpu)
    return tiling, cpu


def _pointer_holes(walks: dict[str, str], tiling: Tiling) -> dict[str, str]:
    """The arrays that each kernel's walk reads, as parameters and as arguments."""
    kernels = (
        ("forward", walks["walk"], tiling.forward, ":2"),
        ("dq", walks["dq_walk"], tiling.dq, ":2"),
        ("dkdv", walks["dkdv_walk"], tiling.dkdv, "2:"),
    )
    holes = {}
    for name, walk, tiles, part in kernels:
        parameters, arguments = [], []
        if re.search(r"\bconstants\b", walk):
            parameters.append("constants")
            arguments.append("constants_on(q.device)")
        if re.search(r"\bstarts\b", walk):
            parameters += ["starts", "tiles"]
            sizes = f"{tiles.block_m}, {tiles.block_n}"
            arguments.append(f"*tile_tables({sizes}, q_start, q_len, k_len, q.device)[{part}]")
        holes[f"{name}_pointers"] = "".join(f"{parameter}, " for parameter in parameters)
        holes[f"{name}_arrays"] = "".join(f"            {argument},\n" for argument in arguments)
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
