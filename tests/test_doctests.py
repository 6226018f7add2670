"""Every example in a docstring runs, its module imported under its installed name.

pytest's own --doctest-modules would import patterns/power.py as `patterns.power`, with a second copy of
each class.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import tomllib
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
PACKAGES: list[str] = tomllib.loads(PYPROJECT.read_text())["tool"]["setuptools"]["packages"]


def modules_of(package: str) -> list[str]:
    # The folder of __init__.py alone: `__path__` of sparsedsl may hold the checkout's root as well.
    file = importlib.import_module(package).__file__
    assert file is not None
    found = pkgutil.iter_modules([str(Path(file).parent)])
    # Importing __main__ runs the command line.
    return [package, *(f"{package}.{each.name}" for each in found if each.name != "__main__")]


@pytest.mark.parametrize("name", sorted({name for package in PACKAGES for name in modules_of(package)}))
def test_docstring_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
