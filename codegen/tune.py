"""Measure candidate tiles of the three kernels on a pattern, and keep the best: `sparsedsl tune`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import torch
import triton

from sparsedsl.codegen.build import one_layer
from sparsedsl.codegen.hopper_choice import hopper_candidates, hopper_choices
from sparsedsl.codegen.part_source import low_or_tall
from sparsedsl.codegen.plan import Part, plan
from sparsedsl.codegen.sources import fitted_tiling
from sparsedsl.codegen.tiling import Tiles, Tiling, tiling_for, tilings_on
from sparsedsl.codegen.tuned import (
    DTYPES,
    PASSES,
    Candidate,
    Measured,
    Request,
    TunedTiles,
    as_tiles,
    best,
    read,
    with_tiles_of,
)
from sparsedsl.errors import (
    DeviceMismatch,
    HeadMismatch,
    StateMismatch,
    UnknownName,
    Unsupported,
    WrongValue,
    one_of,
    shown,
)
from sparsedsl.layers import Layer, PerHead, Stack
from sparsedsl.pattern import whole
from sparsedsl.progress import Progress

# Milliseconds of one pass ("forward", "hopper", "dq", "dkdv") of the pattern's module in these tiles; raises Unfit.
Measure = Callable[[str, Tiling], float]
HOW = (
    "median of CUDA events around single calls, caches flushed before each; forward and hopper: their launches; dq and "
    "dkdv: theirs and those of the rows kernel; each compared with the results of the default tiles, plain, first"
)


class Unfit(Exception):
    """Why a candidate has no time: it does not compile, does not fit the GPU, or gives another result."""


@dataclass(frozen=True, slots=True)
class Device:
    """The GPU that is measured, and what compiles for it."""

    gpu: str
    capability: tuple[int, int]
    shared_memory: int
    torch: str = torch.__version__
    triton: str = triton.__version__


def tune(
    pattern: Layer | Stack,
    *,
    path: str | Path | None = None,
    seq_len: int = 131072,
    heads: int | None = None,
    key_heads: int | None = None,
    head_dim: int = 128,
    dtype: str = "bf16",
    passes: Sequence[str] | None = None,
    command: str = "",
    device: Device | None = None,
    measure: Measure | None = None,
    progress: Progress | None = None,
) -> tuple[TunedTiles, Path]:
    """Measure every candidate that the file does not hold yet, choose, and write the file; what it holds, and where.

    `passes` are all that apply by default; hopper, the forward pass by the kernel for Hopper and by the plain one,
    where there is such a kernel. Without `path` the file's name tells the GPU and the request. A file of the same
    request is continued, and a finished one is only read. `device` and `measure` stand for the GPU of this machine.

    Cost
        Triton's compile time for each candidate, some seconds, and a fraction of a second to time it: about 27
        candidates a pass, 10 of hopper. Memory: q, k, v, the output and their gradients, twice.
    Raises
        DeviceMismatch: no CUDA device. StateMismatch: the file belongs to another request. WrongType, WrongValue,
        HeadMismatch, UnknownName: arguments that do not fit. Unsupported: a Stack.
    """
    layer = one_layer("tune", pattern)
    if device is None:
        device = device_here()
    request = _request(layer, seq_len, heads, key_heads, head_dim, dtype, passes, device)
    target = Path(path) if path is not None else Path(file_name(request))
    found = _begun(request, target, command)
    if found.winners is not None:
        return found, target
    if measure is None:
        from sparsedsl.codegen.tune_gpu import Bench

        measure = Bench(layer, request)
    wanted = {name: candidates(layer, request.tiling, name) for name in request.passes}
    if progress is not None:
        progress.total = sum(map(len, wanted.values()))
    done = 0
    for name, tiles in wanted.items():
        rows = found.candidates.setdefault(name, [])
        for each in tiles[len(rows) :]:
            if progress is not None:
                sides = as_tiles(each)
                progress.at(done + len(rows), f"measuring {name}, {sides.block_m} x {sides.block_n}")
            rows.append(_measured(measure, name, each, request.tiling))
            found.write(target)
        done += len(rows)
    found.winners = best(found.candidates)
    found.write(target)
    return found, target


def _measured(measure: Measure, name: str, tiles: Candidate, base: Tiling) -> Measured:
    try:
        return Measured(tiles, round(measure(name, placed(base, name, tiles)), 4))
    except Unfit as why:
        return Measured(tiles, None, str(why))


def placed(base: Tiling, name: str, tiles: Candidate) -> Tiling:
    """The tiling with these tiles for one pass; the other backward kernel's tiles become as high."""
    if name in ("dq", "dkdv") and isinstance(tiles, Tiles):
        dq, dkdv = (replace(each, block_m=tiles.block_m) for each in (base.dq, base.dkdv))
        base = replace(base, dq=dq, dkdv=dkdv)
    return with_tiles_of(name, tiles, base)


def hopper_part(parts: Sequence[Part], base: Tiling) -> Part | None:
    """The first part that has a kernel for Hopper, if any has."""
    choices = zip(parts, hopper_choices(parts, base, "auto"), strict=True)
    return next((part for part, chosen in choices if chosen is not None), None)


def candidates(pattern: Layer, base: Tiling, name: str) -> list[Candidate]:
    """The tiles to try for a pass, the default first; of hopper, the plain kernel last.

    A kernel owns one side of its tiles, queries or (dkdv) keys, and walks along the other. Tiles own 64 or 128 rows;
    16 or 32 where rows are longer than 512 bytes, since larger ones compile for minutes. What does not fit a GPU's
    shared memory or registers is found out when it is compiled.
    """
    parts = plan(pattern).parts
    if name == "hopper":
        part = hopper_part(parts, base)
        return [] if part is None else [*hopper_candidates(part, base), _default(parts, base, "forward")]
    wide = 128 if base.head_dim * base.bytes <= 512 else 32
    found = [_default(parts, base, name)]
    for own in (wide // 2, wide):
        for along in (max(wide // 4, 16), wide // 2, wide):
            for warps in sorted({own // 16, max(own // 32, 4)}):
                for stages in (1, 2, 3):
                    sides = (along, own) if name == "dkdv" else (own, along)
                    found.append(Tiles(*sides, warps, stages))
    fitted = [getattr(fitted_tiling(parts, placed(base, name, each))[0], name) for each in found]
    return list(dict.fromkeys(fitted))


def _default(parts: Sequence[Part], base: Tiling, name: str) -> Tiles:
    """The tiles that the compiler takes by itself, for a union in parts those of the first part."""
    tiles: Tiles = getattr(low_or_tall(parts[0], fitted_tiling(tuple(parts), base)[0]), name)
    return tiles


def file_name(request: Request) -> str:
    """The file of a request where none was named: the GPU, the default tiling, a digest of the request."""
    gpu = "".join(each if each.isalnum() else "_" for each in request.gpu.lower())
    return f"tiles_{gpu}_{request.tiling.name}_{sha256(repr(request).encode()).hexdigest()[:8]}.json"


def device_here() -> Device:
    """The current CUDA device.

    Raises
        DeviceMismatch: there is none.
    """
    if not torch.cuda.is_available():
        raise DeviceMismatch(
            "tiles are measured on a GPU, and this machine has none",
            got="no CUDA device",
            expected="a CUDA device that PyTorch finds",
            hint="the same command on the machine that will run the kernels; explain predicts times without one",
        )
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Device(
        found.name,
        (found.major, found.minor),
        int(getattr(found, "shared_memory_per_block_optin", found.shared_memory_per_block)),
    )


def _begun(request: Request, path: Path, command: str) -> TunedTiles:
    """What the file holds, or a new beginning where there is none."""
    if not path.exists():
        return TunedTiles(request, command, HOW)
    found = read(path)
    for name in Request.__dataclass_fields__:
        saved, asked = getattr(found.request, name), getattr(request, name)
        if saved != asked:
            raise StateMismatch(
                "the file belongs to another request",
                got=f"{name} = {shown(saved)} in {path}",
                expected=f"{name} = {shown(asked)}, as asked for now",
                hint="-o with another file, or the options that the file was written with",
            )
    return found


def _request(
    pattern: Layer,
    seq_len: int,
    heads: int | None,
    key_heads: int | None,
    head_dim: int,
    dtype: str,
    passes: Sequence[str] | None,
    device: Device,
) -> Request:
    own = len(pattern.heads) if isinstance(pattern, PerHead) else None
    heads = whole("tune", "heads", heads, least=1) if heads is not None else own or 16
    key_heads = heads if key_heads is None else whole("tune", "key_heads", key_heads, least=1)
    if heads % key_heads or heads != (own or heads):
        raise HeadMismatch(
            "the numbers of heads do not fit",
            where=f"tune(..., heads={heads}, key_heads={key_heads})",
            got=f"{heads} query heads, {key_heads} key heads" + (f", {own} head patterns" if own else ""),
            expected="as many query heads as head patterns, and key heads that divide them",
            hint=f"heads={own or heads}, key_heads={own or heads}",
        )
    if dtype not in DTYPES:
        raise UnknownName(
            "no kernel takes this type",
            where=f"tune(..., dtype={shown(dtype)})",
            got=shown(dtype),
            expected=one_of(DTYPES),
            hint="dtype='bf16'",
        )
    step = 16 // DTYPES[dtype]
    if tiling_for(whole("tune", "head_dim", head_dim, least=1), DTYPES[dtype]) is None or head_dim % step:
        raise WrongValue(
            "no kernel takes this head dimension",
            where=f"tune(..., head_dim={head_dim}, dtype={dtype!r})",
            got=f"head_dim = {head_dim}",
            expected=f"16 <= head_dim <= 256, a multiple of {step}",
            hint="head_dim=128",
        )
    tiling = tiling_for(head_dim, DTYPES[dtype], tilings_on(device.capability))
    special = tiling is not None and hopper_part(plan(pattern).parts, tiling) is not None
    if passes is None:
        passes = [name for name in PASSES if name != "hopper" or special]
    unknown = [name for name in passes if name not in PASSES]
    if unknown or not passes:
        raise UnknownName(
            "no such pass" if unknown else "no pass was named",
            where=f"tune(..., passes={shown(list(passes))})",
            got=", ".join(map(str, unknown)) or "passes = []",
            expected=f"some of {', '.join(PASSES)}",
            hint=f"passes={list(PASSES)}",
        )
    if "hopper" in passes and not special:
        raise Unsupported(
            "there is no kernel for Hopper to measure",
            where=f"tune(..., passes={shown(list(passes))})",
            got=f"{pattern}, {dtype}, compute capability {'.'.join(map(str, device.capability))}",
            expected="a pattern with a closed form in tiles, bf16 or fp16, compute capability 9.0",
            hint="passes=['forward', 'dq', 'dkdv']",
        )
    return Request(
        pattern=str(pattern),
        seq_len=whole("tune", "seq_len", seq_len, least=1),
        heads=heads,
        key_heads=key_heads,
        head_dim=head_dim,
        dtype=dtype,
        passes=tuple(name for name in PASSES if name in passes),
        gpu=device.gpu,
        capability=device.capability,
        shared_memory=device.shared_memory,
        torch=device.torch,
        triton=device.triton,
    )
