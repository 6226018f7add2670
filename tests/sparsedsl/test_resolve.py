"""A pattern's text, resolved: expressions, catalogue entries, files; and what each mistake says."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsedsl.constructors import causal, cycle, per_head, sink, sliding
from sparsedsl.errors import EmptyWindow, NotAPattern, SparseDSLError, SyntaxMistake, UnknownName
from sparsedsl.patterns.power import power_attention
from sparsedsl.patterns.wavenet import wavenet
from sparsedsl.resolve import resolve

MODEL = """
from sparsedsl import causal, cycle, per_head, sink, sliding

local = sliding(8)
heads = per_head([local, causal()])
layers = cycle([local, causal()], layers=4)
width = 8
_hidden = sink(2)

def make():
    return local
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, so that paths in messages are short."""
    monkeypatch.chdir(tmp_path)


def write(name: str, source: str) -> None:
    Path(name).write_text(source)


def message(text: str, error: type[SparseDSLError]) -> str:
    with pytest.raises(error) as caught:
        resolve(text)
    assert type(caught.value) is error
    return str(caught.value)


def lines(*parts: str) -> str:
    return "\n".join(parts)


class TestExpressions:
    def test_constructors(self) -> None:
        assert resolve("sliding(8) | sink(2) & causal()") == sliding(8) | sink(2) & causal()

    def test_catalogue(self) -> None:
        assert resolve("power_attention()") == power_attention()
        assert resolve("wavenet(kernel=2, layers=3)") == wavenet(kernel=2, layers=3)

    def test_both(self) -> None:
        assert resolve("power_attention(block=64) & ~sliding(8)") == power_attention(block=64) & ~sliding(8)

    def test_mistakes_are_the_parser_s(self) -> None:
        message("slidin(8)", UnknownName)
        message("sliding(8", SyntaxMistake)
        message("sliding(0)", EmptyWindow)


class TestFiles:
    def test_a_name(self) -> None:
        write("model.py", MODEL)
        assert resolve("model.py:local") == sliding(8)
        assert resolve("model.py:heads") == per_head([sliding(8), causal()])
        assert resolve("model.py:layers") == cycle([sliding(8), causal()], layers=4)
        assert resolve(f"{Path('model.py').absolute()}:_hidden") == sink(2)

    def test_the_only_pattern(self) -> None:
        write("one.py", "import sparsedsl as sd\nwidth = 8\n_part = sd.sink(1)\nlocal = sd.sliding(width)\n")
        assert resolve("one.py") == sliding(8)

    def test_one_pattern_by_two_names_is_one(self) -> None:
        write("one.py", "import sparsedsl as sd\npattern = sd.sliding(8)\nalso = sd.sliding(8)\n")
        assert resolve("one.py") == sliding(8)

    def test_the_file_is_not_run_as_a_program(self) -> None:
        write("one.py", "from sparsedsl import causal\npast = causal()\nif __name__ == '__main__':\n    1 / 0\n")
        assert resolve("one.py") == causal()


class TestMistakes:
    def test_no_such_file(self) -> None:
        write("model.py", MODEL)
        assert message("modle.py:local", UnknownName) == lines(
            "UnknownName: there is no such file",
            "  where     modle.py",
            "            ^^^^^^^^",
            f"  got       {Path('modle.py').absolute()}",
            "  expected  a Python file, or a pattern",
            "  try       model.py",
        )

    def test_no_such_file_and_none_near(self) -> None:
        hint = "  try       sliding(1024), or the path of a file that is there"
        assert message("model.py", UnknownName).splitlines()[-1] == hint
        Path("model.py").mkdir()
        assert message("model.py", UnknownName).splitlines()[-1] == hint

    def test_no_pattern(self) -> None:
        write("none.py", "_hidden = 1\ndef make():\n    return 2\n")
        assert message("none.py", NotAPattern) == lines(
            "NotAPattern: the file holds no pattern",
            "  where     none.py",
            "            ^^^^^^^",
            "  got       no pattern at module level",
            "  expected  one, such as: pattern = sliding(1024)",
            "  try       where a function makes the pattern, call it in the file and name the result",
        )

    def test_several_patterns(self) -> None:
        write("model.py", MODEL)
        assert message("model.py", NotAPattern) == lines(
            "NotAPattern: the file holds several patterns",
            "  where     model.py",
            "            ^^^^^^^^",
            "  got       local, heads, layers",
            "  expected  one pattern, or a name after a colon",
            "  try       model.py:local",
        )

    def test_no_such_name(self) -> None:
        write("model.py", MODEL)
        assert message("model.py:head", UnknownName) == lines(
            "UnknownName: the file has no such name",
            "  where     model.py:head",
            "                     ^^^^",
            "  got       name = 'head'",
            "  expected  the name of a pattern: local, heads, layers",
            "  try       model.py:heads",
        )

    def test_no_name_after_the_colon(self) -> None:
        write("none.py", "")
        assert message("none.py:", UnknownName) == lines(
            "UnknownName: the file has no such name",
            "  where     none.py:",
            "                    ^",
            "  got       name = ''",
            "  expected  the name of a pattern: this file has none",
            "  try       pattern = sliding(1024) in it",
        )

    def test_a_name_for_something_else(self) -> None:
        write("model.py", MODEL)
        assert message("model.py:width", NotAPattern) == lines(
            "NotAPattern: the name is not a pattern's",
            "  where     model.py:width",
            "                     ^^^^^",
            "  got       width of type int",
            "  expected  a Pattern, per_head([...]) or Stack([...])",
            "  try       model.py:local",
        )

    def test_a_name_for_a_function(self) -> None:
        write("model.py", MODEL)
        assert message("model.py:make", NotAPattern) == lines(
            "NotAPattern: the name is not a pattern's",
            "  where     model.py:make",
            "                     ^^^^",
            "  got       make of type function",
            "  expected  a Pattern, per_head([...]) or Stack([...])",
            "  try       in the file, pattern = make(...), then model.py:pattern",
        )

    def test_the_file_raises(self) -> None:
        write("broken.py", "import math\n\ndef half(n):\n    return n / 0\n\nhalf(3)\n")
        assert message("broken.py:half", NotAPattern) == lines(
            "NotAPattern: the file stops with an error",
            "  where     broken.py",
            "            ^^^^^^^^^",
            "  got       ZeroDivisionError: division by zero, line 4",
            "  expected  a file that runs to its end",
            "  try       python broken.py",
        )

    @pytest.mark.parametrize(
        ("source", "got"),
        [
            ("import not_there\n", "ModuleNotFoundError: No module named 'not_there', line 1"),
            ("x = 1\nraise SystemExit(3)\n", "SystemExit: 3, line 2"),
            ("x = 1\ny = (\n", "SyntaxError: '(' was never closed (broken.py, line 2)"),
        ],
    )
    def test_other_ways_to_stop(self, source: str, got: str) -> None:
        write("broken.py", source)
        assert f"  got       {got}\n" in message("broken.py", NotAPattern)

    def test_a_long_reason_is_cut(self) -> None:
        write("broken.py", "raise ValueError('reason ' * 1000)\n")
        got = message("broken.py", NotAPattern).splitlines()[3]
        assert got.startswith("  got       ValueError: reason reason")
        assert got.endswith("..., line 1")
        assert len(got) < 250

    def test_a_mistake_in_a_pattern_keeps_its_own_text(self) -> None:
        write("broken.py", "import sparsedsl as sd\npattern = sd.sliding(0)\n")
        assert message("broken.py", EmptyWindow).startswith("EmptyWindow: the window holds no key\n")
