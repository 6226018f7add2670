"""Windows of other libraries: their definitions, written out here, against ours."""

from __future__ import annotations

import numpy as np
import pytest

import sparsedsl as sd
from sparsedsl.errors import WrongType, WrongValue


def flash_attention(left: int, right: int, q_len: int, k_len: int) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Key j is read by query i iff i + k_len - q_len - left <= j <= i + k_len - q_len + right; -1 leaves it open."""
    i, j = np.arange(q_len)[:, None], np.arange(k_len)[None, :]
    low = -1 if left == -1 else i + k_len - q_len - left
    high = k_len if right == -1 else i + k_len - q_len + right
    return (low <= j) & (j <= high)


@pytest.mark.parametrize("left", [-1, 0, 1, 5])
@pytest.mark.parametrize("right", [-1, 0, 1, 4])
def test_flash_attention_windows(left: int, right: int) -> None:
    for q_len, k_len in ((9, 9), (4, 11), (1, 7)):
        got = sd.from_window(left, right).dense(q_len, k_len)
        assert (got == flash_attention(left, right, q_len, k_len)).all()


def test_sliding_window_of_hugging_face() -> None:
    """sliding_window = w masks keys with q - k >= w: w keys, the query's own included."""
    q, k = np.arange(20)[:, None], np.arange(20)[None, :]
    assert ((sd.from_window(7 - 1, 0).dense(20)) == ((k <= q) & (q - k < 7))).all()
    assert sd.from_window(7 - 1, 0) == sd.sliding(7)


def test_mistakes() -> None:
    with pytest.raises(WrongValue, match="left is out of range"):
        sd.from_window(-2, 0)
    with pytest.raises(WrongType, match="right must be a whole number"):
        sd.from_window(4, 1.5)  # type: ignore[arg-type]
