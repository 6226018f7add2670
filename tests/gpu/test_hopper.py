"""The hopper backend against the plain kernels on a GPU, each check in a process of its own: a kernel may hang."""

from __future__ import annotations

import pytest
import torch

import sparsedsl as sd
from benchmarks.hopper import CHECKS, complaint
from sparsedsl.errors import Unsupported

pytestmark = pytest.mark.gpu


def is_hopper() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)


@pytest.mark.parametrize("number", range(len(CHECKS)), ids=[check.name for check in CHECKS])
def test_equals_the_plain_kernels(number: int) -> None:
    if not is_hopper():
        pytest.skip("no GPU of compute capability 9.0")
    assert complaint(number) is None


def test_float32_on_a_gpu_is_refused() -> None:
    q = torch.randn(1, 1, 64, 64, device="cuda")
    with pytest.raises(Unsupported, match="no kernel for this type"):
        sd.compile(sd.sliding(9), backend="hopper")(q, q, q)


def test_another_gpu_is_refused() -> None:
    if is_hopper():
        pytest.skip("this GPU is taken")
    q = torch.randn(1, 1, 64, 64, device="cuda", dtype=torch.float16)
    with pytest.raises(ValueError, match="built for Hopper GPUs"):
        sd.compile(sd.sliding(9), backend="hopper")(q, q, q)
