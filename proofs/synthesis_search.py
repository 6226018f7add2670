"""The tasks of a synthesis, one after the other, each with a name, a limit in nodes and an outcome that is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from sparsedsl.progress import Progress
from sparsedsl.proofs.front import Bound
from sparsedsl.proofs.improve import improved
from sparsedsl.proofs.quotient_influence import Layers, depth_of
from sparsedsl.proofs.schedules import least_degree, starts
from sparsedsl.proofs.stamp_bases import ceil_root, composed, in_runs, symmetric
from sparsedsl.proofs.stamps import BasisSearch, counting_bound, counting_range
from sparsedsl.proofs.synthesis_state import Outcome, Request, State

# Nodes of one proof, nodes of one search that only hopes to find, sets tried by each heuristic: all for sequences
# of a few thousand blocks, fewer for longer ones.
PROOF_NODES, FINDING_NODES, SYMMETRIC_NODES, RUN_TRIES = 1_800_000, 1_300_000, 170_000, 40_000
# Nodes between two looks at the clock.
STEP = 20_000
# A search for more distances than this ends soon or never: it gets a quarter of the nodes, and only for a proof.
MANY_DISTANCES = 12
# Influences computed by one climb at most, the work that one stands for, and sets too large to climb with.
MOST_EVALUATIONS, CLIMBING_WORK, LARGEST_CLIMBED = 600, 250_000, 64
# Blocks of PowerAttention's worst row at 512 blocks; fronts go on to at least this many, to be compared.
COMPARED_BLOCKS = 12


class Search:
    """A synthesis under way: what is asked, what is found, and how progress is shown."""

    def __init__(self, request: Request, state: State, progress: Progress | None) -> None:
        self.request, self.state, self.progress = request, state, progress
        self.units = request.units
        # The greatest distance between two blocks.
        self.target = self.units - 1
        self.most_blocks = self.units if request.budget is None else request.budget // request.block

    # --- distance sets

    def distance_sets(self) -> tuple[list[Bound], list[Layers]]:
        """Bounds for each depth, deepest first, and sets of distances worth showing."""
        bounds: list[Bound] = []
        found: list[Layers] = []
        for hops in range(self.request.max_depth, 0, -1):
            deeper = bounds[-1] if bounds else None
            if deeper is not None and found and deeper.found and depth_of(found[-1], self.units, hops):
                bounds.append(Bound("distance set", hops, deeper.at_least, deeper.found, "as one layer deeper"))
                continue
            bound, layers = self._fewest(hops, deeper)
            bounds.append(bound)
            if layers is not None:
                found.append(layers)
        climbed = [self._climbed("set", [each], len(each[0]), self._depth(each)) for each in found if self._depth(each)]
        least = bounds[0].found or bounds[0].at_least
        for blocks in range(least + 1, min(self.most_blocks, self._compared()) + 1):
            known = [each for each in found if len(each[0]) <= blocks]
            begin = [*known, (_ratios(blocks, self.units),)]
            climbed.append(self._climbed("set", begin, blocks, self.request.max_depth))
        return bounds, [*found, *(each for each in climbed if each is not None)]

    def _depth(self, layers: Layers) -> int:
        return depth_of(layers, self.units, self.request.max_depth) or 0

    def _compared(self) -> int:
        return min(self.units, max(COMPARED_BLOCKS, (self.units - 1).bit_length() + 3))

    def _fewest(self, hops: int, deeper: Bound | None) -> tuple[Bound, Layers | None]:
        """The fewest distances that cover all within so many hops: proved at least, and found."""
        count = counting_bound(self.target, hops)
        if deeper is not None and deeper.at_least - 1 > count:
            count, reason = deeper.at_least - 1, "as one layer deeper"
        elif count:
            reach = counting_range(count - 1, hops)
            reason = f"{count - 1} distances have at most {reach + 1} sums, {self.units} are needed"
        else:
            reason = "there is one block"

        def bound(found: int | None) -> Bound:
            return Bound("distance set", hops, count + 1, found, reason)

        if hops == 1:
            return bound(self.units), (tuple(range(self.units)),)
        while count + 1 <= self.most_blocks:
            nodes = PROOF_NODES if count <= MANY_DISTANCES else PROOF_NODES // 4
            proof = self._basis(f"prove {count} {hops}", count, hops, self._scaled(nodes))
            if proof.layers is not None:
                return bound(count + 1), proof.layers
            if not proof.exhausted:
                break
            reason = f"no {count} distances will do, all searched in {proof.nodes} nodes"
            count += 1
        else:
            return bound(None), None
        best: Layers = ((0, *composed(hops, self.target)),)
        while len(best[0]) - 1 > count:
            smaller = self._smaller(len(best[0]) - 2, hops, searched=count)
            if smaller is None:
                break
            best = smaller
        return bound(len(best[0])), best

    def _smaller(self, count: int, hops: int, *, searched: int) -> Layers | None:
        """A set of so many distances or fewer, by heuristics and then by a search that ends early.

        A search for `searched` distances was tried before.
        """

        def by_heuristics() -> tuple[int, ...] | None:
            random = self._random(f"runs {count} {hops}")
            basis = in_runs(count, hops, self.target, random=random, most_tries=self._scaled(RUN_TRIES))
            return basis or symmetric(count, hops, self.target, most_nodes=self._scaled(SYMMETRIC_NODES))

        def run() -> Layers | None:
            basis = by_heuristics()
            return None if basis is None else ((0, *basis),)

        outcome = self._task(f"heuristics {count} {hops}", run)
        if outcome is None and searched < count <= MANY_DISTANCES:
            outcome = self._basis(f"find {count} {hops}", count, hops, self._scaled(FINDING_NODES)).layers
        return outcome

    def _basis(self, name: str, count: int, hops: int, most_nodes: int) -> Outcome:
        """Search for a basis, from where an earlier run was interrupted."""
        if name in self.state.outcomes:
            return self.state.outcomes[name]
        search = BasisSearch(count, hops, self.target)
        if self.state.current is not None and self.state.current[0] == name:
            search = BasisSearch.resumed(count, hops, self.target, self.state.current[1])
        while search.found is None and not search.exhausted and search.nodes < most_nodes:
            self.state.current = (name, search.place())
            self._step(f"searching {count} distances, {hops} hops: nodes", search.nodes)
            search.run(min(most_nodes, search.nodes + STEP))
        layers = None if search.found is None else ((0, *search.found),)
        return self._keep(name, Outcome(layers, search.nodes, search.exhausted))

    # --- schedules

    def schedules(self) -> tuple[list[Bound], list[Layers]]:
        """Bounds for each depth, deepest first, and schedules worth showing."""
        bounds: list[Bound] = []
        found: list[Layers] = []
        for depth in range(self.request.max_depth, 0, -1):
            blocks = ceil_root(self.units, depth)
            reason = f"with {blocks - 1} a row, a query sees at most {(blocks - 1) ** depth} of {self.units} blocks"
            bounds.append(Bound("schedule", depth, blocks, blocks, reason if self.units > 1 else "there is one block"))
            layers = least_degree(self.units, depth)
            for each in (layers, layers[::-1]):
                if blocks <= self.most_blocks and each not in found:
                    found.append(each)
        climbed = []
        for bound in bounds:
            at_depth = [each for each in found if max(map(len, each)) == bound.at_least]
            if at_depth:
                climbed.append(self._climbed("schedule", at_depth, bound.at_least, bound.depth))
        for blocks in range(bounds[0].at_least, min(self.most_blocks, self._compared()) + 1):
            begin = starts(blocks, self.units, most=self.request.max_depth)
            climbed.append(self._climbed("schedule", begin, blocks, self.request.max_depth))
        return bounds, [*found, *(each for each in climbed if each is not None)]

    # --- tasks

    def _climbed(self, kind: str, begin: Iterable[Layers], blocks: int, depth: int) -> Layers | None:
        """Layers with more influence than those to begin with, within the same blocks and depth."""
        if blocks > LARGEST_CLIMBED or depth == 1:
            return None
        name = f"climb {kind} {blocks} {depth}"
        work = self.request.layers * blocks * (1 + self.units // 2048)

        def run() -> Layers | None:
            return improved(
                begin,
                degree=blocks,
                depth=depth,
                units=self.units,
                count=self.request.layers,
                alpha=self.request.alpha,
                random=self._random(name),
                evaluations=max(4, min(MOST_EVALUATIONS, CLIMBING_WORK // work)),
            )

        return self._task(name, run)

    def _task(self, name: str, run: Callable[[], Layers | None]) -> Layers | None:
        if name in self.state.outcomes:
            return self.state.outcomes[name].layers
        self._step(f"{name}: tasks done", len(self.state.outcomes))
        return self._keep(name, Outcome(run(), 0, False)).layers

    def _keep(self, name: str, outcome: Outcome) -> Outcome:
        self.state.outcomes[name] = outcome
        self.state.current = None
        return outcome

    def _step(self, what: str, done: int) -> None:
        if self.progress is not None:
            self.progress.at(done, what)
        self.state.save_now_and_then()

    def _scaled(self, limit: int) -> int:
        """The limit for sets as long as these: a node costs about as much up to a few thousand blocks."""
        return max(1000, limit // (1 + self.units // 4096))

    def _random(self, name: str) -> Random:
        return Random(f"{self.request.seed} {name}")


def _ratios(blocks: int, units: int) -> tuple[int, ...]:
    """0, 1 and distances that grow by a constant ratio, `blocks` of them or fewer."""
    grown = (int(units ** (place / max(1, blocks - 1))) for place in range(blocks - 1))
    return tuple(sorted({0, *(each for each in grown if each < units)}))
