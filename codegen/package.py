"""Write a pattern or a stack as a Python package that imports torch and triton only."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from sparsedsl.codegen.ahead import Ahead, compile_into
from sparsedsl.codegen.build import backend_named
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.header import LICENCE, MARK
from sparsedsl.codegen.hopper_choice import Backend
from sparsedsl.codegen.overwrite import is_ours
from sparsedsl.codegen.templates import filled
from sparsedsl.codegen.tiling import TILINGS, Tiling, tiling_for
from sparsedsl.errors import OutOfRange, WrongValue
from sparsedsl.files import write_whole
from sparsedsl.layers import Layer, Stack

# The folder of a package that holds what was compiled ahead.
KERNELS = "kernels"

INIT = '''${licence}
"""Attention over ${count}, a module of kernels for each.

${mark} Rebuild with: sparsedsl build PATTERN -o FOLDER/${flags}
What was made of your pattern is yours; the text of sparsedsl in it comes under the licence named above.

${listing}"""

from __future__ import annotations
${kernel_imports}
import torch
from torch import Tensor
${knobs_import}
${imports}

LAYERS = ${layers}
# The pattern of each layer is PATTERNS[layer % len(PATTERNS)]; its modules stand at the same place below.
PATTERNS = (
${patterns})
# (widest head dim, bytes an element, a module for each pattern)
MODULES = (
${modules})

__all__ = ["LAYERS", "MODULES", "PATTERNS", "attention", "check_layers"]


def attention(q: Tensor, k: Tensor, v: Tensor, *, layer: int = 0, **options) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax attention over the pattern of a layer, with the kernels for q's head dim and type.

    Shapes
        q (batch, heads, q_len, head_dim); k and v (batch, key_heads, k_len, head_dim), key_heads dividing heads.
        Returns q's shape.
    Units
        layer counts from 0. The options are those of each module's `attention`: scale, q_start, return_lse ...
    Raises
        ValueError: no such layer; and what the module's `attention` raises.
    """
    if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < LAYERS:
        got, expected = f"layer = {layer!r}", f"an int, 0 <= layer < {LAYERS}"
        raise ${first}.InputError("OutOfRange", "there is no such layer", got, expected, "layer=0, the first one")
    # What none was built for, the last one refuses on a GPU; on the CPU each takes all.
    _, _, chosen = MODULES[-1]
    if isinstance(q, Tensor) and q.dim():
        size = q.element_size()
        if q.is_cuda and q.dtype != torch.float64 and torch.is_autocast_enabled("cuda"):
            size = torch.get_autocast_dtype("cuda").itemsize  # the module casts
        for head_dim, element_size, modules in MODULES:
            if element_size == size and q.shape[-1] <= head_dim:
                chosen = modules
                break
    return chosen[layer % len(PATTERNS)].attention(q, k, v, **options)


def check_layers(layers: int) -> None:
    """Raise ValueError unless a model has as many layers as this package: for where the model is made."""
    if layers != LAYERS:
        raise ${first}.InputError(
            "LayerMismatch",
            "the model and these kernels disagree on the number of layers",
            f"a model of {layers} layers, kernels for {LAYERS}",
            "one pattern for each layer of the model",
            f"sparsedsl build with cycle([...], layers={layers})",
        )
${offer}'''

KERNEL_IMPORTS = """
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
"""

OFFER = '''

def offer_kernels() -> None:
    """Copy the compiled kernels of this package to where Triton looks for them, if it has none of that key.

    Triton finds one where its version, that of its ptxas, the GPU's architecture, the head dim and the type are those
    that the package was built with. What it does not find it compiles, as ever.
    """
    cache = Path(knobs.cache.dir)
    for made in sorted((Path(__file__).parent / "kernels").iterdir()):
        kept = cache / made.name
        if kept.exists():
            continue
        try:
            cache.mkdir(parents=True, exist_ok=True)
            # Made beside and renamed: another process never sees half a kernel.
            with tempfile.TemporaryDirectory(dir=cache) as beside:
                part = Path(shutil.copytree(made, Path(beside) / made.name))
                for group in part.glob("__grp__*"):
                    names = json.loads(group.read_text("utf-8"))["child_paths"]
                    group.write_text(json.dumps({"child_paths": {name: str(kept / name) for name in names}}), "utf-8")
                os.replace(part, kept)
        except OSError as error:
            if not kept.exists():  # else another process was first
                warnings.warn(f"the compiled kernels are not used: {error}", RuntimeWarning, stacklevel=2)
                return


offer_kernels()
'''


def build_package(
    pattern: Layer | Stack,
    folder: str | Path,
    *,
    tilings: Sequence[Tiling] = TILINGS,
    backend: Backend = "auto",
    ahead: Sequence[Ahead] = (),
    force: bool = False,
) -> Path:
    """Write a package with a module for each layer's pattern and each tiling, and an `attention` that picks one.

    The files are the same bytes each time. Files of an earlier build of the folder are replaced, and removed where
    this build has no such file. Where the folder holds anything else, nothing is written; with `force` it is, and what
    no build wrote stays, but for files of the same name. `ahead` names GPUs, types and head dims whose kernels are
    compiled into the package.

    Cost
        Tens of milliseconds for each module; seconds for each kernel compiled ahead.
    Raises
        The errors of `compile`. WrongValue: the folder holds files that no build wrote, or its name can't be imported.
        OSError where a file can't be written.
    Example
        >>> from tempfile import TemporaryDirectory
        >>> from sparsedsl.constructors import causal, cycle, sliding
        >>> with TemporaryDirectory() as place:
        ...     made = build_package(cycle([sliding(64), causal()], layers=6), place + "/kernels", tilings=TILINGS[:1])
        ...     sorted(file.name for file in made.iterdir())
        ['__init__.py', 'pattern_0_half128.py', 'pattern_1_half128.py', 'py.typed']

    """
    if backend_named(backend) == "hopper":
        raise WrongValue(
            "a package has kernels for every GPU",
            where=f"-o {folder}",
            got="the backend hopper, which has them for one",
            expected="the backend auto or triton, or a module",
            hint=f"-o {Path(folder).name}.py",
        )
    target = Path(folder)
    if not target.resolve().name.isidentifier():
        raise WrongValue(
            "a package needs a name that can be imported",
            where=f"-o {folder}",
            got=target.resolve().name,
            expected="letters, digits and _, no digit first",
            hint=f"-o {''.join(each if each.isalnum() else '_' for each in target.resolve().name)}/",
        )
    patterns = pattern.patterns if isinstance(pattern, Stack) else (pattern,)
    layers = len(pattern) if isinstance(pattern, Stack) else 1
    distinct = _distinct(patterns)
    files = {"__init__.py": _init(patterns, layers, tilings, backend, bool(ahead)), "py.typed": ""}
    for number, each in enumerate(distinct):
        for tiling in tilings:
            files[f"{_module(number, tiling)}.py"] = emit(each, tiling, backend)
    modules = [(each, _tiling_of(each, tilings)) for each in ahead]
    old = _earlier(target, force)
    target.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_whole(target / name, text)
    for name in old - files.keys():
        (target / name).unlink()
    shutil.rmtree(target / KERNELS, ignore_errors=True)
    for wanted, tiling in modules:
        for number in range(len(distinct)):
            compile_into(target / KERNELS, wanted, target / f"{_module(number, tiling)}.py")
    return target


def _tiling_of(wanted: Ahead, tilings: Sequence[Tiling]) -> Tiling:
    found = tiling_for(wanted.head_dim, wanted.dtype.itemsize, tilings)
    if found is None:
        raise OutOfRange(
            "the package has no kernels for this head dim and type",
            where="build",
            got=f"head dim {wanted.head_dim}, {wanted.dtype}; tilings {', '.join(each.name for each in tilings)}",
            expected=", ".join(f"up to {each.head_dim} in {each.bytes} bytes" for each in tilings),
            hint="a head dim of the model, or another --tiling",
        )
    return found


def _distinct(patterns: Sequence[Layer]) -> tuple[Layer, ...]:
    return tuple(dict.fromkeys(patterns))


def _module(number: int, tiling: Tiling) -> str:
    return f"pattern_{number}_{tiling.name}"


def _earlier(folder: Path, force: bool) -> set[str]:
    """The files of an earlier build; an error where the folder holds anything else, unless `force`."""
    if not folder.is_dir():
        return set()
    names = {each.name for each in folder.iterdir()} - {"__pycache__"}
    marked = {name for name in names if name.endswith(".py") and (folder / name).is_file() and is_ours(folder / name)}
    compiled = (folder / KERNELS).rglob("*.*")
    ours = {"py.typed"} | ({KERNELS} if all(each.suffix in (".cubin", ".json") for each in compiled) else set())
    foreign = sorted(names - marked - ours)
    if foreign and not force:
        raise WrongValue(
            "the folder holds files that are not from a build",
            where=f"-o {folder}",
            got=", ".join(foreign[:3]) + (" ..." if len(foreign) > 3 else ""),
            expected="a new folder, an empty one, or one that an earlier build wrote",
            hint=f"-o {folder}/kernels/, or --force to write beside them",
        )
    return marked


def _init(patterns: Sequence[Layer], layers: int, tilings: Sequence[Tiling], backend: Backend, compiled: bool) -> str:
    distinct = _distinct(patterns)
    numbers = [distinct.index(each) for each in patterns]
    names = [_module(number, tiling) for number in range(len(distinct)) for tiling in tilings]
    several = f"{layers} layers of {len(distinct)} patterns" if len(distinct) > 1 else "one pattern"
    listing = [f"PATTERNS[{place}]  {_short(str(each))}" for place, each in enumerate(patterns[:8])]
    listing += [f"... and {len(patterns) - 8} more"] * (len(patterns) > 8)
    holes = {
        "licence": LICENCE,
        "mark": MARK,
        "count": several,
        "flags": _flags(tilings) + (f" --backend {backend}" if backend != "auto" else ""),
        "listing": "".join(f"{line}\n" for line in listing).replace("\\", "\\\\").replace('"""', "'''"),
        "imports": "from . import (\n" + "".join(f"    {name},\n" for name in sorted(names)) + ")",
        "layers": str(layers),
        "patterns": "".join(f"    {_module(number, tilings[0])}.PATTERN,\n" for number in numbers),
        "modules": "".join(_row(numbers, tiling) for tiling in tilings),
        "first": _module(0, tilings[0]),
        "kernel_imports": KERNEL_IMPORTS if compiled else "",
        "knobs_import": "from triton import knobs\n" if compiled else "",
        "offer": OFFER if compiled else "",
    }
    return filled(INIT, holes)


def _flags(tilings: Sequence[Tiling]) -> str:
    usual = [each.name for each in tilings] == [each.name for each in TILINGS]
    named = "" if usual else "".join(f" --tiling {each.name}" for each in tilings)
    return named + (" --tiles FILE" if any(each.origin for each in tilings) else "")


def _row(numbers: Sequence[int], tiling: Tiling) -> str:
    modules = "".join(f"            {_module(number, tiling)},\n" for number in numbers)
    return f"    (\n        {tiling.head_dim},\n        {tiling.bytes},\n        (\n{modules}        ),\n    ),\n"


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."
