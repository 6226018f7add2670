"""The curve of a pattern: for each number of layers, the length that they join.

Completeness at n implies completeness at every smaller n, since paths of a causal pattern stay between key and
query. So "h layers are complete exactly up to length(h)" says everything, and depth(n) is its inverse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from sparsedsl.integers import INFINITY

if TYPE_CHECKING:
    from sympy import Expr


@dataclass(frozen=True, slots=True)
class Run:
    """layers + i layers join length + slope · i tokens, for i = 0, 1, ... until the next run; slope 0: no more."""

    layers: int
    length: int
    slope: int


@dataclass(frozen=True, slots=True)
class Geometric:
    """layers + every · i + j layers, j < every, join length + whole · (ratio^i − 1) + j · first · ratio^i tokens.

    Each layer adds `first` tokens, `every` layers in turn; then each adds ratio times as many. `whole` is
    every · first / (ratio − 1). `last`, if given, is the number of layers after which none follows.
    """

    layers: int
    length: int
    first: int
    ratio: int
    every: int
    last: int | None = None

    @property
    def whole(self) -> int:
        """every · first / (ratio − 1), a whole number in every curve."""
        return self.every * self.first // (self.ratio - 1)

    def length_after(self, layers: int) -> int:
        """The length that so many layers join."""
        stage, rest = divmod(min(layers, self.last or layers) - self.layers, self.every)
        grown: int = self.ratio**stage
        return self.length + self.whole * (grown - 1) + rest * self.first * grown

    def depth(self, length: int) -> int | None:
        """The least number of layers that join this length."""
        layers = self.layers
        while self.length_after(layers) < length:
            if layers == self.last:
                return None
            layers += 1
        return layers


@dataclass(frozen=True, slots=True)
class Endless:
    """So many layers join every length."""

    layers: int


@dataclass(frozen=True, slots=True)
class Curve:
    """Runs in the order of layers, and what follows them; without a tail the last run goes on for good.

    Example
        >>> window = Curve((Run(0, 1, 3),))
        >>> window.length(5), window.depth(16), window.depth(17)
        (16, 5, 6)
        >>> print(window.formula("N"))
        ceiling((N - 1)/3)

    """

    runs: tuple[Run, ...]
    tail: Geometric | Endless | None = None

    def length(self, layers: int) -> int:
        """The greatest length that so many layers join; INFINITY for every length."""
        if isinstance(self.tail, Endless) and layers >= self.tail.layers:
            return INFINITY
        if isinstance(self.tail, Geometric) and layers >= self.tail.layers:
            return self.tail.length_after(layers)
        run = next(run for run in reversed(self.runs) if run.layers <= layers)
        return run.length + run.slope * (layers - run.layers)

    def depth(self, length: int) -> int | None:
        """The least number of layers that join this length; None if no number does."""
        for run, end in self._ends():
            if end is not None and length > self.length(end):
                continue
            if length <= run.length:
                return run.layers
            return run.layers - (run.length - length) // run.slope if run.slope else None
        if isinstance(self.tail, Geometric):
            return self.tail.depth(length)
        return self.tail.layers if self.tail else None

    def _ends(self) -> list[tuple[Run, int | None]]:
        """Each run with its last number of layers."""
        ends: list[tuple[Run, int | None]] = [(run, later.layers - 1) for run, later in pairwise(self.runs)]
        for last in self.runs[-1:]:
            ends.append((last, None if self.tail is None else max(last.layers, self.tail.layers - 1)))
        return ends

    def placed(self, shift: int, *, at_least_one: bool) -> Curve:
        """The same curve with `shift` more tokens in front, which one layer joins to all others.

        `at_least_one`: the curve starts at one layer.
        """
        runs = tuple(replace(run, length=run.length + shift) for run in self.runs)
        tail = self.tail
        if isinstance(tail, Geometric):
            tail = replace(tail, length=tail.length + shift)
        moved = Curve(runs, tail)
        if not at_least_one or (runs and runs[0].layers > 0):
            return moved
        if isinstance(tail, Endless) and tail.layers <= 1:
            return Curve((), tail)
        first = moved.length(1)
        if len(runs) > 1 and runs[1].layers == 1:
            return Curve(runs[1:], tail)
        going_on = bool(runs) and (len(runs) > 1 or tail is None or tail.layers > 1)
        return Curve((Run(1, first, runs[0].slope if going_on else 0), *runs[1:]), tail)

    def formula(self, name: str) -> Expr:
        """depth(n) as a sympy expression in the symbol of this name; nan where no number of layers will do."""
        from sympy import Symbol

        return self.of(Symbol(name, integer=True, positive=True))

    def of(self, n: Expr) -> Expr:
        """depth(n) for a sympy expression n."""
        from sympy import Integer, Piecewise, nan

        pieces: list[tuple[Expr, object]] = []
        before = 0
        for run, end in self._ends():
            upto = None if end is None and run.slope else self.length(run.layers if end is None else end)
            pieces.append((_run_formula(run, n, before, upto), True if upto is None else n <= upto))
            before = before if upto is None else upto
        if isinstance(self.tail, Geometric):
            last, first = self.tail.last, self.tail.length
            # The logarithm may fall short of the tail's first number of layers well below its first length.
            if before + 1 <= first - self.tail.whole // self.tail.ratio:
                pieces.append((Integer(self.tail.layers), n <= first))
            pieces.append((_geometric_formula(self.tail, n), True if last is None else n <= self.length(last)))
        elif self.tail:
            pieces.append((Integer(self.tail.layers), True))
        if pieces[-1][1] is not True:
            pieces.append((nan, True))
        # The first piece may cover n = 1 only, a sequence without a pair.
        if len(pieces) > 1 and self.runs and self.runs[0].layers == 0 and self.length(self._ends()[0][1] or 0) == 1:
            pieces = pieces[1:]
        return Piecewise(*pieces) if len(pieces) > 1 else pieces[0][0]


def _run_formula(run: Run, n: Expr, before: int, upto: int | None) -> Expr:
    from sympy import Integer, Max, ceiling

    if not run.slope or upto == run.length:
        return Integer(run.layers)
    rising = ceiling(_divided(n - run.length + run.layers * run.slope, run.slope))
    return Max(run.layers, rising) if run.length - before > run.slope else rising


def _geometric_formula(tail: Geometric, n: Expr) -> Expr:
    from sympy import ceiling, floor

    # i layers (or stages) more are enough iff x <= whole · ratio^i.
    x = n - tail.length + tail.whole
    scale = _exponent(tail.whole, tail.ratio)
    if scale is None:
        return tail.layers + ceiling(_log(_divided(x, tail.whole), tail.ratio))
    # For whole n, ceiling(log(n + 1)) = floor(log(n)) + 1.
    plain = tail.whole - tail.length == 1
    below = floor(_log(n, tail.ratio)) if plain else ceiling(_log(x, tail.ratio)) - 1
    if tail.every == 1:
        return tail.layers + below + 1 - scale
    grown = tail.ratio**below
    added = floor(n / grown) if plain else ceiling(x / grown) - 1
    return tail.layers + tail.every * (below - scale) + added


def _divided(x: Expr, by: int) -> Expr:
    """x / by, kept as one fraction: (N − 1)/4 instead of N/4 − 1/4."""
    from sympy import Mul, Rational

    return x if by == 1 else Mul(Rational(1, by), x, evaluate=False)


def _log(x: Expr, base: int) -> Expr:
    from sympy import log
    from sympy.codegen.cfunctions import log2

    return log2(x) if base == 2 else log(x, base)


def _exponent(value: int, base: int) -> int | None:
    """t with base^t = value."""
    exponent = 0
    while value % base == 0:
        value //= base
        exponent += 1
    return exponent if value == 1 else None


def runs_through(lengths: tuple[int, ...]) -> tuple[Run, ...]:
    """The runs of a table: lengths[h] after h layers; three entries or more on a line make one run.

    Example
        >>> runs_through((1, 4, 7, 10, 20))
        (Run(layers=0, length=1, slope=3), Run(layers=4, length=20, slope=0))

    """
    runs: list[Run] = []
    layers = 0
    while layers < len(lengths):
        end = layers + 1
        while end < len(lengths) and lengths[end] - lengths[end - 1] == lengths[layers + 1] - lengths[layers]:
            end += 1
        on_a_line = end - layers > 2
        slope = lengths[layers + 1] - lengths[layers] if on_a_line else 0
        runs.append(Run(layers, lengths[layers], slope))
        layers = end if on_a_line else layers + 1
    return tuple(runs)
