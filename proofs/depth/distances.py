"""The search for bounds of one set of distances, the same in every layer."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparsedsl.integers import INFINITY, LAST_POSITION, IntegerSet
from sparsedsl.proofs.bits import lowest_missing, ones, progressions, sums
from sparsedsl.proofs.depth.bounds import Growth, Limit, Lower, Upper
from sparsedsl.proofs.depth.growth import Counted, Covering, Powers, Rise
from sparsedsl.proofs.depth.limits import Carries, Farthest, Mirror

# About the bytes of sets that the search for one proof reads: half a second.
MOST_WORK = 1 << 29
# The mirror lemma lists sums up to this number.
MOST_MISSING = 1 << 22
MOST_LAYERS = 4096


def bounds_of(distances: IntegerSet) -> tuple[Upper, Lower]:
    """Both bounds of the contiguous reach; 1 is a member.

    Cost
        At most MOST_WORK bytes read. Beyond it, the upper bound is an induction on the distances as they
        stand, and the lower bound what was counted and the largest distance.
    """
    distances &= IntegerSet.interval(0, INFINITY)
    search = _Search(distances)
    while True:
        found = search.covering() or search.linear() or search.powers()
        if found:
            growth, limit = found
            counted = Counted(distances, tuple(search.values))
            return Upper(counted, (growth,)), Lower(counted, limit)
        if not search.advance():
            return _without_counting(distances, tuple(search.values))


def _without_counting(distances: IntegerSet, values: tuple[int, ...]) -> tuple[Upper, Lower]:
    farthest = distances.maximum
    # A set that goes on to the last position may well be the start of one that never ends.
    limit = Farthest(distances, farthest) if farthest < LAST_POSITION // 2 else None
    return Upper(Counted(distances, (0,)), staircase(distances)), Lower(Counted(distances, values), limit)


def staircase(distances: IntegerSet) -> tuple[Growth, ...]:
    """Inductions that follow each other: every one on the distances below the first gap that is too wide.

    Example
        >>> [(step.layers, step.reach, step.slope) for step in staircase(IntegerSet.of([1, 2, 10, 100]))]
        [(0, 0, 2), (4, 8, 10), (13, 98, 100)]

    """
    steps: list[Growth] = []
    layers = joined = 0
    while True:
        solid, following = first_gap(distances, joined + 1)
        if solid == INFINITY:
            steps.append(Covering(distances, layers, joined))
            return tuple(steps)
        steps.append(Rise(distances, layers, joined, solid))
        if following is None:
            return tuple(steps)
        # The gap is crossed once joined + 1 >= following - solid.
        more = max(1, -((joined + 1 - following + solid) // solid))
        layers, joined = layers + more, joined + more * solid


def first_gap(distances: IntegerSet, width: int) -> tuple[int, int | None]:
    """The member before the first gap wider than `width`, and the one after it; from 0 on.

    INFINITY and None where the set goes on without such a gap; the last member and None where it ends.
    """
    last = 0
    for lo, hi, period, word in distances.segments:
        start = max(lo, 0)
        # One period from the start shows every gap of the segment.
        shown = IntegerSet.interval(start, min(hi, start + 2 * period)) & IntegerSet.periodic(period, word)
        for first, end, step, _ in shown.segments:
            ends = (first, end - 1) if step == 1 else shown.members(first, end)
            for member in ends:
                if step == 1 and member != first:
                    last = member
                    continue
                if member - last > width:
                    return last, member
                last = member
        last = hi - 1 if hi < INFINITY else INFINITY
        if last == INFINITY:
            return INFINITY, None
    return last, None


@dataclass(slots=True)
class _Search:
    """The reach after 0, 1, ... layers, counted; a proof may start from each.

    `joined`: bit d says whether the distance d < limit is a sum of at most len(values) − 1 members.
    """

    distances: IntegerSet
    values: list[int] = field(default_factory=lambda: [0])
    joined: int = 1
    limit: int = 1 << 10
    work: int = 0

    def advance(self) -> bool:
        """Count one more layer; False where that is too much work."""
        layers = len(self.values) - 1
        if layers == MOST_LAYERS:
            return False
        while True:
            terms = progressions(self.distances, self.limit)
            again = layers if self.joined == 0 else 0
            self.work += (again + 1) * len(terms) * (self.limit // 8 + 64)
            if self.work > MOST_WORK:
                return False
            if self.joined == 0:
                self.joined = 1
                for _ in range(layers):
                    self.joined |= sums([self.joined], [terms], [self.limit])[0]
            further = self.joined | sums([self.joined], [terms], [self.limit])[0]
            gap = lowest_missing(further)
            if gap < self.limit:
                self.joined = further
                self.values.append(gap - 1)
                return True
            self.limit, self.joined = 4 * self.limit, 0

    @property
    def _solid(self) -> int:
        return first_gap(self.distances, self.values[-1] + 1)[0]

    def covering(self) -> tuple[Growth, None] | None:
        """One more layer joins everything."""
        if self.distances.maximum < INFINITY or self._solid < INFINITY:
            return None
        return Covering(self.distances, len(self.values) - 1, self.values[-1]), None

    def linear(self) -> tuple[Growth, Limit] | None:
        """Every layer adds the largest distance, and no more."""
        farthest, layers, joined = self.distances.maximum, len(self.values) - 1, self.values[-1]
        if farthest == INFINITY or self._solid < farthest:
            return None
        rise = Rise(self.distances, layers, joined, farthest)
        missing = layers * farthest - joined - 1
        if missing < 0:
            return rise, Farthest(self.distances, farthest)
        # A number that is missing for good stays the same from one layer to the next.
        if layers == 0 or joined - self.values[-2] != farthest or missing > MOST_MISSING:
            return None
        if self._is_a_sum(missing, farthest):
            return None
        # The number was missing one layer before as well; the induction may hold from there on.
        before = Rise(self.distances, layers - 1, self.values[-2], farthest)
        if first_gap(self.distances, self.values[-2] + 1)[0] == farthest:
            self.values.pop()
            rise = before
        return rise, Mirror(self.distances, farthest, missing)

    def _is_a_sum(self, missing: int, farthest: int) -> bool:
        """Whether the number is a sum of mirrored distances, of any number of them."""
        short = (self.distances | IntegerSet.of([0])).negate().shift(farthest)
        terms = progressions(short, missing + 1)
        reached = 1
        while True:
            self.work += len(terms) * (missing // 8 + 64)
            if self.work > MOST_WORK:
                return True  # not known, so not used
            further = (reached | sums([reached], [terms], [missing + 1])[0]) & ones(missing + 1)
            if further == reached:
                return False
            reached = further
            if reached >> missing & 1:
                return True

    def powers(self) -> tuple[Growth, Limit] | None:
        """Every layer adds one more power, and no more."""
        shape = powers_shape(self.distances)
        if shape is None:
            return None
        base, first, rest = shape
        layers, joined = len(self.values) - 1, self.values[-1]
        power = first
        while base**power <= joined + 1:
            power += 1
        growth = Powers(self.distances, layers, joined, base, power)
        low = base ** (power - 1) if power else 0
        meets = low in self.distances and low <= joined + 1 and base**power <= joined + 1 + low
        few = (layers + base - 1) * rest < joined + 1 + base**first
        if not (meets and few and rest <= base**power):
            return None
        return growth, Carries(self.distances, layers, joined, base, power, first, rest)


def powers_shape(distances: IntegerSet) -> tuple[int, int, int] | None:
    """(base, first, rest): from base^first on the members are the powers of the base, below they are at most `rest`.

    Example
        >>> powers_shape(IntegerSet.powers(2) | IntegerSet.interval(0, 7))
        (2, 3, 6)

    """
    if not distances.is_finite or not distances or distances.maximum <= LAST_POSITION // 2**20:
        return None
    farthest = distances.maximum
    before = (distances & IntegerSet.interval(0, farthest)).maximum
    base, rest = divmod(farthest, before) if before > 0 else (0, 1)
    if rest or base < 2 or farthest * base <= LAST_POSITION:
        return None
    others = distances - IntegerSet.powers(base)
    rest = others.maximum if others else 0
    first = 0
    while base**first <= rest:
        first += 1
    listed = IntegerSet.powers(base) & IntegerSet.interval(base**first, INFINITY)
    missing = listed - distances
    while missing and base**first <= missing.maximum:
        first += 1
    if first:
        rest = max(0, (distances & IntegerSet.interval(0, base**first)).maximum)
    # With fewer than three powers the set could as well be any other.
    return (base, first, rest) if base ** (first + 2) <= farthest else None
