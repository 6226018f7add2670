"""Print a tile program as loops over tiles: the same arithmetic in a Triton kernel and in Python."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sparsedsl.codegen.constants import Constants
from sparsedsl.codegen.runs import Jump, Listed, Run, Stretch, runs_of
from sparsedsl.codegen.tiles import TileProgram
from sparsedsl.index import Predicate
from sparsedsl.integers import INFINITY

# A bound that changes more often than this from class to class is looked up instead of spelled out.
MOST_CHANGES = 4
# What a list is filled up with: beyond every tile.
BEYOND = (1 << 31) - 1


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
    # Tiles that are too far away for any kernel leave no run.
    return tuple(Section(mask, tuple(found)) for mask, found in runs.items() if found)


@dataclass(frozen=True, slots=True)
class Names:
    """How a kernel calls the tile it owns, the tiles it visits, and their first and past-the-last number.

    `constants` is the module's array, `look_up` the source that reads its item `{}`.
    """

    own: str
    visited: str
    first: str
    end: str
    constants: Constants
    look_up: str

    def value(self, values: Sequence[int]) -> str:
        """A number that depends on the own tile's place in its period, as source."""
        if len(set(values)) == 1:
            return str(values[0])
        starts = [place for place in range(len(values)) if place == 0 or values[place] != values[place - 1]]
        if len(starts) > MOST_CHANGES:
            offset = self.constants.numbers(values, "a bound for each place in the period")
            return self.look_up.format(f"{offset} + place" if offset else "place")
        text = str(values[starts[-1]])
        for this, following in reversed(list(pairwise(starts))):
            text = f"{values[this]} if place < {following} else {text}"
        return f"({text})"

    def home_less(self, values: Sequence[int]) -> str:
        """home - value, the value depending on the own tile's place."""
        return even_difference(values) or f"home - {self.value(values)}"


def even_difference(values: Sequence[int]) -> str | None:
    """home - value where the value is the same for all places, or grows evenly; None otherwise."""
    if len(set(values)) == 1:
        value = values[0]
        return "home" if value == 0 else f"home - {value}" if value > 0 else f"home + {-value}"
    base, slope = -values[0], values[0] - values[1]
    if any(-value != base + slope * place for place, value in enumerate(values)):
        return None
    step = "place" if abs(slope) == 1 else f"{abs(slope)} * place"
    moved = f"home {'+' if slope > 0 else '-'} {step}"
    return moved if base == 0 else f"{moved} {'+' if base > 0 else '-'} {abs(base)}"


def home_lines(program: TileProgram, names: Names) -> list[str]:
    """Where the own tile stands: `place` in its period, and `home`, the first visited tile of that period."""
    rows, columns = program.row_classes, program.column_classes
    if rows == 1:
        return [f"home = {_scaled(columns, names.own)}"]
    return [f"place = {names.own} % {rows}", f"home = {_scaled(columns, f'({names.own} // {rows})')}"]


def used_lines(lines: Sequence[str], following: Sequence[str]) -> list[str]:
    """Of lines that assign, those whose name is read after them, or in the lines that follow."""
    kept: list[str] = []
    for line in reversed(lines):
        if re.search(rf"\b{line.partition(' = ')[0]}\b", " ".join([*kept, *following])):
            kept.insert(0, line)
    return kept


def share_line(tiles: str) -> str:
    """Where the own share of a loop over so many tiles starts and ends."""
    return f"first_u, end_u = share_of({tiles}, share, among)"


def loop_lines(
    section: Section, names: Names, number: int, body: Sequence[str], *, in_shares: bool = False
) -> list[str]:
    """A loop over the section's tiles, or a share of them, around `body`, which may use the visited tile's name."""
    lines, counts, tile = section_lines(section, names, number)
    tiles = " + ".join(counts)
    if in_shares:
        lines.append(share_line(tiles))
        tiles = "first_u, end_u"
    lines.append(f"for u in range({tiles}):")
    return lines + [f"    {line}" for line in (*tile, *body)]


def section_lines(section: Section, names: Names, number: int) -> tuple[list[str], list[str], list[str]]:
    """Where the section's runs start and end; the names of their numbers of tiles; the u-th tile of all."""
    lines: list[str] = []
    starts, counts = [], []
    for place, run in enumerate(section.runs):
        start, count = f"start_{number}{_letter(place)}", f"count_{number}{_letter(place)}"
        lines += run_lines(run, names, start, count)
        starts.append((run, start))
        counts.append(count)
    (run, start), *others = starts
    tile = [f"{names.visited} = {_tile(run, start, 'u')}"]
    for place, (run, start) in enumerate(others, 1):
        before = " + ".join(counts[:place])
        rest = f"(u - {before})" if place == 1 else f"(u - ({before}))"
        tile.append(f"{names.visited} = tl.where(u < {before}, {names.visited}, {_tile(run, start, rest)})")
    return lines, counts, tile


def _letter(place: int) -> str:
    return "" if place == 0 else f"_{place}"


def run_lines(run: Run, names: Names, start: str, count: str) -> list[str]:
    """Where the run starts and how many tiles it has, as assignments to the two names."""
    first, end = limits(run, names)
    match run:
        case Stretch():
            lines = _stretch_lines(run, names, first, end, start, count)
        case Jump():
            lines = _jump_lines(run, names, first, end, start, count)
        case Listed():
            lines = _listed_lines(run, names, first, end, start, count)
    condition = condition_of(run, names)
    return [*lines, f"{count} = {count} if {condition} else 0"] if condition else lines


def limits(run: Run, names: Names) -> tuple[str, str]:
    """The first visited tile that takes part, and the one past the last."""
    first = names.first if run.columns[0] == 0 else f"max({names.first}, {run.columns[0]})"
    end = names.end if run.columns[1] == INFINITY else f"min({names.end}, {run.columns[1]})"
    return first, end


def condition_of(run: Run, names: Names) -> str:
    """When the own tile has this run at all; empty for always."""
    conditions = []
    if not isinstance(run, Listed) and not all(run.present):
        conditions.append(f"{names.value([int(present) for present in run.present])} == 1")
    if run.rows[0] > 0:
        conditions.append(f"{names.own} >= {run.rows[0]}")
    if run.rows[1] != INFINITY:
        conditions.append(f"{names.own} < {run.rows[1]}")
    return conditions[0] if len(conditions) == 1 else " & ".join(f"({each})" for each in conditions)


def _stretch_lines(run: Stretch, names: Names, first: str, end: str, start: str, count: str) -> list[str]:
    """Lowest and highest visited tile, both inside [first, end), then how many there are."""
    last = f"{end} - 1" if run.nearest is None else f"min({names.home_less(run.nearest)}, {end} - 1)"
    if run.step == 1:
        low = first if run.farthest is None else f"max({names.home_less(run.farthest)}, {first})"
        return [f"{start} = {low}", f"{count} = max({last} - {start} + 1, 0)"]
    # The least tile >= low with home - tile in the right residue.
    low = first if run.farthest is None else f"max({names.home_less(run.farthest)}, {first})"
    gap = f"({names.home_less(run.phase)} - low) % {run.step}"
    return [
        f"low = {low}",
        f"{start} = low + ({gap} + {run.step}) % {run.step}",
        f"{count} = max(({last} - {start} + {run.step}) // {run.step}, 0) if {last} >= {start} else 0",
    ]


def _jump_lines(run: Jump, names: Names, first: str, end: str, start: str, count: str) -> list[str]:
    """`start`: where the geometric tail begins; its room is the number of tiles up to the edge it runs to."""
    origin = names.home_less(tuple(run.sign * each for each in run.offset))
    shape = f"{run.scale}, {run.base}, {run.width}, {run.count}"
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


def _listed_lines(run: Listed, names: Names, first: str, end: str, start: str, count: str) -> list[str]:
    """`start`: where the list begins; the members skipped before the first tile that takes part, and the rest."""
    suffix = start.removeprefix("start")
    home, row, many, width, turn = list_arguments(run, names)[:5]
    low, high = f"{start} - {end} + 1", f"{start} - {first} + 1"
    if run.sign < 0:
        low, high = f"{first} - {start}", f"{end} - {start}"
    below = f"constants, list{suffix}, many{suffix}, {turn}, {width}"
    return [
        f"{start} = {home}",
        f"list{suffix} = {row}",
        f"many{suffix} = {many}",
        f"skipped{suffix} = listed_below({low}, {below})",
        f"{count} = max(listed_below({high}, {below}) - skipped{suffix}, 0)",
    ]


def list_arguments(run: Listed, names: Names) -> list[str]:
    """Where the list begins, its place among the constants, its length, the room it has, its turn, its sign."""
    width = 1 << (max(map(len, run.entries)) - 1).bit_length()
    lists = run.entries if len(set(run.entries)) > 1 else run.entries[:1]
    filled = [item for entries in lists for item in (*entries, *[BEYOND] * (width - len(entries)))]
    offset = names.constants.numbers(filled, f"lists of {width} tiles" if len(lists) > 1 else "a list of tiles")
    row = f"{offset} + {width} * place" if len(lists) > 1 else str(offset)
    start = names.home_less(tuple(run.sign * each for each in run.base))
    turn = str(run.turn if run.endless else BEYOND)
    return [start, row, names.value([len(entries) for entries in run.entries]), str(width), turn, str(run.sign)]


def _tile(run: Run, start: str, u: str) -> str:
    """The u-th tile of the run."""
    if isinstance(run, Stretch):
        return f"{start} + {u}" if run.step == 1 else f"{start} + {run.step} * {u}"
    if isinstance(run, Listed):
        suffix = start.removeprefix("start")
        sign = "-" if run.sign > 0 else "+"
        place = f"({u} + skipped{suffix})"
        if not run.endless:
            return f"{start} {sign} tl.load(constants + list{suffix} + {place})"
        turns = f"{run.turn} * ({place} // many{suffix})"
        return f"{start} {sign} ({turns} + tl.load(constants + list{suffix} + {place} % many{suffix}))"
    if run.sign < 0:
        u = f"({u} + skipped{start.removeprefix('start')})"
    number = u if run.width == 1 else f"{u} // {run.width}"
    within = "" if run.width == 1 else f" + {u} % {run.width}"
    jump = f"jump({number}, {run.scale}, {run.base}, {run.count}){within}"
    return f"{start} + {jump}" if run.sign < 0 else f"{start} - ({jump})" if within else f"{start} - {jump}"


def _scaled(factor: int, text: str) -> str:
    return text.strip("()") if factor == 1 and text.startswith("(") else text if factor == 1 else f"{factor} * {text}"
