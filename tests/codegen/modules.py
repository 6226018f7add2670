"""Emitted modules for tests: imported from their text, with tiles small enough that short inputs need several."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Sequence
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType
from unittest import mock

from sparsedsl.codegen import sources
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.tiling import Tiles, Tiling
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern

SMALL = Tiling("small", 128, 4, Tiles(16, 16, 4, 1), Tiles(16, 16, 4, 1), Tiles(16, 32, 4, 1))
SMALL_CPU = Tiles(32, 16, 0, 0)

_numbers = count()
_folder = Path(mkdtemp(prefix="sparsedsl-tests-"))


@cache
def source_of(pattern: Pattern | PerHead) -> str:
    """The text of the pattern's module in small tiles, those of the CPU road too."""
    usual, sources.CPU_TILES = sources.CPU_TILES, SMALL_CPU
    try:
        return emit(pattern, SMALL)
    finally:
        sources.CPU_TILES = usual


def module_of(pattern: Pattern | PerHead) -> ModuleType:
    """The pattern's module in small tiles; one of its own for Triton's interpreter, which is chosen at import."""
    return _module_of(pattern, os.environ.get("TRITON_INTERPRET") == "1")


@cache
def _module_of(pattern: Pattern | PerHead, interpreted: bool) -> ModuleType:
    return imported(source_of(pattern))


def imported(source: str) -> ModuleType:
    """A module for a text, with an operator of its own; Triton reads kernels from files."""
    path = _folder / f"emitted_for_tests_{next(_numbers)}.py"
    # An operator of the same name would take the place of an earlier module's.
    (digest,) = re.findall(r'^DIGEST = "(\w+)"$', source, re.MULTILINE)
    path.write_text(source.replace(digest, path.stem))
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    # Triton asks for the text of each kernel, which inspect would take a third of the time to find.
    with mock.patch.object(inspect, "getblock", first_function):
        spec.loader.exec_module(module)
    return module


def first_function(lines: Sequence[str]) -> list[str]:
    """The first function of lines of an emitted module, where all kernels stand at the margin: inspect.getblock."""
    head = next(number for number, line in enumerate(lines) if line.startswith(("def ", "class ")))
    if not lines[head].rstrip().endswith(":"):
        head = next(number for number, line in enumerate(lines) if number > head and line.startswith(")"))
    after = (number for number, line in enumerate(lines) if number > head and line[0] not in " \n")
    return f"{''.join(lines[: next(after, len(lines))]).rstrip()}\n".splitlines(keepends=True)
