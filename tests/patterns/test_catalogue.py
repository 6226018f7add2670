"""Every entry of the catalogue works with no argument, prints what rebuilds it, and is described."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import sparsedsl
from sparsedsl.errors import SparseDSLError
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.patterns import CATALOGUE, draw, summary
from sparsedsl.text import parse
from tests.sparsedsl.five_lines import assert_five_lines

LENGTH = 131072
SECTIONS = ["Set", "Units", "Degree", "Depth", "Cost", "Raises", "Example", "References"]
EVERY_ENTRY = pytest.mark.parametrize("name", CATALOGUE)


def layers_of(value: Pattern | PerHead | Stack) -> list[Pattern]:
    """The patterns of all layers and heads."""
    match value:
        case PerHead(heads=heads):
            return list(heads)
        case Stack():
            return [pattern for layer in range(len(value)) for pattern in layers_of(value[layer])]
    return [value]


@EVERY_ENTRY
def test_the_default_looks_back_from_the_end_of_a_long_text(name: str) -> None:
    for pattern in layers_of(CATALOGUE[name]()):
        row = pattern.dense(1, LENGTH)[0]
        assert row[-1] == (name != "power_theorem"), "its own key, which the theorem's graph alone lacks"
        assert 1 < row.sum() <= 24576
        assert not pattern.dense(1, 4096, q_start=2000)[0, 2001:].any()


@EVERY_ENTRY
def test_text_and_source_rebuild_the_value(name: str) -> None:
    value = CATALOGUE[name]()
    assert parse(str(value)) == value
    assert parse(f"{name}()", names=CATALOGUE) == value
    assert eval(repr(value), {each: getattr(sparsedsl, each) for each in sparsedsl.__all__}) == value


@EVERY_ENTRY
def test_two_calls_give_one_value(name: str) -> None:
    assert CATALOGUE[name]() == CATALOGUE[name]()
    assert hash(CATALOGUE[name]()) == hash(CATALOGUE[name]())


@EVERY_ENTRY
def test_arguments_are_keywords_with_defaults(name: str) -> None:
    for parameter in inspect.signature(CATALOGUE[name]).parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty


@EVERY_ENTRY
def test_docstring_has_its_sections_in_order(name: str) -> None:
    found = re.findall(r"^    (\w+)$", CATALOGUE[name].__doc__ or "", flags=re.MULTILINE)
    assert [section for section in found if section not in ("Units", "Raises", "References")] == [
        "Set", "Degree", "Depth", "Cost", "Example",
    ]  # fmt: skip
    assert found == sorted(found, key=SECTIONS.index)
    assert "draw(" in (CATALOGUE[name].__doc__ or "")


@EVERY_ENTRY
def test_summary_is_one_sentence(name: str) -> None:
    assert re.fullmatch(r"[A-Z`].{10,100}\.", summary(name))


NOT_A_NUMBER: list[object] = [0, -1, 2**41, "x", 1.5, None, True, [], [-1], ["x"]]
FITS: dict[str, dict[str, list[object]]] = {
    "bigbird": {"seed": [0]},
    "logsparse": {"restart": [None]},
    "longformer": {"global_tokens": [[]]},
    "ppa": {"p": [True]},
}


@EVERY_ENTRY
def test_a_wrong_argument_is_named(name: str) -> None:
    for argument in inspect.signature(CATALOGUE[name]).parameters:
        for value in NOT_A_NUMBER:
            if value in FITS.get(name, {}).get(argument, ()):
                continue
            with pytest.raises(SparseDSLError) as caught:
                CATALOGUE[name](**{argument: value})
            told = str(caught.value)
            assert_five_lines(told)
            assert f"  where     {name}(" in told
            assert f"{argument} = " in told


def test_every_file_is_in_the_catalogue() -> None:
    folder = Path(inspect.getfile(draw)).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "catalogue", "drawing"}
    assert {factory.__module__.rsplit(".")[-1] for factory in CATALOGUE.values()} == files


def test_no_entry_hides_a_constructor() -> None:
    assert not set(CATALOGUE) & set(sparsedsl.__all__)


def test_names_are_those_of_the_factories() -> None:
    assert all(factory.__name__ == name for name, factory in CATALOGUE.items())


def test_a_drawing_shows_heads_side_by_side() -> None:
    heads = sparsedsl.per_head([sparsedsl.sliding(1), sparsedsl.causal()])
    drawn = [line.replace(" ", "") for line in draw(heads, 5).splitlines()]
    matrix = np.array([[sign == "#" for sign in line] for line in drawn])
    np.testing.assert_array_equal(matrix, np.hstack([np.eye(5, dtype=bool), np.tri(5, dtype=bool)]))
