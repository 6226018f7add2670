"""What a run of the benchmark leaves: every number, as JSON."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import torch
import triton

import sparsedsl


@dataclass(frozen=True, slots=True)
class Check:
    """One tensor of one implementation against the float64 oracle."""

    case: str
    tokens: int
    peer: str
    tensor: str
    error: float
    eager_error: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the error rule holds; a missing number never passes."""
        return self.error <= self.allowed


@dataclass(frozen=True, slots=True)
class Timing:
    """One pass of one implementation: the samples in milliseconds, and the useful work."""

    case: str
    tokens: int
    direction: str  # forward or backward
    peer: str
    samples_ms: tuple[float, ...]
    flops: int  # multiplications and additions on live pairs only
    peak_mib: float | None

    @property
    def ms(self) -> float:
        """The median."""
        return median(self.samples_ms)

    @property
    def tflops(self) -> float:
        """Useful TFLOP/s."""
        return self.flops / self.ms / 1e9


@dataclass(frozen=True, slots=True)
class Preparation:
    """What our kernels cost beside running: once for a pattern, and with every call."""

    case: str
    emit_ms: float
    kernels: int
    added_by_new_lengths: int
    forward_host_ms: float
    backward_host_ms: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """The relative distance of a result of ours from FlexAttention's, at a length that the oracle is not run at."""

    case: str
    tokens: int
    tensor: str
    distance: float
    peer: str = "sparsedsl"


@dataclass(slots=True)
class Record:
    """One run."""

    date: str
    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, int | str]
    checks: list[Check] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    preparations: list[Preparation] = field(default_factory=list)
    flex_mask_ms: dict[str, float] = field(default_factory=dict)  # "case, tokens": a block mask, compiled before
    complaints: list[str] = field(default_factory=list)
    absences: list[str] = field(default_factory=list)  # optional peers that were not measured, and why

    @staticmethod
    def begun(settings: dict[str, int | str], arguments: Sequence[str]) -> Record:
        """A record of this machine and of now, with no numbers yet."""
        return Record(
            datetime.now(UTC).isoformat(timespec="seconds"),
            " ".join(["python -m benchmarks.attention", *arguments]),
            machine(),
            {
                "sparsedsl": sparsedsl.__version__,
                "torch": torch.__version__,
                "triton": triton.__version__,
                "python": platform.python_version(),
                **installed(("flash-attn-4", "nvidia-cutlass-dsl", "natten")),
            },
            settings,
        )

    def write(self, path: Path) -> None:
        """All fields, and the derived numbers that a reader would compute, as JSON."""
        content = asdict(self)
        for entry, timing in zip(content["timings"], self.timings, strict=True):
            entry |= {"ms": round(timing.ms, 4), "tflops": round(timing.tflops, 2)}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def read(path: Path) -> Record:
        """The record that `write` left."""
        content = json.loads(path.read_text(encoding="utf-8"))
        kinds = {"checks": Check, "agreements": Agreement, "timings": Timing, "preparations": Preparation}
        for name, kind in kinds.items():
            content[name] = [
                kind(**{key: value for key, value in entry.items() if key not in ("ms", "tflops")})
                for entry in content[name]
            ]
        return Record(**content)


def installed(names: Sequence[str]) -> dict[str, str]:
    """The versions of these packages, as far as they are there."""
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def machine() -> dict[str, str]:
    """The device and its drivers."""
    found = {"system": f"{platform.system()} {platform.machine()}", "device": "CPU"}
    if torch.cuda.is_available():
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
        found |= {
            "device": torch.cuda.get_device_name(),
            "driver": (answer.stdout.splitlines() or ["unknown"])[0],
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
        }
    return found
