"""What every test may use: golden files, the gpu marker, one profile for property tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import tests.interpreter  # noqa: F401

GOLDEN = Path(__file__).parent / "golden"

# Workers of pytest-xdist share the cores; threads of one that wait for work in a loop would hold up the other.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    # In processes that tests start too; and torch.compile starts none of its own, each of which would import torch.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

# No deadline: the first example pays for imports and compilation, and machines differ. With CI set, every run
# draws the same examples, so that a change never fails by another's luck.
settings.register_profile("ci", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden from what tests emit")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the gpu tests, unless the -m expression speaks of them."""
    if "gpu" in config.option.markexpr:
        return
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("gpu")])
    items[:] = [item for item in items if not item.get_closest_marker("gpu")]


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the file tests/golden/<name>, byte by byte: `golden("power.py", source)`."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        assert path.is_file(), f"tests/golden/{name} is missing; make it with: pytest --update-golden"
        expected = path.read_bytes().decode()
        assert text == expected, f"differs from tests/golden/{name}; if meant: pytest --update-golden"

    return compare
