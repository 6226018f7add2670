"""When each kind of key dies, in words and as data: a few kinds instead of a lifetime for each key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from math import lcm

from sparsedsl.lifetimes import ENDLESS, UNREAD, Lifetimes


@dataclass(frozen=True, slots=True)
class Fate:
    """Keys that die alike: those in [start, stop) whose position mod `period` is in `residues`.

    Either `lifetime` is the distance to the last reader of each (None is endless, -1 is unread), or they die
    together: `until` is the last reader of all of them, counted from the start of their period, or from 0 for keys
    before the cycle begins.
    """

    start: int
    stop: int | None
    period: int
    residues: tuple[tuple[int, int], ...]
    lifetime: int | None
    until: int | None = None

    def __str__(self) -> str:
        keys = f"from {self.start} on"
        if self.stop is not None:
            keys = f"{self.start} .. {self.stop - 1}" if self.stop - self.start > 1 else str(self.start)
        if self.period > 1 and self.residues != ((0, self.period),):
            listed = ", ".join(str(lo) if hi - lo == 1 else f"{lo} .. {hi - 1}" for lo, hi in self.residues[:4])
            keys += f", k mod {self.period} in {listed}{', ...' if len(self.residues) > 4 else ''}"
        return f"{keys}: {self._end()}"

    def _end(self) -> str:
        if self.until is not None:
            if self.stop is not None:
                return f"die together after step {self.until}"
            return f"those of one {self.period} die together, {self.until} steps after its first"
        if self.lifetime is None:
            return "never die"
        if self.lifetime == UNREAD:
            return "are never read"
        return f"die {self.lifetime} steps after their own, a ring of {self.lifetime + 1}"


def fates(group: tuple[Lifetimes, ...]) -> tuple[Fate, ...]:
    """The kinds of keys of one key head, which keeps what any of the lifetimes asks for.

    Cost
        O(first + period) time.
    Example
        >>> from sparsedsl.constructors import causal, sink, sliding
        >>> from sparsedsl.lifetimes import lifetimes
        >>> print(*fates((lifetimes(sliding(4) | sink(2)),)), sep="; ")
        0 .. 1: never die; from 2 on: die 3 steps after their own, a ring of 4
        >>> print(*fates((lifetimes((sliding(2)).blocks(8) & causal()),)), sep="; ")
        from 0 on: those of one 8 die together, 15 steps after its first

    """
    begin = max(len(each.first) for each in group)
    period = lcm(*(each.period for each in group))
    found: list[Fate] = []
    first = [max(each.of(key) for each in group) for key in range(begin)]
    # Keys before the cycle: stretches with one lifetime, or with one last reader, whichever are fewer.
    alike = _stretches(first)
    ends = [life if life in (UNREAD, ENDLESS) else -2 - (key + life) for key, life in enumerate(first)]
    together = _stretches(ends)
    for lo, hi, value in together if len(together) < len(alike) else alike:
        found.append(_fate(lo, hi, 1, ((0, 1),), value))
    cycle = [max(each.of(begin + (residue - begin) % period) for each in group) for residue in range(period)]
    by_end = [life if life in (UNREAD, ENDLESS) else -2 - (residue + life) for residue, life in enumerate(cycle)]
    chosen = by_end if len(set(by_end)) < len(set(cycle)) else cycle
    for value in sorted(set(chosen), key=chosen.index):
        residues = tuple((lo, hi) for lo, hi, each in _stretches(chosen) if each == value)
        found.append(_fate(begin, None, period, residues, value))
    return tuple(found)


def _fate(start: int, stop: int | None, period: int, residues: tuple[tuple[int, int], ...], value: int) -> Fate:
    """A kind of key; values below -1 tell a last reader."""
    if value < UNREAD:
        return Fate(start, stop, period, residues, None, until=-2 - value)
    return Fate(start, stop, period, residues, None if value == ENDLESS else value)


def _stretches(values: Iterable[int]) -> list[tuple[int, int, int]]:
    """(from, to, value) of equal neighbours."""
    done, at = [], 0
    for value, same in groupby(values):
        size = len(list(same))
        done.append((at, at + size, value))
        at += size
    return done
