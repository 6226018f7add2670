"""Every kind of kernel on small and odd shapes, below compute-sanitizer, each case in a process of its own.

    python -m benchmarks.sanitize                                       # first: Triton compiles, outside the tool
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 python -m benchmarks.sanitize --tool memcheck
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 python -m benchmarks.sanitize --tool racecheck
    TRITON_INTERPRET=1 python -m benchmarks.sanitize --device cpu       # a rehearsal in Triton's interpreter

compute-sanitizer comes with the CUDA toolkit, and with the wheel nvidia-cuda-sanitizer-api as
nvidia/cu13/bin/compute-sanitizer below site-packages; it must be on the PATH. The variable lets it see each tensor as
an allocation of its own; a tensor that PyTorch cuts out of a larger one has neighbours it may not notice. Results are
compared with dense attention in float64 on the CPU. The kinds of kernels: forward, rows, dq, dk and dv for patterns in
one part, in residue order, in parts, by table, by lists and by head; those for Hopper (compute capability 9.0); packed
documents; and caches, contiguous and in pages, for few queries and for many.

racecheck complains about two places in every kernel for Hopper, as it does about a kernel of a few lines where nothing
is wrong (`benchmarks.racecheck_control`, and racecheck_control.cu for the reason): such findings are counted, not
taken as faults. Any other is. What it said on an H200: benchmarks/results/racecheck_h200.txt.

Exit status: 0; 1 if a result is wrong or the tool found something; 2 if there is no CUDA device.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import indent
from time import perf_counter

import torch

from benchmarks.sanitize_cases import CASES, checked
from sparsedsl.codegen.build import cache_folder

# The status that the tool ends with where it found something, and how many of its findings are shown then.
FOUND, SHOWN = 3, 8
LIMIT_S = 110
# After this share of the limit a process says where it stands.
SAYS = 0.9
# Below those that Linux hands out by itself, which something else may have.
FIRST_PORT, PORTS = 20000, 20
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sanitize")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--case", action="append", choices=CASES, help="only this case; may be repeated")
    parser.add_argument("--tool", choices=TOOLS, help="run below compute-sanitizer with this tool")
    jobs = 2 * (os.cpu_count() or 1)
    parser.add_argument("--jobs", type=int, default=jobs, help="cases at a time (default: twice the cores)")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help=f"seconds for a case (default: {LIMIT_S})")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device. TRITON_INTERPRET=1 and --device cpu rehearse the script.", file=sys.stderr)
        return 2
    if options.device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        print("--device cpu runs kernels in Triton's interpreter: set TRITON_INTERPRET=1.", file=sys.stderr)
        return 2
    hopper = options.device == "cuda" and torch.cuda.get_device_capability() == (9, 0)
    names = [name for name in options.case or CASES if hopper or CASES[name].backend != "hopper"]
    start = perf_counter()
    if options.here:
        faulthandler.dump_traceback_later(SAYS * options.limit)
    if options.here or options.device == "cpu":
        complaints = [here(name, options.device) for name in names]
    else:
        with ThreadPoolExecutor(options.jobs) as pool:
            complaints = list(pool.map(lambda name: apart(name, options.tool, options.limit), names))
    wrong = sum(map(bool, complaints))
    print(f"{len(names)} cases, {wrong} wrong, {options.tool or 'no tool'}: {perf_counter() - start:.0f} s", flush=True)
    return 1 if wrong else 0


def here(name: str, device: str) -> str:
    """Run a case in this process; what is wrong."""
    start = perf_counter()
    complaint = checked(CASES[name], device)
    print(f"{name}: {complaint or 'ok'}, {perf_counter() - start:.1f} s", flush=True)
    return complaint


def apart(name: str, tool: str | None, limit: float) -> str:
    """Run a case in a process of its own, below the tool where one is named; what is wrong."""
    start = perf_counter()
    command = [sys.executable, "-m", "benchmarks.sanitize", "--here", "--limit", str(limit), "--case", name]
    if tool:
        # Many begin at a time: the tool must be patient, and each needs ports of its own, ten by default.
        port = FIRST_PORT + PORTS * list(CASES).index(name)
        options = ["--tool", tool, "--error-exitcode", str(FOUND), "--launch-timeout", "120", "--port", str(port)]
        command = ["compute-sanitizer", *options, *command]
    # Dense attention is small: threads of its own for each of many processes would only be in each other's way.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired as late:
        said = lines_of(((late.stdout or b"") + (late.stderr or b"")).decode(errors="replace"))
        complaint = f"not done after {limit:.0f} s\n" + indent("\n".join(said[-2 * SHOWN :]), "    ")
    else:
        output = done.stdout + done.stderr
        races = findings(output) if done.returncode == FOUND and tool == "racecheck" else []
        if races and all(of_the_controls(race, cache_folder()) for race in races):
            print(
                f"{name}: ok, {len(races)} findings of the controls' kinds, {perf_counter() - start:.1f} s", flush=True
            )
            return ""
        complaint = "" if done.returncode == 0 else told(output, done.returncode)
    print(f"{name}: {complaint or 'ok'}, {perf_counter() - start:.1f} s", flush=True)
    return complaint


def lines_of(output: str) -> list[str]:
    """What the tool and the process said, without the tool's own marks."""
    return [line.strip().removeprefix("=========").strip() for line in output.splitlines()]


def findings(output: str) -> list[str]:
    """The tool's findings; a race has its other side in the lines that begin with "and", which stay below the first."""
    telling: list[list[str]] = []
    for line in lines_of(output):
        if line.startswith(("Invalid", "Error", "Warning", "Potential", "Race", "Uninit")):
            telling.append([line])
        elif line.startswith("and ") and telling:
            telling[-1].append(f"    {line}")
    return ["\n".join(each) for each in telling]


def of_the_controls(race: str, folder: Path) -> bool:
    """Whether racecheck says the same of `benchmarks.racecheck_control`, where nothing is wrong.

    That is the case where both sides are a number on its way between warps, in `tell` or `told`; or both are Triton's
    dispatch of partitions, which has the place of the kernel's first line or of `gl.warp_specialize`.
    """
    kinds = set()
    for file, number in re.findall(r" in (\S+\.py):(\d+)", race):
        path = folder / file
        if not path.is_file():
            return False
        lines = path.read_text(encoding="utf-8").splitlines()[: int(number)]
        function = next((line for line in reversed(lines) if line.startswith("def ")), "")
        if function.startswith(("def tell(", "def told(")):
            kinds.add("number")
        elif re.match(r"def hopper_(gradients_)?kernel", lines[-1]) or lines[-1].strip() == "gl.warp_specialize(":
            kinds.add("dispatch")
        else:
            return False
    return len(kinds) == 1


def told(output: str, status: int) -> str:
    """What a case's process and the tool said: the summary, and the first different findings."""
    lines = lines_of(output)
    places = [line for line in lines if line.startswith("at ")]
    summary = [line for line in lines if "SUMMARY" in line]
    found = list(dict.fromkeys([*summary, *findings(output), *places]))[:SHOWN]
    shown = "\n".join(found or lines[-SHOWN:])
    return f"exit status {status}\n" + indent(shown, "    ")


if __name__ == "__main__":
    sys.exit(main())
