"""Markdown tables of a recorded run of `benchmarks.attention`: for the terminal, README.md and docs/performance.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks.cases import ALL_CASES, CASES, DENSE
from benchmarks.optional_peers import FLASH4, NATTEN
from benchmarks.peers import CUDNN, FLASH, FLEX, OURS, PLAIN
from benchmarks.record import Record, Timing
from benchmarks.shapes import HEAD, Row

Rows = list[str]

RESULTS = Path(__file__).resolve().parent / "results"
PEERS = (OURS, PLAIN, FLEX, FLASH4, NATTEN, CUDNN, FLASH)
DIRECTIONS = ("forward", "backward")
SHORT = {OURS: "ours", FLEX: "Flex", FLASH4: "FA-4", NATTEN: "NATTEN", CUDNN: "dense cuDNN"}
# Tensors as large as q that a pass moves at least: q, k, v, o; backward also the gradients of all four.
TENSORS = {"forward": 4, "backward": 8}
NONE = "–"
# Of the versions, those that every run has.
BASE = ("sparsedsl", "torch", "triton", "python")


class Timings:
    """A run's timings by case, tokens, direction and implementation."""

    def __init__(self, record: Record) -> None:
        self._found = {(each.case, each.tokens, each.direction, each.peer): each for each in record.timings}
        self.lengths = sorted({each.tokens for each in record.timings})

    def get(self, case: str, tokens: int, direction: str, peer: str) -> Timing | None:
        """One timing. PyTorch's dense kernels were measured on no pattern but the dense one, and stand beside all."""
        case = DENSE.name if peer in (CUDNN, FLASH) else case
        return self._found.get((case, tokens, direction, peer))

    def ratio(self, case: str, tokens: int, direction: str, over: str, under: str) -> float | None:
        """How many times as long as `under` the implementation `over` took."""
        first, second = (self.get(case, tokens, direction, peer) for peer in (over, under))
        return first.ms / second.ms if first and second else None

    def places(self, direction: str | None = None) -> list[tuple[str, int, str]]:
        """The cases, lengths and directions at which ours was measured."""
        return [
            (case.name, tokens, each)
            for tokens in self.lengths
            for case in ALL_CASES
            for each in DIRECTIONS
            if direction in (None, each) and self.get(case.name, tokens, each, OURS)
        ]

    def peers(self) -> list[str]:
        """Who was measured."""
        measured = {peer for _, _, _, peer in self._found}
        return [peer for peer in PEERS if peer in measured]


def plain_timings(record: Record) -> list[Timing]:
    """Those of our plain kernels; sparse patterns only."""
    names = {case.name for case in CASES}
    return [each for each in record.timings if each.case in names and each.peer == PLAIN]


def ceilings() -> tuple[float, float]:
    """TFLOP/s of a large bf16 matrix product, and TB/s of a large copy."""
    found: dict[str, Any] = json.loads((RESULTS / "ceilings_h200.json").read_text(encoding="utf-8"))
    (matrix,) = (float(each["tflops"]) for each in found["matrix"] if each["dtype"] == "bfloat16")
    return matrix, float(found["copy"]["terabytes_per_s"])


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> Rows:
    """A table; the first `words` columns are aligned to the left, the others to the right."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]


def peer_rows(record: Record) -> Rows:
    """Times of all implementations in ms, in brackets useful TFLOP/s, and how many times ours they are."""
    timings = Timings(record)
    peers = timings.peers()
    others = [peer for peer in peers if peer not in (OURS, FLASH)]
    titles = {peer: f"{peer}, dense" if peer in (CUDNN, FLASH) else peer for peer in PEERS}
    head = ("pattern", "tokens", "pass", *(titles[peer] for peer in peers), *(f"{peer} / ours" for peer in others))
    rows = []
    for place in timings.places():
        found = [timings.get(*place, peer) for peer in peers]
        cells = [f"{each.ms:.2f} ({each.tflops:.0f})" if each else NONE for each in found]
        ratios = [_shown(timings.ratio(*place, peer, OURS)) for peer in others]
        rows.append((place[0], str(place[1]), place[2], *cells, *ratios))
    return markdown(head, rows, 3)


def absent(record: Record) -> Rows:
    """A list of what was not measured, and why, below the table; in lines that are not too long."""
    lines = [fill(f"- {each}", 118, subsequent_indent="  ") for each in dict.fromkeys(record.absences)]
    versions = ", ".join(f"{name} {value}" for name, value in record.versions.items() if name not in BASE)
    of = f"With {versions}. " if versions else "FlashAttention-4 and NATTEN were not installed at this run. "
    return ["", fill(f"{of}{'Not measured:' if lines else ''}".strip(), 118), *([""] if lines else []), *lines]


def peer_table(record: Record) -> str:
    """The same with a caption that says how it was measured."""
    machine = ", ".join(f"{name} {value}" for name, value in record.machine.items() if name in ("driver", "cuda"))
    versions = ", ".join(f"{name} {value}" for name, value in record.versions.items() if name != "python")
    settings = ", ".join(f"{name} {value}" for name, value in record.settings.items())
    caption = (
        f"Milliseconds, medians; in brackets useful TFLOP/s, live pairs only. {record.machine['device']}"
        f"{f', {machine}' if machine else ''}; {versions}; {settings}; {record.date[:10]}; `{record.command}`."
    )
    return "\n".join([*peer_rows(record), "", caption])


def readme_rows(record: Record) -> Rows:
    """A line for each pattern and length: all times, and how many times ours the sparse implementations took."""
    timings = Timings(record)
    peers = [peer for peer in timings.peers() if peer in SHORT]
    sparse = [peer for peer in peers if peer in (FLEX, FLASH4, NATTEN)]
    named, times = " / ".join(SHORT[peer] for peer in peers), " / ".join(SHORT[peer] for peer in sparse)
    head = ["pattern, tokens"]
    for direction in DIRECTIONS:
        head += [f"{direction} ms: {named}", f"× {times}"]
    rows = []
    for case, tokens, _ in timings.places("forward"):
        row = [f"{case}, {tokens}"]
        for direction in DIRECTIONS:
            found = [timings.get(case, tokens, direction, peer) for peer in peers]
            row.append(" / ".join(_ms(each, peer) for each, peer in zip(found, peers, strict=True)))
            row.append(" / ".join(_shown(timings.ratio(case, tokens, direction, peer, OURS)) for peer in sparse))
        rows.append(row)
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def floor_rows(record: Record) -> Rows:
    """For each case the time that its operations and its bytes take at least, beside ours."""
    timings = Timings(record)
    matrix, copy = ceilings()
    head = ("case", "tokens", "operations", "bytes", "measured", "measured / larger floor", "useful TFLOP/s")
    rows = []
    for case, tokens, direction in timings.places():
        own = timings.get(case, tokens, direction, OURS)
        assert own
        elements = int(record.settings["heads"]) * int(record.settings["head dim"]) * tokens
        floors = own.flops / matrix / 1e9, 2 * TENSORS[direction] * elements / copy / 1e9
        numbers = (*(f"{each:.2f}" for each in (*floors, own.ms, own.ms / max(floors))), f"{own.tflops:.0f}")
        rows.append((f"{case}, {direction}", str(tokens), *numbers))
    return markdown(head, rows, 1)


def shape_rows(record: Record) -> tuple[Rows, Rows]:
    """What shapes_h200.json has on residue order, with the dilations of this record at its longest length; the rest."""
    timings = Timings(record)
    tokens = timings.lengths[-1]
    found = [Row(**each) for each in json.loads((RESULTS / "shapes_h200.json").read_text(encoding="utf-8"))["rows"]]
    walked = [each for each in found if each.name.startswith(("dilated", "LongNet"))]
    rest = [each for each in found if each not in walked]
    for case in ("dilated 512 x 8", "local and dilated"):
        cells = [timings.get(case, tokens, direction, peer) for direction in DIRECTIONS for peer in (OURS, FLEX)]
        assert all(cells), f"{case}, {tokens} tokens: not in the record"
        walked.append(Row(case, tokens, FLEX, *(each.ms for each in cells if each)))
    return [HEAD, *map(str, walked)], [HEAD, *map(str, rest)]


@dataclass(frozen=True)
class Target:
    """Cases, a pass and a peer: at most so much of the peer's time; or, `faster`, at least so many times as fast."""

    cases: tuple[str, ...]
    direction: str
    peer: str
    limit: float
    faster: bool = False

    def __str__(self) -> str:
        what = f"{' and '.join(self.cases)}, {self.direction}: "
        if self.faster:
            return f"{what}at least {self.limit:g} times as fast as {self.peer}"
        return f"{what}at most {self.limit:.2f} of {self.peer}'s time"

    def found(self, timings: Timings, tokens: int) -> list[float]:
        """What was reached, case by case; nothing where one was not measured."""
        pair = (self.peer, OURS) if self.faster else (OURS, self.peer)
        ratios = [timings.ratio(case, tokens, self.direction, *pair) for case in self.cases]
        known = [each for each in ratios if each is not None]
        return known if len(known) == len(ratios) else []

    def met(self, found: Sequence[float]) -> bool:
        """Whether that is enough."""
        return all(each >= self.limit if self.faster else each <= self.limit for each in found)


WINDOWS, POWERS, LOCAL = ("sliding 1024", "sliding 4096"), ("power 128", "power 256"), ("local and dilated",)
TARGETS = (
    Target(WINDOWS + POWERS, "forward", FLEX, 0.80),
    Target((*WINDOWS, "power 256"), "backward", FLEX, 0.75),
    Target(("power 128",), "backward", FLEX, 0.60),
    Target(("dilated 512 x 8",), "forward", FLEX, 9.5, faster=True),
    Target(("dilated 512 x 8",), "backward", FLEX, 8, faster=True),
    *(Target(LOCAL, direction, FLEX, 3, faster=True) for direction in DIRECTIONS),
    Target(("sliding 1024",), "forward", FLASH4, 0.90),
    Target(("power 128",), "forward", FLASH4, 0.95),
    Target(("sliding 4096", "power 256"), "forward", FLASH4, 0.97),
    Target((DENSE.name,), "forward", FLASH4, 1.05),
    Target(WINDOWS, "backward", FLASH4, 1.00),
    Target(POWERS, "backward", FLASH4, 0.75),
    Target((DENSE.name,), "forward", CUDNN, 1.25),
    Target((DENSE.name,), "backward", CUDNN, 1.40),
    Target(("power 256",), "forward", CUDNN, 24.4, faster=True),
)


def target_rows(record: Record) -> Rows:
    """What we set ourselves, what was reached at each length, and whether that is enough."""
    timings = Timings(record)
    lengths, rows = timings.lengths[::-1], []
    for target in TARGETS:
        found = [target.found(timings, tokens) for tokens in lengths]
        # What live pairs allow at a dense kernel's rate grows with the length: that target is one of the longest.
        judged = found[:1] if target.faster and target.peer == CUDNN else found
        met = [target.met(each) for each in judged if each]
        word = NONE if not met else "yes" if all(met) else "in part" if any(met) else "no"
        shown = [", ".join(f"{each:.1f}" if target.faster else f"{each:.3f}" for each in ratios) for ratios in found]
        rows.append([str(target), *(each or "not measured" for each in shown), word])
    return markdown(("target", *(f"{tokens} tokens" for tokens in lengths), "met"), rows, 2 + len(lengths))


def _ms(timing: Timing | None, peer: str) -> str:
    # Dense attention takes so much longer that a digit less says enough.
    return NONE if timing is None else f"{timing.ms:.1f}" if peer == CUDNN else f"{timing.ms:.2f}"


def _shown(ratio: float | None) -> str:
    return NONE if ratio is None else f"{ratio:.2f}"
