"""The imports of the house point one way, and heavy packages are loaded late or not at all."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("patterns", "proofs", "codegen")
FACE = ("__init__", "__main__", "cli", "resolve")
GROUND = {path.stem for path in (ROOT / "sparsedsl").glob("*.py")} - set(FACE)
CHECKED = ("sparsedsl", *ROOMS, "tests", "examples", "benchmarks", "docs")

# floor -> the floors of our own that it may import. The face may import the rooms too, but only late.
BELOW = {
    "ground": {"ground"},
    "patterns": {"ground", "patterns"},
    "proofs": {"ground", "proofs"},
    "codegen": {"ground", "codegen"},
    "integrations": {"ground", "codegen", "integrations"},
    "face": {"ground", "face"},
}
GPU_PACKAGES = {"torch", "triton"}  # codegen and integrations alone may import them anywhere
OPTIONAL_PACKAGES = {"transformers"}  # integrations alone may import them, late: the package works without
SLOW_PACKAGES = {"sympy", "networkx"}  # the house imports them late, wherever it does


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name, absolute, and whether it waits for a call (or for a type checker)."""

    name: str
    line: int
    late: bool


def imports(node: ast.AST, *, late: bool = False) -> Iterator[Import]:
    """Every import in a tree; `from a import b` counts as a.b, so `from sparsedsl import codegen` shows."""
    match node:
        case ast.Import():
            for alias in node.names:
                yield Import(alias.name, node.lineno, late)
        case ast.ImportFrom():
            for alias in node.names:
                yield Import(f"{'.' * node.level}{node.module or ''}.{alias.name}", node.lineno, late)
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            yield Import(name, node.lineno, late)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            late = True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            late = True
    for child in ast.iter_child_nodes(node):
        yield from imports(child, late=late)


def is_verifier(path: PurePosixPath) -> bool:
    """Whether the file is part of the verifier of certificates."""
    return path.parts[0] == "proofs" and path.stem.startswith("verifier")


def floor_of_file(path: PurePosixPath) -> str | None:
    """The floor of a file, given from the root; None outside the house."""
    top = path.parts[0]
    if top in ROOMS:
        return top
    if top != "sparsedsl":
        return None
    if path.parts[1] == "integrations":
        return "integrations"
    return "ground" if len(path.parts) == 2 and path.stem not in FACE else "face"


def floor_of_import(name: str) -> str:
    """The floor of an imported `sparsedsl...`; what is neither room nor ground-floor module is the face's."""
    child = [*name.split("."), ""][1]
    return child if child in (*ROOMS, "integrations") else "ground" if child in GROUND else "face"


def complaint(floor: str | None, found: Import) -> str | None:
    """What one import breaks, or None."""
    top = found.name.split(".")[0]
    if top in ROOMS:
        return f"bare import: say sparsedsl.{top}"
    if floor is None:
        return None
    if top == "":
        return "relative import: say sparsedsl..."
    if top in OPTIONAL_PACKAGES and not (floor == "integrations" and found.late):
        return f"{floor} must not need {top}"
    if top in GPU_PACKAGES and floor not in ("codegen", "integrations") and not (floor == "face" and found.late):
        return f"{floor} must not load {top}"
    if top in SLOW_PACKAGES and not found.late:
        return f"{top} is imported inside the function that needs it"
    if top == "sparsedsl":
        target = floor_of_import(found.name)
        if floor == "face" and target in (*ROOMS, "integrations"):
            return None if found.late else f"the face imports {target} inside the function that needs it"
        if target not in BELOW[floor]:
            return f"{floor} must not import {target}"
    return None


def verifier_complaint(found: Import) -> str | None:
    """What an import of the verifier breaks: it shares no code with the provers, nor with the normal form."""
    name = found.name
    if name.startswith("sparsedsl.proofs") and not name.startswith("sparsedsl.proofs.verifier"):
        return "the verifier must not import the prover"
    if name.startswith(("sparsedsl.normal", "sparsedsl.forms")):
        return "the verifier must not trust the normal form"
    return None


def violations(path: PurePosixPath, source: str) -> list[str]:
    """Every broken rule of one file, as `path:line: name: what it breaks`."""
    floor = floor_of_file(path)
    found = [(each, complaint(floor, each)) for each in imports(ast.parse(source))]
    if is_verifier(path):
        found += [(each, verifier_complaint(each)) for each, broken in found if not broken]
    return [f"{path}:{each.line}: {each.name}: {broken}" for each, broken in found if broken]


def test_imports_point_one_way() -> None:
    files = sorted(path for folder in CHECKED for path in (ROOT / folder).rglob("*.py"))
    names = [PurePosixPath(path.relative_to(ROOT).as_posix()) for path in files]
    assert {floor_of_file(name) for name in names} == {*BELOW, None}, "a floor without a file is not checked"
    checked = zip(names, files, strict=True)
    broken = list(chain.from_iterable(violations(name, path.read_text()) for name, path in checked))
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("tests/test_x.py", "import codegen", "bare import"),
        ("examples/x.py", "from patterns.power import power", "bare import"),
        ("benchmarks/x.py", "import importlib\nimportlib.import_module('proofs')", "bare import"),
        ("codegen/x.py", "from .plan import Plan", "relative import"),
        ("sparsedsl/errors.py", "def f(): import sparsedsl.codegen.build", "ground must not import codegen"),
        ("sparsedsl/errors.py", "from sparsedsl import sliding", "ground must not import face"),
        ("sparsedsl/errors.py", "import sparsedsl.cli", "ground must not import face"),
        ("sparsedsl/errors.py", "def f():\n    import torch", "ground must not load torch"),
        ("patterns/x.py", "import triton.language as tl", "patterns must not load triton"),
        ("patterns/x.py", "from sparsedsl import proofs", "patterns must not import proofs"),
        ("proofs/x.py", "from sparsedsl.codegen.plan import Plan", "proofs must not import codegen"),
        ("codegen/x.py", "from sparsedsl.proofs import verdict", "codegen must not import proofs"),
        ("codegen/x.py", "import sympy", "inside the function"),
        ("proofs/x.py", "try:\n    import networkx\nexcept ImportError: pass", "inside the function"),
        ("sparsedsl/cli.py", "from sparsedsl.proofs.verdict import check", "inside the function"),
        ("sparsedsl/__init__.py", "import torch", "face must not load torch"),
        ("sparsedsl/__init__.py", "from sparsedsl.integrations import nn", "inside the function"),
        ("sparsedsl/integrations/x.py", "from sparsedsl.proofs import verdict", "integrations must not import proofs"),
        ("sparsedsl/integrations/x.py", "import transformers", "integrations must not need transformers"),
        ("codegen/x.py", "def f(): import transformers", "codegen must not need transformers"),
        ("codegen/x.py", "from sparsedsl.integrations import nn", "codegen must not import integrations"),
        ("proofs/verifier.py", "from sparsedsl.proofs.bits import ones", "verifier must not import the prover"),
        ("proofs/verifier_file.py", "def f(): import sparsedsl.proofs", "verifier must not import the prover"),
        ("proofs/verifier.py", "from sparsedsl.normal import normalise", "verifier must not trust"),
        ("proofs/verifier_pairs.py", "from sparsedsl.forms import NormalForm", "verifier must not trust"),
    ],
)
def test_a_broken_rule_is_found(path: str, source: str, message: str) -> None:
    (found,) = violations(PurePosixPath(path), source)
    assert message in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("tests/patterns/test_x.py", "import torch, sympy\nfrom sparsedsl.patterns import power"),
        ("sparsedsl/errors.py", "def f(): import sympy"),
        ("sparsedsl/__init__.py", "if TYPE_CHECKING: from sparsedsl.proofs.verdict import check"),
        ("sparsedsl/cli.py", "def f(): from sparsedsl.codegen.build import compile"),
        ("proofs/x.py", "from sparsedsl.errors import SparseDSLError\ndef f(): import networkx"),
        ("proofs/verifier.py", "from sparsedsl.proofs.verifier_file import read\nfrom sparsedsl.rows import Rows"),
        ("proofs/x.py", "from sparsedsl.proofs.verifier import verify"),
        ("codegen/x.py", "import torch, triton\nfrom sparsedsl.codegen.plan import Plan"),
        ("sparsedsl/integrations/x.py", "import torch\nfrom sparsedsl.codegen.build import compile"),
        ("sparsedsl/integrations/x.py", "def f(): import transformers"),
    ],
)
def test_a_kept_rule_is_not(path: str, source: str) -> None:
    assert violations(PurePosixPath(path), source) == []


def loaded_by(program: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter holds after a program."""
    heavy = sorted(GPU_PACKAGES | SLOW_PACKAGES)
    report = f"import sys; print('loaded', *(name for name in {heavy} if name in sys.modules))"
    command = [sys.executable, "-c", f"{program}\n{report}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "program",
    [
        "import sparsedsl",
        "import sparsedsl.cli",
        "import sparsedsl as sd; sd.check(sd.sliding(4) | sd.power(), seq_len=1024, layers=8)",
    ],
    ids=["package", "cli", "check"],
)
def test_start_up_is_light(program: str) -> None:
    assert loaded_by(program) == set()


def test_the_verifier_loads_no_prover() -> None:
    """Not even by way of the ground floor: what it runs on is what it may import."""
    program = "import sys, sparsedsl.proofs.verifier; print(*(each for each in sys.modules if 'sparsedsl' in each))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = [each for each in done.stdout.split() if each.startswith("sparsedsl.proofs.")]
    assert loaded
    assert all(each.startswith("sparsedsl.proofs.verifier") for each in loaded)
    assert not {"sparsedsl.normal", "sparsedsl.forms"} & set(done.stdout.split())


@pytest.mark.parametrize("name", sorted(GPU_PACKAGES | SLOW_PACKAGES))
def test_a_heavy_start_up_is_found(name: str) -> None:
    assert name in loaded_by(f"import sparsedsl, {name}")


def test_every_package_is_installed() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    files = [path for folder in ("sparsedsl", *ROOMS) for path in (ROOT / folder).rglob("__init__.py")]
    folders = {path.parent.relative_to(ROOT).as_posix() for path in files}
    assert set(setup["package-dir"].values()) == folders
    assert set(setup["package-dir"]) == set(setup["packages"])
