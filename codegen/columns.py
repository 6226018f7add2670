"""Into how many shares backward splits its longest columns of tiles. Emitted modules contain this text."""

from __future__ import annotations


def column_shares(longest: int, key_heads: int, reads: float, programs: int) -> int:
    """The shares of a column that all later queries read; 1 where a split does not pay.

    `longest` counts the query tiles of such a column, of all heads that share its keys; there are some in each of
    `key_heads`. `reads` is how many key tiles a query tile reads on average, `programs` how many the card runs at once.
    """
    fair = longest * key_heads * reads / programs
    if longest - fair < LEAST_SHARE:
        return 1
    return int(longest / max(fair / PIECES, LEAST_SHARE))


# A share has at least so many query tiles, and a split must make the longest column shorter by as many: else starting
# more programs, and adding up what they leave, costs more than it gains. By arithmetic.
LEAST_SHARE = 16
# So many shares are as long as what each program in flight gets in all: the card ends evenly.
PIECES = 4
