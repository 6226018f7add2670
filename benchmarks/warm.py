"""Every implementation of every case once, in processes of their own: caches are filled, and what fails fails there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import torch

from benchmarks.cases import Case
from benchmarks.measure import Settings, implementations
from benchmarks.optional_peers import FLASH4, MAKERS, NATTEN, Unasked, optional_peer, short
from benchmarks.peers import CUDNN, FLASH, FLEX, OURS, PLAIN

# (case, tokens, implementation) -> why it failed.
Failures = dict[tuple[str, int, str], str]

# A process's time limit, and what it takes of the GPU's memory at most; one runs for each core, as far as these allow.
LIMIT_S, PROCESS_BYTES = 100, 9 << 30
# The modules that the optional implementations are imported from.
MODULES = {FLASH4: "flash_attn", NATTEN: "natten"}
DONE = "done at "


def warm_caches(cases: Sequence[Case], lengths: Sequence[int], say: Callable[[str], None]) -> Failures:
    """Run all of it; what failed, by case, length and implementation."""
    names = [name for name in (FLEX, OURS, PLAIN, FLASH4, NATTEN) if name not in MODULES or find_spec(MODULES[name])]
    # FlexAttention takes longest to compile, so it begins.
    jobs = [(case, name) for name in names for case in cases]
    jobs += [(case, name) for case in cases if case.dense for name in (CUDNN, FLASH)]
    room = torch.cuda.mem_get_info()[1] // PROCESS_BYTES if torch.cuda.is_available() else 1
    with ThreadPoolExecutor(max(1, min(room, os.cpu_count() or 1))) as pool:
        outcomes = list(pool.map(lambda job: _outcome(*job), jobs))
    failures: Failures = {}
    for (case, name), (done, why) in zip(jobs, outcomes, strict=True):
        if why is not None:
            say(f"{case.name}, {name}: failed when compiled ahead, done were {done}: {why}")
            failures |= {(case.name, length, name): short(why) for length in lengths if length not in done}
    return failures


def _outcome(case: Case, name: str) -> tuple[list[int], str | None]:
    """The lengths that went well, and what was wrong after them, or None."""
    command = [sys.executable, "-m", "benchmarks.attention", "--warm", name, "--case", case.name]
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        printed = error.stdout.decode() if isinstance(error.stdout, bytes) else ""
        return _lengths_done(printed), f"not done after {LIMIT_S} s"
    if done.returncode == 0:
        return _lengths_done(done.stdout), None
    # The last line of a traceback says what it was.
    lines = done.stderr.strip().splitlines()
    return _lengths_done(done.stdout), lines[-1] if lines else f"exit status {done.returncode}"


def _lengths_done(printed: str) -> list[int]:
    return [int(line.removeprefix(DONE)) for line in printed.splitlines() if line.startswith(DONE)]


def run_once(name: str, case: Case, settings: Settings) -> None:
    """One implementation of a case, forward and backward, at every length; a line after each."""
    for length in settings.lengths:
        inputs = settings.inputs(length)
        if name in MAKERS:
            try:
                found = [optional_peer(name, case, length, settings.device)]
            except Unasked:
                return
        else:
            found = implementations(case, length, settings, only=name)
        for peer in found:
            peer.results(inputs)
        if settings.cuda:
            torch.cuda.synchronize()
        print(f"{DONE}{length}", flush=True)
