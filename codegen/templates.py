"""The fixed text of an emitted module; `$name` marks what depends on the pattern."""

from __future__ import annotations

from string import Template

IMPORTS = """
from __future__ import annotations

${json_import}import os
${look_imports}from collections.abc import Callable, Iterator, Sequence
${suppress_import}from dataclasses import dataclass, replace
${cache_import}${other_imports}${folder_imports}from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
${hopper_imports}from triton.tools.tensor_descriptor import TensorDescriptor
${guarded_imports}
PATTERN = $pattern
DIGEST = "$digest"
"""

ITERTOOLS = "from itertools import pairwise\n"
TABLE_IMPORTS = f"from hashlib import blake2b\n{ITERTOOLS}"

MASK = """
@triton.jit
def $name(q, k):
    return $condition
"""

MASK_WITH_SETS = """
@triton.jit
def $name(q, k, constants):
    return $condition


def ${name}_on_cpu(q: Tensor, k: Tensor) -> Tensor:
    return $on_cpu
"""

CONSTANTS = '''
def packed_bits(spans: list[tuple[int, int]], lo: int, hi: int) -> list[int]:
    """The numbers of the half-open spans as bits from lo to hi, 32 to an int32, the least bit first."""
    bits = sum((1 << end - lo) - (1 << start - lo) for start, end in spans)
    words = [bits >> 32 * word & 0xFFFFFFFF for word in range((hi - lo + 31) // 32)]
    return [word - (word >> 31 << 32) for word in words]


# What no short formula gives; its size follows the pattern, not any length.
CONSTANTS = (
${constants})


@cache
def constants_on(device: torch.device) -> Tensor:
    """The constants on a device."""
    return torch.tensor(CONSTANTS, dtype=torch.int32, device=device)
'''

LISTS = '''
@triton.jit
def listed_below(bound, constants, start, many, TURN: tl.constexpr, WIDTH: tl.constexpr):
    """How many tiles of a list stand below `bound`: `many` items, each again every TURN."""
    bound = max(bound, 0)
    items = tl.load(constants + start + tl.arange(0, WIDTH))
    return bound // TURN * many + tl.sum((items < bound % TURN).to(tl.int32), 0)


def listed_tiles(
    home: int, start: int, many: int, width: int, turn: int, sign: int, first: int, end: int
) -> Iterator[int]:
    """The tiles of a list that are in [first, end)."""
    items = CONSTANTS[start : start + many]
    farthest = home - first if sign > 0 else end - 1 - home
    for turns in range(max(farthest, -1) // turn + 1):
        for item in items:
            tile = home - sign * (turns * turn + item)
            if first <= tile < end:
                yield tile
'''

SETS = '''
@triton.jit
def listed(constants, value, START: tl.constexpr, LO: tl.constexpr, HI: tl.constexpr):
    """Whether the value is in a set that is kept as bits from LO to HI."""
    bit = value - LO
    inside = (bit >= 0) & (bit < HI - LO)
    word = tl.load(constants + START + bit // 32, mask=inside, other=0)
    return inside & (((word >> (bit % 32)) & 1) == 1)


def listed_on_cpu(value: Tensor, start: int, lo: int, hi: int) -> Tensor:
    """The same for a tensor on the CPU."""
    bit = (value - lo).clamp(0, hi - lo - 1)
    word = constants_on(torch.device("cpu"))[start + bit // 32]
    return (value >= lo) & (value < hi) & ((word >> (bit % 32)) & 1 == 1)
'''

JUMPS = '''
@triton.jit
def jump(t, SCALE: tl.constexpr, BASE: tl.constexpr, COUNT: tl.constexpr):
    """SCALE * BASE**t for 0 <= t < COUNT."""
    if BASE == 2:
        return SCALE << t
    distance = SCALE
    for s in tl.static_range(COUNT - 1):
        distance = tl.where(s < t, distance * BASE, distance)
    return distance


@triton.jit
def tiles_in_jumps(room, SCALE: tl.constexpr, BASE: tl.constexpr, WIDTH: tl.constexpr, COUNT: tl.constexpr):
    """How many tiles of the jumps [SCALE * BASE**t, ... + WIDTH), 0 <= t < COUNT, are below `room`."""
    tiles = 0
    for t in tl.static_range(COUNT):
        tiles += min(max(room - SCALE * BASE**t, 0), WIDTH)
    return tiles
'''


def filled(text: str, holes: dict[str, str]) -> str:
    """The text with its holes filled; a hole without a value is an error."""
    return Template(text).substitute(holes) if "$" in text else text
