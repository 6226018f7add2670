"""PPA: polynomially spaced keys, a dial between a window and full attention.

References
    .. [1] PPA, 2026, arXiv 2601.17334: the set below is a reading of the abstract.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from sparsedsl.constructors import offsets, sliding
from sparsedsl.errors import WrongType, WrongValue, shown
from sparsedsl.pattern import Pattern, wholes

# The distances below `reach` are tried one by one.
FARTHEST = 1 << 24


def ppa(*, p: float = 0.5, window: int = 64, reach: int = 131072) -> Pattern:
    """A window and the distances at which the p-th power passes a whole number.

    Set
        0 ≤ q − k < window, or q − k = j for a 1 ≤ j < reach with floor(jᵖ) ≠ floor((j − 1)ᵖ).
        p means the nearest fraction with a denominator up to 1000: 0.3333 is 1/3. jᵖ is compared exactly.
    Units
        Tokens. The distances are listed one by one, hence `reach`: at length n ≤ reach it changes nothing.
    Degree
        At most window + reachᵖ.
    Depth
        For p = 1/2 the distances are the squares, and every number is a sum of four squares (Lagrange): at
        most 4 layers at any n ≤ reach, 3 at 131 072 with the default window. p = 1 is full attention.
    Cost
        O(N · (window + Nᵖ)) pairs; O(reach) time to build.
    Raises
        WrongValue: p is not in [0.001, 1].
    Example
        >>> from sparsedsl.patterns import draw
        >>> print(draw(ppa(p=0.5, window=1), 7))
        # . . . . . .
        # # . . . . .
        . # # . . . .
        . . # # . . .
        # . . # # . .
        . # . . # # .
        . . # . . # #
        >>> str(ppa(p=0.5, window=3, reach=50))
        'sliding(3) | offsets({1, 4, 9, 16, 25, 36, 49})'

    """
    wholes("ppa", window=window)
    wholes("ppa", least=2, most=FARTHEST, reach=reach)
    if not isinstance(p, int | float):
        raise WrongType(
            "p must be a number",
            where=f"ppa(p={shown(p)})",
            got=f"p = {shown(p)} of type {type(p).__name__}",
            expected="0.001 <= p <= 1",
            hint="ppa(p=0.5), the squares",
        )
    if not 0.001 <= p <= 1:
        raise WrongValue(
            "p is out of range",
            where=f"ppa(p={p})",
            got=f"p = {p}",
            expected="0.001 <= p <= 1",
            hint="ppa(p=0.5), the squares",
        )
    exponent = Fraction(p).limit_denominator(1000)
    floors = pairwise(_floor_of_power(j, exponent) for j in range(reach))
    return sliding(window) | offsets(j for j, (before, after) in enumerate(floors, 1) if before != after)


def _floor_of_power(j: int, p: Fraction) -> int:
    """floor(j**p), exactly: a float decides, unless it is so near a whole number that it could be wrong."""
    power: float = float(j) ** float(p)
    near = round(power)
    if abs(power - near) > 1e-9 * power:
        return int(power)
    return near if int(j**p.numerator) >= int(near**p.denominator) else near - 1
