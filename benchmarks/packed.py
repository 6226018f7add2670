"""Packed documents: one call of ours beside FlexAttention with a document mask, and beside one call a document.

    python -m benchmarks.packed --out benchmarks/results/packed_h200.json
    python -m benchmarks.packed --table benchmarks/results/packed_h200.json
    python -m benchmarks.packed --device cpu        # a rehearsal of the script: tiny, ours alone

131072 tokens as 1, 32 and 512 documents of random lengths, drawn with a seed. FlexAttention gets the bounds of the same
documents as a mask_mod, in which positions restart; its block mask, whose making is timed apart, is made once for each
batch of documents. Each case is compared with a float64 oracle over a short packed sequence, and at full length with
one ordinary call a document, which it must equal to the bit, and with FlexAttention, before it is timed.

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

import sparsedsl as sd
from benchmarks import peers
from benchmarks.cases import CASES, Case, MaskMod
from benchmarks.measure import FARTHEST, Settings, checked, time_passes
from benchmarks.oracle import Inputs, relative_distance
from benchmarks.peers import Attention, Peer
from benchmarks.record import Agreement, Record
from sparsedsl.codegen.build import CompiledAttention
from sparsedsl.live import live_pairs

CUDA = Settings("cuda", (8192, 131072), 16, 128, torch.bfloat16, rounds=8)
CPU = Settings("cpu", (256, 512), 2, 32, torch.float32, rounds=1)
DOCUMENTS, CPU_DOCUMENTS = (1, 32, 512), (1, 5)
NAMES = ("power 256", "sliding 1024")
UNPACKED, IDS = "one call a document", "sparsedsl, document_ids"
SEED = 20


def cuts(documents: int, length: int) -> list[int]:
    """The bounds of documents of random lengths, the same for every run."""
    draw = Random(SEED + documents)
    return [0, *sorted(draw.sample(range(1, length), documents - 1)), length]


def document_mask(mask: MaskMod, bounds: Tensor, length: int) -> MaskMod:
    """The mask at positions that restart, inside each document."""
    number = torch.searchsorted(bounds[1:], torch.arange(length, device=bounds.device), right=True)
    place = torch.arange(length, device=bounds.device) - bounds[number]

    def of_documents(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (number[q] == number[k]) & mask(b, h, place[q], place[k])

    return of_documents


def packed(attention: CompiledAttention, bounds: Tensor) -> Attention:
    """Ours in one call."""
    return partial(attention, cu_seqlens=bounds.int())


def by_id(attention: CompiledAttention, bounds: Tensor, length: int) -> Attention:
    """Ours in one call that is told an id for each token."""
    ids = torch.searchsorted(bounds[1:], torch.arange(length, device=bounds.device), right=True)
    return partial(attention, document_ids=ids[None])


def unpacked(attention: CompiledAttention, bounds: Sequence[int]) -> Attention:
    """Ours once for each document, whose bounds the host knows."""

    def one_by_one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = [attention(*(each[:, :, a:b] for each in (q, k, v))) for a, b in pairwise(bounds) if a < b]
        return torch.cat(parts, 2)

    return one_by_one


def flex(mask: MaskMod, length: int) -> tuple[Attention, float]:
    """FlexAttention with a document mask, and the milliseconds that its block mask took once its maker was compiled."""
    make = torch.compile(create_block_mask, dynamic=False)
    make(mask, None, None, length, length, device="cuda")
    torch.cuda.synchronize()
    start = perf_counter()
    block_mask = make(mask, None, None, length, length, device="cuda")
    torch.cuda.synchronize()
    spent = (perf_counter() - start) * 1e3
    return partial(torch.compile(flex_attention, dynamic=False), block_mask=block_mask), spent


def measure(case: Case, documents: int, settings: Settings, record: Record) -> None:
    """One pattern over one number of documents: check, compare, time."""
    torch._dynamo.reset()
    attention, short, length = sd.compile(case.pattern), settings.lengths[0], settings.lengths[-1]
    name = f"{case.name}, {documents} documents"
    right: set[str] = set()
    for tokens in (short, length):
        bounds = cuts(min(documents, tokens // 4), tokens)
        on_device = torch.tensor(bounds, device=settings.device)
        mask = document_mask(case.mask, on_device, tokens)
        found = [
            Peer(peers.OURS, packed(attention, on_device)),
            Peer(IDS, by_id(attention, on_device, tokens)),
            Peer(UNPACKED, unpacked(attention, bounds)),
        ]
        inputs = settings.inputs(tokens)
        if settings.cuda:
            try:
                compiled, record.flex_mask_ms[f"{name}, {tokens}"] = flex(mask, tokens)
                peer = Peer(peers.FLEX, compiled)
                peer.results(inputs)
                found.append(peer)
            except Exception as reason:  # a peer that can't run is left out, and named
                record.complaints.append(f"{name}, FlexAttention: {reason}")
        pairs = sum(live_pairs(case.pattern, b - a) for a, b in pairwise(bounds) if a < b)
        if tokens == short:
            right = checked(Case(name, case.pattern, mask), found, inputs, record, pairs)
            continue
        found = [peer for peer in found if peer.name in right]
        compare(name, found, inputs, record)
        time_passes(Case(name, case.pattern, mask), found, inputs, pairs, settings, record)


def compare(name: str, found: Sequence[Peer], inputs: Inputs, record: Record) -> None:
    """Ours against one call a document, to the bit, and against FlexAttention's results."""
    results = {peer.name: peer.results(inputs) for peer in found}
    length = inputs.q.shape[2]
    for tensor, ours in results.get(peers.OURS, {}).items():
        for other in (UNPACKED, IDS):
            if other in results and not torch.equal(ours, results[other][tensor]):
                record.complaints.append(f"{name}: {tensor} differs from that of {other}")
        if peers.FLEX in results:
            distance = relative_distance(ours, results[peers.FLEX][tensor])
            record.agreements.append(Agreement(name, length, tensor, distance))
            if not distance < FARTHEST:
                record.complaints.append(f"{name}: {tensor} is {distance:.1e} from FlexAttention's")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packed")
    parser.add_argument("--case", action="append", choices=NAMES, help="only this pattern; may be repeated")
    parser.add_argument("--documents", action="append", type=int, help="only this number; may be repeated")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every number as JSON")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a JSON file, measure nothing")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args(words)
    if options.table:
        print(_table(Record.read(options.table)))
        return 0
    settings, numbers = (CPU, CPU_DOCUMENTS) if options.device == "cpu" else (CUDA, DOCUMENTS)
    if settings.cuda and not torch.cuda.is_available():
        say("The benchmark needs a CUDA device and finds none. --device cpu rehearses the script without one.")
        return 2
    peers.allow_repeated_backward()
    record = Record.begun(settings.described() | {"seed": SEED}, words)
    record.command = " ".join(["python -m benchmarks.packed", *words])
    chosen: list[Callable[[], None]] = [
        partial(measure, case, documents, settings, record)
        for case in CASES
        if case.name in (options.case or NAMES)
        for documents in options.documents or numbers
    ]
    for run in chosen:
        start = perf_counter()
        run()
        say(f"{perf_counter() - start:.0f} s")
        if options.out:  # after each: a run that is cut off leaves what it has
            record.write(options.out)
    for text in record.complaints:
        say(f"WRONG: {text}")
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
