"""The text by which an emitted module chooses between its plain kernels and those for Hopper."""

from __future__ import annotations

from textwrap import indent

from sparsedsl.codegen import hopper_text

# Holes of the module's imports. Where the kernels for Hopper are asked for by name, Triton must have their language.
FORCED_IMPORTS = {"hopper_imports": hopper_text.IMPORTS, "guarded_imports": hopper_text.COPIES}
CHOSEN_IMPORTS = {
    "json_import": "import json\n",
    "look_imports": "import re\nimport subprocess\nimport warnings\n",
    "suppress_import": "from contextlib import suppress\n",
    "folder_imports": "from pathlib import Path\nfrom tempfile import TemporaryDirectory\n",
    "hopper_imports": "from triton import knobs\nfrom triton.runtime.cache import get_cache_manager\n",
    "guarded_imports": f"""
try:
{indent(hopper_text.IMPORTS + hopper_text.COPIES, "    ")}
    NO_GLUON = ""
except Exception as error:
    # Gluon is experimental, and may be missing or another one. What is defined with these names below is never run.
    gluon, gl, NO_GLUON = triton, tl, f"{{type(error).__name__}}: {{error}}"
""",
}
NO_IMPORTS = dict.fromkeys(CHOSEN_IMPORTS, "")

PLAIN_HEADING = """
# The plain kernels: for every GPU, for packed documents, and for all that has no kernel for Hopper.
"""
HOPPER_HEADING = """
# The kernels for Hopper, and `ran_on_hopper`, which chooses.
"""

LAUNCHES = '''

@cache
def is_hopper(device: torch.device) -> bool:
    """Whether a device is a GPU of compute capability 9.0; AMD's numbers mean other ones."""
    known = device.type == "cuda" and torch.version.hip is None and not INTERPRETED
    return known and torch.cuda.get_device_capability(device) == (9, 0)


def in_whole_tiles(q_start: int) -> bool:
    """Whether no tile begins before the first query: there the copy engine can't write an output."""
    return q_start <= 0 or q_start % ${whole_tiles} == 0


def launched(kernel: Any, programs: int, *given: Any, **options: Any) -> None:
    """Launch a kernel."""
    kernel[(programs,)](*given, **options)
'''

FORCED = '''

def ran_on_hopper(part: Callable[..., bool], like: Tensor, *given: Any) -> bool:
    """Launch a part's kernels for Hopper; False on the CPU, InputError on a GPU that this module was not built for."""
    if not like.is_cuda or INTERPRETED:
        return False
    if not is_hopper(like.device):
        raise InputError(
            "DeviceMismatch",
            "this module was built for Hopper GPUs",
            torch.cuda.get_device_name(like.device),
            "compute capability 9.0",
            "a module built with the backend auto or triton",
        )
    part(launched, like, *given)
    return True
'''

CHOSEN = '''

class SlowKernel(RuntimeError):
    """A kernel was compiled to slow machine code."""


def examined(kernel: Any, programs: int, *given: Any, **options: Any) -> None:
    """Compile a kernel and launch nothing; SlowKernel where the machine code of its products is slow."""
    compiled = kernel.warmup(*given, grid=(programs,), **options)
    found = complaints(compiled) if kernel.is_gluon() else []
    if found:
        raise SlowKernel(f"{kernel.__name__}: {'; '.join(found)}")


@cache
def has_gluon() -> bool:
    """Whether this Triton has what the kernels for Hopper are written in; one warning where it has not."""
    if NO_GLUON:
        told = f"plain Triton runs in place of the kernels for Hopper, whose language this Triton has not: {NO_GLUON}"
        warnings.warn(told, RuntimeWarning, stacklevel=3)
    return not NO_GLUON


# Whether a part's kernels for Hopper run, by what their constants follow from: head dim, type, device and alignment.
HOPPER_ROADS: dict[tuple[Any, ...], bool] = {}


def ran_on_hopper(part: Callable[..., bool], like: Tensor, *given: Any) -> bool:
    """Launch a part's kernels for Hopper where they are what runs; False where the plain ones must.

    At the first call for a head dim, type and device they are compiled and their machine code looked at; once more at
    the first call whose queries begin inside a tile. Whatever speaks against them, an error of the launch too, becomes
    a warning, and the plain ones run from then on. The first tensor that is given, `like`, has the head dim, type and
    device of all; the last thing that is given is q_start.
    """
    if not is_hopper(like.device) or not has_gluon():
        return False
    key = (part, like.shape[3], like.dtype, like.device, in_whole_tiles(given[-1]))
    if not HOPPER_ROADS.get(key, True):
        return False
    try:
        if key not in HOPPER_ROADS and part(examined, like, *given):
            HOPPER_ROADS[key] = True
        part(launched, like, *given)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        HOPPER_ROADS[key] = False
        warnings.warn(
            f"{part.__name__} of {PATTERN:.80}, head dim {like.shape[3]}, {like.dtype}: the kernel for Hopper is not "
            f"used, plain Triton runs instead: {type(error).__name__}: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True
'''
