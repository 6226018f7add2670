"""How a length in tokens falls into units."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extent:
    """The tokens 0, ..., seq_len - 1 in units of `unit` tokens; the last unit may be shorter."""

    seq_len: int
    unit: int

    @property
    def units(self) -> int:
        """The number of units, the last one counted."""
        return -(-self.seq_len // self.unit)

    @property
    def last_size(self) -> int:
        """The tokens of the last unit."""
        return self.seq_len - (self.units - 1) * self.unit

    def size(self, unit: int) -> int:
        """The tokens of one unit."""
        return self.unit if unit < self.units - 1 else self.last_size

    def token_gap(self, distance: int) -> int:
        """The least distance of two tokens whose units are `distance` apart."""
        return (distance - 1) * self.unit + 1 if distance else 0
