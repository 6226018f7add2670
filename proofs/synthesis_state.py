"""What a synthesis has found so far, so that an interrupted one goes on where it stood."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sparsedsl.errors import StateMismatch, WrongValue, shown
from sparsedsl.files import write_whole
from sparsedsl.proofs.quotient_influence import Layers

FORMAT, VERSION = "sparsedsl synthesis", 1
# Seconds between two savings.
SAVED_EVERY = 5.0


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for; a state belongs to one request."""

    seq_len: int
    layers: int
    block: int
    max_depth: int
    budget: int | None
    schedule: bool
    alpha: float
    seed: int

    @property
    def units(self) -> int:
        """The number of blocks, the last one counted."""
        return -(-self.seq_len // self.block)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one task found, after how many nodes, and whether it looked at everything."""

    layers: Layers | None
    nodes: int
    exhausted: bool


class State:
    """The outcomes of finished tasks by name, and the place of the one that is under way."""

    def __init__(self, request: Request, path: Path | None) -> None:
        self.request, self.path = request, path
        self.outcomes: dict[str, Outcome] = {}
        self.current: tuple[str, object] | None = None
        self._saved = time.monotonic()

    def save(self) -> None:
        """Write the file, in one step.

        Raises
            WrongValue: the file can't be written.
        """
        if self.path is None:
            return
        text = json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "request": asdict(self.request),
                "outcomes": {name: asdict(each) for name, each in self.outcomes.items()},
                "current": self.current,
            }
        )
        try:
            write_whole(self.path, text)
        except OSError as error:
            raise WrongValue(
                "the state can't be written",
                got=f"{self.path}: {error.strerror}",
                expected="a file in a folder that exists and may be written",
                hint="--resume with another file",
            ) from None
        self._saved = time.monotonic()

    def save_now_and_then(self) -> None:
        """Save, if the last time was some seconds ago."""
        if time.monotonic() - self._saved > SAVED_EVERY:
            self.save()

    @staticmethod
    def of(request: Request, path: Path | None) -> State:
        """The state in the file, or a new one where there is no such file.

        Raises
            StateMismatch: the file is no state, or that of another request.
        """
        state = State(request, path)
        if path is None or not path.exists():
            return state
        try:
            saved = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise _mismatch("the state file can't be read", path, str(error), "what --resume wrote") from None
        if not isinstance(saved, dict) or saved.get("format") != FORMAT:
            raise _mismatch("the file is not the state of a synthesis", path, shown(saved), f'"format": "{FORMAT}"')
        if saved.get("version") != VERSION:
            found = f"version {shown(saved.get('version'))}"
            raise _mismatch("the state was saved by another version", path, found, f"version {VERSION}")
        _compare(saved.get("request"), request, path)
        outcomes = saved.get("outcomes")
        if not isinstance(outcomes, dict):
            raise _mismatch("the state file is damaged", path, f"outcomes = {shown(outcomes)}", "a JSON object")
        state.outcomes = {name: _outcome(name, each, request.units, path) for name, each in outcomes.items()}
        match saved.get("current"):
            case None:
                pass
            case [str(name), place]:
                state.current = (name, place)
            case other:
                raise _mismatch("the state file is damaged", path, f"current = {shown(other)}", "[task, place]")
        return state


def _compare(saved: object, request: Request, path: Path) -> None:
    asked = asdict(request)
    if not isinstance(saved, dict) or saved.keys() != asked.keys():
        raise _mismatch("the state file is damaged", path, f"request = {shown(saved)}", f"{', '.join(asked)}")
    for name, value in asked.items():
        if saved[name] != value or type(saved[name]) is not type(value):
            got = f"{name} = {shown(saved[name])} in {path}"
            raise StateMismatch(
                "the state belongs to another request",
                got=got,
                expected=f"{name} = {shown(value)}, as asked for now",
                hint="the options that the file was written with, or another file",
            )


def _outcome(name: str, saved: object, units: int, path: Path) -> Outcome:
    match saved:
        case {"layers": None, "nodes": int(nodes), "exhausted": bool(exhausted)}:
            return Outcome(None, nodes, exhausted)
        case {"layers": [*layers], "nodes": int(nodes), "exhausted": bool(exhausted)} if layers and all(
            _is_layer(layer, units) for layer in layers
        ):
            return Outcome(tuple(map(tuple, layers)), nodes, exhausted)
    raise _mismatch("the state file is damaged", path, f"{shown(name)}: {shown(saved)}", "sets of distances")


def _is_layer(layer: object, units: int) -> bool:
    """Whether this is a set of distances between so many units, rising from 0."""
    if not isinstance(layer, list) or not all(type(each) is int for each in layer):
        return False
    return layer == sorted(set(layer)) and layer[:1] == [0] and layer[-1] < max(units, 1)


def _mismatch(what: str, path: Path, got: str, expected: str) -> StateMismatch:
    return StateMismatch(what, got=f"{path}: {got}", expected=expected, hint="start again with another file")
