"""Tile sizes and pipelining of the three kernels, by head dimension and element size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Tiles:
    """One kernel's tile (queries x keys), its warps and its pipeline stages."""

    block_m: int
    block_n: int
    warps: int
    stages: int


# Query rows of a tile of the forward kernel for Hopper: 64 for each of two warpgroups.
HOPPER_ROWS = 128


@dataclass(frozen=True, slots=True)
class HopperTiles:
    """How the forward kernel for Hopper walks: keys a tile, at most so many tiles in a ring, how tiles are shared.

    `dynamic`: query tiles are handed out one by one; else each program has a fixed share of them.
    """

    block_n: int
    stages: int
    dynamic: bool

    @property
    def tiles(self) -> Tiles:
        """The same as tiles of 128 query rows; a warpgroup is four warps."""
        return Tiles(HOPPER_ROWS, self.block_n, 4, self.stages)


@dataclass(frozen=True, slots=True)
class Tiling:
    """The tiles of an emitted module, and the inputs it is meant for: head dims up to `head_dim`, `bytes` an element.

    Both backward kernels read the rows' log-sum-exp in one layout: their query tiles are equally high. `tall` is for
    the forward kernel of patterns that execute hardly more pairs in higher tiles. `origin` says where the tiles of
    `sparsedsl tune` were measured; `hopper` are those of the forward kernel for Hopper, else chosen for each part, and
    `plain_forward` says that it was slower than the plain one.
    """

    name: str
    head_dim: int
    bytes: int
    forward: Tiles
    dq: Tiles
    dkdv: Tiles
    tall: Tiles | None = None
    origin: str = ""
    hopper: HopperTiles | None = None
    plain_forward: bool = False


_SINGLE = (
    Tiling("single128", 128, 4, Tiles(64, 32, 4, 2), Tiles(32, 32, 4, 1), Tiles(32, 32, 4, 1)),
    # In larger tiles, products of float32 over 256 compile for minutes.
    Tiling("single256", 256, 4, Tiles(32, 16, 4, 1), Tiles(16, 16, 4, 1), Tiles(16, 16, 4, 1)),
)
# For compute capability 9.0: measured on an H200 where 16-bit.
TILINGS = (
    Tiling("half128", 128, 2, Tiles(64, 64, 4, 3), Tiles(64, 64, 4, 2), Tiles(64, 64, 4, 2), Tiles(128, 64, 4, 2)),
    Tiling("half256", 256, 2, Tiles(128, 64, 8, 2), Tiles(64, 64, 8, 2), Tiles(64, 64, 8, 2)),
    *_SINGLE,
)
# For every other card: they fit 99 KB of shared memory on 8.9 and 12.0, and what 8.0 and 10.0 have. Not measured.
SMALL_TILINGS = (
    Tiling("half128_small", 128, 2, Tiles(64, 64, 4, 2), Tiles(64, 64, 4, 2), Tiles(64, 64, 4, 2)),
    Tiling("half256_small", 256, 2, Tiles(64, 32, 4, 2), Tiles(64, 32, 8, 1), Tiles(64, 32, 8, 1)),
    *_SINGLE,
)


def tilings_here() -> tuple[Tiling, ...]:
    """The tilings for this machine's GPU: the measured ones on Hopper and where there is none, else the small ones."""
    return tilings_on(torch.cuda.get_device_capability()) if torch.cuda.is_available() else TILINGS


def tilings_on(capability: tuple[int, int]) -> tuple[Tiling, ...]:
    """The tilings for GPUs of a compute capability."""
    return TILINGS if capability == (9, 0) else SMALL_TILINGS


def tiling_for(head_dim: int, element_size: int, tilings: Sequence[Tiling] = TILINGS) -> Tiling | None:
    """The smallest tiling that takes this head dimension and element size; None where none does."""
    for tiling in tilings:  # in the order of head dims; a plain loop, which torch.compile can trace
        if tiling.bytes == element_size and head_dim <= tiling.head_dim:
            return tiling
    return None
