"""What the GPU tests share: a GPU whose memory other processes of pytest-xdist need too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def memory_given_back() -> Iterator[None]:
    """PyTorch keeps what a test freed, tens of GiB after the largest; a launch in another process would lack them."""
    yield
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
