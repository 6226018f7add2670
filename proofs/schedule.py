"""What is checked: one pattern for each layer, told in one common unit where all of them have a normal form."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from sparsedsl.constructors import causal
from sparsedsl.errors import LONGEST_SHOWN_LINE, NoNormalForm, WrongType, WrongValue, clipped, shown
from sparsedsl.forms import BACK, NormalForm
from sparsedsl.integers import IntegerSet
from sparsedsl.layers import PerHead, Stack
from sparsedsl.normal import normalise
from sparsedsl.pattern import Pattern, whole
from sparsedsl.segments import WordTooLong


@dataclass(frozen=True, slots=True)
class Schedule:
    """Layer h, counted from 0 at the bottom, has the graph patterns[h mod len(patterns)].

    `count` is the number of layers to check, None for as many as it takes. An endless schedule repeats one
    pattern, so that "how many layers would it take" has an answer beyond `count`.
    """

    patterns: tuple[Pattern, ...]
    count: int | None
    endless: bool

    def at(self, layer: int) -> int:
        """The index of the layer's pattern."""
        return layer % len(self.patterns)


def schedule_of(pattern: Pattern | PerHead | Stack, layers: int | None) -> Schedule:
    """The layers of a pattern; a per-head pattern counts as the union of its heads."""
    count = None if layers is None else whole("check", "layers", layers, least=1)
    if isinstance(pattern, Stack):
        if count not in (None, len(pattern)):
            raise WrongValue(
                "the stack has its own number of layers",
                where=f"check({clipped(str(pattern), LONGEST_SHOWN_LINE)}, layers={count})",
                got=f"layers = {count}, a stack of {len(pattern)}",
                expected=f"layers = {len(pattern)}, or none given",
                hint=f"cycle([...], layers={count})",
            )
        return Schedule(tuple(_graph(each) for each in pattern.patterns), len(pattern), endless=False)
    if not isinstance(pattern, Pattern | PerHead):
        raise WrongType(
            "check takes a pattern",
            where=f"check({shown(pattern)})",
            got=f"{shown(pattern)} of type {type(pattern).__name__}",
            expected="a pattern, a per-head pattern or a stack of layers",
            hint=f"check(parse({shown(pattern)}))" if isinstance(pattern, str) else "check(sliding(1024) | power())",
        )
    return Schedule((_graph(pattern),), count, endless=True)


def _graph(layer: Pattern | PerHead) -> Pattern:
    return layer.union() if isinstance(layer, PerHead) else layer


def common_forms(patterns: tuple[Pattern, ...]) -> tuple[NormalForm, ...] | None:
    """The normal forms of all layers in the largest unit that they share; None where one has no normal form."""
    try:
        forms = [normalise(pattern) for pattern in patterns]
        units = [form.unit for form in forms if form != _CAUSAL]
        unit = gcd(*units) or 1
        return tuple(_in_unit(form, unit) for form in forms)
    except (NoNormalForm, WordTooLong):
        return None


def _in_unit(form: NormalForm, unit: int) -> NormalForm:
    # The causal pattern alone is told in any unit: every earlier unit, and the cut inside the query's own.
    if form == _CAUSAL and unit > 1:
        return NormalForm(unit, True, (0,), (0,), ((BACK,),))
    return form.refined(unit)


def looks_ahead(form: NormalForm) -> bool:
    """Whether some token reads a key to its right; a whole unit without the cut reads ahead inside itself."""
    return form.looks_ahead or (form.unit > 1 and not form.cut and bool(_loops_somewhere(form)))


def _loops_somewhere(form: NormalForm) -> bool:
    own = IntegerSet.of([0])
    return any(
        max(q_piece[0], k_piece[0]) < min(q_piece[1], k_piece[1]) and any(row & own for row in cell.rows)
        for (q_piece, k_piece), cell in form.pieces()
    )


_CAUSAL = normalise(causal())
