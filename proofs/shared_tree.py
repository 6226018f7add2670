"""Many large sets in little text: halves of halves, each different one written once.

A set of numbers below 64 · 2**h is a word of 64 bits for h = 0, else two such sets, the lower half and the upper half.
Level 0 lists the different words, level j the different pairs of places in level j - 1. What repeats, in one set or
from set to set, is written once: an interval takes two entries a level, a periodic set hardly more.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

_WORD_BYTES = 8
# Longer pieces are known by their hash, so that no piece is kept whole.
_LONGEST_KEPT = 64

Piece = bytes | memoryview


class SharedTree(NamedTuple):
    """levels[0]: words as 16 hexadecimal digits; levels[j]: flat pairs of places in levels[j - 1].

    `roots` are the places of the sets in the last level. On each level the entries stand in the order in which
    the level above (on the last: the roots) names them first.
    """

    levels: tuple[tuple[str, ...] | tuple[int, ...], ...]
    roots: tuple[int, ...]


def shared_tree(sets: Sequence[int], length: int) -> SharedTree:
    """The sets as one tree; their members are below `length`.

    Cost
        Every different piece is read once: O(sets · length / 8) bytes for sets that repeat inside.
    Example
        >>> tree = shared_tree([(1 << 100) - 1, 1], 100)
        >>> tree.levels[0][:2], tree.levels[1], tree.roots
        (('ffffffffffffffff', '0000000fffffffff'), (0, 1, 2, 3), (0, 1))

    """
    heights = 0
    while _WORD_BYTES << (heights + 3) < length:
        heights += 1
    builder = _Builder(heights)
    roots = [builder.place(memoryview(each.to_bytes(_WORD_BYTES << heights, "little")), heights) for each in sets]
    return builder.in_order(roots)


class _Builder:
    def __init__(self, heights: int) -> None:
        self.places: list[dict[bytes, int]] = [{} for _ in range(heights + 1)]
        self.words: list[str] = []
        # pairs[h - 1]: the halves of the pieces of height h.
        self.pairs: list[list[tuple[int, int]]] = [[] for _ in range(heights)]

    def place(self, piece: Piece, height: int) -> int:
        """The place of a piece on its level."""
        key = bytes(piece) if len(piece) <= _LONGEST_KEPT else sha256(piece).digest()
        known = self.places[height].get(key)
        if known is not None:
            return known
        if height:
            half = len(piece) // 2
            halves = self.place(piece[:half], height - 1), self.place(piece[half:], height - 1)
            self.pairs[height - 1].append(halves)
        else:
            self.words.append(f"{int.from_bytes(piece, 'little'):016x}")
        new = len(self.places[height])
        self.places[height][key] = new
        return new

    def in_order(self, roots: Sequence[int]) -> SharedTree:
        """The tree with every level in the order in which the level above names its entries."""
        named: Sequence[int] = roots
        found: list[tuple[str, ...] | tuple[int, ...]] = []
        renumbered: tuple[int, ...] = ()
        for height in range(len(self.pairs), -1, -1):
            order = {old: new for new, old in enumerate(dict.fromkeys(named))}
            numbers = tuple(order[old] for old in named)
            if height == len(self.pairs):
                renumbered = numbers
            else:
                found.append(numbers)
            if height:
                named = [part for old in order for part in self.pairs[height - 1][old]]
            else:
                found.append(tuple(self.words[old] for old in order))
        return SharedTree(tuple(reversed(found)), renumbered)
