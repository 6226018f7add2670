"""All parts of a module as text, and what they share: tilings, constants, masks and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparsedsl.codegen.constants import Constants
from sparsedsl.codegen.hopper_backward import HopperBackwardText
from sparsedsl.codegen.hopper_choice import Backend, have_gradients, hopper_choices
from sparsedsl.codegen.kernel_walk import Masks, TableRoad
from sparsedsl.codegen.part_source import PartSource, part_source
from sparsedsl.codegen.plan import Part
from sparsedsl.codegen.programs import TableProgram, program_of
from sparsedsl.codegen.tiling import Tiles, Tiling

# Of 64 to 512 queries a tile, 128 were fastest on two cores: the fewest pairs that the fused kernel still takes well.
CPU_TILES = Tiles(128, 64, 0, 0)


@dataclass(frozen=True, slots=True)
class Sources:
    """The parts of a module, in the order in which they run, and what they share.

    `looks_ahead`: whether some query reads a key to its right; then queries may stand past the last key, in any part.
    """

    parts: tuple[PartSource, ...]
    tiling: Tiling
    cpu_tiles: Tiles
    constants: Constants
    masks: Masks
    tables: TableRoad
    looks_ahead: bool

    @property
    def for_hopper(self) -> list[Part]:
        """The parts with a forward kernel for Hopper."""
        return [each.part for each in self.parts if each.hopper_tiles is not None]

    @property
    def backward_for_hopper(self) -> list[HopperBackwardText]:
        """The backward kernels for Hopper, of all parts or of none."""
        return [each.hopper_backward for each in self.parts if each.hopper_backward is not None]


def sources_of(parts: Sequence[Part], tiling: Tiling, backend: Backend) -> Sources:
    """The text of a plan's parts.

    Raises
        Unsupported: random choices finer than any tile; what the backend hopper has no kernel for.
    """
    hopper = hopper_choices(parts, tiling, backend)
    gradients = None not in hopper and have_gradients(parts, tiling, backend)
    tiling, cpu_tiles = fitted_tiling(parts, tiling)
    constants = Constants()
    masks, tables = Masks(constants), TableRoad()
    ahead = any(program_of(kind, tiling.forward).looks_ahead for part in parts for kind in part.kinds)
    found = tuple(
        part_source(
            part,
            number,
            len(parts),
            tiling,
            cpu_tiles,
            masks,
            tables,
            ragged_keys=ahead,
            hopper=chosen,
            gradients=gradients,
        )
        for number, (part, chosen) in enumerate(zip(parts, hopper, strict=True))
    )
    return Sources(found, tiling, cpu_tiles, constants, masks, tables, ahead)


def fitted_tiling(parts: Sequence[Part], tiling: Tiling) -> tuple[Tiling, Tiles]:
    """The tilings of the kernels and of the CPU road, made smaller where random choices ask for it."""
    cpu = CPU_TILES
    for kind in (kind for part in parts for kind in part.kinds):
        program = program_of(kind, tiling.forward)
        if isinstance(program, TableProgram):
            fitted = program.masks.fitted
            tiling = replace(tiling, forward=fitted(tiling.forward), dq=fitted(tiling.dq), dkdv=fitted(tiling.dkdv))
            cpu = fitted(cpu)
    return tiling, cpu
