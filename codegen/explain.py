"""Explain a pattern at one length: what the compiler decided, what it costs, and what time that should take."""

from __future__ import annotations

from collections.abc import Sequence

from sparsedsl.codegen.describe import describe
from sparsedsl.codegen.explanation import Choice, ExplainedLayer, Explanation, Kernel, Kind, PartOfPlan, Pass
from sparsedsl.codegen.gpus import Gpu, gpu_named
from sparsedsl.codegen.hopper_choice import gradients_run
from sparsedsl.codegen.part_source import PartSource
from sparsedsl.codegen.plan import GAIN, LENGTH, TILE, Costs, plan
from sparsedsl.codegen.predict import dense_ms, launch_ms, matrix_ms, memory_ms, predicted_ms
from sparsedsl.codegen.programs import Program, TableProgram
from sparsedsl.codegen.runs import Listed
from sparsedsl.codegen.sources import sources_of
from sparsedsl.codegen.terms import predicate_source
from sparsedsl.codegen.tile_counts import part_pairs
from sparsedsl.codegen.tiling import TILINGS, Tiling, tiling_for
from sparsedsl.codegen.work import (
    Inputs,
    floor_bytes,
    kernels_of,
    memory,
    merged_bytes,
    result_bytes,
    row_bytes,
    useful_flops,
)
from sparsedsl.errors import HeadMismatch, UnknownName, WrongType, WrongValue, nearest, one_of, shown
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern, whole

DTYPES = {"bf16": 2, "fp16": 2, "fp32": 4}
HEADS, HEAD_DIM = 16, 128


def explain(
    pattern: Pattern | PerHead | Stack,
    *,
    seq_len: int,
    heads: int | None = None,
    key_heads: int | None = None,
    head_dim: int = HEAD_DIM,
    dtype: str = "bf16",
    gpu: str = "h200",
) -> Explanation:
    """What `compile` decides for a pattern, and what a call costs: batch 1, seq_len queries and as many keys.

    Units
        heads: as many as a per-head pattern has, else 16; key_heads: as many as heads. Times in milliseconds, from
        what was measured of the GPU; None where nothing was. Each different pattern of a stack is explained once.
    Cost
        Emitting the pattern, and counting its tiles: O(seq_len / tile · segments), the live tiles where a table tells
        them. A second for 131 072 tokens.
    Raises
        WrongType, WrongValue, HeadMismatch, UnknownName: arguments that do not fit. Unsupported: as `compile`.
    Example
        >>> from sparsedsl.constructors import sliding
        >>> layer = explain(sliding(1024), seq_len=4096).layers[0]
        >>> layer.live_pairs // 16, [(each.name, each.full, each.partial) for each in layer.parts[0].kernels]
        (3670528, [('forward', 13440, 1792), ('dq', 13440, 1792), ('dkdv', 13440, 1792)])

    """
    layers = _layers(pattern)
    seq_len = whole("explain", "seq_len", seq_len, least=1)
    heads = _heads(pattern, heads)
    key_heads = heads if key_heads is None else whole("explain", "key_heads", key_heads, least=1)
    if heads % key_heads:
        raise HeadMismatch(
            "the key heads do not divide the query heads",
            where=f"explain(..., heads={heads}, key_heads={key_heads})",
            got=f"{heads} query heads, {key_heads} key heads",
            expected="a number of key heads that divides the number of query heads",
            hint=f"key_heads={heads}",
        )
    tiling = _tiling(whole("explain", "head_dim", head_dim, least=1), dtype)
    found = gpu_named(gpu)
    inputs = Inputs(seq_len, heads, key_heads, head_dim, tiling.bytes, found.multiprocessors)
    return Explanation(
        seq_len=seq_len,
        heads=heads,
        key_heads=key_heads,
        head_dim=head_dim,
        dtype=dtype,
        tiling=tiling.name,
        gpu=found.name,
        layers=tuple(_explained(each, own, tiling, inputs, dtype, found) for each, own in layers),
    )


def _layers(pattern: object) -> list[tuple[Pattern | PerHead, tuple[int, ...]]]:
    """Each different pattern with the layers that have it, counted from 1."""
    if isinstance(pattern, Stack):
        owners: dict[Pattern | PerHead, list[int]] = {}
        for number, each in enumerate(pattern, 1):
            owners.setdefault(each, []).append(number)
        return [(each, tuple(own)) for each, own in owners.items()]
    if isinstance(pattern, Pattern | PerHead):
        return [(pattern, ())]
    raise WrongType(
        "explain takes a pattern",
        where=f"explain({shown(pattern)})",
        got=f"{shown(pattern)} of type {type(pattern).__name__}",
        expected="a Pattern, a PerHead or a Stack",
        hint=f"explain(parse({pattern!r}), seq_len=131072)" if isinstance(pattern, str) else "explain(sliding(1024))",
    )


def _heads(pattern: Pattern | PerHead | Stack, heads: int | None) -> int:
    """The number of query heads, which all per-head patterns must have."""
    layers = pattern.patterns if isinstance(pattern, Stack) else (pattern,)
    asked = {len(each.heads) for each in layers if isinstance(each, PerHead)}
    chosen = whole("explain", "heads", heads, least=1) if heads is not None else min(asked, default=HEADS)
    if asked - {chosen}:
        raise HeadMismatch(
            "the pattern and the call disagree on the number of heads",
            where=f"explain(..., heads={heads})",
            got=f"heads = {heads}, per_head with {' and '.join(map(str, sorted(asked)))} patterns",
            expected="one pattern for each query head",
            hint=f"heads={min(asked)}" if len(asked) == 1 else "layers with as many heads each",
        )
    return chosen


def _tiling(head_dim: int, dtype: object) -> Tiling:
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UnknownName(
            "no kernel takes this type",
            where=f"explain(..., dtype={shown(dtype)})",
            got=shown(dtype),
            expected=one_of(DTYPES),
            hint=f"dtype={(nearest(dtype, DTYPES) if isinstance(dtype, str) else '') or 'bf16'!r}",
        )
    size = DTYPES[dtype]
    step, most = 16 // size, max(each.head_dim for each in TILINGS if each.bytes == size)
    tiling = tiling_for(head_dim, size)
    if tiling is None or head_dim < 16 or head_dim % step:
        raise WrongValue(
            "no kernel takes this head dimension",
            where=f"explain(..., head_dim={head_dim}, dtype={dtype!r})",
            got=f"head_dim = {head_dim}",
            expected=f"16 <= head_dim <= {most}, a multiple of {step}",
            hint=f"head_dim={min(most, max(16, -(-head_dim // step) * step))}",
        )
    return tiling


def _explained(
    pattern: Pattern | PerHead, layers: tuple[int, ...], tiling: Tiling, inputs: Inputs, dtype: str, gpu: Gpu
) -> ExplainedLayer:
    decided = plan(pattern)
    found = sources_of(decided.parts, tiling, "auto")
    sources, tiling, tables = found.parts, found.tiling, found.tables
    special = gradients_run(inputs.head_dim) and bool(found.backward_for_hopper)
    parts = tuple(
        _part(source, kernels_of(source, tiling, tables.patterns, inputs, gradients=special), inputs)
        for source in sources
    )
    live = sum(part.live_pairs for part in parts)
    triangle = inputs.heads * inputs.seq_len * (inputs.seq_len + 1) // 2
    forward, backward = (
        _pass(direction, sources, parts, live, None if found.looks_ahead else triangle, inputs, dtype, gpu)
        for direction in ("forward", "backward")
    )
    # Kernels of equal tiles read one table.
    in_tables = {
        (number, kernel.block_m, kernel.block_n): kernel.table
        for number, part in enumerate(parts)
        for kernel in part.kernels
    }
    held = {
        direction: tuple(memory(direction, sources, tiling, sum(in_tables.values()), inputs))
        for direction in ("forward", "backward", "hopper_backward")
    }
    return ExplainedLayer(
        pattern=str(pattern),
        layers=layers,
        choice=_choice(decided.costs),
        parts=parts,
        live_pairs=live,
        dense_ratio=None if found.looks_ahead or not live else triangle / live,
        constants=found.constants.size,
        forward=forward,
        backward=backward,
        forward_memory=held["forward"],
        backward_memory=held["backward"],
        hopper_backward_memory=held["hopper_backward"] if special else (),
    )


def _choice(costs: Costs | None) -> Choice:
    identity, parts = (None, None) if costs is None else (costs.identity, costs.parts)
    return Choice(identity, parts, tile=TILE, tokens=LENGTH, gain=GAIN)


def _part(source: PartSource, kernels: tuple[Kernel, ...], inputs: Inputs) -> PartOfPlan:
    part = source.part
    kinds = []
    for number, (kind, program) in enumerate(zip(part.kinds, source.forward, strict=True)):
        owners = [head for head in range(inputs.heads) if not part.kind_of or part.kind_of[head] == number]
        kinds.append(Kind(str(kind), tuple(owners), _road(program), _runs(program)))
    classes = len({residue for own in part.classes for residue in own})
    live = part_pairs(part, inputs.heads, inputs.seq_len)
    special = {each.name: each for each in kernels if each.name.startswith("hopper")}
    plain = tuple(each for each in kernels if each.name not in special)
    return PartOfPlan(
        part.step, classes, live, tuple(kinds), plain, special.get("hopper"), special.get("hopper_backward")
    )


def _road(program: Program) -> str:
    if isinstance(program, TableProgram):
        return "table"
    runs = [run for section in (*program.sections, *program.transposed_sections) for run in section.runs]
    return "lists" if any(isinstance(run, Listed) for run in runs) else "loops"


def _runs(program: Program) -> tuple[str, ...]:
    """A line for each loop of the forward kernel."""
    if isinstance(program, TableProgram):
        return ()
    return tuple(
        f"FULL {describe(section, 'i')}"
        if section.mask is None
        else f"PARTIAL {describe(section, 'i')} [{predicate_source(section.mask)}]"
        for section in program.sections
    )


def _pass(
    direction: str,
    sources: Sequence[PartSource],
    parts: Sequence[PartOfPlan],
    live: int,
    dense_pairs: int | None,
    inputs: Inputs,
    dtype: str,
    gpu: Gpu,
) -> Pass:
    kernels = [each for part in parts for each in part.kernels if (each.name == "forward") == (direction == "forward")]
    useful, floor = useful_flops(direction, live, inputs), floor_bytes(direction, inputs)
    merged = merged_bytes(direction, sources, inputs)
    loaded = sum(each.loaded for each in kernels) + result_bytes(direction, inputs) + merged
    if direction == "backward":
        loaded += row_bytes(sources, inputs)
    name = "hopper" if direction == "forward" else "hopper_backward"
    special = [each for part in parts if (each := getattr(part, name)) is not None]
    return Pass(
        useful_flops=useful,
        executed_flops=sum(each.flops for each in kernels),
        floor_bytes=floor,
        loaded_bytes=loaded,
        merged_bytes=merged,
        matrix_ms=matrix_ms(gpu, dtype, useful),
        memory_ms=memory_ms(gpu, floor),
        predicted_ms=predicted_ms(gpu, direction, kernels, len(parts), merged, inputs),
        launch_ms=launch_ms(gpu, direction, len(parts)),
        dense_ms=None if dense_pairs is None else dense_ms(gpu, direction, dense_pairs, inputs),
        hopper_ms=(
            predicted_ms(gpu, name, special, len(parts), merged, inputs) if len(special) == len(parts) else None
        ),
    )
