"""From a pattern to something that runs: emit, write to the cache, import; or write a module for others to import."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import ModuleType
from typing import Literal, Protocol, cast, overload

import torch
from torch import Tensor

from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.hopper_choice import BACKENDS, Backend, hopper_type
from sparsedsl.codegen.overwrite import may_replace
from sparsedsl.codegen.tiling import SMALL_TILINGS, TILINGS, Tiling, tiling_for, tilings_here
from sparsedsl.codegen.tuned import read_tiles
from sparsedsl.errors import StateMismatch, UnknownName, Unsupported, WrongType, shown
from sparsedsl.files import write_whole
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern


class AttentionModule(Protocol):
    """What an emitted module offers."""

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float | None = None,
        q_start: int | None = None,
        return_lse: bool = False,
        cu_seqlens: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache_seqlens: Tensor | None = None,
        page_table: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Softmax attention over the module's pattern."""


class CompiledAttention:
    """Attention over one pattern, ready to call on CUDA or CPU tensors; made by `compile`.

    The same inputs give the same bits each time on one kind of GPU, but for dq on Hopper, whose last bits change from
    call to call; under `torch.use_deterministic_algorithms(True)` all repeat.

    Shapes
        q (batch, heads, q_len, head_dim); k, v (batch, key_heads, k_len, head_dim), key_heads dividing heads; or a
        cache, with `cache_seqlens` and `page_table`: see docs/decode.md.
    Example
        >>> import torch
        >>> from sparsedsl.constructors import sliding
        >>> attn = compile(sliding(4))
        >>> q = torch.ones(1, 2, 10, 16)
        >>> attn(q, q, q).shape
        torch.Size([1, 2, 10, 16])

    """

    def __init__(self, pattern: Pattern | PerHead, backend: Backend = "auto", tiles: Tiling | None = None) -> None:
        self.pattern, self.backend, self.tiles = pattern, backend, tiles
        # Every tiling at once: nothing is emitted or imported inside a call, which torch.compile may trace.
        self._tilings = with_tiles(tilings_here(), tiles)
        self._modules = {tiling.name: load(self.source(tiling.name)) for tiling in self._tilings}

    def __repr__(self) -> str:
        chosen = "" if self.backend == "auto" else f", backend={self.backend!r}"
        tiles = "" if self.tiles is None else f", tiles={self.tiles!r}"
        return f"compile({self.pattern!r}{chosen}{tiles})"

    def __reduce__(self) -> tuple[object, ...]:
        # Modules are not copied or pickled: the pattern is, and is compiled again from the cache.
        return CompiledAttention, (self.pattern, self.backend, self.tiles)

    @property
    def causal(self) -> bool:
        """Whether no query reads a key after its own position."""
        return bool(self._modules[self._tilings[0].name].CAUSAL)

    @overload
    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float | None = None,
        q_start: int | None = None,
        cu_seqlens: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache_seqlens: Tensor | None = None,
        page_table: Tensor | None = None,
    ) -> Tensor: ...

    @overload
    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float | None = None,
        q_start: int | None = None,
        return_lse: Literal[True],
        cu_seqlens: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache_seqlens: Tensor | None = None,
        page_table: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]: ...

    @overload
    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float | None = None,
        q_start: int | None = None,
        return_lse: bool,
        cu_seqlens: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache_seqlens: Tensor | None = None,
        page_table: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]: ...

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float | None = None,
        q_start: int | None = None,
        return_lse: bool = False,
        cu_seqlens: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache_seqlens: Tensor | None = None,
        page_table: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Softmax attention over the pattern; see `attention` in the emitted module, `source()`."""
        tiling = _tiling_for(q, self._tilings)
        if self.backend == "hopper" and q.is_cuda:
            hopper_type(tiling)
        module = self._modules[tiling.name]
        return cast(AttentionModule, module).attention(
            q,
            k,
            v,
            scale=scale,
            q_start=q_start,
            return_lse=return_lse,
            cu_seqlens=cu_seqlens,
            document_ids=document_ids,
            cache_seqlens=cache_seqlens,
            page_table=page_table,
        )

    def source(self, tiling: str = TILINGS[0].name) -> str:
        """The emitted module's text, for head dims and types as the tiling's name says."""
        found = tiling_named(tiling)
        if self.tiles is not None and self.tiles.name == tiling:
            found = self.tiles
        # What the backend hopper has no type for runs on the CPU alone.
        cpu_alone = self.backend == "hopper" and found.bytes != 2
        return emit(self.pattern, found, "triton" if cpu_alone else self.backend)


def _tiling_for(q: object, tilings: Sequence[Tiling]) -> Tiling:
    # What no tiling takes is left to the module's own checks; the CPU road has no tiles to fit.
    if not isinstance(q, Tensor) or not q.dim():
        return tilings[0]
    size = q.element_size()
    if q.is_cuda and q.dtype != torch.float64 and torch.is_autocast_enabled("cuda"):
        size = torch.get_autocast_dtype("cuda").itemsize  # the module casts
    return tiling_for(q.shape[-1], size, tilings) or tilings[0 if size == 2 else -1]


def compile(
    pattern: Pattern | PerHead | Stack, *, backend: Backend = "auto", tiles: str | Path | Tiling | None = None
) -> CompiledAttention:
    """Compile a pattern to attention that reads only the pairs it names.

    The plain kernels are in Triton, for every GPU that it has. On GPUs of compute capability 9.0, in float16 and
    bfloat16, the backend auto runs a faster forward kernel where the pattern has one (docs/hopper.md); where something
    speaks against it, that is a RuntimeWarning, and the plain kernel runs. triton leaves it out; hopper insists on it,
    and takes CUDA tensors of no other GPU or type.
    `tiles` is a file of `sparsedsl tune`, read here and not again; it changes the kernels for its head dim and type.

    Cost
        Tens of milliseconds a pattern; Triton compiles a kernel at the first call for a head dim and type. No length
        enters: a new length compiles nothing.
    Raises
        WrongType: not a pattern. Unsupported: a Stack, which has a pattern for each layer.
        NoNormalForm: the pattern has no closed form in tiles.
        UnknownName: no such backend. Unsupported: the backend hopper, and a pattern whose tiles only a table tells.
    Example
        >>> from sparsedsl.constructors import causal, power, sliding
        >>> compile((sliding(4) | power()).blocks(64) & causal())
        compile((sliding(4) | power()).blocks(64) & causal())

    """
    return CompiledAttention(one_layer("compile", pattern), backend_named(backend), _read(tiles))


def build_module(
    pattern: Pattern | PerHead | Stack,
    path: str | Path,
    *,
    tiling: str | None = None,
    backend: Backend = "auto",
    tiles: str | Path | Tiling | None = None,
    force: bool = False,
) -> Path:
    """Write the stand-alone module of a pattern; it imports torch and triton only.

    `tiles` is a file of `sparsedsl tune`; the module is then for its head dims and type. A file that no build wrote is
    replaced with `force` alone.

    Raises
        The errors of `compile`; WrongValue: the file is not from a build; OSError where it can't be written.
    """
    target = Path(path)
    if not force:
        may_replace(target)
    measured = _read(tiles)
    chosen = measured or TILINGS[0] if tiling is None else tiling_named(tiling)
    (chosen,) = with_tiles([chosen], measured)
    write_whole(target, emit(one_layer("build", pattern), chosen, backend_named(backend)))
    return target


def with_tiles(tilings: Sequence[Tiling], tiles: Tiling | None) -> tuple[Tiling, ...]:
    """The tilings, with measured tiles in the place of those for the same head dims and type.

    Raises
        StateMismatch: none of them is for these head dims and this type.
    """
    if tiles is None:
        return tuple(tilings)
    fits = [(each.head_dim, each.bytes) == (tiles.head_dim, tiles.bytes) for each in tilings]
    if not any(fits):
        raise StateMismatch(
            "the measured tiles are for another head dimension or type",
            where=f"tiles={tiles.name} ({tiles.origin})",
            got=f"head dims up to {tiles.head_dim}, {tiles.bytes} bytes an element",
            expected=f"those of {' or '.join(each.name for each in tilings)}",
            hint=f"tiling={tiles.name!r}",
        )
    return tuple(tiles if fit else each for each, fit in zip(tilings, fits, strict=True))


def _read(tiles: str | Path | Tiling | None) -> Tiling | None:
    return tiles if tiles is None or isinstance(tiles, Tiling) else read_tiles(tiles)


def tiling_named(name: str) -> Tiling:
    """The tiling with this name."""
    known = {tiling.name: tiling for tiling in (*TILINGS, *SMALL_TILINGS)}
    if name in known:
        return known[name]
    raise UnknownName(
        "there is no tiling of this name",
        where=f"tiling={name!r}",
        got=name,
        expected=f"one of {', '.join(known)}",
        hint=f"tiling={TILINGS[0].name!r}",
    )


def backend_named(name: str) -> Backend:
    """The backend with this name."""
    for backend in BACKENDS:
        if backend == name:
            return backend
    raise UnknownName(
        "there is no backend of this name",
        where=f"backend={name!r}",
        got=name,
        expected=f"one of {', '.join(BACKENDS)}",
        hint=f"backend={BACKENDS[0]!r}",
    )


def one_layer(call: str, pattern: object) -> Pattern | PerHead:
    """The pattern of one layer; an error for a stack, and for what is no pattern."""
    if isinstance(pattern, Pattern | PerHead):
        return pattern
    if isinstance(pattern, Stack):
        raise Unsupported(
            "a stack has a pattern for each layer, a kernel has one",
            where=f"{call}({pattern})",
            got=f"a Stack of {len(pattern)} layers",
            expected="one layer's pattern",
            hint="sparsedsl build STACK -o kernels/"
            if call == "build"
            else f"[{call}(stack[layer]) for layer in range({len(pattern)})]",
        )
    raise WrongType(
        f"{call} takes a pattern",
        where=f"{call}({shown(pattern)})",
        got=f"{shown(pattern)} of type {type(pattern).__name__}",
        expected="a Pattern or a PerHead",
        hint=f"{call}(parse({pattern!r}))" if isinstance(pattern, str) else f"{call}(sliding(1024))",
    )


def load(source: str) -> ModuleType:
    """Import a module from its text, by way of a file in the cache: Triton reads kernels from files."""
    digest = sha256(source.encode()).hexdigest()[:16]
    name = f"sparsedsl_emitted_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    path = cache_folder() / f"{name}.py"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside and renamed: another process never sees half a module.
        with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as part:
            part.write(source)
        os.replace(part.name, path)
    return imported(name, path)


def imported(name: str, path: Path) -> ModuleType:
    """The module in a file, under this name."""
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def cache_folder() -> Path:
    """Where emitted modules are kept: $SPARSEDSL_CACHE, or sparsedsl below the user's cache folder."""
    chosen = os.environ.get("SPARSEDSL_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparsedsl"
