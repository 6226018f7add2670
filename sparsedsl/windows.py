"""The windows of other libraries, which count them otherwise, as patterns."""

from __future__ import annotations

from sparsedsl.constructors import causal, full, sliding
from sparsedsl.integers import LAST_POSITION
from sparsedsl.pattern import Pattern, whole


def from_window(left: int, right: int) -> Pattern:
    """The pattern of flash-attention's `window_size=(left, right)`.

    Set
        {(q, k) : -right <= q - k <= left}: inclusive offsets from the query, on either side; -1 leaves a side open.
        So (w - 1, 0) is `sliding(w)`: our window counts the query's own key, their left does not. Both sides align
        the last query with the last key.
    Cost
        O(1).
    Raises
        WrongValue: a side below -1.
    Example
        >>> str(from_window(1023, 0)), str(from_window(-1, 0)), str(from_window(-1, -1))
        ('sliding(1024)', 'causal()', 'full()')
        >>> str(from_window(2, 1)), str(from_window(-1, 2)), str(from_window(3, -1))
        ('sliding(3, ahead=1)', 'causal() | sliding(1, ahead=2)', '~causal() | sliding(4)')

    """
    left = whole("from_window", "left", left, least=-1, most=LAST_POSITION - 1)
    right = whole("from_window", "right", right, least=-1, most=LAST_POSITION)
    if left == -1 and right == -1:
        return full()
    if left == -1:
        return causal() if right == 0 else causal() | sliding(1, ahead=right)
    if right == -1:
        return ~causal() | sliding(left + 1)
    return sliding(left + 1, ahead=right)
