"""Triton decides at its first import, for its own functions too, whether kernels are interpreted."""

from __future__ import annotations

import importlib
import os
from typing import Any

import torch

# Imported by conftest.py before any test module, so that none imports Triton first, for the compiler. Without a CUDA
# device nothing is compiled, and both roads work under the one import.
if not torch.cuda.is_available():
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    importlib.import_module("triton.language")
    importlib.import_module("triton.experimental.gluon")
    if before is None:
        del os.environ["TRITON_INTERPRET"]
    if importlib.import_module("triton").__version__.startswith("3.6."):
        # Its interpreter takes an array of one number for a bound of a loop, which numpy refuses since 2.4.
        interpreter: Any = importlib.import_module("triton.runtime.interpreter")
        patch_tensor = interpreter._patch_lang_tensor

        def patch_tensor_as_later(tensor: Any, scope: Any) -> None:
            patch_tensor(tensor, scope)
            scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

        interpreter._patch_lang_tensor = patch_tensor_as_later
