"""More influence for the same keys and depth: seeded hill climbing over sets of distances."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from sparsedsl.proofs.quotient_influence import Layers, depth_of, worst_influence

# Proposals looked at for each influence computed, most of which leave a gap and cost little.
_PROPOSALS = 40


def improved(
    starts: Iterable[Layers],
    *,
    degree: int,
    depth: int,
    units: int,
    count: int,
    alpha: float,
    random: Random,
    evaluations: int,
) -> Layers | None:
    """The layers with the greatest worst influence that were found, at most `degree` distances a layer.

    Set
        Starts that are complete within `depth` layers, and what comes of each when its layers are filled up to
        `degree` distances; the best of all is changed, one distance at a time, as long as it stays complete and
        loses no influence. A heuristic: nothing is proved but what `depth_of` and `worst_influence` say of the
        result. None where no start is complete.
    Cost
        At most `evaluations` times the cost of `worst_influence`, and 40 times that number of `depth_of`.
    """

    def value(layers: Layers) -> float:
        return worst_influence(layers, units=units, count=count, alpha=alpha)

    best, most = None, -1.0
    for start in starts:
        complete = depth_of(start, units, depth) is not None
        for layers in (start, *(_filled(start, degree, units, random) for _ in range(2))):
            if complete and evaluations > 0 and max(map(len, layers)) <= degree:
                evaluations -= 1
                found = value(layers)
                if found > most:
                    best, most = layers, found
    if best is None or units <= 2:
        return best
    for _ in range(_PROPOSALS * evaluations):
        changed = _changed(best, units, random)
        if changed == best or depth_of(changed, units, depth) is None:
            continue
        found = value(changed)
        if found >= most:
            best, most = changed, found
        evaluations -= 1
        if evaluations <= 0:
            break
    return best


def _filled(layers: Layers, degree: int, units: int, random: Random) -> Layers:
    """Every layer with further distances, far and near ones alike on a scale of ratios."""
    filled = []
    for layer in layers:
        chosen = set(layer)
        for _ in range(4 * degree):
            if len(chosen) >= min(degree, units):
                break
            chosen.add(min(units - 1, int(units ** random.random())))
        filled.append(tuple(sorted(chosen)))
    return tuple(filled)


def _changed(layers: Layers, units: int, random: Random) -> Layers:
    """The layers with one distance, not 0, moved: a little, or anywhere."""
    place = random.randrange(len(layers))
    layer = layers[place]
    if len(layer) < 2:
        return layers
    moved = layer[random.randrange(1, len(layer))]
    if random.random() < 0.6:
        span = max(2, moved // 16)
        target = moved + random.randint(-span, span)
    else:
        target = int(units ** random.random())
    if not 0 < target < units or target in layer:
        return layers
    changed = tuple(sorted(target if each == moved else each for each in layer))
    return (*layers[:place], changed, *layers[place + 1 :])
