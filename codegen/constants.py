"""Numbers that a kernel looks up because no short formula gives them: a module keeps them in one small array.

Their number follows the pattern's structure, never a length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap

from sparsedsl.integers import IntegerSet


class Constants:
    """The array of a module as it grows: lists of numbers, and sets of numbers as bits."""

    def __init__(self) -> None:
        self._places: dict[object, int] = {}
        self._parts: list[tuple[str, str]] = []
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def size(self) -> int:
        """How many numbers it holds; a kernel reads each as int32."""
        return self._size

    def numbers(self, values: Sequence[int], why: str) -> int:
        """Where these numbers stand; equal lists stand once."""
        key = tuple(values)
        if key not in self._places:
            text = "".join(f"    {line}\n" for line in wrap(", ".join(_items(key)) + ",", 110))
            self._append(key, text, len(key), why)
        return self._places[key]

    def bits(self, members: IntegerSet, lo: int, hi: int, why: str) -> int:
        """Where the members lo <= x < hi stand as bits, 32 to a number, the least bit first."""
        key = (members, lo, hi)
        if key not in self._places:
            spans = ", ".join(f"({lo}, {hi})" for lo, hi, _, _ in members.segments)
            lines = "".join(f"        {line}\n" for line in wrap(f"[{spans}],", 106))
            text = f"    *packed_bits(\n{lines}        {lo},\n        {hi},\n    ),\n"
            self._append(key, text, -(-(hi - lo) // 32), why)
        return self._places[key]

    def _append(self, key: object, text: str, size: int, why: str) -> None:
        self._places[key] = self._size
        self._parts.append((f"    # {self._size}: {why}\n", text))
        self._size += size

    def source(self) -> str:
        """The array's items as Python source."""
        return "".join(why + text for why, text in self._parts)


def _items(values: tuple[int, ...]) -> Iterator[str]:
    """The numbers as items of a tuple; repeated and consecutive ones in short."""
    at = 0
    while at < len(values):
        same = consecutive = 1
        while at + same < len(values) and values[at + same] == values[at]:
            same += 1
        while at + consecutive < len(values) and values[at + consecutive] == values[at] + consecutive:
            consecutive += 1
        if same > 3:
            yield f"*({values[at]},) * {same}"
        elif consecutive > 3:
            yield f"*range({values[at]}, {values[at] + consecutive})"
        else:
            same = consecutive = 1
            yield str(values[at])
        at += max(same, consecutive)
