"""One pass of a pattern's module in given tiles: run it, compare it with the default tiles' results, time it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
import triton.testing
from torch import Tensor

from sparsedsl.codegen.build import load
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.tiling import Tiling
from sparsedsl.codegen.tune import Unfit
from sparsedsl.codegen.tuned import PASSES, Request
from sparsedsl.errors import clipped
from sparsedsl.layers import Layer

TORCH_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# Other tiles sum in another order; results further from the default's than this, relative, are wrong.
FARTHEST = 1e-2
LONGEST_REASON = 200

Call = Callable[[], object]


def event_ms(call: Call) -> float:
    """The median of CUDA events around single calls, the caches flushed before each."""
    return float(triton.testing.do_bench(call, warmup=25, rep=200, return_mode="median"))


class Bench:
    """Measures tiles of one pattern on random inputs of the requested shape; see `Measure`."""

    def __init__(
        self, pattern: Layer, request: Request, *, device: str = "cuda", clock: Callable[[Call], float] = event_ms
    ) -> None:
        self.pattern, self.clock = pattern, clock
        dtype = TORCH_DTYPES[request.dtype]
        generator = torch.Generator(device).manual_seed(0)
        self.q, self.k, self.v, self.d_out = (
            torch.randn(1, heads, request.seq_len, request.head_dim, device=device, dtype=dtype, generator=generator)
            for heads in (request.heads, request.key_heads, request.key_heads, request.heads)
        )
        self.scale = request.head_dim**-0.5
        module = load(emit(pattern, request.tiling, "triton"))
        self.out, self.lse = module.launch_forward(self.q, self.k, self.v, self.scale, 0)
        self.d_lse = torch.zeros_like(self.lse)
        dq, dk, dv = self._backward(module)
        self.right = {
            "forward": (self.out, self.lse),
            "hopper": (self.out, self.lse),
            "dq": (dq,),
            "dkdv": (dk, dv),
        }

    def __call__(self, name: str, tiling: Tiling) -> float:
        """Milliseconds of a pass in these tiles.

        Raises
            Unfit: it does not compile, does not fit, or gives another result.
        """
        try:
            module = load(emit(self.pattern, tiling, "auto" if name == "hopper" else "triton"))
            with only(module, name), warnings.catch_warnings():
                # What speaks against a kernel for Hopper.
                warnings.simplefilter("error", RuntimeWarning)
                got = self._results(module, name)
                if self.q.is_cuda:
                    torch.cuda.synchronize()
        # Triton, LLVM, ptxas and the driver refuse in errors of many classes, which differ between versions.
        except Exception as error:
            if self.q.is_cuda:
                torch.cuda.synchronize()  # raises again where the GPU itself is lost: then nothing can be measured
            raise Unfit(clipped(f"{type(error).__name__}: {error}", LONGEST_REASON)) from error
        for ours, want in zip(got, self.right[name], strict=True):
            distance = _distance(ours, want)
            if not distance <= FARTHEST:
                raise Unfit(f"another result than that of the default tiles: {distance:.1e} away, relative")
        del got
        with only(module, name):
            return self.clock(lambda: self._run(module, name))

    def _run(self, module: ModuleType, name: str) -> tuple[Tensor, ...]:
        if name in ("forward", "hopper"):
            found: tuple[Tensor, ...] = module.launch_forward(self.q, self.k, self.v, self.scale, 0)
            return found
        return self._backward(module)

    def _results(self, module: ModuleType, name: str) -> tuple[Tensor, ...]:
        found = self._run(module, name)
        return {"dq": found[:1], "dkdv": found[1:]}.get(name, found)

    def _backward(self, module: ModuleType) -> tuple[Tensor, ...]:
        inputs = (self.d_out, self.d_lse, self.q, self.k, self.v, self.out, self.lse)
        found: tuple[Tensor, ...] = module.launch_backward(*inputs, self.scale, 0)
        return found


class Silent:
    """Stands for a kernel that is not measured: a launch does nothing."""

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return lambda *arguments, **options: None


@contextmanager
def only(module: ModuleType, name: str) -> Iterator[None]:
    """The module's launches run this pass alone, and the rows kernel that the backward passes read from.

    The pass hopper is the forward pass, by the one kernel or by the other.
    """
    own = ("forward", "hopper") if name == "hopper" else (name,)
    others = tuple(f"{each}_kernel" for each in PASSES if each not in own)
    silenced = {key: value for key, value in vars(module).items() if key.startswith(others)}
    try:
        for key in silenced:
            setattr(module, key, Silent())
        yield
    finally:
        for key, value in silenced.items():
            setattr(module, key, value)


def _distance(ours: Tensor, want: Tensor) -> float:
    """Relative; rows without a key, -inf in both, count as equal, and no other infinity does."""
    if not torch.equal(ours.isfinite(), want.isfinite()):
        return float("inf")
    a, b = (each.masked_fill(~each.isfinite(), 0.0).float() for each in (ours, want))
    return float((a - b).norm() / b.norm().clamp_min(1e-6))
