"""The values of an emulated kernel: numbers, tiles and pointers, with the arithmetic of a GPU."""

from __future__ import annotations

import operator
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

Number = int | float | bool


class Scalar(int):
    """An int32 of a kernel; it divides towards zero, and wraps."""

    def to(self, dtype: torch.dtype) -> Scalar:
        """A wider one; Python's are wide enough."""
        return self


def _wrapped(value: int) -> Scalar:
    return Scalar((value + (1 << 31)) % (1 << 32) - (1 << 31)) if abs(value) < 1 << 40 else Scalar(value)


def _divided(a: int, b: int) -> int:
    return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _shifted(a: int, b: int) -> int:
    return a << b if 0 <= b < 32 else 0


_INTEGERS: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": _divided,
    "mod": lambda a, b: a - b * _divided(a, b),
    "lshift": _shifted,
    "rshift": lambda a, b: a >> b if 0 <= b < 32 else 0,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
}
_TENSORS: dict[str, Callable[[Any, Any], Tensor]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "floordiv": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "mod": torch.fmod,
    "lshift": operator.lshift,
    "rshift": operator.rshift,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


class Tile:
    """A tensor in registers."""

    def __init__(self, data: Tensor) -> None:
        self.data = data

    def __getitem__(self, place: Any) -> Tile:
        return Tile(self.data[place])

    def __invert__(self) -> Tile:
        return Tile(~self.data)

    def __neg__(self) -> Tile:
        return Tile(-self.data)

    def to(self, dtype: torch.dtype, bitcast: bool = False) -> Tile:
        """The values in another type, or the bits as another type."""
        return Tile(self.data.view(dtype) if bitcast else self.data.to(dtype))


def raw(value: Any) -> Any:
    """The tensor of a tile, or the number."""
    return value.data if isinstance(value, Tile) else int(value) if isinstance(value, Scalar) else value


def _of_scalars(name: str, compute: Callable[[int, int], int]) -> None:
    def forward(self: Scalar, other: Any) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        return _wrapped(compute(int(self), int(other)))

    def backward(self: Scalar, other: Any) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        return _wrapped(compute(int(other), int(self)))

    setattr(Scalar, f"__{name}__", forward)
    setattr(Scalar, f"__r{name}__", backward)


def _of_tiles(name: str, compute: Callable[[Any, Any], Tensor]) -> None:
    def forward(self: Tile, other: Any) -> Any:
        return Tile(compute(self.data, raw(other))) if not isinstance(other, Pointer) else NotImplemented

    def backward(self: Tile, other: Any) -> Any:
        left = torch.as_tensor(raw(other)) if name in ("floordiv", "mod", "sub") else raw(other)
        return Tile(compute(left, self.data))

    setattr(Tile, f"__{name}__", forward)
    if name not in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(Tile, f"__r{name}__", backward)


for _name, _compute in _INTEGERS.items():
    _of_scalars(_name, _compute)
for _name, _operation in _TENSORS.items():
    _of_tiles(_name, _operation)


@dataclass(frozen=True)
class Pointer:
    """Places in one tensor."""

    whole: Tensor
    place: Any

    def __add__(self, offset: Any) -> Pointer:
        return Pointer(self.whole, self.place + offset)

    def to(self, dtype: torch.dtype) -> Pointer:
        """As a number for assembly."""
        return self

    @property
    def dtype(self) -> SimpleNamespace:
        """What it points to."""
        return SimpleNamespace(element_ty=self.whole.dtype)

    def inside(self, mask: Any) -> tuple[Tensor, Tensor]:
        """The places, and which of them take part; a place outside the tensor that does is an error."""
        place = torch.as_tensor(raw(self.place), dtype=torch.int64)
        active = torch.as_tensor(True if mask is None else raw(mask))
        place, active = torch.broadcast_tensors(place, active)
        if (active & ((place < 0) | (place >= self.whole.numel()))).any():
            raise AssertionError("a place outside its tensor is read or written")
        return place.clamp(0, self.whole.numel() - 1), active


def _load(pointer: Pointer, mask: Any = None, other: Number = 0) -> Any:
    place, active = pointer.inside(mask)
    found = torch.where(active, pointer.whole[place], torch.as_tensor(other, dtype=pointer.whole.dtype))
    return Scalar(int(found)) if found.dim() == 0 else Tile(found)


def _store(pointer: Pointer, value: Tile, mask: Any = None) -> None:
    place, active = pointer.inside(mask)
    if value.data.isnan()[active.expand(value.data.shape)].any():
        raise AssertionError("NaN is stored")
    pointer.whole[place[active]] = value.data.expand(place.shape)[active].to(pointer.whole.dtype)


def _where(condition: Any, a: Any, b: Any) -> Any:
    if not any(isinstance(each, Tile) for each in (condition, a, b)):
        return Scalar(a if condition else b)
    return Tile(torch.where(torch.as_tensor(raw(condition)), raw(a), raw(b)))


def _reduced(reduce: Callable[[Tensor, int], Tensor]) -> Callable[[Any, int], Any]:
    def of(value: Tile, axis: int) -> Any:
        found = reduce(value.data, axis)
        return Scalar(int(found)) if found.dim() == 0 else Tile(found)

    return of


def _elementwise(
    of_two: Callable[[Tensor, Tensor], Tensor], of_numbers: Callable[..., Any]
) -> Callable[[Any, Any], Any]:
    def of(a: Any, b: Any) -> Any:
        if not isinstance(a, Tile) and not isinstance(b, Tile):
            return Scalar(of_numbers(a, b))
        like = a.data if isinstance(a, Tile) else b.data
        return Tile(of_two(*(torch.as_tensor(raw(each), dtype=like.dtype) for each in (a, b))))

    return of


_LOCK = threading.Lock()


def _added(pointer: Pointer, *values: Tile) -> Tile:
    """Neighbouring numbers added to memory."""
    with _LOCK:
        for step, value in enumerate(values):
            place, _ = (pointer + step).inside(None)
            pointer.whole.index_add_(0, place.flatten(), value.data.flatten())
    return Tile(torch.zeros_like(values[0].data, dtype=torch.int32))


@cache
def _cuts(text: str) -> tuple[Tensor, Tensor]:
    """Which column a number's own comparison is for, and what its thread takes off the bound: [64, columns] each.

    Of 16 rows a thread has row lane // 4, and the one 8 below it; of 8 columns two, from 2 * (lane % 4) on.
    """
    lines = re.findall(r"setp\.\w+\.s32 p, ([ab]), (\d+); selp\.f32 \$(\d+), \$(\d+), 0f\w+, p;", text)
    columns, taken = (torch.full((64, 2 * len(lines)), -1) for _ in range(2))
    for number, (row, column, to, source) in enumerate(lines):
        assert int(to) == int(source) == number
        assert row == "ab"[number // 2 % 2]
        rows = [base + 8 * (number // 2 % 2) + line for base in range(0, 64, 16) for line in range(8)]
        for lane in range(4):
            own = number // 4 * 8 + 2 * lane + number % 2
            columns[rows, own], taken[rows, own] = int(column), 2 * lane
    assert columns.min() >= 0, text
    return columns, taken


def _cut(text: str, numbers: Tensor, bound: Tensor) -> Tensor:
    """The numbers, filled where the comparison of their column does not hold."""
    columns, taken = _cuts(text)
    keep = bound - taken > columns if "setp.gt" in text else bound - taken <= columns
    return numbers.where(keep, float("-inf") if "0fFF800000" in text else 0.0)


def _assembly(text: str, constraints: str, given: Sequence[Any], *, dtype: torch.dtype, **options: object) -> Tile:
    """The lines of assembly that the kernels use."""
    if text.startswith("red.relaxed.gpu.global.add.v4.f32 [$1], {$2, $3, $4, $5};"):
        return _added(*given)
    if "vote.sync.any" in text:  # skipped where all are 1: the same numbers
        return Tile(given[0].data * given[1].data)
    if "laneid" in text:
        return Tile(_cut(text, given[0].data, given[1].data))
    if text == "lg2.approx.f32 $0, $1;":
        return Tile(given[0].data.log2())
    if text == "mov.b32 $0, $1;":
        return Tile(given[0].data.clone())
    kind = {
        "cvt.rn.bf16x2.f32 $0, $2, $1;": torch.bfloat16,
        "cvt.rn.f16x2.f32 $0, $2, $1;": torch.float16,
    }[text]
    low, high = (each.data.to(kind).view(torch.int16).to(torch.int32) for each in given)
    return Tile((high << 16) | (low & 0xFFFF))


def functions() -> dict[str, Any]:
    """What the language offers beside memory and order."""

    def of_one(compute: Callable[[Tensor], Tensor]) -> Callable[[Tile], Tile]:
        return lambda value: Tile(compute(value.data))

    return {
        "constexpr": object,
        "float32": torch.float32,
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
        "int64": torch.int64,
        "int32": torch.int32,
        "int16": torch.int16,
        "static_range": range,
        "arange": lambda start, end, layout=None: Tile(torch.arange(start, end, dtype=torch.int32)),
        "full": lambda shape, value, dtype, layout: Tile(torch.full(tuple(shape), value, dtype=dtype)),
        "zeros": lambda shape, dtype, layout=None: Tile(torch.zeros(*shape, dtype=dtype)),
        "broadcast": lambda one, other: [Tile(each) for each in torch.broadcast_tensors(one.data, other.data)],
        "expand_dims": lambda value, axis: Tile(value.data.unsqueeze(axis)),
        "permute": lambda value, order: Tile(value.data.permute(*order)),
        "reshape": lambda value, shape: Tile(value.data.reshape(*shape)),
        "convert_layout": lambda value, layout: value,
        "split": lambda value: (Tile(value.data[..., 0]), Tile(value.data[..., 1])),
        "join": lambda a, b: Tile(torch.stack([a.data, b.data], -1)),
        "exp": of_one(torch.exp),
        "exp2": of_one(torch.exp2),
        "log": of_one(torch.log),
        "log2": of_one(torch.log2),
        "max": _reduced(lambda data, axis: data.amax(axis)),
        "min": _reduced(lambda data, axis: data.amin(axis)),
        "sum": _reduced(lambda data, axis: data.sum(axis)),
        "maximum": _elementwise(torch.maximum, max),
        "minimum": _elementwise(torch.minimum, min),
        "where": _where,
        "load": _load,
        "store": _store,
        "inline_asm_elementwise": _assembly,
    }
