"""Influence on the block quotient, for patterns that are sets of distances, one for each layer of a cycle."""

from __future__ import annotations

from functools import lru_cache
from math import comb
from typing import TYPE_CHECKING

from sparsedsl.proofs.bits import ones, runs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# One set of distances for each layer of a cycle, the bottom layer first; each contains 0.
Layers = tuple[tuple[int, ...], ...]


def depth_of(layers: Layers, units: int, most: int) -> int | None:
    """The least depth at which every unit is joined to every earlier one; None if that takes more than `most`.

    >>> depth_of(((0, 1, 2), (0, 3)), 6, 8), depth_of(((0, 1),), 6, 4)
    (2, None)

    """
    within = ones(units)
    reached = 1
    if units == 1:
        return 1
    for layer in range(most):
        further = 0
        for first, end in runs_of(layers[layer % len(layers)]):
            further |= _spread(reached, end - first, units) << first
        reached = further & within
        if reached == within:
            return layer + 1
    return None


def _spread(bits: int, width: int, units: int) -> int:
    """The sums with 0, ..., width - 1, by doubling; those from `units` on may be left out."""
    width = min(width, units)
    done = 1
    while done < width:
        step = min(done, width - done)
        bits |= bits << step
        done += step
    return bits


@lru_cache(maxsize=4096)
def runs_of(distances: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The distances as maximal intervals [first, end).

    >>> runs_of((0, 1, 2, 7))
    ((0, 3), (7, 8))

    """
    return tuple(runs(sum(1 << each for each in distances)))


def influences(layers: Layers, *, units: int, count: int, alpha: float, sink: int = 0) -> NDArray[np.float64]:
    """How much of each unit the last one holds after `count` layers, under uniform weights.

    Set
        Row units - 1 of M_count ··· M_1, M_l = α I + (1 − α) A_l, A_l the adjacency of layer l of the cycle with
        each row scaled to sum 1. The first `sink` units are keys of every row too.
    Shapes
        `units` numbers, for the keys 0, 1, ...; they sum to 1.
    Units
        Blocks, if the distances count blocks: a block is one vertex, whatever tokens it holds.
    Cost
        O(count · runs · units · log(longest run)) time, O(units · log(longest run)) memory.
    Example
        >>> influences(((0, 1),), units=3, count=1, alpha=0.5).tolist()
        [0.0, 0.25, 0.75]

    Uniform weights and one α for all layers are assumptions: the number stands beside a verdict, not for it.
    """
    import numpy as np

    degrees = [_degrees(each, units, sink) for each in layers]
    held = np.zeros(units)
    held[-1] = 1.0
    for layer in reversed(range(count)):
        place = layer % len(layers)
        sent = (1 - alpha) * held / degrees[place]
        held = alpha * held
        if sink:
            # The keys of the sink that no distance reaches already.
            held[:sink] += _to_sink(sent, layers[place], sink)
        for first, end in runs_of(layers[place]):
            _receive(held, sent, first, end)
    return held


def _receive(held: NDArray[np.float64], sent: NDArray[np.float64], first: int, end: int) -> None:
    """Add to each unit k what k + first, ..., k + end - 1 send."""
    units = len(held)
    width = min(end, units) - first
    # Invariant: table[k] = sent[k] + ... + sent[k + size - 1], by additions of positive numbers only.
    table, size = sent, 1
    while width > 0 and first < units:
        if width & size:
            held[: units - first] += table[first:]
            first += size
            width -= size
        if width:
            longer = table.copy()
            longer[: units - size] += table[size:]
            table, size = longer, 2 * size


@lru_cache(maxsize=256)
def _degrees(distances: tuple[int, ...], units: int, sink: int) -> NDArray[np.float64]:
    import numpy as np

    found = np.zeros(units)
    for first, end in runs_of(distances):
        rows = np.arange(units)
        found += np.clip(rows - first + 1, 0, end - first)
    for key in range(min(sink, units)):
        own = np.zeros(units, dtype=np.bool_)
        own[[key + each for each in distances if key + each < units]] = True
        found[key:] += ~own[key:]
    return found


def _to_sink(sent: NDArray[np.float64], distances: tuple[int, ...], sink: int) -> NDArray[np.float64]:
    import numpy as np

    received = np.zeros(min(sink, len(sent)))
    for key in range(len(received)):
        others = sent[key:].copy()
        others[[each for each in distances if each < len(others)]] = 0.0
        received[key] = others.sum()
    return received


def worst_influence(layers: Layers, *, units: int, count: int, alpha: float, sink: int = 0) -> float:
    """The least of the last unit's `influences`, over all keys.

    >>> f"{worst_influence(((0, 1, 2, 3),), units=4, count=1, alpha=0.9):.3f}"
    '0.025'

    """
    return float(influences(layers, units=units, count=count, alpha=alpha, sink=sink).min())


def influence_bound(*, units: int, count: int, alpha: float, degree: int, same: bool) -> float:
    """No sets of at most `degree` distances, 0 among them, have a greater worst influence.

    Set
        Keys that fewer than h moves reach are at most C(degree - 1 + h - 1, h - 1), the same distances in every
        layer, or Σ_{j<h} C(count, j) (degree - 1)^j. All others share what makes h moves or more, at most
        P(X >= h) for X binomial with `count` trials and chance (1 − α)(1 − 1/degree). The least bound over h.
    Cost
        O(count²) time.
    Example
        >>> f"{influence_bound(units=4, count=1, alpha=0.9, degree=4, same=True):.3f}"
        '0.025'

    """
    if units == 1:
        return 1.0
    move = (1 - alpha) * (1 - 1 / degree)
    chances = [comb(count, moves) * move**moves * (1 - move) ** (count - moves) for moves in range(count + 1)]
    least = 1.0
    near = 0
    for moves in range(1, count + 1):
        if same:
            near = comb(degree - 1 + moves - 1, moves - 1)
        else:
            near += comb(count, moves - 1) * (degree - 1) ** (moves - 1)
        if near >= units:
            break
        least = min(least, sum(reversed(chances[moves:])) / (units - near))
    # The sums above are rounded; what is returned must not be less than the bound.
    return least * (1 + 1e-9)
