"""Emit a stand-alone module for a pattern: text in, text out, the same bytes each time."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from string import Template

from sparsedsl.codegen import host, templates
from sparsedsl.codegen.header import header
from sparsedsl.codegen.runs import Jump
from sparsedsl.codegen.terms import predicate_source
from sparsedsl.codegen.tiles import TileProgram, schedule
from sparsedsl.codegen.tiling import Tiles, Tiling
from sparsedsl.codegen.walk import Names, Section, describe, home_lines, loop_lines, range_lines, sections_of
from sparsedsl.index import Predicate
from sparsedsl.integers import INFINITY
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern

CPU_TILES = Tiles(256, 64, 0, 0)


@dataclass(frozen=True, slots=True)
class Walk:
    """The tile programs of one kernel, one for each different pattern among the heads."""

    programs: tuple[TileProgram, ...]

    @property
    def sections(self) -> tuple[tuple[Section, ...], ...]:
        """The loops of each program."""
        return tuple(sections_of(program) for program in self.programs)


@dataclass(frozen=True, slots=True)
class HeadKinds:
    """The different patterns among the heads, and which of them each head has; one pattern has no list of heads."""

    patterns: tuple[Pattern, ...]
    heads: tuple[int, ...]

    @staticmethod
    def of(pattern: Pattern | PerHead) -> HeadKinds:
        """Heads with equal patterns share a kind."""
        if isinstance(pattern, Pattern):
            return HeadKinds((pattern,), ())
        kinds = tuple(dict.fromkeys(pattern.heads))
        return HeadKinds(kinds, tuple(kinds.index(head) for head in pattern.heads))

    def source(self) -> str:
        """The kind of head `i_h` as Triton source."""
        count = len(self.patterns)
        if self.heads == tuple(h % count for h in range(len(self.heads))):
            return "i_h" if count == len(self.heads) else f"i_h % {count}"
        share = len(self.heads) // count
        if self.heads == tuple(h // share for h in range(len(self.heads))):
            return f"i_h // {share}"
        text = str(self.heads[-1])
        for head in range(len(self.heads) - 2, -1, -1):
            if self.heads[head] != self.heads[head + 1]:
                text = f"{self.heads[head]} if i_h <= {head} else {text}"
        return text


class Masks:
    """The masks of a module, each a small function, named in the order of first use."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def name(self, mask: Predicate) -> str:
        """The function that decides the mask."""
        return self.names.setdefault(predicate_source(mask), f"mask_{len(self.names)}")

    def source(self) -> str:
        """The functions' definitions."""
        return "".join(
            Template(templates.MASK).substitute(name=name, condition=condition)
            for condition, name in self.names.items()
        )


def emit(pattern: Pattern | PerHead, tiling: Tiling) -> str:
    """The source of a module with forward and backward kernels for a pattern, and a CPU road beside them.

    Cost
        Some milliseconds; the text does not depend on any length.
    Raises
        NoNormalForm: the pattern has no closed form in tiles.
    """
    assert tiling.dq.block_m == tiling.dkdv.block_m, tiling
    kinds = HeadKinds.of(pattern)
    forward = Walk(tuple(schedule(kind, tiling.forward.block_m, tiling.forward.block_n) for kind in kinds.patterns))
    dq = Walk(tuple(schedule(kind, tiling.dq.block_m, tiling.dq.block_n) for kind in kinds.patterns))
    dkdv = Walk(tuple(schedule(kind, tiling.dkdv.block_m, tiling.dkdv.block_n).transposed() for kind in kinds.patterns))
    cpu = Walk(tuple(schedule(kind, CPU_TILES.block_m, CPU_TILES.block_n) for kind in kinds.patterns))

    masks = Masks()
    own_row = Names("i", "j", "first_key_tile", "key_tiles")
    own_column = Names("j", "i", "first_row_tile", "row_tiles")
    ahead = any(program.looks_ahead for program in forward.programs)
    blocks = {
        "walk": _kernel_walk(forward, kinds, own_row, masks, _FORWARD, 4, ragged_keys=ahead),
        "dq_walk": _kernel_walk(dq, kinds, own_row, masks, _DQ, 4, ragged_keys=ahead),
        "dkdv_walk": _kernel_walk(dkdv, kinds, own_column, masks, _DKDV, 8, ragged_keys=False),
    }
    cpu_runs = _cpu_runs(cpu, kinds, masks)
    holes = {
        "pattern": repr(str(pattern)),
        "causal": str(not ahead),
        "head_count": str(len(kinds.heads) or None),
        "head_dim": str(tiling.head_dim),
        "dtypes": "(torch.float16, torch.bfloat16)" if tiling.bytes == 2 else "(torch.float32,)",
        "cpu_block_m": str(CPU_TILES.block_m),
        "cpu_block_n": str(CPU_TILES.block_n),
        "cpu_runs": cpu_runs,
        "early_tiles": str(_early_tiles(dkdv)),
        **_tile_holes("", tiling.forward),
        **_tile_holes("dq_", tiling.dq),
        **_tile_holes("dkdv_", tiling.dkdv),
        **blocks,
    }
    jumps = any(
        isinstance(run, Jump)
        for walk in (forward, dq, dkdv, cpu)
        for found in walk.sections
        for section in found
        for run in section.runs
    )
    texts = [
        masks.source(),
        templates.JUMPS if jumps else "",
        templates.FORWARD,
        templates.BACKWARD,
        executor_source(),
        host.CPU_ROAD,
        templates.LAUNCH,
        host.OPERATOR,
        host.MAIN,
    ]
    digest = sha256("".join([*texts, *holes.values()]).encode()).hexdigest()[:12]
    holes["digest"] = digest
    body = "\n".join(_filled(text, holes) for text in (templates.IMPORTS, *texts) if text)
    lines = (line.rstrip() for line in (header(pattern, tiling, forward.programs, kinds.heads) + body).splitlines())
    return "\n".join(_two_blanks_at_most(lines)) + "\n"


def _early_tiles(walk: Walk) -> int:
    """The leading key tiles that an endless run of queries reads, where the rest of the keys has an end: sinks."""
    ends = [
        group.rows[1]
        for program in walk.programs
        for group in program.groups
        if group.rows[1] != INFINITY and any(not visits.is_finite for visits in group.visits)
    ]
    return max(ends, default=0)


def executor_source() -> str:
    """The CPU executor's text, less its docstring and imports."""
    text = (Path(__file__).parent / "executor.py").read_text(encoding="utf-8")
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


def _tile_holes(prefix: str, tiles: Tiles) -> dict[str, str]:
    return {
        f"{prefix}block_m": str(tiles.block_m),
        f"{prefix}block_n": str(tiles.block_n),
        f"{prefix}warps": str(tiles.warps),
        f"{prefix}stages": str(tiles.stages),
    }


@dataclass(frozen=True, slots=True)
class Step:
    """How a kernel handles one tile: leading lines (for masked tiles, or always), the positions, the call."""

    lead: tuple[str, ...]
    leads_always: bool
    q: str
    k: str
    call: str


_FORWARD = Step(
    ("k_pos = j * BLOCK_N + o_n",),
    False,
    "o_m[:, None]",
    "k_pos[None, :]",
    "acc, row_max, row_sum = attend(acc, row_max, row_sum, b_q, k_desc, v_desc, i_b, i_g, j * BLOCK_N, scale, "
    "{keep}, {masked}, BLOCK_N, D, PRECISION)",
)
_DQ = Step(
    ("k_pos = j * BLOCK_N + o_n",),
    False,
    "o_m[:, None]",
    "k_pos[None, :]",
    "acc = add_dq(acc, b_q, b_do, b_lse, b_delta, k_desc, v_desc, i_b, i_g, j * BLOCK_N, scale, "
    "{keep}, {masked}, BLOCK_N, D, PRECISION)",
)
_DKDV = Step(
    (
        "row_start = max(i * BLOCK_M - q_start, 0)",
        "o_row = head_row + (i - first_row_tile) * BLOCK_M + tl.arange(0, BLOCK_M)",
    ),
    True,
    "(q_start + row_start + tl.arange(0, BLOCK_M))[None, :]",
    "o_n[:, None]",
    "dk, dv = add_dkdv(dk, dv, b_k, b_v, q_desc, do_desc, row_lse_ptr, row_delta_ptr, i_b, i_h, o_row, row_start, "
    "scale, {keep}, {masked}, BLOCK_M, D, PRECISION)",
)


def _kernel_walk(
    walk: Walk, kinds: HeadKinds, names: Names, masks: Masks, step: Step, indent: int, *, ragged_keys: bool
) -> str:
    lines: list[str] = []
    if len(walk.programs) > 1:
        lines.append(f"kind = {kinds.source()}")
    for kind, (program, sections) in enumerate(zip(walk.programs, walk.sections, strict=True)):
        inner = home_lines(program, names) if sections else []
        for number, section in enumerate(sections):
            inner += _section_lines(section, names, masks, step, number, ragged_keys=ragged_keys)
        if len(walk.programs) > 1:
            lines.append(f"if kind == {kind}:")
            inner = [f"    {line}" for line in inner or ["pass"]]
        lines += inner
    return "\n".join(" " * indent + line for line in lines)


def _section_lines(
    section: Section, names: Names, masks: Masks, step: Step, number: int, *, ragged_keys: bool
) -> list[str]:
    what = "FULL, no mask" if section.mask is None else f"PARTIAL, {predicate_source(section.mask)}"
    # A FULL tile may hold keys past the end only where the pattern looks ahead.
    conditions = [] if section.mask is None else [f"{masks.name(section.mask)}({step.q}, {step.k})"]
    if ragged_keys:
        conditions.append(f"({step.k} < k_len)")
    keep = " & ".join(conditions) or "None"
    body = [*step.lead] if conditions or step.leads_always else []
    body.append(step.call.format(keep=keep, masked=bool(conditions)))
    return [f"# {what}: {describe(section, names.own)}", *loop_lines(section, names, number, body)]


def _cpu_runs(walk: Walk, kinds: HeadKinds, masks: Masks) -> str:
    """Python functions `runs_of_kind_<n>` and the list of head groups that use them."""
    names = Names("i", "j", "0", "key_tiles")
    lines: list[str] = []
    for kind, (program, sections) in enumerate(zip(walk.programs, walk.sections, strict=True)):
        lines += [
            "",
            "",
            f"def runs_of_kind_{kind}(i: int, key_tiles: int) -> list[tuple[range, Mask | None]]:",
        ]
        lines += ['    """The key tiles that query tile i reads on the CPU, each range with its mask; None is FULL."""']
        lines += ["    runs: list[tuple[range, Mask | None]] = []"]
        body = home_lines(program, names) if sections else []
        for section in sections:
            mask = "None" if section.mask is None else f"{masks.name(section.mask)}.fn"
            body += range_lines(section, names, mask)
        lines += [f"    {line}" for line in (*body, "return runs")]
    groups = []
    for kind in range(len(kinds.patterns)):
        heads = tuple(h for h, own in enumerate(kinds.heads) if own == kind) or None
        groups.append(f"HeadGroup({heads}, runs_of_kind_{kind})")
    lines += ["", "", f"CPU_GROUPS = ({', '.join(groups)},)"]
    return "\n".join(lines)
