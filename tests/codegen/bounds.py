"""A watch on Triton's interpreter: every address that a kernel reads or writes lies in a tensor of its launch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch


class OutOfBounds(AssertionError):
    """An address outside every tensor that the kernel was given."""


@contextmanager
def watched() -> Iterator[list[int]]:
    """Raise where a lane that is not masked leaves the tensors of its launch; yields [addresses looked at]."""
    from triton.runtime import interpreter

    spans: list[tuple[int, int]] = []
    seen = [0]
    to_host = interpreter.GridExecutor._init_args_hst
    load, store = (getattr(interpreter.InterpreterBuilder, f"create_masked_{each}") for each in ("load", "store"))

    def arguments(self: Any, args: Any, kwargs: Any) -> Any:
        hosts = to_host(self, args, kwargs)
        tensors = [each for each in (*hosts[0], *hosts[1].values()) if isinstance(each, torch.Tensor)]
        spans[:] = [(own.data_ptr(), own.data_ptr() + own.nbytes()) for own in (t.untyped_storage() for t in tensors)]
        return hosts

    def check(pointers: Any, mask: Any) -> None:
        size = np.dtype(interpreter._get_np_dtype(pointers.get_element_ty())).itemsize
        found = np.asarray(pointers.data)[np.broadcast_to(mask.data, np.shape(pointers.data)).astype(bool)].astype(
            np.int64
        )
        inside = np.zeros(found.shape, dtype=bool)
        for start, end in spans:
            inside |= (found >= start) & (found + size <= end)
        seen[0] += found.size
        if not inside.all():
            raise OutOfBounds(f"{int((~inside).sum())} of {found.size} addresses")

    def watched_load(self: Any, ptrs: Any, mask: Any, *others: Any) -> Any:
        check(ptrs, mask)
        return load(self, ptrs, mask, *others)

    def watched_store(self: Any, ptrs: Any, value: Any, mask: Any, *others: Any) -> Any:
        check(ptrs, mask)
        return store(self, ptrs, value, mask, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.GridExecutor, "_init_args_hst", arguments)
        patch.setattr(interpreter.InterpreterBuilder, "create_masked_load", watched_load)
        patch.setattr(interpreter.InterpreterBuilder, "create_masked_store", watched_store)
        yield seen
