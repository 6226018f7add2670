"""The postage-stamp problem: which k distances reach farthest in h hops, by a search that can prove there is no more.

A basis is a set of k distances 1 = a_1 < a_2 < ... < a_k. Its sums are those of at most h members, repeats
allowed, and its range is the greatest R such that 0, ..., R all are sums. For blocks 0, ..., n - 1 with the same
distances in every layer, all pairs are joined within h layers iff the range is at least n - 1: paths run from
query to key and never leave that interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from sparsedsl.errors import StateMismatch
from sparsedsl.proofs.bits import lowest_missing, members, ones

# Missing distances that a last member must all explain before it is tried.
_PROBES = 12
# More nodes than any machine will see.
_ENDLESS = 1 << 62


def counting_range(count: int, hops: int) -> int:
    """No basis of `count` distances has a greater range in `hops` hops: it has C(count + hops, hops) sums at most.

    >>> counting_range(4, 8), counting_range(5, 8)
    (494, 1286)

    """
    return comb(count + hops, hops) - 1


def counting_bound(target: int, hops: int) -> int:
    """The fewest distances that could reach 0, ..., target in `hops` hops, by counting sums alone.

    >>> counting_bound(511, 8), counting_bound(511, 1)
    (5, 511)

    """
    low, high = -1, target
    # Invariant: `low` distances are too few, `high` are not.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if counting_range(middle, hops) >= target else (middle, high)
    return high


def sums(distances: Sequence[int], hops: int, target: int) -> int:
    """The sums of at most `hops` of the distances, up to the target, as bits; O(hops · count · target / 64)."""
    within = ones(target + 1)
    reached = 1
    for _ in range(hops):
        further = reached
        for distance in distances:
            further |= reached << distance
        if further & within == reached:
            break
        reached = further & within
    return reached


def basis_range(distances: Sequence[int], hops: int) -> int:
    """The greatest R such that 0, ..., R all are sums of at most `hops` of the distances.

    >>> basis_range([1, 5, 24, 37], 7)
    165

    """
    return lowest_missing(sums(distances, hops, hops * max(distances, default=0))) - 1


class BasisSearch:
    """A search for `count` distances or fewer whose sums of at most `hops` cover 0, ..., target.

    Set
        Depth first over 1 = a_1 < a_2 < ..., the greatest a_(i+1) first, and a_(i+1) <= r + 1 for the range r of
        the first i: nothing else could cover r + 1. A branch ends where counting shows that it must fail: with m
        members to come, all greater than a, at most
        Σ_j C(m - 1 + j, j) · |{sums of at most h - j of the members so far, <= target - j (a + 1)}| distances
        are covered. Nothing that could succeed is left out, so an exhausted search is a proof.
    Units
        Distances in blocks; `nodes` counts the members tried.
    Cost
        A node takes O(hops · target / 64) time; how many there are is not known beforehand, so `run` has a limit.
        Memory O(count · hops · target / 8) bytes.
    Example
        >>> search = BasisSearch(4, 7, 165)
        >>> search.run(10_000)
        >>> search.found
        (1, 5, 24, 37)
        >>> search = BasisSearch(4, 7, 166)
        >>> search.run(10_000)
        >>> search.found, search.exhausted
        (None, True)

    """

    def __init__(self, count: int, hops: int, target: int) -> None:
        self.count, self.hops, self.target = count, hops, target
        self.nodes = 0
        self.found: tuple[int, ...] | None = None
        self._within = ones(target + 1)
        self._least_last = -(-target // hops)
        # _weights[m][j]: how many multisets of j there are of m members to come.
        self._weights = [[comb(m - 1 + j, j) if m else int(j == 0) for j in range(hops + 1)] for m in range(count)]
        # The branch: members, for each the sums of at most 0, 1, ..., hops of the members up to it, and what to
        # try next above it.
        self._members: list[int] = []
        self._sums: list[list[int]] = []
        self._next: list[int] = []
        if target == 0:
            self.found = ()
        elif count:
            first = self._extended([1] * (hops + 1), 1)
            if hops >= target:
                self.found = (1,)
            elif count > 1:
                self._push(1, first, hops + 1)

    @property
    def exhausted(self) -> bool:
        """Whether the whole tree was searched; with nothing found, that is a proof."""
        return not self._members

    def place(self) -> dict[str, object]:
        """Where the search stands, for `resumed`."""
        following = self._next[-1] if self._next else 0
        return {"members": list(self._members), "following": following, "nodes": self.nodes}

    @staticmethod
    def resumed(count: int, hops: int, target: int, place: object) -> BasisSearch:
        """The search at a place that `place` gave.

        Raises
            StateMismatch: no such search ever stands there.
        """
        search = BasisSearch(count, hops, target)
        match place:
            case {"members": [*branch], "following": int(following), "nodes": int(nodes)} if nodes >= 0:
                pass
            case _:
                raise _wrong_place(count, hops, place)
        if not branch:
            search._members, search._sums, search._next = [], [], []
        elif branch[0] != 1 or not search._members or len(branch) >= max(count, 2):
            raise _wrong_place(count, hops, place)
        for member in branch[1:]:
            if not isinstance(member, int) or not search._members[-1] < member <= search._next[-1]:
                raise _wrong_place(count, hops, place)
            search._next[-1] = member - 1
            extended = search._extended(search._sums[-1], member)
            search._push(member, extended, lowest_missing(extended[-1]))
        if branch:
            if not 0 < following <= search._next[-1]:
                raise _wrong_place(count, hops, place)
            search._next[-1] = following
        search.nodes = nodes
        return search

    def run(self, most_nodes: int) -> None:
        """Search on until something is found, everything is searched, or `nodes` reaches the limit."""
        while self._members and self.found is None and self.nodes < most_nodes:
            member = self._next[-1]
            if member <= self._members[-1]:
                self._pop()
                continue
            self._next[-1] = member - 1
            self._try(member)
            if self.found is not None:
                # A search for more, resumed here, must look at this branch again.
                self._next[-1] = member

    def _try(self, member: int) -> None:
        self.nodes += 1
        to_come = self.count - len(self._members) - 1
        extended = self._extended(self._sums[-1], member)
        missing = lowest_missing(extended[-1])
        if missing > self.target:
            self.found = (*self._members, member)
        elif (to_come == 1 and missing < self._least_last) or not self._enough(extended, member, to_come):
            return
        elif to_come == 1:
            self._try_last(member, extended, missing)
        elif to_come:
            self._push(member, extended, missing)

    def _try_last(self, before: int, known: list[int], missing: int) -> None:
        for member in sorted(members(self._last_members(before, known, missing)), reverse=True):
            self.nodes += 1
            if self._extended(known, member)[-1] == self._within:
                self.found = (*self._members, before, member)
                return

    def _last_members(self, before: int, known: list[int], missing: int) -> int:
        """The last members that could cover what is missing, as bits."""
        # hops · member must come to the target, and `missing` must be covered.
        least = max(before + 1, self._least_last)
        if least > missing:
            return 0
        candidates = ones(missing + 1) >> least << least
        # A distance below 2 · least takes the last member once: x - member is a sum of at most hops - 1 others.
        gaps = ~known[-1] & ones(min(2 * least, self.target + 1))
        size = self.target + 1
        mirrored = int(f"{known[-2] | 1 << size:b}"[:0:-1], 2)
        for _, gap in zip(range(_PROBES), members(gaps), strict=False):
            # Bit (size - 1 - x) of `mirrored` stands for the sum x.
            candidates &= mirrored >> (size - 1 - gap)
        return candidates

    def _extended(self, known: list[int], member: int) -> list[int]:
        within = self._within
        last = 1
        extended = [last]
        for sums_before in known[1:]:
            last = (sums_before | last << member) & within
            extended.append(last)
        return extended

    def _enough(self, known: list[int], member: int, to_come: int) -> bool:
        target, room = self.target, self.target + 1
        covered = 0
        # Of `taken` members to come, each is greater than this one.
        for weight, fewer_hops in zip(self._weights[to_come], reversed(known), strict=True):
            covered += weight * (fewer_hops & ((1 << room) - 1)).bit_count()
            if covered > target:
                return True
            room -= member + 1
            if room <= 0:
                break
        return False

    def _push(self, member: int, known: list[int], following: int) -> None:
        self._members.append(member)
        self._sums.append(known)
        self._next.append(following)

    def _pop(self) -> None:
        self._members.pop()
        self._sums.pop()
        self._next.pop()


def _wrong_place(count: int, hops: int, place: object) -> StateMismatch:
    return StateMismatch(
        "the state file names a place where the search never stands",
        got=f"{place} in the search for {count} distances and {hops} hops",
        expected="rising distances from 1, as the search wrote them",
        hint="start again without the file",
    )


def largest_range(count: int, hops: int, *, most_nodes: int | None = None) -> tuple[int, tuple[int, ...], bool]:
    """The greatest range of `count` distances in `hops` hops, a basis that has it, and whether that is proved.

    Cost
        See `BasisSearch`; `most_nodes` bounds the whole search, which is then proved only if it ended before.
    Example
        >>> largest_range(3, 4)
        (26, (1, 5, 8), True)
        >>> largest_range(2, 28)[0] == (28 * 28 + 6 * 28 + 1) // 4
        True

    """
    best = tuple(range(1, count + 1))
    search = BasisSearch(count, hops, basis_range(best, hops) + 1)
    while True:
        search.run(_ENDLESS if most_nodes is None else most_nodes)
        if search.found is None:
            return basis_range(best, hops), best, search.exhausted
        best = search.found
        # What was searched so far holds no basis for the old target, so none for the new one.
        search = BasisSearch.resumed(count, hops, basis_range(best, hops) + 1, search.place())
