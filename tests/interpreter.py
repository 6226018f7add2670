"""Triton decides at its first import, for its own functions too, whether kernels are interpreted."""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from functools import cache
from typing import Any

import torch


def hasten(interpreter: Any) -> None:
    """Spare Triton's interpreter half of its work, none of which has a say in what kernels compute."""
    # Every sum and product of 32 bits is computed again in 64 and compared, and nobody asks for the verdict.
    builder = interpreter.interpreter_builder
    assert not builder.options.debug
    builder.options = replace(builder.options, sanitize_overflow=False)
    interpreter._get_np_dtype = _numpy_types(interpreter)
    interpreter._patch_lang = _patched_once(interpreter)


def _numpy_types(interpreter: Any) -> Any:
    """Of a type of Triton its numpy type, without a table of all types at every question."""
    usual, tl = interpreter._get_np_dtype, interpreter.tl
    by_name: dict[str, Any] = {}

    def of_type(given: Any) -> Any:
        element = given.scalar
        if isinstance(element, tl.pointer_type):
            return usual(element)
        if element.name not in by_name:
            by_name[element.name] = usual(element)
        return by_name[element.name]

    return of_type


def _patched_once(interpreter: Any) -> Any:
    """Put the interpreter's functions into Triton's language at a launch, not again at each call inside it."""
    usual, tl = interpreter._patch_lang, interpreter.tl
    patched: set[str] = set()

    @cache
    def languages(fn: Any) -> frozenset[str]:
        return frozenset(each.__name__ for each in fn.__globals__.values() if each is tl or each is tl.core)

    def patch(fn: Any) -> Any:
        new = languages(fn) - patched
        if not new and tl.__name__ in patched:
            return interpreter._LangPatchScope()
        scope = usual(fn)
        restore = scope.restore
        patched.update(new)

        def restored() -> None:
            patched.difference_update(new)
            restore()

        scope.restore = restored
        return scope

    return patch


# Imported by conftest.py before any test module, so that none imports Triton first, for the compiler. Without a CUDA
# device nothing is compiled, and both roads work under the one import.
if not torch.cuda.is_available():
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    importlib.import_module("triton.language")
    importlib.import_module("triton.experimental.gluon")
    if before is None:
        del os.environ["TRITON_INTERPRET"]
    interpreter: Any = importlib.import_module("triton.runtime.interpreter")
    if importlib.import_module("triton").__version__.startswith("3.6."):
        # Its interpreter takes an array of one number for a bound of a loop, which numpy refuses since 2.4.
        patch_tensor = interpreter._patch_lang_tensor

        def patch_tensor_as_later(tensor: Any, scope: Any) -> None:
            patch_tensor(tensor, scope)
            scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

        interpreter._patch_lang_tensor = patch_tensor_as_later
    hasten(interpreter)
