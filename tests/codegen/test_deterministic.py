"""The same inputs give the same bits, in whatever order the programs of a launch run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from triton.runtime import interpreter

from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.tiling import TILINGS
from sparsedsl.layers import Stack
from sparsedsl.patterns.catalogue import CATALOGUE
from tests.codegen.modules import SMALL, imported
from tests.codegen.oracle import random_inputs
from tests.codegen.test_kernels import IN_PARTS, PATTERNS, outcome

NAMES = ("power blocks", "dilated", "random blocks", "per head", "local and dilated")
quiet = pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")


def order_of_programs(monkeypatch: pytest.MonkeyPatch, backwards: bool) -> None:
    """Run the programs of a launch, all of which have one dimension, from the last to the first."""
    usual = type(interpreter.interpreter_builder).set_grid_idx

    def turned(self: object, x: int, y: int, z: int) -> None:
        usual(self, self.grid_dim[0] - 1 - x if backwards else x, y, z)  # type: ignore[attr-defined]

    monkeypatch.setattr(
        interpreter.interpreter_builder, "set_grid_idx", turned.__get__(interpreter.interpreter_builder)
    )


def tensors() -> list[Tensor]:
    return random_inputs(4, 2, 37, 37, 16, torch.float32)


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@quiet
@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_programs_changes_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    if name in IN_PARTS:
        monkeypatch.setattr("sparsedsl.codegen.plan.GAIN", float("inf"))
    module = imported(emit({**PATTERNS, **IN_PARTS}[name], SMALL))
    found = []
    for backwards in (False, True):
        order_of_programs(monkeypatch, backwards)
        found.append(outcome(module, tensors()))
    assert same(*found)


@quiet
def test_programs_are_counted_through_what_is_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    module = imported(emit(PATTERNS["sliding"], SMALL))
    order_of_programs(monkeypatch, False)
    seen: list[int] = []
    usual = interpreter.interpreter_builder.set_grid_idx

    def noted(x: int, y: int, z: int) -> None:
        seen.append(x)
        usual(x, y, z)

    monkeypatch.setattr(interpreter.interpreter_builder, "set_grid_idx", noted)
    outcome(module, tensors())
    assert len(seen) > 10
    assert seen[:3] == [0, 1, 2]


@pytest.fixture
def deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("name", NAMES)
def test_the_cpu_road_repeats_itself_in_torch_s_deterministic_mode_too(name: str, deterministic: None) -> None:
    module = imported(emit({**PATTERNS, **IN_PARTS}[name], SMALL))
    found = [outcome(module, tensors()) for _ in range(2)]
    torch.use_deterministic_algorithms(False)
    assert same(*found)
    assert same(found[0], outcome(module, tensors()))


@pytest.mark.parametrize("name", CATALOGUE)
def test_no_sum_of_a_module_has_an_atomic(name: str) -> None:
    """The counter by which query tiles are handed out says who computes a tile, not what."""
    pattern = CATALOGUE[name]()
    source = emit(pattern[0] if isinstance(pattern, Stack) else pattern, TILINGS[0])
    calls = {ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}
    assert [each for each in calls if each.startswith("tl.dot(")]
    racing = [each for each in calls if re.search(r"\.(\w*atomic\w*|index_add_|scatter_add_)\(", each)]
    assert {re.sub(r".*(gl\.atomic_add\(counter, 1\)).*", r"\1", each) for each in racing} <= {
        "gl.atomic_add(counter, 1)"
    }
