"""Packed documents: one call of ours beside FlexAttention with a document mask, and beside one call a document.

    python -m benchmarks.packed --out benchmarks/results/packed_h200.json
    python -m benchmarks.packed --table benchmarks/results/packed_h200.json
    python -m benchmarks.packed --device cpu        # a rehearsal of the script: tiny, ours alone

131072 tokens as 1, 32 and 512 documents of random lengths, drawn with a seed. FlexAttention gets the bounds of the same
documents as a mask_mod, in which positions restart; its block mask, whose making is timed apart, is made once for each
batch of documents. Ours, the plain kernels, is compared with a float64 oracle over a short packed sequence, and at full
length with one ordinary call a document, which it must equal to the bit (a document of few tokens has kernels of its
own when it is alone: there it must be near), and with FlexAttention, before that is timed.
Hundreds of calls are compared, not timed.

Kernels are compiled first, in processes side by side. FlexAttention is measured after all of ours, the record is
written after every step, and what begins later than --limit seconds after the start is left out.

Exit status: 0; 1 if something was wrong; 2 if there is no CUDA device.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from time import perf_counter

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from triton.backends.compiler import GPUTarget

import sparsedsl as sd
from benchmarks import peers
from benchmarks.beforehand import first_line, prepare, within
from benchmarks.cases import CASES, Case, MaskMod
from benchmarks.measure import FARTHEST, Settings, checked, time_passes
from benchmarks.oracle import Inputs, Results, relative_distance
from benchmarks.peers import Attention, Peer
from benchmarks.record import Agreement, Record
from sparsedsl.codegen.ahead import launches_compile
from sparsedsl.codegen.build import CompiledAttention, load
from sparsedsl.live import live_pairs

CUDA = Settings("cuda", (8192, 131072), 16, 128, torch.bfloat16, rounds=8)
CPU = Settings("cpu", (256, 512), 2, 32, torch.float32, rounds=1)
DOCUMENTS, CPU_DOCUMENTS = (1, 32, 512), (1, 5)
NAMES = ("sliding 1024", "power 256", "dilated 512 x 8")
UNPACKED, IDS = "one call a document", "sparsedsl, document_ids"
SEED = 20
PREPARE_S, FLEX_S = 50.0, 30.0  # the most that compiling ahead takes, and each of FlexAttention's batches
# More calls than these, one after another, are compared and not timed: they take a second a pass.
MOST_CALLS = 100
# Up to so many queries an ordinary call runs the kernels for decoding, whose sums have another order.
FEW_QUERIES = 16


def cuts(documents: int, length: int) -> list[int]:
    """The bounds of documents of random lengths, the same for every run."""
    draw = Random(SEED + documents)
    return [0, *sorted(draw.sample(range(1, length), documents - 1)), length]


class DocumentMask:
    """The mask at positions that restart, inside each document. Other bounds are other numbers in the same tensors.

    FlexAttention compiles the mask once: `mask` stays what it is.
    """

    def __init__(self, mask: MaskMod, length: int, device: str) -> None:
        self.length = length
        number, place = (torch.zeros(length, dtype=torch.int64, device=device) for _ in range(2))
        self.number, self.place = number, place

        def of_documents(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return (number[q] == number[k]) & mask(b, h, place[q], place[k])

        self.mask: MaskMod = of_documents

    def set(self, bounds: Sequence[int]) -> MaskMod:
        """The mask, now of the documents with these bounds."""
        on_device = torch.tensor(bounds, device=self.number.device)
        tokens = torch.arange(self.length, device=self.number.device)
        self.number.copy_(torch.searchsorted(on_device[1:], tokens, right=True))
        self.place.copy_(tokens - on_device[self.number])
        return self.mask


def ours(attention: CompiledAttention, bounds: Sequence[int], device: str) -> list[Peer]:
    """Ours in one call, in one call that is told an id for each token, and once for each document."""
    on_device = torch.tensor(bounds, device=device)
    ids = torch.searchsorted(on_device[1:], torch.arange(bounds[-1], device=device), right=True)

    def one_by_one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = [attention(*(each[:, :, a:b] for each in (q, k, v))) for a, b in pairwise(bounds) if a < b]
        return torch.cat(parts, 2)

    return [
        Peer(peers.OURS, partial(attention, cu_seqlens=on_device.int())),
        Peer(IDS, partial(attention, document_ids=ids[None])),
        Peer(UNPACKED, one_by_one),
    ]


def pairs_of(case: Case, bounds: Sequence[int]) -> int:
    """The live pairs of one head."""
    return sum(live_pairs(case.pattern, b - a) for a, b in pairwise(bounds) if a < b)


def named(case: Case, documents: int) -> str:
    """What the record calls this case."""
    return f"{case.name}, {documents} documents"


def measure(case: Case, documents: int, settings: Settings, record: Record) -> None:
    """Ours over one number of documents: check, compare, time."""
    attention, (short, length) = sd.compile(case.pattern, backend="triton"), settings.lengths
    name = named(case, documents)
    bounds = cuts(min(documents, short // 4), short)
    mask = DocumentMask(case.mask, short, settings.device).set(bounds)
    found = ours(attention, bounds, settings.device)
    right = checked(Case(name, case.pattern, mask), found, settings.inputs(short), record, pairs_of(case, bounds))
    bounds, inputs = cuts(min(documents, length // 4), length), settings.inputs(length)
    found = [peer for peer in ours(attention, bounds, settings.device) if peer.name in right]
    compare(name, found, bounds, inputs, record)
    timed = [peer for peer in found if peer.name != UNPACKED or documents <= MOST_CALLS]
    time_passes(Case(name, case.pattern, mask), timed, inputs, pairs_of(case, bounds), settings, record)


def compare(name: str, found: Sequence[Peer], bounds: Sequence[int], inputs: Inputs, record: Record) -> None:
    """Ours against one call a document: to the bit where a call alone runs the same kernels, else near."""
    results = {peer.name: peer.results(inputs) for peer in found}
    few = torch.zeros(bounds[-1], dtype=torch.bool, device=inputs.q.device)
    for a, b in pairwise(bounds):
        few[a:b] = b - a <= FEW_QUERIES
    for tensor, own in results.get(peers.OURS, {}).items():
        for other in (UNPACKED, IDS):
            if other not in results:
                continue
            theirs = results[other][tensor]
            loose = few if other == UNPACKED else few & False
            if not torch.equal(own[:, :, ~loose], theirs[:, :, ~loose]):
                record.complaints.append(f"{name}: {tensor} differs from that of {other}")
            if loose.any() and not relative_distance(own[:, :, loose], theirs[:, :, loose]) < FARTHEST:
                record.complaints.append(f"{name}: {tensor} of short documents is far from that of {other}")


class Flex:
    """FlexAttention over one pattern's documents, compiled once for the full length."""

    def __init__(self, case: Case, settings: Settings) -> None:
        self.case, self.length = case, settings.lengths[-1]
        self.mask = DocumentMask(case.mask, self.length, settings.device)
        self.make = torch.compile(create_block_mask, dynamic=False)
        self.call = torch.compile(flex_attention, dynamic=False)

    def over(self, bounds: Sequence[int]) -> tuple[Attention, float]:
        """The attention over these documents, and the milliseconds that its block mask took, its maker compiled."""
        mask = self.mask.set(bounds)
        for _ in range(2):
            torch.cuda.synchronize()
            start = perf_counter()
            block_mask = self.make(mask, None, None, self.length, self.length, device="cuda")
            torch.cuda.synchronize()
            spent = (perf_counter() - start) * 1e3
        return partial(self.call, block_mask=block_mask), spent


def measure_flex(flex: Flex, documents: int, settings: Settings, record: Record) -> None:
    """FlexAttention over one number of documents: near ours, then timed."""
    case, length = flex.case, flex.length
    name, bounds, inputs = named(case, documents), cuts(documents, length), settings.inputs(length)
    attention, record.flex_mask_ms[f"{name}, {length}"] = flex.over(bounds)
    peer = Peer(peers.FLEX, attention)
    theirs: Results = peer.results(inputs)
    own = ours(sd.compile(case.pattern, backend="triton"), bounds, settings.device)[0].results(inputs)
    near = True
    for tensor, result in own.items():
        distance = relative_distance(result, theirs[tensor])
        record.agreements.append(Agreement(name, length, tensor, distance))
        near = near and distance < FARTHEST
        if not distance < FARTHEST:
            record.complaints.append(f"{name}: {tensor} is {distance:.1e} from FlexAttention's")
    if near:
        pairs = pairs_of(case, bounds)
        time_passes(Case(name, case.pattern, flex.mask.mask), [peer], inputs, pairs, settings, record)


def prepare_job(job: str) -> None:
    """One of the jobs that compile ahead, in a process of its own: "ours" or "flex", and a case's name."""
    kind, name = job.split(" ", 1)
    (case,) = (case for case in CASES if case.name == name)
    if kind == "ours":
        module = load(sd.compile(case.pattern, backend="triton").source())
        q, k, v = (torch.zeros(1, CUDA.heads, 4096, CUDA.head_dim, dtype=CUDA.dtype) for _ in range(3))
        # No GPU is asked. Calls alone, and of few queries, are those of one document.
        with launches_compile(GPUTarget("cuda", 90, 32)):
            for bounds in (None, torch.tensor([0, 4096], dtype=torch.int32)):
                out, lse = module.launch_forward(q, k, v, 1.0, 0, bounds)
                module.launch_backward(out, lse, q, k, v, out, lse, 1.0, 0, bounds)
            module.launch_cached(q[:, :, :FEW_QUERIES], k, v, None, None, 1.0, 0)
        return
    peers.allow_repeated_backward()
    attention, _ = Flex(case, CUDA).over(cuts(1, CUDA.lengths[-1]))
    Peer(peers.FLEX, attention).results(CUDA.inputs(CUDA.lengths[-1]))
    torch.cuda.synchronize()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packed")
    parser.add_argument("--case", action="append", choices=NAMES, help="only this pattern; may be repeated")
    parser.add_argument("--documents", action="append", type=int, help="only this number; may be repeated")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every number as JSON")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a JSON file, measure nothing")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--limit", type=float, default=115.0, metavar="S", help="begin nothing after so many seconds")
    parser.add_argument("--prepare", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.table:
        print(_table(Record.read(options.table)))
        return 0
    if options.prepare:
        prepare_job(options.prepare)
        return 0
    settings, numbers = (CPU, CPU_DOCUMENTS) if options.device == "cpu" else (CUDA, DOCUMENTS)
    if settings.cuda and not torch.cuda.is_available():
        say("The benchmark needs a CUDA device and finds none. --device cpu rehearses the script without one.")
        return 2
    start = perf_counter()
    peers.allow_repeated_backward()
    record = Record.begun(settings.described() | {"seed": SEED}, words)
    record.command = " ".join(["python -m benchmarks.packed", *words])
    cases = [case for case in CASES if case.name in (options.case or NAMES)]
    numbers = tuple(options.documents or numbers)

    def step(what: str, body: Callable[[], object], seconds: float) -> None:
        # Whatever goes wrong in a step is noted, and costs no more than the step.
        left = options.limit - (perf_counter() - start)
        try:
            with within(min(seconds, left) if left > 0 else 0):
                body()
        except Exception as reason:
            (record.absences if peers.FLEX in what else record.complaints).append(f"{what}: {first_line(reason)}")
        say(f"{perf_counter() - start:6.1f} s  {what}")
        if options.out:
            record.write(options.out)

    if settings.cuda:
        jobs = [f"{kind} {case.name}" for kind in ("ours", "flex") for case in cases]
        for text in prepare("benchmarks.packed", jobs, limit_s=PREPARE_S):
            say(f"not compiled ahead: {text}")
    for case in cases:
        for documents in numbers:
            step(named(case, documents), partial(measure, case, documents, settings, record), 60.0)
    for case in cases if settings.cuda else ():
        torch._dynamo.reset()  # its limit of recompilations counts over all cases
        flex = Flex(case, settings)
        for documents in numbers:
            what = f"{named(case, documents)}, {peers.FLEX}"
            step(what, partial(measure_flex, flex, documents, settings, record), FLEX_S)
    for text in (*record.absences, *record.complaints):
        say(f"WRONG: {text}" if text in record.complaints else text)
    print(_table(record))
    return 1 if record.complaints else 0


def say(text: str) -> None:
    """Progress and complaints go to the error stream; the table alone is the output."""
    print(text, file=sys.stderr, flush=True)


def _table(record: Record) -> str:
    """Milliseconds of each implementation, in brackets useful TFLOP/s, and how ours compares with FlexAttention's."""
    names = (peers.OURS, IDS, UNPACKED, peers.FLEX)
    found = {(each.case, each.direction, each.peer): each for each in record.timings}
    lines = [
        f"| pattern | pass | {' | '.join(names)} | {peers.OURS} / {peers.FLEX} |",
        f"| --- | --- |{' ---: |' * (len(names) + 1)}",
    ]
    for case, direction in dict.fromkeys((case, direction) for case, direction, _ in found):
        own = [found.get((case, direction, name)) for name in names]
        cells = [f"{each.ms:.2f} ({each.tflops:.0f})" if each else "–" for each in own]
        ratio = f"{own[0].ms / own[-1].ms:.2f}" if own[0] and own[-1] else "–"
        lines.append(f"| {case} | {direction} | {' | '.join(cells)} | {ratio} |")
    device, versions = record.machine["device"], ", ".join(f"{name} {each}" for name, each in record.versions.items())
    settings = ", ".join(f"{name} {value}" for name, value in record.settings.items())
    return "\n".join([*lines, "", f"{device}; {versions}; {settings}; {record.date[:10]}; `{record.command}`."])


if __name__ == "__main__":
    sys.exit(main())
