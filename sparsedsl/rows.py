"""A pattern read row by row on the units of one length: which keys a query reads, and which queries read a key.

A row is exact and is found from the predicate alone: the query's position is put into every term, and the sets of
the memberships are pulled back through what is left. Units are tokens, or the largest blocks in which everything but
the causal cut is told; a unit stands for its first token.
"""

from __future__ import annotations

from math import gcd, lcm

from sparsedsl.index import DISTANCE, AllOf, AnyOf, Chosen, Comparison, Member, Negation, Predicate, drawn, lowered
from sparsedsl.integers import EVERYTHING, INFINITY, IntegerSet, Segment, WordTooLong
from sparsedsl.preimage import NotOnePosition, preimage
from sparsedsl.terms import Binary, Constant, K, Position, Q, Term, evaluate, substitute

_BACK = IntegerSet.interval(0, INFINITY)
_AHEAD = ~_BACK
# Rows of one atom kept for the next query: chunks and residues come again.
_KEPT = 256


def block_size(predicate: Predicate) -> int:
    """The largest s such that the predicate, the causal cut apart, depends on q // s and k // s only; 0 for any.

    >>> from sparsedsl.constructors import causal, chunked, sink, sliding
    >>> block_size(((sliding(5) | sink(1)).blocks(256) & causal()).predicate())
    256
    >>> block_size((chunked(64) | sink(96)).predicate()), block_size(causal().predicate())
    (32, 0)

    """
    match predicate:
        case AllOf(parts) | AnyOf(parts):
            return gcd(*map(block_size, parts))
        case Negation(part):
            return block_size(part)
        case Comparison():
            return block_size(lowered(predicate))
        case Chosen(_, _, query, key):
            return gcd(_size(query), _size(key))
        case Member(term, members):
            if _is_cut(predicate):
                return 0
            if isinstance(term, Position) and members.is_plain:
                return gcd(*(end for lo, hi, _, _ in members.segments for end in (lo, hi) if abs(end) != INFINITY))
            return _size(term)


def _is_cut(atom: Member) -> bool:
    return atom.term == DISTANCE and atom.members in (_BACK, _AHEAD)


def _size(term: Term) -> int:
    match term:
        case Position():
            return 1
        case Constant():
            return 0
        case Binary("//", Position(), Constant(size)):
            return size
        case Binary(_, left, right):
            return gcd(_size(left), _size(right))


def never_ahead(predicate: Predicate) -> bool:
    """Whether the predicate shows by its form that no query reads a later key, at any length.

    >>> from sparsedsl.constructors import causal, chunked, sliding
    >>> [never_ahead(each.predicate()) for each in (sliding(4), chunked(4), chunked(4) & causal())]
    [True, False, True]

    """
    match predicate:
        case AllOf(parts):
            return any(map(never_ahead, parts))
        case AnyOf(parts):
            return all(map(never_ahead, parts))
        case Member(Binary("-", Position("q"), Position("k")), members):
            return not members & _AHEAD
        case Member(Binary("-", Binary("//", Position("q"), Constant(a)), Binary("//", Position("k"), Constant(b))), m):
            return a == b and not m & IntegerSet.interval(-INFINITY, 1)
        case Member(_, members):
            return not members
    return False


def repetition(predicate: Predicate) -> tuple[int, int] | None:
    """A period P and a start B: among q, k >= B, (q, k) holds iff (q + P, k + P) does; None if none is seen.

    Example
        >>> from sparsedsl.constructors import causal, chunked, random_blocks, sink, sliding
        >>> repetition((sliding(3) | sink(4)).predicate()), repetition(chunked(6).predicate())
        ((1, 4), (6, 0))
        >>> repetition(random_blocks(1, 2).predicate()) is None
        True

    """
    match predicate:
        case AllOf(parts) | AnyOf(parts):
            found = [repetition(part) for part in parts]
            known = [each for each in found if each is not None]
            if len(known) < len(found):
                return None
            return lcm(*(period for period, _ in known)), max((start for _, start in known), default=0)
        case Negation(part):
            return repetition(part)
        case Member(term, members):
            drift = _drift(term)
            if drift is not None and drift[0] == 0:
                return drift[1], 0
            return _beyond(term, members)
    return None


def _drift(term: Term) -> tuple[int, int] | None:
    """(a, P): the term grows by exactly a where q and k grow by P; None if no such P is seen."""
    match term:
        case Position():
            return 1, 1
        case Constant():
            return 0, 1
        case Binary("+" | "-" as sign, left, right):
            one, other = _drift(left), _drift(right)
            if one is None or other is None:
                return None
            period = lcm(one[1], other[1])
            a, b = one[0] * (period // one[1]), other[0] * (period // other[1])
            return (a + b if sign == "+" else a - b), period
        case Binary("*", Constant(factor), inner) | Binary("*", inner, Constant(factor)):
            drift = _drift(inner)
            return None if drift is None else (drift[0] * factor, drift[1])
        case Binary("//", inner, Constant(divisor)):
            drift = _drift(inner)
            if drift is None:
                return None
            times = divisor // gcd(divisor, drift[0])
            return drift[0] * times // divisor, drift[1] * times
        case Binary("%", inner, Constant(divisor)):
            drift = _drift(inner)
            if drift is None:
                repeats = _residue_period(inner, divisor)
                return None if repeats is None else (0, repeats)
            return 0, drift[1] * (divisor // gcd(divisor, drift[0]))
    return None


def _residue_period(term: Term, modulus: int) -> int | None:
    """A P such that the term's residue stays where q and k grow by P."""
    match term:
        case Position():
            return modulus
        case Constant():
            return 1
        case Binary("+" | "-" | "*", left, right):
            one, other = _residue_period(left, modulus), _residue_period(right, modulus)
            return None if one is None or other is None else lcm(one, other)
        case Binary("//", inner, Constant(divisor)):
            return _residue_period(inner, modulus * divisor)
    drift = _drift(term)
    return drift[1] if drift is not None and drift[0] == 0 else None


def _beyond(term: Term, members: IntegerSet) -> tuple[int, int] | None:
    """The repetition of a condition on one position, or on one position's block: beyond its last finite end."""
    match term:
        case Position():
            size = 1
        case Binary("//", Position(), Constant(divisor)):
            size = divisor
        case _:
            return None
    ends = [end for lo, hi, _, _ in members.segments for end in (lo, hi) if abs(end) != INFINITY]
    tail = members.segments[-1].period if members.segments and members.segments[-1].hi == INFINITY else 1
    return tail * size, max(0, max(ends, default=0) * size)


class Rows:
    """A predicate on units 0, ..., count - 1.

    Cost
        A row takes O(atoms · count / 64) time, whatever it holds.
    Example
        >>> from sparsedsl.constructors import causal, sink, sliding
        >>> rows = Rows(((sliding(2) | sink(1)).blocks(8) & causal()).predicate(), unit=8, count=5)
        >>> f"{rows.row(3):b}", f"{rows.column(0):b}", str(rows.row_set(3) & IntegerSet.interval(0, 5))
        ('1101', '11111', '{0, 2, 3}')

    """

    def __init__(self, predicate: Predicate, *, unit: int, count: int) -> None:
        self.unit, self.count = unit, count
        self.predicate = _in_units(predicate, unit)
        # Every different part once, parts before wholes: ("atom", atom), or an operation and the places of its parts.
        self._program: list[tuple[str, Member | Chosen | tuple[int, ...]]] = []
        self._places: dict[tuple[str, Member | Chosen | tuple[int, ...]], int] = {}
        self._compile(self.predicate)
        # Places at which a term was evaluated one by one, in all: what no set told.
        self.evaluated = 0
        # By the place of an atom: the bits from which its rows (columns) are cut, or its one row (column).
        self._mirrors: dict[tuple[bool, int], int] = {}
        self._constant: dict[tuple[bool, int], int] = {}
        self._kept: dict[tuple[Term, IntegerSet], int] = {}

    @property
    def size(self) -> int:
        """How many different parts the predicate has."""
        return len(self._program)

    @property
    def draws(self) -> int:
        """How many blocks are drawn for a row."""
        return sum(part.count for _, part in self._program if isinstance(part, Chosen))

    def _compile(self, predicate: Predicate) -> int:
        match predicate:
            case AllOf(parts):
                return self._place("and", tuple(map(self._compile, parts)))
            case AnyOf(parts):
                return self._place("or", tuple(map(self._compile, parts)))
            case Negation(part):
                return self._place("not", (self._compile(part),))
            case Comparison():
                return self._compile(lowered(predicate))
            case Member() | Chosen():
                return self._place("atom", predicate)

    def _place(self, operation: str, of: Member | Chosen | tuple[int, ...]) -> int:
        entry = (operation, of)
        if entry not in self._places:
            self._places[entry] = len(self._program)
            self._program.append(entry)
        return self._places[entry]

    def row(self, query: int) -> int:
        """The keys that a query reads: bit K for key K."""
        return self._run(query, of_query=True)

    def column(self, key: int) -> int:
        """The queries that read a key: bit Q for query Q."""
        return self._run(key, of_query=False)

    def _run(self, place: int, *, of_query: bool) -> int:
        everything = (1 << self.count) - 1
        values: list[int] = []
        for at, (operation, parts) in enumerate(self._program):
            if not isinstance(parts, tuple):
                values.append(self._atom(at, parts, place, of_query=of_query))
                continue
            result = everything if operation != "or" else 0
            for part in parts:
                if operation == "and":
                    result &= values[part]
                elif operation == "or":
                    result |= values[part]
                else:
                    result ^= values[part]
            values.append(result)
        return values[-1]

    def _atom(self, at: int, atom: Member | Chosen, place: int, *, of_query: bool) -> int:
        fixed = (Constant(place), K) if of_query else (Q, Constant(place))
        if isinstance(atom, Member):
            if atom.term == DISTANCE:
                if (of_query, at) not in self._mirrors:
                    # Bit x + count - 1 for a key x after its query, or a query x after its key.
                    seen = atom.members.negate() if of_query else atom.members
                    self._mirrors[of_query, at] = seen.bits(1 - self.count, self.count)
                return self._mirrors[of_query, at] >> (self.count - 1 - place) & ((1 << self.count) - 1)
            if (of_query, at) in self._constant:
                return self._constant[of_query, at]
            term = substitute(atom.term, *fixed)
            found = self._pulled(term, atom.members)
            if term == atom.term:  # it does not speak of the fixed position at all
                self._constant[of_query, at] = found
            return found
        if not of_query:
            raise NotImplementedError("a seeded draw is read by rows")
        row = substitute(atom.q, *fixed)
        assert isinstance(row, Constant), "the draw of a query depends on the query alone"
        return self._pulled(substitute(atom.k, *fixed), IntegerSet.of(drawn(row.value, atom.count, atom.seed)))

    def _pulled(self, term: Term, members: IntegerSet) -> int:
        """The positions at which a term of one position is a member."""
        if (term, members) not in self._kept:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            try:
                found = preimage(term, members).bits(0, self.count)
            except (NotOnePosition, WordTooLong):
                self.evaluated += self.count
                found = _place_by_place(term, members, self.count)
            self._kept[term, members] = found
        return self._kept[term, members]

    def row_set(self, query: int) -> IntegerSet:
        """The keys that a query reads as a set; its members at or beyond `count` mean nothing.

        Cost
            O(atoms · segments) time, or as `row` where the set has no short form.
        """
        at = Constant(query)
        sets: list[IntegerSet] = []
        try:
            for operation, parts in self._program:
                if isinstance(parts, Member):
                    sets.append(preimage(substitute(parts.term, at, K), parts.members))
                elif isinstance(parts, Chosen):
                    raise NotOnePosition
                elif operation == "or":
                    sets.append(IntegerSet.union_of([sets[part] for part in parts]))
                elif operation == "not":
                    sets.append(~sets[parts[0]])
                else:
                    result = EVERYTHING
                    for part in parts:
                        result &= sets[part]
                    sets.append(result)
            return sets[-1]
        except (NotOnePosition, WordTooLong):
            return _set_of(self.row(query), self.count)


def _in_units(predicate: Predicate, unit: int) -> Predicate:
    """The predicate on units, at the first token of each; `unit` divides `block_size(predicate)`."""
    match predicate:
        case AllOf(parts):
            return AllOf(tuple(_in_units(part, unit) for part in parts))
        case AnyOf(parts):
            return AnyOf(tuple(_in_units(part, unit) for part in parts))
        case Negation(part):
            return Negation(_in_units(part, unit))
        case Comparison():
            return _in_units(lowered(predicate), unit)
        case Chosen(count, seed, query, key):
            return Chosen(count, seed, _term_in_units(query, unit), _term_in_units(key, unit))
        case Member(term, members):
            if unit == 1 or _is_cut(predicate):
                return predicate
            if isinstance(term, Position):
                return Member(term, members.sample(unit))
            return Member(_term_in_units(term, unit), members)


def _term_in_units(term: Term, unit: int) -> Term:
    match term:
        case Binary("//", Position() as position, Constant(size)) if size % unit == 0:
            return position if size == unit else Binary("//", position, Constant(size // unit))
        case Binary(operator, left, right):
            return Binary(operator, _term_in_units(left, unit), _term_in_units(right, unit))
    return term


def _place_by_place(term: Term, members: IntegerSet, count: int) -> int:
    import numpy as np

    places = np.arange(count, dtype=np.int64)
    inside = members.contains(np.broadcast_to(evaluate(term, places, places), places.shape))
    return int.from_bytes(np.packbits(inside, bitorder="little").tobytes(), "little")


def _set_of(bits: int, count: int) -> IntegerSet:
    import numpy as np

    packed = np.frombuffer(bits.to_bytes(count // 8 + 1, "little"), dtype=np.uint8)
    inside = np.concatenate([[0], np.unpackbits(packed, bitorder="little"), [0]]).astype(np.int8)
    ends = np.flatnonzero(np.diff(inside)).reshape(-1, 2)
    return IntegerSet(tuple(Segment(int(lo), int(hi)) for lo, hi in ends))
