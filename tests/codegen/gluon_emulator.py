"""Run the Gluon kernel of an emitted module on the CPU, strictly: what would be a race on a GPU is an error here.

Each partition of `warp_specialize` is a thread. Values are torch tensors; layouts are not modelled (the compiler checks
them). What is modelled is order:

- an mbarrier has a phase, pending arrivals and pending bytes; one arrival too many, bytes that nobody expects, or a
  partition that misses a phase is an error, and so is a wait that nobody can end;
- every access to shared memory carries a vector clock: who reads a buffer must have waited for what filled it, who
  fills it must have waited for everyone who read it;
- a product of a warpgroup is computed when it is waited for, from what its operands hold then; until that it is a
  token, which nothing else takes;
- what an ordinary store wrote must be fenced before the copy engine reads it, and read before it is written again.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from triton.runtime.jit import KernelInterface

from tests.codegen.gluon_values import Pointer, Scalar, Tile, functions

Clock = dict[str, int]


class EmulationError(AssertionError):
    """What the hardware would not forgive."""


@dataclass
class Barrier:
    """One mbarrier; `completed` counts its phases."""

    name: str = "?"
    count: int = 0
    pending: int = 0
    bytes: int = 0
    completed: int = 0
    gathered: Clock = field(default_factory=dict)
    clock: Clock = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}: phase {self.completed}, {self.pending} arrivals and {self.bytes} bytes to come"


class Barriers(list[Barrier]):
    """The barriers of one allocation."""

    def index(self, place: int) -> Barrier:  # type: ignore[override]
        """One of them."""
        if not 0 <= place < len(self):
            raise EmulationError(f"there is no barrier {place} of {len(self)}")
        return self[place]


@dataclass
class Buffer:
    """One slot of shared memory: who wrote it, who read it, when."""

    written: tuple[str, int] | None = None
    read: Clock = field(default_factory=dict)
    products: int = 0
    unfenced: bool = False
    stored_by: str | None = None


@dataclass(frozen=True)
class View:
    """Numbers of shared memory in some shape, and the buffers that they lie in."""

    buffers: tuple[Buffer, ...]
    data: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """The type of its elements."""
        return self.data.dtype

    def reshape(self, shape: Sequence[int]) -> View:
        """The same numbers in rows of another length."""
        return View(self.buffers, self.data.view(*shape))

    def permute(self, order: Sequence[int]) -> View:
        """Other order of dimensions."""
        return View(self.buffers, self.data.permute(*order))

    def slice(self, start: int, length: int, dim: int = 0) -> View:
        """Part of one dimension."""
        return View(self.buffers, self.data.narrow(dim, start, length))

    def load(self, layout: object) -> Tile:
        """Read by the partition's threads."""
        me = partition()
        for buffer in self.buffers:
            me.check_filled(buffer)
            buffer.read[me.name] = me.clock[me.name]
        return Tile(self.data.clone())

    def store(self, value: Tile) -> None:
        """Write by the partition's threads."""
        me = partition()
        if value.data.dtype != self.dtype:
            raise EmulationError(f"a tile of {value.data.dtype} is stored where {self.dtype} lies")
        for buffer in self.buffers:
            me.check_left(buffer)
            buffer.written, buffer.read = (me.name, me.clock[me.name]), {}
            buffer.unfenced = True
            me.unfenced.append(buffer)
        self.data.copy_(value.data)


class Shared:
    """An allocation of shared memory: slots, or a single buffer."""

    def __init__(self, dtype: torch.dtype, shape: Sequence[int]) -> None:
        self.dtype = dtype
        bad = float("nan") if dtype.is_floating_point else -(1 << 30)
        self.whole = torch.full(tuple(shape) if len(shape) > 1 else (1, *shape), bad, dtype=dtype)
        self.slots = [View((Buffer(),), each) for each in self.whole]

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of slots, then the shape of each."""
        return tuple(self.whole.shape)

    def index(self, place: int) -> View:
        """One slot."""
        if not 0 <= place < len(self.slots):
            raise EmulationError(f"there is no slot {place} of {len(self.slots)}")
        return self.slots[place]

    def load(self, layout: object) -> Tile:
        """The single buffer."""
        return self.index(0).load(layout)

    def store(self, value: Tile) -> None:
        """The single buffer."""
        self.index(0).store(value)

    def seen_as(self, dtype: torch.dtype, shape: Sequence[int], layout: object) -> Shared:
        """The same memory in other slots: each lies in all buffers that it touches."""
        if dtype != self.dtype or prod(shape) != self.whole.numel():
            raise EmulationError(f"{tuple(self.whole.shape)} of {self.dtype} seen as {tuple(shape)} of {dtype}")
        other = object.__new__(Shared)
        other.dtype, other.whole = dtype, self.whole.view(*shape)
        size, own = other.whole[0].numel(), self.whole[0].numel()
        other.slots = []
        for place, each in enumerate(other.whole):
            touched = self.slots[place * size // own : ((place + 1) * size - 1) // own + 1]
            other.slots.append(View(tuple(buffer for slot in touched for buffer in slot.buffers), each))
        return other


class Token:
    """A product in flight."""

    def __init__(self, a: View | Tile, b: View, acc: Tile | Token | None) -> None:
        self.a, self.b, self.acc = a, b, acc
        self.result: Tile | None = None
        me = partition()
        self.sources = [buffer for each in (a, b) if isinstance(each, View) for buffer in each.buffers]
        for buffer in self.sources:
            me.check_filled(buffer)
            if buffer.unfenced:
                raise EmulationError(f"{me.name} multiplies what was stored without a fence")
            buffer.products += 1
        self.written = [buffer.written for buffer in self.sources]

    def finish(self) -> None:
        """Multiply what the operands hold now."""
        me = partition()
        for buffer, written in zip(self.sources, self.written, strict=True):
            buffer.products -= 1
            if buffer.written != written:
                raise EmulationError(f"{me.name}: an operand was overwritten under its product")
            buffer.read[me.name] = me.clock[me.name]
        a, b = self.a.data, self.b.data
        if a.dtype != b.dtype:
            raise EmulationError(f"a product of {a.dtype} and {b.dtype}")
        product = a.float() @ b.float()
        # Products follow each other in order: what this one is added to is there.
        acc = self.acc.result if isinstance(self.acc, Token) else self.acc
        self.result = Tile(product if acc is None else acc.data + product)


@dataclass
class Partition:
    """One thread of the emulation, all warps of a partition together."""

    name: str
    program: Program
    clock: Clock
    products: list[Token] = field(default_factory=list)
    unfenced: list[Buffer] = field(default_factory=list)
    stores: list[View] = field(default_factory=list)

    def check_filled(self, buffer: Buffer) -> None:
        """Whether what filled the buffer happened before."""
        if buffer.written is None:
            raise EmulationError(f"{self.name} reads a buffer that nothing filled")
        who, when = buffer.written
        if self.clock.get(who, 0) < when:
            raise EmulationError(f"{self.name} reads a buffer without having waited for {who}")

    def check_left(self, buffer: Buffer) -> None:
        """Whether everybody who uses the buffer has left it."""
        if buffer.products:
            raise EmulationError(f"{self.name} overwrites an operand of a product in flight")
        if buffer.stored_by is not None:
            raise EmulationError(f"{self.name} overwrites what {buffer.stored_by} still copies to memory")
        for who, when in (*buffer.read.items(), *([buffer.written] if buffer.written else [])):
            if who != self.name and self.clock.get(who, 0) < when:
                raise EmulationError(f"{self.name} overwrites a buffer without having waited for {who}")


class Program:
    """One program of the grid while it runs."""

    def __init__(self, number: int, programs: int) -> None:
        self.number, self.programs = number, programs
        self.changed = threading.Condition()
        self.barriers: list[Barrier] = []
        self.partitions: list[Partition] = []
        self.waiting: dict[str, tuple[Barrier, int]] = {}
        self.running = 0
        self.copies = 0
        self.failure: BaseException | None = None

    def state(self) -> str:
        """All barriers, and who waits for which."""
        waits = [
            f"{name} waits for phase parity {phase} of {barrier}" for name, (barrier, phase) in self.waiting.items()
        ]
        return "\n".join(["", *waits, *map(str, self.barriers)])

    def run(self, functions: Sequence[tuple[Callable[..., object], Sequence[object]]]) -> None:
        """Run the partitions to their end."""
        threads = []
        self.running = len(functions)
        for place, (function, given) in enumerate(functions):
            name = f"{getattr(function, '__name__', 'partition')} {place}"
            self.partitions.append(Partition(name, self, {"start": 1, name: 1}))
            threads.append(threading.Thread(target=self._part, args=(place, function, given), daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            if thread.is_alive():
                raise EmulationError(f"a partition hangs{self.state()}")
        if self.failure:
            raise self.failure
        for barrier in self.barriers:
            if barrier.bytes:
                raise EmulationError(f"bytes outstanding at the end: {barrier}")
        for part in self.partitions:
            if part.products or part.stores:
                raise EmulationError(f"{part.name} ends with products or copies in flight")

    def _part(self, place: int, function: Callable[..., object], given: Sequence[object]) -> None:
        _own.partition = self.partitions[place]
        try:
            function(*given)
        except BaseException as error:
            with self.changed:
                self.failure = self.failure or error
        finally:
            with self.changed:
                self.running -= 1
                self._check_progress()
                self.changed.notify_all()

    def _check_progress(self) -> None:
        """Whether anyone can go on."""
        stuck = all((barrier.completed & 1) == phase for barrier, phase in self.waiting.values())
        if self.waiting and len(self.waiting) == self.running and stuck and not self.failure:
            self.failure = EmulationError(f"deadlock{self.state()}")
            self.changed.notify_all()

    def wait(self, me: Partition, barrier: Barrier, phase: int) -> None:
        """Block until the phase of this parity is over."""
        with self.changed:
            self.waiting[me.name] = (barrier, phase)
            while (barrier.completed & 1) == phase:
                self._check_progress()
                if self.failure:
                    raise EmulationError(f"{me.name} was stopped")
                self.changed.wait(60)
            del self.waiting[me.name]
            if barrier.completed - barrier.seen.get(me.name, 0) > 1:
                raise EmulationError(f"{me.name} missed a phase of {barrier}")
            barrier.seen[me.name] = barrier.completed
            _join(me.clock, barrier.clock)

    def arrive(self, barrier: Barrier, count: int, clock: Clock, *, more: int = 0, done: int = 0) -> None:
        """Arrivals and bytes of a barrier; the phase ends where none is outstanding."""
        with self.changed:
            barrier.pending -= count
            barrier.bytes += more - done
            if barrier.pending < 0:
                raise EmulationError(f"one arrival too many at {barrier}")
            if barrier.bytes < 0:
                raise EmulationError(f"bytes that nobody expects at {barrier}")
            _join(barrier.gathered, clock)
            if barrier.pending == 0 and barrier.bytes == 0:
                barrier.completed += 1
                barrier.pending = barrier.count
                barrier.clock = dict(barrier.gathered)
                self.changed.notify_all()


def _join(clock: Clock, other: Clock) -> None:
    for name, when in other.items():
        clock[name] = max(clock.get(name, 0), when)


_own = threading.local()
_current: list[Program] = []


def partition() -> Partition:
    """The partition that runs in this thread."""
    found: Partition = _own.partition
    return found


def _one(barrier: Barrier | Barriers) -> Barrier:
    return barrier if isinstance(barrier, Barrier) else barrier.index(0)


def _allocate(dtype: torch.dtype, shape: Sequence[int], layout: object) -> Shared | Barriers:
    if layout != "mbarrier":
        return Shared(dtype, shape)
    found = Barriers(Barrier() for _ in range(shape[0] if len(shape) > 1 else 1))
    _current[-1].barriers += found
    return found


def _init(barrier: Barrier | Barriers, count: int) -> None:
    one = _one(barrier)
    if one.count:
        raise EmulationError(f"a barrier is set up twice: {one}")
    one.count = one.pending = count


def _arrive(barrier: Barrier | Barriers, *, count: int = 1) -> None:
    me = partition()
    me.program.arrive(_one(barrier), count, me.clock)
    me.clock[me.name] += 1


def _expect(barrier: Barrier | Barriers, size: int) -> None:
    me = partition()
    me.program.arrive(_one(barrier), 1, me.clock, more=size)
    me.clock[me.name] += 1


def _wait(barrier: Barrier | Barriers, phase: int) -> None:
    me = partition()
    me.program.wait(me, _one(barrier), int(phase))


@dataclass(frozen=True)
class Descriptor:
    """A tensor as the copy engine sees it."""

    base: Tensor
    shape: Sequence[int]
    strides: Sequence[int]
    block_shape: Sequence[int]
    layout: object

    def __post_init__(self) -> None:
        size = self.base.element_size()
        assert self.base.data_ptr() % 16 == 0
        assert all(stride * size % 16 == 0 for stride in self.strides[:-1]), self.strides
        assert self.strides[-1] == 1
        assert all(extent > 0 for extent in self.shape), self.shape
        assert len(self.shape) == len(self.strides) == len(self.block_shape) <= 5

    @property
    def dtype(self) -> torch.dtype:
        """The type of its elements."""
        return self.base.dtype

    def cut(self, place: Sequence[int], smem: Tensor) -> tuple[Tensor, Tensor]:
        """The part of the block that lies inside the tensor: there, and in shared memory."""
        if tuple(smem.shape) != tuple(self.block_shape) or len(place) != len(self.block_shape):
            raise EmulationError(f"a block {self.block_shape} at {place} goes to a buffer {tuple(smem.shape)}")
        whole = self.base.as_strided(tuple(self.shape), tuple(self.strides), self.base.storage_offset())
        for dim, (start, size, extent) in enumerate(zip(place, self.block_shape, self.shape, strict=True)):
            low, high = max(int(start), 0), max(min(int(start) + size, extent), 0)
            length = max(high - low, 0)
            low = min(low, extent)
            whole = whole.narrow(dim, low if length else 0, length)
            smem = smem.narrow(dim, low - int(start) if length else 0, length)
        return whole, smem


def _bring(desc: Descriptor, place: Sequence[int], barrier: Barrier | Barriers, result: View) -> None:
    me, one = partition(), _one(barrier)
    (buffer,) = result.buffers
    me.check_left(buffer)
    size = result.data.numel() * result.data.element_size()
    if one.bytes < size:
        raise EmulationError(f"a copy of {size} bytes begins before they are expected at {one}")
    with me.program.changed:
        me.program.copies += 1
        name = f"copy {me.program.copies}"
    result.data.zero_()
    source, target = desc.cut(place, result.data)
    target.copy_(source)
    buffer.written, buffer.read = (name, 1), {}
    me.program.arrive(one, 0, {**me.clock, name: 1}, done=size)


def _put(desc: Descriptor, place: Sequence[int], source: View) -> None:
    me = partition()
    for buffer in source.buffers:
        me.check_filled(buffer)
        if buffer.unfenced:
            raise EmulationError(f"{me.name} copies what it stored without a fence")
    inside, data = desc.cut(place, source.data)
    if any(int(start) < 0 for start in place):
        raise EmulationError(f"a copy to memory begins before the tensor: {place}")
    inside.copy_(data)
    for buffer in source.buffers:
        buffer.stored_by = me.name
    me.stores.append(source)


def _store_wait(pending: int) -> None:
    me = partition()
    while len(me.stores) > pending:
        for buffer in me.stores.pop(0).buffers:
            buffer.stored_by = None


def _fence() -> None:
    me = getattr(_own, "partition", None)
    while me is not None and me.unfenced:
        me.unfenced.pop().unfenced = False


def _multiply(
    a: View | Tile, b: View, acc: Tile | Token, *, use_acc: bool = True, is_async: bool = False
) -> Token | Tile:
    token = Token(a, b, acc if use_acc else None)
    partition().products.append(token)
    return token if is_async else _multiplied(0, deps=[token])


def _multiplied(outstanding: int = 0, *, deps: Iterable[Token | Tile]) -> Any:
    me = partition()
    while len(me.products) > outstanding:
        me.products.pop(0).finish()
    results = []
    for each in deps:
        result = each.result if isinstance(each, Token) else each
        if result is None:
            raise EmulationError(f"{me.name} takes a product that is still in flight")
        results.append(result)
    return results[0] if len(results) == 1 else tuple(results)


def _atomic_add(pointer: Pointer, value: int) -> Scalar:
    with _current[-1].changed:
        before = int(pointer.whole[int(pointer.place)])
        pointer.whole[int(pointer.place)] += int(value)
    return Scalar(before)


def _specialize(functions: Sequence[tuple[Any, Sequence[object]]], warps: list[int], registers: list[int]) -> None:
    assert len(functions) == len(warps) + 1 == len(registers) + 1
    for function, given in functions:
        for name, each in zip(inspect.signature(function).parameters, given, strict=True):
            if isinstance(each, Barriers):
                for place, barrier in enumerate(each):
                    barrier.name = f"{name}[{place}]"
    _current[-1].run(functions)


class Kernel:
    """A function of the module: called by others, or launched over a grid, program after program."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function
        self.__name__ = function.__name__
        self.__signature__ = inspect.signature(function)

    def __call__(self, *given: object, **options: object) -> object:
        return self.function(*given, **options)

    def __getitem__(self, grid: tuple[int]) -> Callable[..., None]:
        def launch(*given: object, num_warps: int, maxnreg: int = 0, **options: object) -> None:
            for number in range(grid[0]):
                _current.append(Program(number, grid[0]))
                self.function(*map(_argument, given), **options)
                _current.pop()

        return launch


def _argument(given: object) -> object:
    if isinstance(given, Tensor):
        return Pointer(given.as_strided((given.numel(),), (1,)), 0)  # as it lies in memory, in whatever order
    return Scalar(given) if isinstance(given, int) else given


class _Layout:
    """Any layout."""

    def __init__(self, *given: object, **options: object) -> None:
        pass

    @staticmethod
    def get_default_for(*given: object) -> None:
        """Of a block."""


def _ran(module: ModuleType, part: Callable[..., bool], *given: object) -> bool:
    """What the module does with a kernel that it has looked at."""
    part(module.launched, *given)
    return True


def emulated(module: ModuleType, programs: int = 2) -> ModuleType:
    """The module with its kernels for Hopper run here, on tensors of the CPU; no other of its kernels runs any more."""
    layouts = ("NVMMADistributedLayout", "SliceLayout", "DotOperandLayout", "BlockedLayout", "SwizzledSharedLayout")
    language = SimpleNamespace(
        **functions(),
        **dict.fromkeys(layouts, _Layout),
        NVMMASharedLayout=_Layout,
        allocate_shared_memory=_allocate,
        warp_specialize=_specialize,
        atomic_add=_atomic_add,
        program_id=lambda axis: Scalar(_current[-1].number),
        num_programs=lambda axis: Scalar(_current[-1].programs),
    )
    barrier = SimpleNamespace(MBarrierLayout=lambda: "mbarrier", init=_init, arrive=_arrive, expect=_expect, wait=_wait)
    copies = SimpleNamespace(store_wait=_store_wait)
    for name, each in list(vars(module).items()):
        if isinstance(each, KernelInterface):
            setattr(module, name, Kernel(each.fn))
    names = {
        "gl": language, "tl": language, "mbarrier": barrier, "tma": copies, "copy_in": _bring, "copy_out": _put,
        "seen_as": Shared.seen_as,
        "fence_async_shared": _fence,
        "warpgroup_mma": _multiply, "warpgroup_mma_wait": _multiplied, "HopperDescriptor": Descriptor,
        "is_hopper": lambda device: True, "ran_on_hopper": partial(_ran, module),
        "multiprocessors": lambda device: programs,
    }  # fmt: skip
    for name, value in names.items():
        setattr(module, name, value)
    return module
