"""Emit a stand-alone module for a pattern: text in, text out, the same bytes each time."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path

from sparsedsl.codegen import (
    decode_host,
    decode_launch,
    decode_text,
    forward_text,
    hopper_backward_launch,
    hopper_backward_text,
    hopper_shared_text,
    hopper_text,
    host,
    launch_text,
    packed_host,
    packed_text,
    road_text,
    split_text,
    templates,
)
from sparsedsl.codegen.header import header
from sparsedsl.codegen.hopper import hopper_launches
from sparsedsl.codegen.hopper_backward import hopper_backward_shared
from sparsedsl.codegen.hopper_choice import Backend
from sparsedsl.codegen.part_text import top_holes
from sparsedsl.codegen.plan import plan
from sparsedsl.codegen.sources import sources_of
from sparsedsl.codegen.templates import filled
from sparsedsl.codegen.tiling import HOPPER_ROWS, Tiling
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern


def emit(pattern: Pattern | PerHead, tiling: Tiling, backend: Backend = "auto") -> str:
    """The source of a module with forward and backward kernels for a pattern, and a CPU road beside them.

    The backend auto adds forward kernels for GPUs of compute capability 9.0 where there are any, which then run on such
    a GPU; hopper insists on them, and takes no other GPU; triton leaves them out.

    Cost
        Some milliseconds; the text does not depend on any length.
    Raises
        Unsupported: random choices finer than any tile; what the backend hopper has no kernel for.
    """
    sources = sources_of(plan(pattern).parts, tiling, backend)
    found, tiling, cpu_tiles = sources.parts, sources.tiling, sources.cpu_tiles
    constants, masks, tables = sources.constants, sources.masks, sources.tables
    assert tiling.dq.block_m == tiling.dkdv.block_m, tiling
    parts = tuple(each.part for each in found)
    split = any(each.columns is not None for each in found)
    special, backward = sources.for_hopper, sources.backward_for_hopper
    guarded = bool(special) and backend == "auto"
    hopper_kernels = "".join([*(each.hopper_kernels for each in found), *(each.kernels() for each in backward)])
    code = "".join(each.kernels + each.decode.kernels for each in found) + hopper_kernels
    cpu_parts = "".join(f"    {each.cpu_part},\n" for each in found)
    mask_source = masks.source()
    holes = {
        "pattern": _string(str(pattern)),
        "causal": str(not sources.looks_ahead),
        "head_count": str(None if isinstance(pattern, Pattern) else len(pattern.heads)),
        "head_dim": str(tiling.head_dim),
        "dtypes": "(torch.float16, torch.bfloat16)" if tiling.bytes == 2 else "(torch.float32,)",
        "cpu_block_m": str(cpu_tiles.block_m),
        "cpu_block_n": str(cpu_tiles.block_n),
        "cpu_runs": "\n".join(each.cpu_runs for each in found),
        "cpu_parts": cpu_parts,
        "decode_parts": "".join(each.decode.entry for each in found),
        "repeats": hopper_backward_launch.REPEATS if backward else host.REPEATS,
        "constants": constants.source(),
        "predicates": tables.source(),
        **road_text.NO_IMPORTS,
        **(road_text.CHOSEN_IMPORTS if guarded else road_text.FORCED_IMPORTS if special else {}),
        "whole_tiles": str(HOPPER_ROWS * parts[-1].step),
        **top_holes(
            parts,
            [each.hopper_tiles is not None for each in found],
            hopper_backward=bool(backward),
            in_shares=[each.columns is not None for each in backward],
        ),
    }
    everything = "".join([code, mask_source, holes["cpu_runs"]])
    in_classes = any(part.step > 1 for part in parts)
    in_order = any(part.step == 1 for part in parts)
    with_tables = bool(tables.patterns)
    texts = [
        templates.CONSTANTS if constants else "",
        templates.LISTS if "listed_below(" in everything or "listed_tiles(" in everything else "",
        templates.SETS if "listed(" in everything else "",
        templates.JUMPS if "jump(" in everything or "tiles_in_jumps(" in everything else "",
        mask_source,
        packed_text.DOCUMENT
        + (packed_text.HEAD_TILES if in_order else "")
        + (packed_text.CLASS_TILES if in_classes else "")
        + (packed_text.LISTED if with_tables else ""),
        road_text.PLAIN_HEADING if special else "",
        forward_text.SHARED,
        forward_text.MERGE if len(parts) > 1 else "",
        split_text.DEVICE if split else "",
        *(each.kernels for each in found),
        decode_text.SHARED,
        *(each.decode.kernels for each in found),
        embedded("executor.py"),
        embedded("decode_executor.py"),
        embedded("table.py") + host.TABLE_ROAD if with_tables else "",
        host.CPU_ROAD,
        launch_text.SHARED,
        embedded("layout.py"),
        packed_text.DESCRIPTOR,
        launch_text.DESCRIPTOR if in_order else "",
        launch_text.CLASSES if in_classes else "",
        embedded("columns.py") + split_text.HOST if split else "",
        *(each.launches for each in found),
        *((road_text.HOPPER_HEADING, hopper_shared_text.SHARED) if special else ()),
        hopper_backward_text.SHARED if backward else "",
        split_text.PUT_SHARE if any(each.columns for each in backward) else "",
        hopper_text.LISTS if "hopper_listed_below(" in code else "",
        hopper_kernels,
        *(hopper_launches(special) if special else ()),
        *(each.hopper_launch for each in found),
        hopper_backward_shared() if backward else "",
        *(each.launch() for each in backward),
        embedded("machine_code.py") if guarded else "",
        road_text.LAUNCHES + (road_text.CHOSEN if guarded else road_text.FORCED) if special else "",
        launch_text.ONE_PART if len(parts) == 1 else launch_text.PARTS,
        decode_launch.TABLE if with_tables else "",
        decode_launch.LAUNCH,
        host.OPERATOR,
        packed_host.OPERATOR,
        decode_host.OPERATOR,
        host.ATTENTION,
        decode_host.MAIN,
        host.MAIN,
    ]
    holes["other_imports"] = templates.TABLE_IMPORTS if with_tables else templates.ITERTOOLS
    caches = ["cache"] * bool(constants or special) + ["lru_cache"]
    holes["cache_import"] = f"from functools import {', '.join(caches)}\n"
    holes["digest"] = sha256("".join([*texts, *holes.values()]).encode()).hexdigest()[:12]
    body = "\n".join(filled(text, holes) for text in (templates.IMPORTS, *texts) if text)
    sizes = [each.hopper_tiles.tiles for each in found if each.hopper_tiles]
    head = header(pattern, tiling, [(each.part, each.forward) for each in found], backend, sizes, split=split)
    lines = (line.rstrip() for line in (head + body).splitlines())
    return "\n".join(_two_blanks_at_most(lines)) + "\n"


@cache
def embedded(file: str) -> str:
    """The text of a file of this package that emitted modules contain, less its docstring and imports."""
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    first = next(node for node in ast.parse(text).body if not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr))
    start = first.decorator_list[0].lineno if isinstance(first, ast.ClassDef) else first.lineno
    return "\n" + "\n".join(text.splitlines()[start - 1 :]) + "\n"


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
