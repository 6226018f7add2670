"""How it is measured: medians over rounds of CUDA events, memory peaks, host time, and counts of compilations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter

import torch
from triton.runtime.jit import JITFunction

Call = Callable[[], object]

WARM_UP = 3
ROUNDS_IF_SLOW = 4
SLOW_MS = 50.0
# Short calls are repeated between two events, so that the host is ahead of the device.
SAMPLE_MS = 20.0


def samples(calls: Mapping[str, Call], *, rounds: int, cuda: bool) -> dict[str, list[float]]:
    """Milliseconds of each call, round by round; every round starts with another call.

    A call of more than SLOW_MS takes part in the first ROUNDS_IF_SLOW rounds only.
    """
    clock = _device_ms if cuda else _host_ms
    once = {}
    for name, call in calls.items():
        for _ in range(WARM_UP - 1):
            call()
        once[name] = clock(call, 1)
    names = list(calls)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            if once[name] <= SLOW_MS or number < ROUNDS_IF_SLOW:
                repeats = max(1, min(20, int(SAMPLE_MS / once[name])))
                found[name].append(clock(calls[name], repeats) / repeats)
    return found


def _device_ms(call: Call, repeats: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


def _host_ms(call: Call, repeats: int) -> float:
    start = perf_counter()
    for _ in range(repeats):
        call()
    return (perf_counter() - start) * 1e3


def peak_mib(call: Call) -> float:
    """The CUDA memory that a call takes at its peak beyond what was there before, its result included."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def host_ms(call: Call, *, times: int, cuda: bool) -> float:
    """What one call costs the host: the median time until the call returns, nobody waiting for the device.

    The work is tiny, so that the queue of the device never fills up.
    """
    found = []
    for _ in range(times + WARM_UP):
        start = perf_counter()
        call()
        found.append((perf_counter() - start) * 1e3)
        if cuda:
            torch.cuda.synchronize()
    return median(found[WARM_UP:])


def compilations() -> int:
    """How many kernels Triton holds compiled in this process for the modules that we emitted."""
    emitted = [module for name, module in sys.modules.items() if name.startswith("sparsedsl_emitted_")]
    kernels = {id(each): each for module in emitted for each in vars(module).values() if isinstance(each, JITFunction)}
    return sum(len(cache[0]) for kernel in kernels.values() for cache in kernel.device_caches.values())


def captured(call: Call) -> Call:
    """The call as a captured CUDA graph; it has been called before."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
