"""Whether the tests of kernels can fail, what kernels make of memory that was never written, and bad inputs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

import sparsedsl as sd
from sparsedsl.cli import main
from sparsedsl.errors import SparseDSLError
from sparsedsl.layers import PerHead
from sparsedsl.pattern import Pattern
from tests.codegen.modules import imported, module_of, source_of
from tests.codegen.oracle import dense_attention, dense_mask, random_inputs

ROOT = Path(__file__).resolve().parents[2]
QUIET = pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
PATTERNS: dict[str, Pattern | PerHead] = {
    "sliding": sd.sliding(20),
    "power blocks": (sd.sliding(2) | sd.power() | sd.sink(1)).blocks(24) & sd.causal(),
    "both ways": sd.sliding(5, ahead=7),
    "rows without keys": sd.sliding(8) & sd.where("q % 3 == 1"),
    "residues": sd.strided(3) & sd.causal(),
    "two orders": (sd.sliding(4) | sd.strided(8)) & sd.causal(),
    "no period": (sd.sliding(8) | sd.where("q * k < 900")) & sd.causal(),
    "random": (sd.random_blocks(16, 1, seed=3) | sd.sliding(4)) & sd.causal(),
    "per head": sd.per_head([sd.sliding(9), sd.dilated(4, 5)]),
}
# What is past the last query or key would be read as a key that is there.
MASK = re.compile(
    r"(def mask_\d+(?:_on_cpu)?\(q, k(?:, constants)?\)[^\n]*:\n(?:    \"\"\".*\n)?    return )"
    r"(?:\(\n(?:     .*\n)+    \)|.*)"
)


# The interpreter is slow: a few patterns for it, all for the CPU road.
RUNS = [
    *(("interpreter", name) for name in ("sliding", "two orders", "per head")),
    *(("cpu", name) for name in PATTERNS),
]


@pytest.fixture
def pattern(road: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Pattern | PerHead:
    """The pattern, where its module will take the road."""
    if road == "interpreter":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    return PATTERNS[name]


EVERY = pytest.mark.parametrize(("road", "name"), RUNS)


def results(attend: Callable[..., tuple[Tensor, Tensor]], tensors: list[Tensor]) -> dict[str, Tensor]:
    """Output, log-sum-exp (0 where -inf), and the gradients of q, k, v."""
    *leaves, weight = (each.detach().requires_grad_() for each in tensors)
    out, lse = attend(*leaves)
    finite = torch.where(lse == float("-inf"), 0.0, lse)
    dq, dk, dv = torch.autograd.grad((out * weight).sum() + finite.sin().sum(), leaves)
    return {"out": out.detach(), "lse": finite.detach(), "dq": dq, "dk": dk, "dv": dv}


def exact(pattern: Pattern | PerHead, tensors: list[Tensor]) -> dict[str, Tensor]:
    q, k = tensors[:2]
    mask = dense_mask(pattern, q.shape[1], q.shape[2], k.shape[2], None)
    return results(lambda q, k, v: dense_attention(q, k, v, mask, q.shape[-1] ** -0.5), [t.double() for t in tensors])


def errors(got: dict[str, Tensor], want: dict[str, Tensor]) -> dict[str, float]:
    return {name: (got[name] - want[name]).abs().max().item() for name in want}


# --- negative tests: what is taken away is missed, by every tensor


@QUIET
@EVERY
def test_with_every_tile_full_every_tensor_is_wrong(pattern: Pattern | PerHead) -> None:
    source, changed = MASK.subn(r"\g<1>(q == q) & (k == k)", source_of(pattern))
    assert changed
    tensors = random_inputs(2, 2, 37, 45, 16, torch.float32)
    want = exact(pattern, tensors)
    right, wrong = module_of(pattern), imported(source)
    assert max(errors(results(lambda *t: right.attention(*t, return_lse=True), tensors), want).values()) < 1e-4
    found = errors(results(lambda *t: wrong.attention(*t, return_lse=True), tensors), want)
    assert min(found.values()) > 1e-2, found


@QUIET
@pytest.mark.parametrize(("road", "name"), [("interpreter", "per head"), ("cpu", "both ways")])
def test_with_every_tile_empty_every_tensor_is_wrong(pattern: Pattern | PerHead) -> None:
    source, changed = MASK.subn(r"\g<1>(q != q) & (k == k)", source_of(pattern))
    assert changed
    tensors = random_inputs(2, 2, 37, 45, 16, torch.float32)
    wrong = imported(source)
    found = errors(results(lambda *t: wrong.attention(*t, return_lse=True), tensors), exact(pattern, tensors))
    assert min(found.values()) > 1e-2, found


def test_the_modules_of_two_patterns_differ() -> None:
    """Comparing with the wrong pattern fails, pattern by pattern."""
    tensors = random_inputs(2, 2, 53, 65, 16, torch.float32)
    wants = [exact(pattern, tensors) for pattern in PATTERNS.values()]
    for a, b in combinations(wants, 2):
        assert errors(a, b)["out"] > 1e-2


# --- memory that was never written


@pytest.fixture
def filled_memory() -> Iterator[None]:
    """torch fills what it allocates without writing it with NaN, whichever function allocates."""
    torch.use_deterministic_algorithms(True)
    setting = cast(Any, torch.utils.deterministic)
    before = setting.fill_uninitialized_memory
    setting.fill_uninitialized_memory = True
    yield
    setting.fill_uninitialized_memory = before
    torch.use_deterministic_algorithms(False)


@QUIET
@EVERY
def test_nothing_unwritten_is_given_out(pattern: Pattern | PerHead, road: str, filled_memory: None) -> None:
    assert torch.empty(3).isnan().all()
    assert torch.empty_like(torch.zeros(2, 2)).isnan().all()
    for q_len, k_len in ((33, 20),) if road == "interpreter" else ((53, 65), (33, 20), (1, 40)):
        tensors = random_inputs(2, 1, q_len, k_len, 16, torch.float32)
        module = module_of(pattern)
        got = results(lambda *t, own=module: own.attention(*t, return_lse=True), tensors)
        assert not any(each.isnan().any() for each in got.values())
        assert max(errors(got, exact(pattern, tensors)).values()) < 1e-4


# --- a stand-alone module

PROGRAM = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sparsedsl":
            raise ImportError(f"blocked: {name}")
sys.meta_path.insert(0, Blocked())
try:
    import sparsedsl
except ImportError:
    pass
else:
    raise SystemExit("sparsedsl is not blocked")
for file in sys.argv[1:]:
    runpy.run_path(file, run_name="__main__")
"""


def test_built_modules_run_without_this_package(tmp_path: Path) -> None:
    patterns = ("(sliding(2) | power() | sink(1)).blocks(64) & causal()", "random_blocks(64, 2) & causal()")
    files = [tmp_path / f"attention_{number}.py" for number in range(len(patterns))]
    for pattern, file in zip(patterns, files, strict=True):
        assert main(["build", pattern, "-o", str(file), "--tiling", "single256"]) == 0
        assert not re.search(r"^ *(import|from) +sparsedsl", file.read_text(), re.MULTILINE)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, files)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.partition(": ")[2].split(" on")[0] for line in done.stdout.splitlines()] == ["ok"] * 8


# --- inputs that do not fit


def tensor(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    return torch.zeros(shape, dtype=dtype, device=device)


def four(*lines: str) -> list[str]:
    what, got, expected = lines
    return [what, "  where     attention(q, k, v)", f"  got       {got}", f"  expected  {expected}"]


GOOD = tensor(2, 4, 9, 16)
PER_HEAD = sd.per_head([sd.sliding(4), sd.causal()])
BAD: list[tuple[Pattern | PerHead, tuple[Tensor, Tensor, Tensor], dict[str, int], list[str]]] = [
    (
        sd.sliding(4),
        (tensor(4, 9, 16), tensor(4, 9, 16), tensor(4, 9, 16)),
        {},
        four(
            "ShapeMismatch: attention takes 4-D tensors",
            "q (4, 9, 16), k (4, 9, 16), v (4, 9, 16)",
            "(batch, heads, length, dim) each",
        ),
    ),
    *(
        (
            sd.sliding(4),
            (GOOD, k, v),
            {},
            four(
                "ShapeMismatch: q, k and v do not fit",
                f"q (2, 4, 9, 16), k {tuple(k.shape)}, v {tuple(v.shape)}",
                "q (B, H, M, D), k and v (B, G, N, D)",
            ),
        )
        for k, v in (
            (tensor(2, 4, 9, 16), tensor(2, 4, 8, 16)),
            (tensor(2, 4, 9, 16), tensor(2, 2, 9, 16)),
            (tensor(1, 4, 9, 16), tensor(1, 4, 9, 16)),
            (tensor(2, 4, 9, 8), tensor(2, 4, 9, 8)),
            (tensor(2, 4, 9, 16), tensor(2, 4, 9, 8)),
        )
    ),
    (
        sd.sliding(4),
        (GOOD, tensor(2, 3, 9, 16), tensor(2, 3, 9, 16)),
        {},
        four(
            "HeadMismatch: the key heads do not divide the query heads",
            "4 query heads, 3 key heads",
            "a number of key heads that divides the number of query heads",
        ),
    ),
    (
        PER_HEAD,
        (GOOD, GOOD, GOOD),
        {},
        four(
            "HeadMismatch: the pattern and the query disagree on the number of heads",
            "2 head patterns, q of shape (2, 4, 9, 16)",
            "one pattern for each query head (key heads do not count)",
        ),
    ),
    (
        sd.sliding(4),
        (GOOD, GOOD.half(), GOOD),
        {},
        four(
            "DtypeMismatch: q, k and v have different types", "torch.float32, torch.float16, torch.float32", "one type"
        ),
    ),
    (
        sd.sliding(4),
        (GOOD.long(), GOOD.long(), GOOD.long()),
        {},
        four("DtypeMismatch: no kernel takes this type", "torch.int64", "float16, bfloat16 or float32"),
    ),
    (
        sd.sliding(4),
        (GOOD, GOOD, GOOD.to("meta")),
        {},
        four("DeviceMismatch: q, k and v are on different devices", "cpu, cpu, meta", "one device"),
    ),
    (
        sd.sliding(4),
        (GOOD, GOOD, GOOD),
        {"q_start": 3},
        four(
            "OutOfRange: the last query stands after the last key of a pattern that looks back",
            "q_start = 3, q_len = 9, k_len = 9",
            "q_start + q_len <= k_len",
        ),
    ),
]


@pytest.mark.parametrize(("pattern", "tensors", "options", "lines"), BAD)
def test_inputs_that_do_not_fit(
    pattern: Pattern | PerHead, tensors: tuple[Tensor, Tensor, Tensor], options: dict[str, int], lines: list[str]
) -> None:
    attends: tuple[Callable[..., object], ...] = (sd.compile(pattern), module_of(pattern).attention)
    for attend in attends:
        with pytest.raises(ValueError, match=lines[0]) as caught:
            attend(*tensors, **options)
        told = str(caught.value).splitlines()
        assert told[:4] == lines
        assert all(line.startswith("  try       ") for line in told[4:])


def test_lengths_of_zero_give_zero_rows() -> None:
    attn = sd.compile(sd.sliding(4))
    assert attn(tensor(2, 4, 0, 16), GOOD, GOOD).shape == (2, 4, 0, 16)
    assert attn(tensor(0, 4, 9, 16), tensor(0, 4, 9, 16), tensor(0, 4, 9, 16)).shape == (0, 4, 9, 16)
    out, lse = attn(GOOD, tensor(2, 4, 0, 16), tensor(2, 4, 0, 16), return_lse=True)
    assert (out == 0).all()
    assert (lse == float("-inf")).all()


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        (
            "sliding(4)",
            [
                "WrongType: compile takes a pattern",
                "  where     compile('sliding(4)')",
                "  got       'sliding(4)' of type str",
                "  expected  a Pattern or a PerHead",
                "  try       compile(parse('sliding(4)'))",
            ],
        ),
        (
            np.eye(1),
            [
                "WrongType: compile takes a pattern",
                "  where     compile(array([[1.]]))",
                "  got       array([[1.]]) of type ndarray",
                "  expected  a Pattern or a PerHead",
                "  try       compile(sliding(1024))",
            ],
        ),
        (
            sd.cycle([sd.sliding(4), sd.causal()], layers=28),
            [
                "Unsupported: a stack has a pattern for each layer, a kernel has one",
                "  where     compile(cycle([sliding(4), causal()], layers=28))",
                "  got       a Stack of 28 layers",
                "  expected  one layer's pattern",
                "  try       [compile(stack[layer]) for layer in range(28)]",
            ],
        ),
    ],
)
def test_what_is_no_single_pattern_is_refused(pattern: object, lines: list[str]) -> None:
    with pytest.raises(SparseDSLError) as caught:
        sd.compile(pattern)  # type: ignore[arg-type]
    assert str(caught.value).splitlines() == lines
