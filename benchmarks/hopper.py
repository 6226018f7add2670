"""The kernels for Hopper: checked against the plain ones, then timed beside them and their peers.

    python -m benchmarks.hopper                    # on one H100 or H200, in about five minutes
    python -m benchmarks.hopper --only-checks
    python -m benchmarks.hopper --only-checks --launches 10000

Every check runs in a process of its own with a time limit, so that a kernel that hangs is a failed check and no more:
output and log-sum-exp against the plain kernels, on memory full of NaN, and the same bits again at each of many
launches. Where a check fails nothing is timed. Times are medians in ms; in brackets, useful TFLOP/s on live pairs.

Exit status: 0; 1 if a check failed; 2 if there is no GPU of compute capability 9.0.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
import triton
from torch import Tensor

import sparsedsl as sd
from benchmarks import peers
from benchmarks.cases import CASES, DENSE, Case
from benchmarks.measure import Settings
from benchmarks.oracle import relative_distance
from benchmarks.timing import samples
from sparsedsl.codegen.build import CompiledAttention
from sparsedsl.codegen.sass import MachineCode, machine_code
from sparsedsl.live import live_pairs
from sparsedsl.patterns.power import power_attention

BF16, FP16 = torch.bfloat16, torch.float16
# A process's time limit, most of it for compilation, and what each launch adds to it; how many run at a time; how often
# a kernel is launched again.
LIMIT_S, LAUNCH_S, AT_ONCE, AGAIN = 120, 0.02, 8, 50
FARTHEST, FARTHEST_LSE = 5e-3, 1e-3
TIMED, DIRECTIONS = (*CASES, DENSE), ("forward", "backward")
SETTINGS = Settings("cuda", (32768, 131072), 16, 128, BF16, rounds=8)


@dataclass(frozen=True, slots=True)
class Check:
    """A pattern and a shape: queries, keys, heads, key heads, head dim, type; whether gradients are compared."""

    name: str
    pattern: sd.Pattern | sd.PerHead
    q_len: int
    k_len: int
    heads: int = 4
    key_heads: int = 4
    head_dim: int = 128
    dtype: torch.dtype = BF16
    gradients: bool = True


HEADS = sd.per_head([sd.sliding(512), sd.sliding(2048), sd.power(), sd.sink(64) & sd.causal()])
CHECKS = (
    Check("sliding", sd.sliding(1024), 8192, 8192),
    Check("sliding, ragged", sd.sliding(1024), 5003, 5003, key_heads=1),
    Check("power 256", power_attention(), 8192, 8192),
    Check("power 128, few queries", power_attention(block=128, window=4), 333, 9001, key_heads=2),
    # Long columns are split where there are few heads.
    Check("power 256, one head", power_attention(), 16384, 16384, heads=1, key_heads=1),
    Check("causal", sd.causal(), 3001, 3001),
    Check("dilated", sd.dilated(512, 8), 8192, 8192),
    Check("dilated, ragged", sd.dilated(512, 8), 1001, 9001, key_heads=2),
    Check("two parts", sd.sliding(256) | sd.dilated(256, 16), 9001, 9001),
    Check("both ways", sd.sliding(500, ahead=700), 2311, 2311),
    Check("sinks and global queries", (sd.sliding(256) | sd.sink(4) | sd.where("q < 4")) & sd.causal(), 4099, 4099),
    Check("per head", HEADS, 4099, 4099),
    Check("squares", sd.sliding(3) | sd.offsets(n * n for n in range(2, 60)), 4099, 4099),
    Check("rows without keys", sd.sliding(300) & sd.where("q % 3 == 1"), 1000, 1500),
    Check("head dim 64, fp16", sd.sliding(1024), 5003, 5003, head_dim=64, dtype=FP16),
    Check("head dim 64, dilated, ragged", sd.dilated(512, 8), 1001, 9001, key_heads=2, head_dim=64),
    Check("head dim 64, two parts", sd.sliding(256) | sd.dilated(256, 16), 9001, 9001, head_dim=64),
    Check("head dim 40", sd.causal(), 3001, 3001, key_heads=1, head_dim=40),
    Check("head dim 32", power_attention(), 4099, 4099, head_dim=32),
    Check("head dim 96", sd.sliding(1024), 5003, 5003, head_dim=96),
    Check("head dim 256", power_attention(), 4099, 4099, head_dim=256),
    Check("17 queries", sd.sliding(1024), 17, 3001),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, then time; the exit status."""
    options = _options(arguments)
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
        say("The kernels for Hopper need a GPU of compute capability 9.0, and there is none.")
        return 2
    if options.check is not None:
        return run_check(CHECKS[options.check], options.launches)
    if options.warm is not None:
        for length in SETTINGS.lengths:
            for direction in DIRECTIONS:
                for call in calls_of(TIMED[options.warm], length, direction).values():
                    call()
        return 0
    start = perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        # Beside the checks, the compilers' caches are filled for what is timed. What fails there fails again below.
        warm = [] if options.only_checks else [pool.submit(outcome, "--warm", place) for place in range(len(TIMED))]
        found = pool.map(lambda number: complaint(number, options.launches), range(len(CHECKS)))
        complaints = [text for text in found if text]
        statuses = [each.result() is None for each in warm]
    say(f"compiled ahead: {sum(statuses)} of {len(statuses)} cases")
    say(f"{len(CHECKS)} checks, {len(complaints)} failed: {perf_counter() - start:.0f} s")
    for text in complaints:
        say(f"WRONG: {text}")
    if complaints or options.only_checks:
        return 1 if complaints else 0
    for line in times():
        print(line, flush=True)
    return 0


def complaint(number: int, launches: int = AGAIN) -> str | None:
    """What was wrong with a check, run in a process of its own."""
    text = outcome("--check", number, launches)
    return None if text is None else f"{CHECKS[number].name}: {text}"


def outcome(option: str, number: int, launches: int = AGAIN) -> str | None:
    """Run one part of this script in a process of its own; what was wrong, or None."""
    command = [sys.executable, "-m", "benchmarks.hopper", option, str(number), "--launches", str(launches)]
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    limit = LIMIT_S + LAUNCH_S * launches
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {limit:.0f} s"
    if done.returncode == 0:
        sys.stderr.write(done.stderr)
        return None
    return done.stderr[-1500:] or f"exit status {done.returncode}"


def run_check(check: Check, launches: int) -> int:
    """Compare both backends on one check, and so many launches with each other; the exit status."""
    torch.manual_seed(0)
    shapes = ((check.heads, check.q_len), (check.key_heads, check.k_len), (check.key_heads, check.k_len))
    tensors = [torch.randn(2, h, n, check.head_dim, device="cuda", dtype=check.dtype) for h, n in shapes]
    special, plain = (sd.compile(check.pattern, backend=backend) for backend in ("hopper", "triton"))
    want, want_lse = plain(*tensors, return_lse=True)
    poison(want)
    out, lse = special(*tensors, return_lse=True)
    # Compared on the GPU, so that launches do not wait for the host.
    differs = torch.zeros((), device="cuda", dtype=torch.bool)
    for _ in range(launches):
        again, again_lse = special(*tensors, return_lse=True)
        differs |= (out != again).any() | (lse != again_lse).any()
    if differs:
        say("other bits at another launch")
        return 1
    live = want_lse > float("-inf")
    far = relative_distance(out, want) if live.any() else 0.0
    far_lse = (lse - want_lse)[live].abs().max().item() if live.any() else 0.0
    same = torch.equal(live, lse > float("-inf")) and bool((out[~live] == 0).all())
    wrong = not (far <= FARTHEST and far_lse <= FARTHEST_LSE and same and not out.isnan().any())
    if check.gradients:
        far = max(far, *gradient_distances(special, plain, tensors, launches))
        wrong |= not far <= 2 * FARTHEST
    codes = list(codes_of(special))
    notes = [f"{name}: {text}" for name, code in codes for text in code.complaints]
    if not notes:
        notes = ["machine code as it should be" if codes else "no kernel for Hopper ran"]
    say(f"{check.name}: out {far:.1e}, log-sum-exp {far_lse:.1e}; {'; '.join(notes)}")
    return int(wrong or not codes)


def poison(like: Tensor) -> None:
    """Leave NaN in the memory that the next results are likely to get."""
    taken = [torch.full_like(like, float("nan")) for _ in range(4)]
    del taken


def gradient_distances(
    special: CompiledAttention, plain: CompiledAttention, tensors: list[Tensor], launches: int
) -> list[float]:
    """How far dq, dk and dv of the two are apart; of many launches the largest dq. dk and dv repeat to the bit."""
    leaves = [each.detach().requires_grad_() for each in tensors]
    outputs = [attention(*leaves).float().sin().sum() for attention in (plain, special)]
    want = torch.autograd.grad(outputs[0], leaves)
    poison(want[0].float())
    first = torch.autograd.grad(outputs[1], leaves, retain_graph=True)
    found = [relative_distance(ours, theirs) for ours, theirs in zip(first, want, strict=True)]
    # On the GPU, so that launches do not wait for the host.
    differs = torch.zeros((), device="cuda", dtype=torch.bool)
    farthest = torch.zeros((), device="cuda")
    for _ in range(launches):
        dq, dk, dv = torch.autograd.grad(outputs[1], leaves, retain_graph=True)
        differs |= (dk != first[1]).any() | (dv != first[2]).any()
        farthest = torch.maximum(farthest, torch.linalg.vector_norm(dq - want[0], dtype=torch.float32))
    found.append((farthest / torch.linalg.vector_norm(want[0], dtype=torch.float32)).item())
    if differs:
        say("other bits of dk or dv at another launch")
        found.append(float("inf"))
    return found


def codes_of(attention: CompiledAttention) -> Iterator[tuple[str, MachineCode]]:
    """The machine code of the kernels for Hopper that ran."""
    for module in attention._modules.values():
        for name, kernel in vars(module).items():
            if name.startswith(("hopper_kernel", "hopper_gradients_kernel")):
                for cache in kernel.device_caches.values():
                    for compiled in cache[0].values():
                        yield name, machine_code(compiled.asm["cubin"])


def calls_of(case: Case, length: int, direction: str) -> dict[str, Callable[[], object]]:
    """Who is timed on a case, ready to call."""
    torch._dynamo.reset()  # its limit of recompilations counts over all cases
    inputs = SETTINGS.inputs(length)
    found = [
        peers.Peer("hopper", sd.compile(case.pattern, backend="hopper")),
        peers.Peer("plain", sd.compile(case.pattern, backend="triton")),
        # Over all pairs FlexAttention takes a good part of a second.
        *([peers.flex(case, length)] if case is not DENSE else []),
    ]
    return {peer.name: peer.forward(inputs) if direction == "forward" else peer.backward(inputs) for peer in found}


def times() -> Iterator[str]:
    """A table for each direction: a line for each case and length."""
    for direction in DIRECTIONS:
        callers = "hopper | plain | FlexAttention | cuDNN, dense causal | plain / hopper | Flex / hopper"
        yield f"\n| {direction} | tokens | {callers} |"
        yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
        for length in SETTINGS.lengths:
            dense = peers.dense_causal(peers.CUDNN)
            inputs = SETTINGS.inputs(length)
            call = dense.forward(inputs) if direction == "forward" else dense.backward(inputs)
            dense_ms = timed({"dense": call}, direction)["dense"]
            for case in TIMED:
                found = timed(calls_of(case, length, direction), direction)
                work = 4 * SETTINGS.head_dim * SETTINGS.heads * live_pairs(case.pattern, length)
                if direction == "backward":
                    work = work * 5 // 2
                shown = [f"{ms:.3f} ({work / ms / 1e9:.0f})" for ms in found.values()]
                ratios = [f"{ms / found['hopper']:.2f}" for name, ms in found.items() if name != "hopper"]
                cells = [case.name, length, *_three(shown), f"{dense_ms:.2f}", *_three(ratios)[:2]]
                yield f"| {' | '.join(map(str, cells))} |"
    yield f"{torch.cuda.get_device_name()}; torch {torch.__version__}, triton {triton.__version__}"


def _three(cells: list[str]) -> list[str]:
    return [*cells, *["-"] * 3][:3]


def timed(calls: dict[str, Callable[[], object]], direction: str) -> dict[str, float]:
    """Medians in milliseconds."""
    with torch.set_grad_enabled(direction == "backward"):
        return {name: median(ms) for name, ms in samples(calls, rounds=SETTINGS.rounds, cuda=True).items()}


def say(text: str) -> None:
    """Progress and complaints go to the error stream; the table alone is the output."""
    print(text, file=sys.stderr, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hopper")
    parser.add_argument("--only-checks", action="store_true", help="time nothing")
    parser.add_argument("--launches", type=int, default=AGAIN, help=f"of each kernel in each check (default: {AGAIN})")
    parser.add_argument("--check", type=int, choices=range(len(CHECKS)), help=argparse.SUPPRESS)
    parser.add_argument("--warm", type=int, choices=range(len(TIMED)), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
