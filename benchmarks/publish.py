"""Write the figures of the recorded runs where they are told: README.md, docs/ and codegen/gpus.py.

    python -m benchmarks.publish            # after python -m benchmarks.attention --out ... on an H200
    python -m benchmarks.publish --check    # write nothing; exit status 1 if something would change

From attention_h200.json, shapes_h200.json and ceilings_h200.json in benchmarks/results/. Tables are found by the line
of their head, or the heading above them, and replaced whole; prose is left alone but for the numbers named below. The
pages show what `explain` prints with the new numbers, so they are written by a second process, after codegen/gpus.py.
"""

from __future__ import annotations

import argparse
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

from benchmarks import costs, tables
from benchmarks.record import Record
from sparsedsl.cli import main as sparsedsl
from sparsedsl.codegen.explanation import Pass
from sparsedsl.codegen.gpus import H200

ROOT = Path(__file__).resolve().parents[1]
RECORD = tables.RESULTS / "attention_h200.json"
# Matrix products over a tile: scores and output; backward, in two kernels, seven, in the one for Hopper five.
PRODUCTS = {"forward": 2, "backward": 7}
HOPPER_PRODUCTS = {"forward": 2, "backward": 5}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or compare; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if something would change")
    parser.add_argument("--pages", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    record = Record.read(RECORD)
    if options.pages or options.check:
        stale = [path for path, make in PAGES.items() if not put(ROOT / path, make(record, text(path)), options.check)]
    else:
        stale = []
    if not options.pages:
        path = "codegen/gpus.py"
        if not put(ROOT / path, constants(record, text(path)), options.check):
            stale.append(path)
    for path in stale:
        print(f"{path} is not what the records give", file=sys.stderr)
    if options.check or options.pages:
        return 1 if stale else 0
    return subprocess.run([sys.executable, "-m", "benchmarks.publish", "--pages"], cwd=ROOT, check=False).returncode


def text(path: str) -> str:
    """A file of the checkout."""
    return (ROOT / path).read_text(encoding="utf-8")


def put(path: Path, content: str, check: bool) -> bool:
    """Write the file; or, to check, say whether it has this content."""
    if check:
        return path.read_text(encoding="utf-8") == content
    path.write_text(content, encoding="utf-8")
    return True


def with_table(content: str, heading: str, rows: Sequence[str], after: Sequence[str] | None = None) -> str:
    """The page with the first table under a heading replaced, and what follows it up to the next heading by `after`."""
    place = re.search(rf"^#+ {re.escape(heading)}$", content, re.MULTILINE)
    assert place, f"no heading {heading!r}"
    found = re.compile(r"(?:^\|.*\n)+", re.MULTILINE).search(content, place.end())
    assert found, f"no table under {heading!r}"
    end = found.end() if after is None else content.index("\n#", found.end())
    return content[: found.start()] + "\n".join([*rows, *(after or ())]) + "\n" + content[end:]


def with_lines(content: str, pattern: str, lines: Sequence[str]) -> str:
    """The page with the run of lines that the pattern describes replaced; it must be there once."""
    whole = re.compile(pattern, re.MULTILINE)
    assert len(whole.findall(content)) == 1, pattern
    return whole.sub(lambda _: "\n".join(lines) + "\n", content)


def constants(record: Record, content: str) -> str:
    """codegen/gpus.py."""
    content = with_lines(content, r"^H200 = Gpu\(\n(?:    .*\n)+\)\n", list(costs.source(costs.measured_gpu(record))))
    return re.sub(r"(attention_h200\.json, )\d{4}-\d\d-\d\d", rf"\g<1>{record.date[:10]}", content)


def readme(record: Record, content: str) -> str:
    """README.md: the table under "Measured"."""
    return with_table(content, "Measured", tables.readme_rows(record))


def hopper(record: Record, content: str) -> str:
    """docs/hopper.md: all that was measured, and what was not."""
    return with_table(content, "What they give", tables.peer_rows(record))


def performance(record: Record, content: str) -> str:
    """docs/performance.md: the floors, who was measured and who not, other shapes, and the targets."""
    content = with_table(content, "Two floors", tables.floor_rows(record))
    content = with_table(content, "Beside the others", tables.peer_rows(record), tables.absent(record))
    residue_order, others = tables.shape_rows(record)
    content = with_table(content, "What residue order and parts give", residue_order)
    content = with_table(content, "Other shapes", others)
    return with_table(content, "Targets we set ourselves", tables.target_rows(record))


def explanation(record: Record, content: str) -> str:
    """docs/explain.md: what a tile costs, predictions beside measurements, and what the commands print."""
    sources = {**costs.BY_CASES, **costs.BY_WINDOWS}
    rows = []
    for direction, found in (("forward", H200.forward), ("backward", H200.backward)):
        for shape, cost in found:
            width, block_m, block_n = shape
            rate = 2 * PRODUCTS[direction] * block_m * block_n * width / cost.visited / 1e3
            (first, second) = sources[direction, shape]
            by_case = (direction, shape) in costs.BY_CASES
            origin = (
                f"{first} and {second} at 131 072 tokens"
                if by_case
                else f"sliding {first} and {second} at 32 768 tokens"
            )
            tile = f"{block_m} x {block_n}"
            rows.append((f"{direction}, {width}", tile, origin, f"{cost.visited}", f"{rate:.0f}", f"{cost.own}"))
    head = ("kernels, padded head dim", "tile", "from", "a, ns", "executed TFLOP/s that a means", "b, ns")
    content = with_table(
        content, "Predicted times", ["| " + " | ".join(each) + " |" for each in (head, ["---"] * 6, *rows)]
    )
    lines, errors = predictions(record)
    content = with_table(content, "Against what was measured", lines)
    free = [abs(error) for error, known in errors if not known]
    counts = f"All {len(errors)} recorded passes"
    content = re.sub(r"All \d+ recorded passes", counts, content)
    content = re.sub(
        r"off by [\d.]+% on average, [\d.]+% at most",
        f"off by {100 * sum(free) / len(free):.1f}% on average, {100 * max(free):.1f}% at most",
        content,
    )

    for direction in HOPPER_PRODUCTS:
        content = with_table(content, f"{direction.capitalize()} on Hopper", *hopper_predictions(record, direction))

    forward_ms, backward_ms = H200.call
    content = re.sub(
        r"\([\d.]+ ms forward, [\d.]+ ms backward for each part\)",
        f"({forward_ms} ms forward, {backward_ms} ms backward for each part)",
        content,
    )

    def shown(found: re.Match[str]) -> str:
        return f"$ sparsedsl {found[1]}\n{printed(found[1])}```"

    return re.sub(r"^\$ sparsedsl (explain .*)\n(?:.+\n)+?```", shown, content, flags=re.MULTILINE)


def printed(command: str) -> str:
    """What a command of the page prints."""
    with redirect_stdout(io.StringIO()) as found:
        assert sparsedsl(shlex.split(command)) == 0, command
    return found.getvalue()


def predictions(record: Record) -> tuple[list[str], list[tuple[float, bool]]]:
    """The table of measured and predicted times; each pass's error, and whether it gave a number."""
    rows, errors = [], []
    for each in tables.plain_timings(record):
        found: Pass = getattr(costs.explained_case(each.case, each.tokens), each.direction)
        assert found.predicted_ms is not None
        assert found.floor_ms is not None
        assert found.dense_ms is not None
        ms = round(each.ms, 4)  # as the record tells it
        error, known = found.predicted_ms / ms - 1, costs.fitted(each.case, each.direction)
        known &= each.tokens == costs.LENGTH
        errors.append((error, known))
        numbers = (f"{ms:.2f}", f"{found.predicted_ms:.2f}", f"{error:+.1%}", f"{found.floor_ms:.2f}")
        marks = (f"{found.dense_ms / found.predicted_ms:.1f}", "yes" if known else "")
        rows.append((each.case, str(each.tokens), each.direction, *numbers, *marks))
    head = (
        "case",
        "tokens",
        "pass",
        "measured ms",
        "predicted ms",
        "error",
        "at least ms",
        "dense over predicted",
        "fitted",
    )
    return ["| " + " | ".join(each) + " |" for each in (head, ["---"] * len(head), *rows)], errors


def hopper_predictions(record: Record, direction: str) -> tuple[list[str], list[str]]:
    """Measured and predicted times of the kernels for Hopper: the table of one direction, and what is said of it."""
    rows = ["| case | tokens | measured ms | predicted ms | error | fitted |", "| --- | --- | --- | --- | --- | --- |"]
    off = []
    for (case, tokens), ms in costs.hopper_timings(record, direction).items():
        found: Pass = getattr(costs.explained_case(case, tokens), direction)
        assert found.hopper_ms is not None
        error, known = found.hopper_ms / ms - 1, case in costs.HOPPER_CASES and tokens == costs.LENGTH
        off += [] if known else [abs(error)]
        numbers = (f"{ms:.3f}", f"{found.hopper_ms:.3f}", f"{error:+.1%}", "yes" if known else "")
        rows.append(f"| {case} | {tokens} | {' | '.join(numbers)} |")
    (((width, block_m, block_n), cost),) = H200.hopper if direction == "forward" else H200.hopper_backward
    rate = 2 * HOPPER_PRODUCTS[direction] * block_m * block_n * width / cost.visited / 1e3
    return rows, [
        "",
        f"In tiles of {block_m} x {block_n}, head dim 65 to {width}, a is {cost.visited} ns ({rate:.0f} executed "
        f"TFLOP/s) and b {cost.own} ns, solved",
        f"from the two marked cases. The other {len(off)} are off by {sum(off) / len(off):.1%} on average, "
        f"{max(off):.1%} at most.",
    ]


PAGES: dict[str, Callable[[Record, str], str]] = {
    "README.md": readme,
    "docs/performance.md": performance,
    "docs/explain.md": explanation,
    "docs/hopper.md": hopper,
}


if __name__ == "__main__":
    sys.exit(main())
