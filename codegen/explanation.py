"""What the compiler decided for a pattern and what it costs at one length, as data; `str` is a report."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the different patterns among the heads of a part, and how its tiles are found.

    `road` is "loops" (by arithmetic), "lists" (loops, and tiles read from the module's constants) or "table" (made
    for each length). `runs` has a line for each loop: what it walks, seen from query tile i, and the mask.
    """

    pattern: str
    heads: tuple[int, ...]
    road: str
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of a part, all heads and classes together.

    `own` counts the tiles that its programs own, `full` and `partial` those that these visit; `executed` pairs are
    those of all visited tiles. `flops` and `loaded` bytes are what the kernel does and asks for; most loads find the
    cache. `table` counts the bytes of the table that tells its tiles; kernels with equal tiles share it. `split` of the
    owned tiles are worked by `shares` programs each: those that all later queries read, where that pays.
    """

    name: str
    block_m: int
    block_n: int
    own: int
    full: int
    partial: int
    executed: int
    waste: float
    flops: int
    loaded: int
    constants: bool
    table: int
    split: int = 0
    shares: int = 1


@dataclass(frozen=True, slots=True)
class PartOfPlan:
    """Pairs walked in one order: identity (step 1), or the residue order of `step`, in `classes` of its classes.

    `kernels` are the plain ones, which run on every GPU; on compute capability 9.0 `hopper` takes the place of forward
    and `hopper_backward` that of dq and dkdv, where there are such kernels and they run for the head dim.
    """

    step: int
    classes: int
    live_pairs: int
    kinds: tuple[Kind, ...]
    kernels: tuple[Kernel, ...]
    hopper: Kernel | None = None
    hopper_backward: Kernel | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Why this plan: tiles that a query tile visits in identity order and in parts, merging included.

    Counted in tiles of `tile` x `tile` pairs at `tokens` tokens; parts are taken where they cost at most `gain` of
    identity order. None where there was no other order.
    """

    identity: float | None
    parts: float | None
    tile: int
    tokens: int
    gain: float


@dataclass(frozen=True, slots=True)
class Pass:
    """Forward or backward: its work, and its time in milliseconds; None where nothing was measured.

    `useful_flops` counts live pairs, 4 · head dim each, 2.5 times that backward. `floor_bytes` reads and writes each
    tensor once; `loaded_bytes` is what the kernels load and store, `merged_bytes` the share of it that merging parts
    costs. `matrix_ms` and `memory_ms` are floors of any kernel, from the ceilings; `predicted_ms` is for our plain
    ones, `hopper_ms` for those for Hopper, where every part has one; `launch_ms` is what the host takes to launch
    them; `dense_ms` is dense causal attention through cuDNN.
    """

    useful_flops: int
    executed_flops: int
    floor_bytes: int
    loaded_bytes: int
    merged_bytes: int
    matrix_ms: float | None
    memory_ms: float
    predicted_ms: float | None
    launch_ms: float
    dense_ms: float | None
    hopper_ms: float | None = None

    @property
    def waste(self) -> float:
        """Executed FLOPs a useful one."""
        return self.executed_flops / self.useful_flops if self.useful_flops else 0.0

    @property
    def intensity(self) -> float:
        """Useful FLOPs a byte, each tensor read and written once."""
        return self.useful_flops / self.floor_bytes

    @property
    def floor_ms(self) -> float | None:
        """The larger of the two floors."""
        return None if self.matrix_ms is None else max(self.matrix_ms, self.memory_ms)


@dataclass(frozen=True, slots=True)
class Bytes:
    """One of the tensors that live when a pass needs the most memory."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class ExplainedLayer:
    """One pattern and the layers that have it, the first being layer 1; () where no stack was given.

    `live_pairs` counts all heads. `constants` are the numbers in the module's array, `dense_ratio` the pairs of dense
    causal attention a live pair: no kernel gains more by leaving pairs out. `hopper_backward_memory` is what backward
    holds where the kernels for Hopper run; () where there are none.
    """

    pattern: str
    layers: tuple[int, ...]
    choice: Choice
    parts: tuple[PartOfPlan, ...]
    live_pairs: int
    dense_ratio: float | None
    constants: int
    forward: Pass
    backward: Pass
    forward_memory: tuple[Bytes, ...]
    backward_memory: tuple[Bytes, ...]
    hopper_backward_memory: tuple[Bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `explain` found, batch 1 and as many queries as keys."""

    seq_len: int
    heads: int
    key_heads: int
    head_dim: int
    dtype: str
    tiling: str
    gpu: str
    layers: tuple[ExplainedLayer, ...]

    def to_json(self) -> str:
        """All fields as one JSON object, and what a reader would compute from them."""
        content = asdict(self)
        for entry, layer in zip(content["layers"], self.layers, strict=True):
            for name in ("forward", "backward"):
                each: Pass = getattr(layer, name)
                entry[name] |= {"waste": each.waste, "intensity": each.intensity, "floor_ms": each.floor_ms}
                entry[name]["peak_bytes"] = sum(item.bytes for item in getattr(layer, f"{name}_memory"))
            held = layer.hopper_backward_memory
            entry["backward"]["hopper_peak_bytes"] = sum(item.bytes for item in held) if held else None
        return json.dumps(content)

    def __str__(self) -> str:
        from sparsedsl.codegen.explain_report import report

        return report(self)
