"""One case from end to end: check it against the oracle, compare, time, and account for what it cost to prepare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from time import perf_counter

import torch

import sparsedsl as sd
from benchmarks import optional_peers, peers
from benchmarks.cases import Case
from benchmarks.oracle import FACTORS, FLOOR, Inputs, Oracle, largest_error, relative_distance
from benchmarks.peers import Peer
from benchmarks.record import Agreement, Check, Preparation, Record, Timing
from benchmarks.timing import compilations, host_ms, peak_mib, samples
from sparsedsl.codegen.plan import plan
from sparsedsl.live import live_pairs

FARTHEST = 1e-2  # ours from FlexAttention's results, relative
MOST_HOST_MS = 1.0  # for each part of a plan: every part has launches of its own
TINY_LENGTH = 256
NEW_LENGTHS = (4099, 1000, TINY_LENGTH)  # beside the timed ones: a prime, one that no tile divides, a short one


@dataclass(frozen=True, slots=True)
class Settings:
    """The shapes of a run."""

    device: str
    lengths: tuple[int, ...]
    heads: int
    head_dim: int
    dtype: torch.dtype
    rounds: int

    @property
    def cuda(self) -> bool:
        """Whether kernels of a GPU run."""
        return self.device == "cuda"

    def inputs(self, length: int) -> Inputs:
        """Random inputs of one length."""
        return Inputs.random(self.heads, length, self.head_dim, dtype=self.dtype, device=self.device)

    def described(self) -> dict[str, int | str]:
        """For the record."""
        dtype = str(self.dtype).removeprefix("torch.")
        return {"batch": 1, "heads": self.heads, "head dim": self.head_dim, "dtype": dtype, "rounds": self.rounds}


def implementations(case: Case, length: int, settings: Settings, *, only: str | None = None) -> list[Peer]:
    """Ours, and where there is a GPU our plain kernels and PyTorch's; ready for one length. With `only`, that one."""
    makers: dict[str, Callable[[], Peer | None]] = {peers.OURS: lambda: peers.ours(case)}
    if settings.cuda:
        makers |= {peers.PLAIN: lambda: peers.plain(case), peers.FLEX: lambda: peers.flex(case, length)}
    if settings.cuda and case.dense:
        makers |= {name: partial(peers.dense_causal, name) for name in (peers.CUDNN, peers.FLASH)}
    found = [make() for name, make in makers.items() if only in (None, name)]
    return [peer for peer in found if peer]


def measure(
    case: Case,
    settings: Settings,
    record: Record,
    failures: Mapping[tuple[str, int, str], str] | None = None,
    until: float = inf,
) -> None:
    """All numbers of one case, at all lengths.

    `failures` tells what fails by (case, tokens, implementation), and is not tried. No length begins after `until`, on
    the clock of `perf_counter`.
    """
    if not case.mask_agrees():
        record.complaints.append(f"{case.name}: the hand-written mask is not the pattern")
        return
    torch._dynamo.reset()  # its limit of recompilations counts over all cases
    before = compilations()
    start = perf_counter()
    attention = sd.compile(case.pattern)
    emit_ms = (perf_counter() - start) * 1e3
    first = settings.lengths[0]
    right: set[str] = set()
    kernels = 0
    for length in settings.lengths:
        if perf_counter() > until:
            record.absences.append(f"{case.name}, {length} tokens: nothing is measured: the time is up")
            continue
        failed = {
            name: why for (of, tokens, name), why in (failures or {}).items() if (of, tokens) == (case.name, length)
        }
        inputs = settings.inputs(length)
        found = usable(case, length, settings, failed, record)
        if length == first:
            right = checked(case, found, inputs, record)
            kernels = compilations() - before
        found = [peer for peer in found if peer.name in right]
        if length > first:
            compare(case, found, inputs, record)
        if not found:
            continue
        if settings.cuda:
            # Ours comes first where it is right; for dense attention another of those that are is as good.
            others, absences = optional_peers.ready(case, inputs, found[0].results(inputs), failed)
            found += others
            record.absences += absences
        if peers.FLEX in right and peers.FLEX not in failed:
            record.flex_mask_ms[f"{case.name}, {length}"] = flex_mask_ms(case, length)
        time_passes(case, found, inputs, live_pairs(case.pattern, length), settings, record)
    if peers.OURS not in right:
        return
    for length in NEW_LENGTHS:
        Peer(peers.OURS, attention).results(settings.inputs(length))
    added = compilations() - before - kernels
    account(case, settings, emit_ms, kernels, added, record)


def usable(case: Case, length: int, settings: Settings, failed: Mapping[str, str], record: Record) -> list[Peer]:
    """The implementations that did not fail before; one that did is a complaint."""
    found = []
    for name in (peers.OURS, peers.PLAIN, peers.FLEX, peers.CUDNN, peers.FLASH):
        if name in failed:
            record.complaints.append(f"{case.name}, {length} tokens, {name}: {failed[name]}")
        else:
            found += implementations(case, length, settings, only=name)
    return found


def checked(case: Case, found: Sequence[Peer], inputs: Inputs, record: Record, pairs: int | None = None) -> set[str]:
    """The names of the implementations whose results are all within the error rule.

    `pairs` are the live pairs of one head, where they are not those of the pattern over the whole length.
    """
    oracle = Oracle.of(inputs, case.mask)
    length = inputs.q.shape[2]
    if oracle.pairs != (live_pairs(case.pattern, length) if pairs is None else pairs):
        record.complaints.append(f"{case.name}: the mask has {oracle.pairs} live pairs, the count is another")
        return set()
    right = {peer.name for peer in found}
    for peer in found:
        got = peer.results(inputs)
        for name, exact in oracle.exact.items():
            eager = oracle.eager_errors[name]
            error = largest_error(got[name], exact)
            check = Check(case.name, length, peer.name, name, error, eager, FACTORS[name] * eager + FLOOR)
            record.checks.append(check)
            if not check.passed:
                right.discard(peer.name)
                record.complaints.append(
                    f"{case.name}, {peer.name}: {name} is off by {error:.1e}, allowed is {check.allowed:.1e}"
                )
    return right


def compare(case: Case, found: Sequence[Peer], inputs: Inputs, record: Record) -> None:
    """Ours against FlexAttention's results, where the length is too great for the oracle."""
    named = {peer.name: peer for peer in found}
    if peers.FLEX not in named:
        return
    length = inputs.q.shape[2]
    flex = named[peers.FLEX].results(inputs)
    for peer in (peers.OURS, peers.PLAIN):
        for name, own in named[peer].results(inputs).items() if peer in named else ():
            distance = relative_distance(own, flex[name])
            record.agreements.append(Agreement(case.name, length, name, distance, peer))
            if not distance < FARTHEST:
                place = f"{case.name}, {length} tokens, {peer}"
                record.complaints.append(f"{place}: {name} is {distance:.1e} from FlexAttention's")


def time_passes(
    case: Case, found: Sequence[Peer], inputs: Inputs, pairs: int, settings: Settings, record: Record
) -> None:
    """Forward and backward of the implementations, in turn; `pairs` are the live pairs of one head."""
    flops = 4 * settings.head_dim * settings.heads * pairs
    length = inputs.q.shape[2]

    def note(
        direction: str, work: int, calls: Mapping[str, Callable[[], object]], whole: Mapping[str, Callable[[], object]]
    ) -> None:
        for name, ms in samples(calls, rounds=settings.rounds, cuda=settings.cuda).items():
            peak = peak_mib(whole[name]) if settings.cuda else None
            record.timings.append(Timing(case.name, length, direction, name, tuple(ms), work, peak))

    with torch.no_grad():
        forward = {peer.name: peer.forward(inputs) for peer in found}
        note("forward", flops, forward, forward)
    # The memory of a backward pass is that of a training step: both passes, and what is kept between them.
    backward = {peer.name: peer.backward(inputs) for peer in found}
    note("backward", flops * 5 // 2, backward, {peer.name: peer.training_step(inputs) for peer in found})


def flex_mask_ms(case: Case, length: int) -> float:
    """What a block mask costs once its maker is compiled."""
    start = perf_counter()
    peers.flex(case, length)
    torch.cuda.synchronize()
    return (perf_counter() - start) * 1e3


def account(case: Case, settings: Settings, emit_ms: float, kernels: int, added: int, record: Record) -> None:
    """What preparing costs: compilations, and the host's time for a call that leaves the device nearly idle."""
    inputs = settings.inputs(TINY_LENGTH)
    peer = peers.ours(case)
    times = 16 * settings.rounds
    with torch.no_grad():
        forward = host_ms(peer.forward(inputs), times=times, cuda=settings.cuda)
    backward = host_ms(peer.backward(inputs), times=times, cuda=settings.cuda)
    record.preparations.append(Preparation(case.name, emit_ms, kernels, added, forward, backward))
    if added:
        record.complaints.append(f"{case.name}: new lengths compiled {added} kernels")
    # On the CPU a call is the computation itself.
    allowed = MOST_HOST_MS * len(plan(case.pattern).parts)
    if settings.cuda and max(forward, backward) > allowed:
        record.complaints.append(
            f"{case.name}: a call takes the host {forward:.2f} ms forward, {backward:.2f} ms backward; "
            f"at most {allowed} is meant"
        )
