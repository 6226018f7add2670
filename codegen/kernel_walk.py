"""Print the walk of a kernel: for each kind of head, its loops over tiles around the kernel's step."""

from __future__ import annotations

from dataclasses import dataclass
from string import Template
from textwrap import wrap

from sparsedsl.codegen import templates
from sparsedsl.codegen.constants import Constants
from sparsedsl.codegen.describe import describe
from sparsedsl.codegen.part_text import PartText
from sparsedsl.codegen.plan import Part
from sparsedsl.codegen.programs import LoopProgram, Program
from sparsedsl.codegen.ranges import range_lines
from sparsedsl.codegen.table_masks import TableMasks, encoded
from sparsedsl.codegen.terms import LookUp, predicate_source
from sparsedsl.codegen.walk import Names, home_lines, loop_lines
from sparsedsl.index import FALSE, TRUE, Predicate
from sparsedsl.integers import IntegerSet


def kind_source(part: Part) -> str:
    """The kind of head `i_h` as Triton source."""
    count, heads = len(part.kinds), part.kind_of
    if heads == tuple(h % count for h in range(len(heads))):
        return "i_h" if count == len(heads) else f"i_h % {count}"
    share = len(heads) // count
    if heads == tuple(h // share for h in range(len(heads))):
        return f"i_h // {share}"
    text = str(heads[-1])
    for head in range(len(heads) - 2, -1, -1):
        if heads[head] != heads[head + 1]:
            text = f"{heads[head]} if i_h <= {head} else {text}"
    return text


# Emitted lines are no longer than this.
LINE = 120


class Masks:
    """The masks of a module, each a small function, named in the order of first use."""

    def __init__(self, constants: Constants) -> None:
        self.constants = constants
        self.names: dict[str, str] = {}
        self.predicates: list[Predicate] = []

    def call(self, mask: Predicate, q: str, k: str) -> str:
        """The kernel's source that decides the mask at positions `q` and `k`."""
        name = self._name(mask)
        return f"{name}({q}, {k}, constants)" if self._looks_up(name) else f"{name}({q}, {k})"

    def function(self, mask: Predicate) -> str:
        """The Python function of (q, k) tensors that decides the mask on the CPU road."""
        name = self._name(mask)
        return f"{name}_on_cpu" if self._looks_up(name) else f"{name}.fn"

    def source(self) -> str:
        """The functions' definitions."""
        texts = []
        for (condition, name), predicate in zip(self.names.items(), self.predicates, strict=True):
            shown = _in_lines(condition)
            if not self._looks_up(name):
                texts.append(Template(templates.MASK).substitute(name=name, condition=shown))
                continue
            on_cpu = _in_lines(predicate_source(predicate, self._look_up("listed_on_cpu(")))
            text = Template(templates.MASK_WITH_SETS)
            texts.append(text.substitute(name=name, condition=shown, on_cpu=on_cpu))
        return "".join(texts)

    def _name(self, mask: Predicate) -> str:
        condition = predicate_source(mask, self._look_up("listed(constants, "))
        if condition not in self.names:
            self.predicates.append(mask)
        return self.names.setdefault(condition, f"mask_{len(self.names)}")

    def _looks_up(self, name: str) -> bool:
        return any(own == name and "listed(" in condition for condition, own in self.names.items())

    def _look_up(self, call: str) -> LookUp:
        def source(value: str, members: IntegerSet) -> str:
            lo, hi = members.minimum, members.maximum + 1
            place = self.constants.bits(members, lo, hi, f"a set of {len(members.segments)} pieces, as bits")
            return f"({call}{value}, {place}, {lo}, {hi}))"

        return source


class TableRoad:
    """The patterns of a module that need a table, and the numbers of their masks in it."""

    def __init__(self) -> None:
        self.patterns: list[TableMasks] = []

    def number(self, masks: TableMasks) -> int:
        """The pattern's number."""
        if masks not in self.patterns:
            self.patterns.append(masks)
        return self.patterns.index(masks)

    def first(self, masks: TableMasks) -> int:
        """The number of the pattern's first mask among all."""
        return sum(len(each.masks) for each in self.patterns[: self.number(masks)])

    def source(self) -> str:
        """(predicate, random choices) of each pattern, as Python source."""
        lines = []
        for each in self.patterns:
            choices = tuple(encoded(choice) for choice in each.choices)
            predicate = [f"        {line}" for line in wrap(f"{encoded(each.predicate)!r},", 110)]
            lines += ["    (", *predicate, f"        {choices!r},", "    ),"]
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Step:
    """How a kernel handles one tile: leading lines (for masked tiles, or always), the positions, the call."""

    lead: tuple[str, ...]
    leads_always: bool
    q: str
    k: str
    call: str
    # The own tile, the visited one, the first visited one there is and the one past the last.
    names: tuple[str, str, str, str]
    # The own tile's place among the owners of the table.
    owner: str
    transposed: bool = False
    # Whether a program may work a share of its loops.
    in_shares: bool = False


_BY_ROW = (("i", "j", "first_key_tile", "key_tiles"), "i - first_row_tile")
FORWARD = Step(
    ("k_pos = j * BLOCK_N + o_n",),
    False,
    "o_m[:, None]",
    "k_pos[None, :]",
    "acc, row_max, row_sum = attend{p}(acc, row_max, row_sum, b_q, k_desc, v_desc, at_b, i_g, {c}at_n + j * BLOCK_N, "
    "scale, {keep}, {masked}, BLOCK_N, D, PRECISION)",
    *_BY_ROW,
)
DQ = Step(
    ("k_pos = j * BLOCK_N + o_n",),
    False,
    "o_m[:, None]",
    "k_pos[None, :]",
    "acc = add_dq{p}(acc, b_q, b_do, b_lse, b_delta, k_desc, v_desc, at_b, i_g, {c}at_n + j * BLOCK_N, "
    "scale, {keep}, {masked}, BLOCK_N, D, PRECISION)",
    *_BY_ROW,
)
DKDV = Step(
    (
        "row_start = max(i * BLOCK_M - q_start, 0)",
        "o_row = head_row + (i - first_row_tile) * BLOCK_M + tl.arange(0, BLOCK_M)",
    ),
    True,
    "(q_start + row_start + tl.arange(0, BLOCK_M))[None, :]",
    "o_n[:, None]",
    "dk, dv = add_dkdv{p}(dk, dv, b_k, b_v, q_desc, do_desc, row_lse_ptr, row_delta_ptr, at_b, i_h, {c}o_row, "
    "at_n + row_start, scale, {keep}, {masked}, BLOCK_M, D, PRECISION)",
    ("j", "i", "first_row_tile", "row_tiles"),
    "j",
    transposed=True,
)


@dataclass(frozen=True, slots=True)
class Walker:
    """The walks of one part; masks and tables are the module's."""

    text: PartText
    masks: Masks
    tables: TableRoad
    ragged_keys: bool

    def kernel_walk(self, programs: tuple[Program, ...], step: Step, indent: int) -> str:
        """The lines of a kernel between its set-up and its end."""
        lines: list[str] = []
        if len(programs) > 1:
            lines.append(f"kind = {kind_source(self.text.part)}")
        for kind, program in enumerate(programs):
            inner = self._loops(program, step) if isinstance(program, LoopProgram) else self._table_loops(program, step)
            if len(programs) > 1:
                lines.append(f"if kind == {kind}:")
                inner = [f"    {line}" for line in inner or ["pass"]]
            lines += inner
        return "\n".join(piece for line in lines for piece in broken(" " * indent + line))

    def _loops(self, program: LoopProgram, step: Step) -> list[str]:
        names = Names(*step.names, self.masks.constants, "tl.load(constants + {})")
        tiles, sections = program.tiles, program.sections
        if step.transposed:
            tiles, sections = program.transposed, program.transposed_sections
        lines = home_lines(tiles, names) if sections else []
        for number, section in enumerate(sections):
            lines.append(f"# {_what(section.mask)}: {describe(section, names.own)}")
            lines += loop_lines(section, names, number, self._body(section.mask, step), in_shares=step.in_shares)
        return lines

    def _table_loops(self, program: Program, step: Step) -> list[str]:
        assert not isinstance(program, LoopProgram)
        lines: list[str] = []
        first = self.tables.first(program.masks)
        for number, mask in enumerate(program.masks.masks):
            if mask == FALSE:
                continue
            lines += [
                f"# {_what(None if mask == TRUE else mask)}: tiles of kind {first + number} in the table",
                f"run = starts + {first + number} * (owners + 1) + {step.owner}",
                "start, stop = tl.load(run), tl.load(run + 1)",
                "if cu_ptr is not None:",
                f"    stop = listed_before({step.names[3]}, tiles, start, stop)",
                "for u in range(start, stop):",
                f"    {step.names[1]} = tl.load(tiles + u)",
                *(f"    {line}" for line in self._body(None if mask == TRUE else mask, step)),
            ]
        return lines

    def _body(self, mask: Predicate | None, step: Step) -> list[str]:
        # A FULL tile may hold keys past the end only where the pattern looks ahead.
        conditions = [] if mask is None else [self.masks.call(mask, step.q, step.k)]
        if self.ragged_keys and not step.transposed:
            conditions.append(f"({step.k} < k_len)")
        keep = " & ".join(conditions) or "None"
        lead = [*step.lead] if conditions or step.leads_always else []
        c = "at_c, " if self.text.in_classes else ""
        return [*lead, step.call.format(keep=keep, masked=bool(conditions), p=self.text.suffix, c=c)]

    def cpu_runs(self, programs: tuple[Program, ...]) -> tuple[str, str]:
        """Python functions `runs<part>_of_kind_<n>`, and the CpuPart that uses them."""
        names = Names("i", "j", "0", "key_tiles", self.masks.constants, "CONSTANTS[{}]")
        lines: list[str] = []
        for kind, program in enumerate(programs):
            name = f"runs{self.text.suffix}_of_kind_{kind}"
            lines += [
                "",
                "",
                f"def {name}(i: int, key_tiles: int) -> list[tuple[range, Mask | None]]:",
                '    """The key tiles that query tile i reads on the CPU, each range with its mask; None is FULL."""',
            ]
            if isinstance(program, LoopProgram):
                body = ["runs: list[tuple[range, Mask | None]] = []"]
                body += home_lines(program.tiles, names) if program.sections else []
                for section in program.sections:
                    mask = "None" if section.mask is None else self.masks.function(section.mask)
                    body += range_lines(section, names, mask)
                body.append("return runs")
            else:
                masks = ["None" if mask in (TRUE, FALSE) else self.masks.function(mask) for mask in program.masks.masks]
                body = [f"return table_runs({self.tables.number(program.masks)}, ({', '.join(masks)}), i, key_tiles)"]
            lines += [piece for line in body for piece in broken(f"    {line}")]
        groups = []
        for kind in range(len(self.text.part.kinds)):
            heads = tuple(h for h, own in enumerate(self.text.part.kind_of) if own == kind) or None
            groups.append(f"HeadGroup({heads}, runs{self.text.suffix}_of_kind_{kind})")
        classes = broken(f"        {_classes_source(self.text.part)},")
        kinds = [f"            {each}," for each in groups]
        part = ["CpuPart(", f"        {self.text.part.step},", *classes, "        (", *kinds, "        ),", "    )"]
        return "\n".join(lines), "\n".join(part)


def _in_lines(condition: str) -> str:
    """A condition after `return`, in parentheses over several lines where it is long."""
    lead = "    return "
    if len(lead + condition) <= LINE:
        return condition
    return "\n".join(broken(f"{lead}({condition})")).removeprefix(lead)


def _classes_source(part: Part) -> str:
    if part.covers_all_rows:
        return "((0,),)" if part.step == 1 else f"(tuple(range({part.step})),)"
    return repr(part.classes)


def _what(mask: Predicate | None) -> str:
    return "FULL, no mask" if mask is None else f"PARTIAL, {predicate_source(mask)}"


def broken(line: str) -> list[str]:
    """A line of source as lines of at most LINE columns: a comment at its spaces, code inside its parentheses.

    >>> broken("    longer = some_function(" + ", ".join(["argument"] * 12) + ")")[0]
    '    longer = some_function('
    >>> broken("sum = " + " + ".join(["(a * b)"] * 15))[0]
    'sum = ('

    """
    text = line.lstrip()
    indent = line[: len(line) - len(text)]
    if len(line) <= LINE:
        return [line]
    if text.startswith("#"):
        return [f"{indent}# {piece}" for piece in wrap(text[2:], LINE - len(indent) - 2)]
    start = text.find("(")
    end = _closing(text, start)
    if text[end:] not in (")", "):"):
        name, _, value = text.partition(" = ")
        text, start = f"{name} = ({value})", len(name) + 3
        end = len(text) - 1
    inside = wrap(text[start + 1 : end], LINE - len(indent) - 4, break_long_words=False, break_on_hyphens=False)
    return [f"{indent}{text[: start + 1]}", *(f"{indent}    {piece}" for piece in inside), f"{indent}{text[end:]}"]


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return len(text)
