"""Compile a module ahead of time for the GPU, load it, and compare it with itself: attention, or a control.

    python -X faulthandler -m tests.gpu.ahead_of_time attention FOLDER      # or linear, or operator

A program of its own, because loading such code can end the process. The controls hold nothing of ours: where one of
them ends it too, the fault is torch's or the machine's.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tests.gpu.test_torch_features import LENGTHS, exported, layer_of, near, tokens


class Linear(torch.nn.Module):
    """A projection, and a pointwise operation for which the compiler writes a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Linear(128, 128)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.weight(x)) * 2.0


class Operator(Linear):
    """The same with an operator written in Python between, of a tensor and two numbers, with two results."""

    def forward(self, x: Tensor) -> Tensor:
        scaled, total = scaled_op(self.weight(x), 0.5, 3)
        both: Tensor = torch.sin(scaled) + total[..., None]
        return both


@torch.library.custom_op("sparsedsl_control::scaled", mutates_args=())
def scaled_op(x: Tensor, scale: float, start: int) -> tuple[Tensor, Tensor]:
    return x * scale, x.sum(-1) + start


@scaled_op.register_fake
def _(x: Tensor, scale: float, start: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(x.shape[:-1])


MODULES: dict[str, Callable[[], torch.nn.Module]] = {
    "attention": layer_of,
    "operator": lambda: Operator().cuda(),
    "linear": lambda: Linear().cuda(),
}


def main(name: str, folder: Path) -> None:
    """Raise where the loaded code answers otherwise than the module."""
    warnings.simplefilter("ignore")  # the packager warns about its own temporary files
    torch._C._set_print_stack_traces_on_fatal_signal(True)  # those of native code, as faulthandler has Python's
    module = MODULES[name]()
    with torch.no_grad():
        path = torch._inductor.aoti_compile_and_package(exported(module), package_path=str(folder / f"{name}.pt2"))
        loaded = torch._inductor.aoti_load_package(path)
        for length in LENGTHS:
            near([loaded(tokens(length))], [module(tokens(length))])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
