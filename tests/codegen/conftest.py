"""Triton decides at its first import, for its own functions too, whether kernels are interpreted."""

from __future__ import annotations

import importlib
import os

import torch

# Collected before any test runs, so that no test on the CPU road imports Triton first, for the compiler. Without a
# CUDA device nothing is compiled, and both roads work under the one import.
if not torch.cuda.is_available():
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    importlib.import_module("triton.language")
    importlib.import_module("triton.experimental.gluon")
    if before is None:
        del os.environ["TRITON_INTERPRET"]
