"""What the pages show is what the commands print: every `$ sparsedsl` line of README.md and docs/ is run.

    SLOW_PAGES=1 python -m pytest tests/test_pages.py        # the commands that take more than a few seconds too

Commands of one page run in one folder, in the order of the page. `...` as the first or last line leaves lines
out, and a line that the page breaks is read as one. A command with no lines below it must end with status 0 or 1.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sparsedsl.cli import main
from sparsedsl.commands.shared import DONE, NO

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Words of commands that search or measure for longer.
SLOW = ("synth",)
# The file that the pages call stack.py.
STACK = "from sparsedsl import causal, cycle, sliding\n\npattern = cycle([sliding(64), causal()], layers=4)\n"


class Shown(NamedTuple):
    """A command on a page, and the lines that the page shows below it."""

    command: str
    lines: tuple[str, ...]


def shown(page: Path) -> Iterator[Shown]:
    """The commands of a page, in its blocks and indented parts."""
    command, indented = "", False
    lines: list[str] = []
    for line in [*page.read_text(encoding="utf-8").splitlines(), "```"]:
        text = line.removeprefix("    ")
        if command and (text.startswith("$ ") or line.startswith("```") or (indented and line and line == text)):
            yield Shown(command, tuple(lines))
            command, lines = "", []
        if text.startswith("$ sparsedsl "):
            command, indented = text.removeprefix("$ "), text != line
        elif command:
            lines.append(text)


def matches(printed: str, lines: tuple[str, ...]) -> bool:
    """Whether the lines show the text; gaps may have other widths, and `...` at an end leaves lines out."""
    text, wanted = (" ".join(each.split()) for each in (printed, "\n".join(lines)))
    part = wanted.removeprefix("... ").removesuffix(" ...")
    return text == wanted or (part != wanted and part in text)


COMMANDS = {page.name: list(shown(page)) for page in PAGES}


def test_there_are_commands_to_run() -> None:
    assert sum(map(len, COMMANDS.values())) >= 20
    assert all(COMMANDS[name] for name in ("README.md", "certificates.md", "proofs.md", "repair.md", "synthesis.md"))


@pytest.mark.parametrize("name", [name for name, commands in COMMANDS.items() if commands])
def test_a_page_shows_what_the_commands_print(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("stack.py").write_text(STACK)
    for command, lines in COMMANDS[name]:
        words = shlex.split(command, comments=True)[1:]
        if words[0] in SLOW and "SLOW_PAGES" not in os.environ:
            continue
        if "--aot" in words:
            # Kernels are compiled: Triton keeps to its interpreter for good where another test has begun with it.
            environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
            environment["PYTHONPATH"] = str(ROOT)
            program = [sys.executable, "-m", "sparsedsl", *words]
            done = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
            status, printed, errors = done.returncode, done.stdout, done.stderr
        else:
            status = main(words)
            printed, errors = capsys.readouterr()
        assert status in (DONE, NO), f"{command}\n{errors}"
        if any(line.strip() for line in lines):
            assert matches(printed, lines), f"{name}: {command}\n--- printed\n{printed}--- shown\n" + "\n".join(lines)
