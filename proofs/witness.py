"""A path for a pair of tokens: one edge, or one step of the residual connection, for each layer."""

from __future__ import annotations

from sparsedsl.errors import OutOfRange
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern, whole
from sparsedsl.proofs.bits import lowest
from sparsedsl.proofs.course import Cycle
from sparsedsl.proofs.problem import Problem, problem_of


def witness(
    pattern: Pattern | PerHead | Stack,
    q: int,
    k: int,
    *,
    seq_len: int = 131072,
    layers: int | None = None,
    residual: bool = True,
) -> list[int] | None:
    """The tokens on a path from query q down to key k, or None where no path joins them.

    Set
        [t_L, ..., t_0] with t_L = q and t_0 = k: layer h, counted from 1 at the bottom, has the edge
        (t_h, t_(h-1)), or the residual connection passes the token on, t_h = t_(h-1). The last edge is as low
        as can be; above it stand only steps of the residual connection. Where `layers` is not given and the
        pattern has no number of its own, L is the least that will do.
    Cost
        As `check` for the one key k; memory for one set of units a layer at most.
    Raises
        OutOfRange: q or k is not a token.
    Example
        >>> from sparsedsl import power
        >>> witness(power(), 100, 0, seq_len=128)
        [100, 36, 4, 0]
        >>> witness(power(), 100, 0, seq_len=128, layers=2) is None
        True

    """
    problem = problem_of(pattern, seq_len=seq_len, layers=layers)
    for name, token in (("q", q), ("k", k)):
        if not 0 <= whole("witness", name, token, least=-seq_len) < seq_len:
            raise OutOfRange(
                "the path must join two tokens of the sequence",
                where=f"--path {q} {k}",
                got=f"{name} = {token}, seq_len = {seq_len}",
                expected=f"0 <= {name} < {seq_len}",
                hint=f"--path {seq_len - 1} 0",
            )
    return _Search(problem, q, k, residual=residual).path()


class _Search:
    def __init__(self, problem: Problem, q: int, k: int, *, residual: bool) -> None:
        self.problem, self.q, self.k, self.residual = problem, q, k, residual
        self.unit = problem.extent.unit
        # Under one pattern in all layers with the residual connection, the units that are new at a layer
        # suffice: a shortest path goes from new to new.
        self.new_only = problem.schedule.endless and residual
        # levels[h]: units joined to the key by h layers (new_only: by no fewer), as (offset, bits from there on).
        self.levels: list[tuple[int, int]] = []

    def path(self) -> list[int] | None:
        """The tokens from q down to k."""
        count = self.problem.schedule.count
        if self.q == self.k and self.residual:
            return [self.q] * (1 + (count or 0))
        if not self.problem.ahead and self.q < self.k:
            return None
        height = self._height()
        if height is None:
            return None
        above = (count or height) - height
        return [self.q] * above + self._descend(height)

    def _height(self) -> int | None:
        """The least number of layers that ends in an edge from q; the full number, without residual connection."""
        schedule = self.problem.schedule
        query = self.q // self.unit
        joined = level = 1 << self.k // self.unit
        cycle = Cycle()
        height = 0
        while height != schedule.count:
            self.levels.append((lowest(level), level >> lowest(level)))
            readers = self.problem.layers[schedule.at(height)].readers(level)
            height += 1
            if readers >> query & 1 and (self.residual or schedule.count in (None, height)):
                return height
            level = readers & ~joined if self.new_only else readers | joined if self.residual else readers
            joined |= readers
            if not level or (schedule.endless and not self.residual and cycle.closes(level)):
                return None
        return None

    def _descend(self, height: int) -> list[int]:
        token = self.q
        path = [token]
        for below in range(height - 1, -1, -1):
            stays = self.residual and below + 1 < height and self._at(below, 1 << token // self.unit)
            if not stays:
                token = self._step(token, below)
            path.append(token)
        return path

    def _at(self, level: int, units: int) -> int:
        """Those of the units that stand at a level."""
        offset, bits = self.levels[level]
        return (units >> offset & bits) << offset

    def _step(self, token: int, below: int) -> int:
        """The end of an edge of the layer above `below` into the units of that level."""
        layer = self.problem.layers[self.problem.schedule.at(below)]
        unit = lowest(self._at(below, layer.row(token // self.unit)))
        if unit == self.k // self.unit:
            return self.k
        # Any token of another unit will do; an edge of a unit to itself may keep the token.
        return token if unit == token // self.unit else unit * self.unit
