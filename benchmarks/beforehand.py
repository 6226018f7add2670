"""Compile before measuring: parts of a benchmark in processes of their own, all at once, with one limit of time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryFile
from time import perf_counter


def prepare(module: str, jobs: Sequence[str], *, limit_s: float) -> list[str]:
    """Run `python -m MODULE --prepare JOB` for every job; what went wrong, a line a job.

    A job leaves kernels in the compilers' caches on disk. One that fails or is not done in time costs no more than
    that: its kernels are compiled when they are first called.
    """
    environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    end = perf_counter() + limit_s
    complaints = []
    with ExitStack() as stack:
        running = []
        for job in jobs:
            said = stack.enter_context(TemporaryFile("w+", encoding="utf-8", errors="replace"))
            command = [sys.executable, "-m", module, "--prepare", job]
            running.append((job, said, subprocess.Popen(command, env=environment, stdout=said, stderr=said)))
        for job, said, process in running:
            try:
                status = process.wait(max(0.1, end - perf_counter()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                complaints.append(f"{job}: not prepared after {limit_s:.0f} s")
                continue
            said.seek(0)
            if status:
                lines = said.read().strip().splitlines() or [f"exit status {status}"]
                complaints.append(f"{job}: {lines[-1]}")
    return complaints


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread where the body takes longer."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def first_line(reason: BaseException) -> str:
    """What an exception says, in one line."""
    lines = str(reason).strip().splitlines()
    return f"{type(reason).__name__}: {lines[0] if lines else ''}"
