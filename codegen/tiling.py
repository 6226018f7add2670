"""Tile sizes and pipelining of the three kernels, by head dimension and element size."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tiles:
    """One kernel's tile (queries x keys), its warps and its pipeline stages."""

    block_m: int
    block_n: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class Tiling:
    """The tiles of an emitted module, and the inputs it is meant for: head dims up to `head_dim`, `bytes` an element.

    Both backward kernels read the rows' log-sum-exp in one layout: their query tiles are equally high. `tall` is for
    the forward kernel of patterns that execute hardly more pairs in higher tiles.
    """

    name: str
    head_dim: int
    bytes: int
    forward: Tiles
    dq: Tiles
    dkdv: Tiles
    tall: Tiles | None = None


# Measured on an H200 where 16-bit; the others fit the 227 KB of shared memory of its multiprocessors.
TILINGS = (
    Tiling("half128", 128, 2, Tiles(64, 64, 4, 3), Tiles(64, 64, 4, 2), Tiles(64, 64, 4, 2), Tiles(128, 64, 4, 2)),
    Tiling("half256", 256, 2, Tiles(128, 64, 8, 2), Tiles(64, 64, 8, 2), Tiles(64, 64, 8, 2)),
    Tiling("single256", 256, 4, Tiles(64, 32, 4, 2), Tiles(32, 32, 4, 1), Tiles(32, 32, 4, 1)),
)


def tiling_for(head_dim: int, element_size: int) -> Tiling | None:
    """The smallest tiling that takes this head dimension and element size; None where none does."""
    for tiling in TILINGS:  # in the order of head dims; a plain loop, which torch.compile can trace
        if tiling.bytes == element_size and head_dim <= tiling.head_dim:
            return tiling
    return None
