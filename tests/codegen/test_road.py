"""Which forward kernel of an emitted module runs: the one for Hopper, or plain Triton where anything speaks against it.

No GPU takes part: devices say what they are told to say, kernels for Hopper run in the emulator, plain ones in Triton's
interpreter.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from triton import knobs
from triton.runtime.cache import get_cache_manager

import sparsedsl as sd
from sparsedsl.codegen import machine_code
from sparsedsl.codegen import plan as planning
from sparsedsl.codegen.emit import emit
from sparsedsl.codegen.machine_code import complaints
from sparsedsl.codegen.tiling import TILINGS
from tests.codegen.gluon_emulator import emulated
from tests.codegen.modules import imported
from tests.codegen.oracle import dense_attention, dense_mask, random_inputs
from tests.codegen.test_hopper_code import GOOD, SERIALISED

SLIDING, IN_TWO = sd.sliding(70), sd.sliding(9) | sd.dilated(20, 4)
BAD = ["registers are spilled in loops: 78 accesses to local memory"]


class Compiler:
    """Stands for Triton: what it compiles has these complaints; counts what it was asked to do."""

    def __init__(self, module: ModuleType, *found: str, error: Exception | None = None) -> None:
        self.module, self.found, self.error, self.compiled, self.launched = module, [*found], error, 0, 0
        emulator = emulated(imported(emit(sd.parse(module.PATTERN), TILINGS[0])))  # type: ignore[arg-type]
        for name in [name for name in vars(module) if name.startswith("hopper_kernel")]:
            setattr(module, name, self.kernel(name, getattr(emulator, name)))
        vars(module).update(
            HopperDescriptor=emulator.HopperDescriptor,
            hopper_layout=lambda block, dtype: None,
            complaints=lambda kernel: kernel,
            is_hopper=lambda device: True,
        )

    def kernel(self, name: str, run: Any) -> Any:
        def warmup(*given: object, grid: tuple[int], **options: object) -> list[str]:
            self.compiled += 1
            if self.error is not None:
                raise self.error
            return self.found

        def launch(*given: object, **options: object) -> None:
            self.launched += 1
            run[grids.pop()](*given, **options)

        def at(grid: tuple[int]) -> Callable[..., None]:
            grids.append(grid)
            return launch

        grids: list[tuple[int]] = []
        methods = {"__getitem__": lambda self, grid: at(grid), "is_gluon": lambda self: True}
        kernel = type("Kernel", (), {**methods, "warmup": staticmethod(warmup)})()
        kernel.__name__ = name
        return kernel


@pytest.fixture
def module_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[sd.Pattern], ModuleType]:
    """Modules whose plain kernels Triton interprets."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    return lambda pattern: imported(emit(pattern, TILINGS[0]))


def inputs(head_dim: int = 32, dtype: torch.dtype = torch.float16) -> list[Tensor]:
    return random_inputs(2, 1, 150, 150, head_dim, dtype)[:3]


def assert_right(module: ModuleType, tensors: list[Tensor], got: tuple[Tensor, Tensor]) -> None:
    mask = dense_mask(sd.parse(module.PATTERN), 2, 150, 150, None)  # type: ignore[arg-type]
    q, k, v = (each.double() for each in tensors)
    exact, exact_lse = dense_attention(q, k, v, mask, 0.2)
    assert (got[0] - exact).abs().max() < 4e-3
    assert (got[1] - exact_lse).abs().max() < 1e-3


def forward(module: ModuleType, tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = module.launch_forward(*tensors, 0.2, 0)
    return found


def test_a_good_kernel_is_looked_at_once_and_runs(module_of: Callable[[sd.Pattern], ModuleType]) -> None:
    module = module_of(SLIDING)
    compiler = Compiler(module)
    for number, tensors in enumerate((inputs(), inputs(), inputs(64), inputs(64), inputs()), 1):
        assert_right(module, tensors, forward(module, tensors))
        assert (compiler.compiled, compiler.launched) == (1 + (number > 2), number)


@pytest.mark.parametrize(
    ("found", "error", "told"),
    [
        (BAD, None, f"SlowKernel: hopper_kernel: {BAD[0]}"),
        ([], RuntimeError("out of resource: shared memory"), "RuntimeError: out of resource: shared memory"),
    ],
    ids=["slow machine code", "no machine code"],
)
def test_what_speaks_against_the_kernel_is_told_and_plain_triton_runs(
    module_of: Callable[[sd.Pattern], ModuleType], found: list[str], error: Exception | None, told: str
) -> None:
    module = module_of(SLIDING)
    compiler = Compiler(module, *found, error=error)
    tensors = inputs()
    with pytest.warns(RuntimeWarning) as caught:
        first = forward(module, tensors)
    (warning,) = caught
    assert str(warning.message) == (
        f"hopper_part of {SLIDING}, head dim 32, torch.float16: the kernel for Hopper is not used, plain Triton runs "
        f"instead: {told}"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = forward(module, tensors)
    assert_right(module, tensors, first)
    # The first call, too: the same inputs give the same bits.
    assert all(map(torch.equal, first, again))
    assert (compiler.compiled, compiler.launched) == (1, 0)
    # Another head dim is another kernel.
    compiler.found, compiler.error = [], None
    forward(module, inputs(64))
    assert (compiler.compiled, compiler.launched) == (2, 1)


def test_an_error_of_the_launch_itself_is_told_too(module_of: Callable[[sd.Pattern], ModuleType]) -> None:
    module, tensors = module_of(SLIDING), inputs()
    Compiler(module)

    def refused(kernel: Any, programs: int, *given: Any, **options: Any) -> None:
        raise ValueError("another Gluon")

    module.launched = refused  # type: ignore[attr-defined]
    with pytest.warns(RuntimeWarning, match="ValueError: another Gluon"):
        assert_right(module, tensors, forward(module, tensors))
    assert_right(module, tensors, forward(module, tensors))


def test_memory_that_runs_out_is_no_fault_of_the_kernel(module_of: Callable[[sd.Pattern], ModuleType]) -> None:
    module, tensors = module_of(SLIDING), inputs()
    compiler = Compiler(module, error=torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        forward(module, tensors)
    compiler.error = None
    assert_right(module, tensors, forward(module, tensors))
    assert compiler.launched == 1


@pytest.mark.parametrize("refused", ["hopper_kernel_0", "hopper_kernel_1"])
def test_parts_choose_each_for_itself(
    module_of: Callable[[sd.Pattern], ModuleType], refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one kernel left for the next to merge is the same of both kinds."""
    monkeypatch.setattr(planning, "GAIN", float("inf"))
    module, tensors = module_of(IN_TWO), inputs()
    compiler = Compiler(module)
    looked_at: list[str] = []
    usual = module.examined

    def examined(kernel: Any, *given: Any, **options: Any) -> None:
        looked_at.append(kernel.__name__)
        if kernel.__name__ == refused:
            raise module.SlowKernel("slow")
        usual(kernel, *given, **options)

    module.examined = examined  # type: ignore[attr-defined]
    with pytest.warns(RuntimeWarning, match=f"hopper_part{refused[-2:]} of "):
        first = forward(module, tensors)
    assert_right(module, tensors, first)
    assert all(map(torch.equal, first, forward(module, tensors)))
    assert set(looked_at) == {"hopper_kernel_0", "hopper_kernel_1"}
    assert compiler.launched


def test_packed_calls_and_calls_without_a_tile_leave_it_alone(module_of: Callable[[sd.Pattern], ModuleType]) -> None:
    module, tensors = module_of(SLIDING), inputs()
    compiler = Compiler(module, *BAD)
    module.launch_forward(*tensors, 0.2, 0, torch.tensor([0, 100, 150], dtype=torch.int32))
    module.launch_forward(*tensors, 0.2, -150)  # every query stands before the first key
    assert (compiler.compiled, compiler.launched, module.HOPPER_ROADS) == (0, 0, {})


class Asked:
    """A device that tells its kind, and counts how often it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
        self.count = 0

        def told(device: torch.device) -> tuple[int, int]:
            self.count += 1
            return capability

        monkeypatch.setattr(torch.cuda, "get_device_capability", told)


def test_only_a_gpu_of_capability_9_0_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    source = emit(SLIDING, TILINGS[0])
    device = torch.device("cuda", 0)
    for capability, hip, takes in (((9, 0), None, True), ((8, 0), None, False), ((9, 0), "6.4", False)):
        asked, module = Asked(monkeypatch, capability), imported(source)
        monkeypatch.setattr(torch.version, "hip", hip)
        assert [module.is_hopper(device) for _ in range(3)] == [takes] * 3
        assert asked.count <= 1
        assert not module.is_hopper(torch.device("cpu"))
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert not imported(source).is_hopper(device)


def test_without_gluon_the_plain_kernels_run_and_one_warning_says_so(
    module_of: Callable[[sd.Pattern], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "triton.experimental.gluon", None)
    module = module_of(SLIDING)
    assert "ModuleNotFoundError" in module.NO_GLUON
    module.is_hopper = lambda device: True  # type: ignore[attr-defined]
    with pytest.warns(RuntimeWarning, match="plain Triton runs in place of the kernels for Hopper"):
        forward(module, inputs())
    for tensors in (inputs(), inputs(64)):  # where a warning is an error
        assert_right(module, tensors, forward(module, tensors))
    with pytest.raises(ImportError):
        imported(emit(SLIDING, TILINGS[0], "hopper"))


def test_both_backends_hold_the_same_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for by name, they differ in nothing but how they are chosen."""
    monkeypatch.setattr(planning, "GAIN", float("inf"))
    whole, forced = (emit(IN_TWO, TILINGS[0], backend) for backend in ("auto", "hopper"))
    start, end = "\n# The kernels for Hopper", "\ndef code_and_loops"
    functions = whole[whole.index(start) : whole.index(end)].rstrip().split("\n\n\n")
    assert len(functions) > 20
    assert all(each in forced for each in functions)
    assert "complaints" not in forced
    plain = emit(IN_TWO, TILINGS[0], "triton")
    for mark in ("def forward_kernel_0", "def dkdv_kernel_1", "def backward_part_1"):
        body = plain[plain.index(mark) :].partition("\n\n\n")[0]
        assert body in whole
        assert body in forced


# --- the look at machine code


def disassembler(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    tools = SimpleNamespace(nvdisasm=SimpleNamespace(path=str(path)))
    monkeypatch.setattr(machine_code, "knobs", SimpleNamespace(nvidia=tools))
    machine_code.not_looked_at.cache_clear()


def test_a_verdict_is_kept_beside_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an invented disassembler, which the second look does not need."""
    tool = tmp_path / "nvdisasm"
    with knobs.cache.scope():
        knobs.cache.dir = str(tmp_path / "cache")
        for number, (text, found) in enumerate(((GOOD, []), (SERIALISED, 1))):
            (tmp_path / "code").write_text(text)
            tool.write_text(f"#!/bin/sh\ncat {tmp_path}/code\n")
            tool.chmod(0o755)
            disassembler(monkeypatch, tool)
            kernel = SimpleNamespace(hash=f"{number:064x}", asm={"cubin": b""})
            told = complaints(kernel)
            assert len(told) == (found or 0)
            tool.unlink()
            assert complaints(kernel) == told
            kept = get_cache_manager(kernel.hash).get_file("complaints.json")
            assert json.loads(Path(kept).read_text()) == told


def test_without_the_tool_it_is_said_once_and_nothing_is_held_against_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disassembler(monkeypatch, tmp_path / "none")
    kernel = SimpleNamespace(hash="0" * 64, asm={"cubin": b""})
    with knobs.cache.scope():
        knobs.cache.dir = str(tmp_path)
        with pytest.warns(RuntimeWarning, match="can't be looked at: FileNotFoundError") as caught:
            assert complaints(kernel) == complaints(kernel) == []
    assert len(caught) == 1


def test_code_that_can_not_be_read_is_not_called_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disassembler(monkeypatch, Path("/bin/true"))
    with knobs.cache.scope():
        knobs.cache.dir = str(tmp_path)
        with pytest.warns(RuntimeWarning, match="no warpgroup product was found"):
            assert complaints(SimpleNamespace(hash="0" * 64, asm={"cubin": b""})) == []
