"""Print a tile program as loops over tiles: the same arithmetic in a Triton kernel and in Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sparsedsl.codegen.runs import Jump, Run, Stretch, runs_of
from sparsedsl.codegen.tiles import TileProgram
from sparsedsl.errors import NoNormalForm
from sparsedsl.index import Predicate
from sparsedsl.integers import INFINITY

# A bound that differs between more classes than this is no longer spelled out.
MOST_CHOICES = 64


@dataclass(frozen=True, slots=True)
class Section:
    """All runs under one mask: one loop of the kernel. `mask` is None for FULL tiles."""

    mask: Predicate | None
    runs: tuple[Run, ...]


def sections_of(program: TileProgram) -> tuple[Section, ...]:
    """The loops of a program, FULL tiles first."""
    runs: dict[Predicate | None, list[Run]] = {}
    for group in program.groups:
        runs.setdefault(None if group.full else group.mask, []).extend(runs_of(program, group))
    return tuple(Section(mask, tuple(found)) for mask, found in runs.items())


@dataclass(frozen=True, slots=True)
class Names:
    """How a kernel calls the tile it owns, the tiles it visits, and their first and past-the-last number."""

    own: str
    visited: str
    first: str
    end: str


def home_lines(program: TileProgram, names: Names) -> list[str]:
    """Where the own tile stands: `place` in its period, and `home`, the first visited tile of that period."""
    rows, columns = program.row_classes, program.column_classes
    if rows == 1:
        return [f"home = {_scaled(columns, names.own)}"]
    return [f"place = {names.own} % {rows}", f"home = {_scaled(columns, f'({names.own} // {rows})')}"]


def loop_lines(section: Section, names: Names, number: int, body: Sequence[str]) -> list[str]:
    """A loop over the section's tiles around `body`, which may use the visited tile's name."""
    lines: list[str] = []
    starts, counts = [], []
    for place, run in enumerate(section.runs):
        start, count = f"start_{number}{_letter(place)}", f"count_{number}{_letter(place)}"
        lines += _run_lines(run, names, start, count)
        starts.append((run, start))
        counts.append(count)
    lines.append(f"for u in range({' + '.join(counts)}):")
    (run, start), *others = starts
    inner = [f"{names.visited} = {_tile(run, start, 'u')}"]
    for place, (run, start) in enumerate(others, 1):
        before = " + ".join(counts[:place])
        rest = f"(u - {before})" if place == 1 else f"(u - ({before}))"
        inner.append(f"{names.visited} = tl.where(u < {before}, {names.visited}, {_tile(run, start, rest)})")
    return lines + [f"    {line}" for line in (*inner, *body)]


def range_lines(section: Section, names: Names, mask: str) -> list[str]:
    """Python source that appends (range of tiles, mask) for each run of the section to `runs`."""
    lines: list[str] = []
    for run in section.runs:
        if isinstance(run, Stretch):
            lines += _run_lines(run, names, "start", "count")
            stop = "start + count" if run.step == 1 else f"start + {run.step} * count, {run.step}"
            lines.append(f"runs.append((range(start, {stop}), {mask}))")
            continue
        low, high = _limits(run, names)
        origin = _minus("home", tuple(run.sign * each for each in run.offset))
        if run.sign > 0:
            ends = f"max(origin - jump - {run.width - 1}, {low}), origin - jump + 1"
        else:
            ends = f"origin + jump, min(origin + jump + {run.width}, {high})"
        condition = _condition(run, names)
        inner = [
            f"origin = {origin}",
            f"for jump in ({run.scale} * {run.base}**t for t in range({visible_jumps(run)})):",
            f"    if {f'origin - jump < {low}' if run.sign > 0 else f'origin + jump >= {high}'}:",
            "        break",
            f"    runs.append((range({ends}), {mask}))",
        ]
        lines += [f"if {condition}:", *(f"    {line}" for line in inner)] if condition else inner
    return lines


def describe(section: Section, own: str) -> str:
    """The section's runs in words, for headers: which tiles, seen from the own tile."""
    return "; ".join(_description(run, own) for run in section.runs)


def _letter(place: int) -> str:
    return "" if place == 0 else f"_{place}"


def _run_lines(run: Run, names: Names, start: str, count: str) -> list[str]:
    first, end = _limits(run, names)
    if isinstance(run, Stretch):
        lines = _stretch_lines(run, first, end, start, count)
    else:
        lines = _jump_lines(run, first, end, start, count)
    condition = _condition(run, names)
    return [*lines, f"{count} = {count} if {condition} else 0"] if condition else lines


def _limits(run: Run, names: Names) -> tuple[str, str]:
    """The first visited tile that takes part, and the one past the last."""
    first = names.first if run.columns[0] == 0 else f"max({names.first}, {run.columns[0]})"
    end = names.end if run.columns[1] == INFINITY else f"min({names.end}, {run.columns[1]})"
    return first, end


def _condition(run: Run, names: Names) -> str:
    """When the own tile has this run at all; empty for always."""
    conditions = []
    if not all(run.present):
        conditions.append(f"{_spelled_out([int(present) for present in run.present])} == 1")
    if run.rows[0] > 0:
        conditions.append(f"{names.own} >= {run.rows[0]}")
    if run.rows[1] != INFINITY:
        conditions.append(f"{names.own} < {run.rows[1]}")
    return conditions[0] if len(conditions) == 1 else " & ".join(f"({each})" for each in conditions)


def _stretch_lines(run: Stretch, first: str, end: str, start: str, count: str) -> list[str]:
    """Lowest and highest visited tile, both inside [first, end), then how many there are."""
    last = f"{end} - 1" if run.nearest is None else f"min({_minus('home', run.nearest)}, {end} - 1)"
    if run.step == 1:
        low = first if run.farthest is None else f"max({_minus('home', run.farthest)}, {first})"
        return [f"{start} = {low}", f"{count} = max({last} - {start} + 1, 0)"]
    # The least tile >= low with home - tile in the right residue.
    low = first if run.farthest is None else f"max({_minus('home', run.farthest)}, {first})"
    gap = f"({_minus('home', run.phase)} - low) % {run.step}"
    return [
        f"low = {low}",
        f"{start} = low + ({gap} + {run.step}) % {run.step}",
        f"{count} = max(({last} - {start} + {run.step}) // {run.step}, 0) if {last} >= {start} else 0",
    ]


def _jump_lines(run: Jump, first: str, end: str, start: str, count: str) -> list[str]:
    """`start`: where the geometric tail begins; its room is the number of tiles up to the edge it runs to."""
    origin = _minus("home", tuple(run.sign * each for each in run.offset))
    shape = f"{run.scale}, {run.base}, {run.width}, {visible_jumps(run)}"
    lines = [f"{start} = {origin}"]
    if run.sign > 0:
        return [*lines, f"{count} = tiles_in_jumps({start} - {first} + 1, {shape})"]
    # The nearest jumps may end before the first tile there is.
    skipped = f"skipped{start.removeprefix('start')}"
    return [
        *lines,
        f"{skipped} = tiles_in_jumps({first} - {start}, {shape})",
        f"{count} = max(tiles_in_jumps({end} - {start}, {shape}) - {skipped}, 0)",
    ]


def visible_jumps(run: Jump) -> int:
    """How many jumps stay below 2**31 tiles; farther ones are never seen."""
    return sum(1 for t in range(run.count) if run.scale * run.base**t < 1 << 31)


def _tile(run: Run, start: str, u: str) -> str:
    """The u-th tile of the run."""
    if isinstance(run, Stretch):
        return f"{start} + {u}" if run.step == 1 else f"{start} + {run.step} * {u}"
    if run.sign < 0:
        u = f"({u} + skipped{start.removeprefix('start')})"
    number = u if run.width == 1 else f"{u} // {run.width}"
    within = "" if run.width == 1 else f" + {u} % {run.width}"
    jump = f"jump({number}, {run.scale}, {run.base}, {visible_jumps(run)}){within}"
    return f"{start} + {jump}" if run.sign < 0 else f"{start} - ({jump})" if within else f"{start} - {jump}"


def _scaled(factor: int, text: str) -> str:
    return text.strip("()") if factor == 1 and text.startswith("(") else text if factor == 1 else f"{factor} * {text}"


def _minus(text: str, values: Sequence[int]) -> str:
    """text - value, the value depending on the class."""
    if len(set(values)) == 1:
        value = values[0]
        return text if value == 0 else f"{text} - {value}" if value > 0 else f"{text} + {-value}"
    linear = _linear([-value for value in values])
    if linear is None:
        return f"{text} - {_spelled_out(values)}"
    base, slope = linear
    step = "place" if abs(slope) == 1 else f"{abs(slope)} * place"
    moved = f"{text} {'+' if slope > 0 else '-'} {step}"
    return moved if base == 0 else f"{moved} {'+' if base > 0 else '-'} {abs(base)}"


def _linear(values: Sequence[int]) -> tuple[int, int] | None:
    """(base, slope) where value = base + slope · place."""
    base, slope = values[0], values[1] - values[0]
    return (base, slope) if all(value == base + slope * i for i, value in enumerate(values)) else None


def _spelled_out(values: Sequence[int]) -> str:
    """A value for each place in the period, as nested conditions."""
    starts = [place for place in range(len(values)) if place == 0 or values[place] != values[place - 1]]
    if len(starts) > MOST_CHOICES:
        raise NoNormalForm(
            "the pattern's bounds differ between too many tiles",
            got=f"{len(starts)} different bounds in one period",
            expected=f"at most {MOST_CHOICES}, or bounds that grow evenly",
        )
    text = str(values[starts[-1]])
    for this, following in reversed(list(pairwise(starts))):
        text = f"{values[this]} if place < {following} else {text}"
    return f"({text})"


def _description(run: Run, own: str) -> str:
    def side(values: Sequence[int] | None, edge: str) -> str:
        if values is None:
            return edge
        return _minus("home", values)

    where = ""
    if run.rows[0] > 0 or run.rows[1] != INFINITY:
        where += f", {own} in {_range(run.rows)}"
    if run.columns[0] > 0 or run.columns[1] != INFINITY:
        where += f", tiles {_range(run.columns)}"
    if isinstance(run, Jump):
        wide = f" and {run.width - 1} more" if run.width > 1 else ""
        sign = "-" if run.sign > 0 else "+"
        start = _minus("home", tuple(run.sign * each for each in run.offset))
        return f"{start} {sign} {run.scale} * {run.base}**t{wide}, t = 0, 1, ...{where}"
    low, high = side(run.farthest, "first"), side(run.nearest, "last")
    step = f" by {run.step}" if run.step > 1 else ""
    return (low if low == high else f"{low} .. {high}") + step + where


def _range(span: tuple[int, int]) -> str:
    return f"[{span[0]}, {'...' if span[1] == INFINITY else span[1]})"
