"""Schedules to start from: sets of distances that differ from layer to layer, and the bound that none can beat.

Whatever the layers are, a query with `degree` keys a row, its own included, sees at most degree**h units through
h layers. The digits of a number meet that bound: layer l settles digit l of the distance.
"""

from __future__ import annotations

from collections.abc import Iterator

from sparsedsl.proofs.quotient_influence import Layers
from sparsedsl.proofs.stamp_bases import radices


def digits(radixes: tuple[int, ...], units: int) -> Layers:
    """Layer l: {0, 1, ..., b_l - 1} times b_0 ··· b_(l-1), as far as there are such distances.

    >>> digits((3, 2), 6)
    ((0, 1, 2), (0, 3))

    """
    layers, weight = [], 1
    for radix in radixes:
        layers.append(tuple(weight * digit for digit in range(radix) if weight * digit < units))
        weight *= radix
    return tuple(layers)


def least_degree(units: int, depth: int) -> Layers:
    """A schedule of `depth` layers or fewer with the fewest keys in its worst row; no other has fewer.

    >>> least_degree(512, 5)[-1], max(map(len, least_degree(512, 5)))
    ((0, 256), 4)

    """
    return digits(radices(units, depth), units) or ((0,),)


def with_window(window: int, radix: int, units: int, *, most: int) -> Layers | None:
    """A window in every layer, and jumps that are the digits of the distance in windows.

    Set
        Layer l: {0, ..., window - 1} ∪ window · radix**l · {1, ..., radix - 1}; one layer more than there are
        digits, since the jump that settles the highest digit leaves the rest to the window.
    Example
        >>> with_window(2, 2, 8, most=4)
        ((0, 1, 2), (0, 1, 4), (0, 1))
        >>> with_window(2, 2, 8, most=2)

    """
    layers, weight = [], window
    while weight < units:
        jumps = (weight * digit for digit in range(1, radix))
        layers.append((*range(window), *(each for each in jumps if each < units)))
        weight *= radix
    layers.append(tuple(range(min(window, units))))
    return tuple(layers) if len(layers) <= most else None


def starts(degree: int, units: int, *, most: int) -> Iterator[Layers]:
    """Schedules with at most `degree` keys in a row: digits in both orders for every depth, and windows with jumps."""
    for depth in range(1, most + 1):
        if degree**depth >= units:
            lean = digits(radices(units, depth), units)
            yield from (lean, lean[::-1])
            yield digits((degree,) * depth, units)
    for window in range(2, degree):
        layers = with_window(window, degree - window + 1, units, most=most)
        if layers is not None:
            yield layers
