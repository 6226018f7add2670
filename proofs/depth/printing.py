"""A proof as a reader wants it: text for a terminal, Markdown, LaTeX, JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from sparsedsl.integers import INFINITY
from sparsedsl.proofs.depth.parts import Distances, Layers
from sparsedsl.proofs.depth.words import Said
from sparsedsl.proofs.report import number, shortened

if TYPE_CHECKING:
    from sympy import Basic

    from sparsedsl.proofs.depth.proof import Proof

# Terms of a long statement, and numbers of layers in the inverse, that are printed.
TERMS_SHOWN = 6
LAYERS_SHOWN = 6

Printer = Callable[["Basic"], str]


def text_of(proof: Proof) -> str:
    """For a terminal."""
    lines = [
        ("pattern", shortened(proof.pattern)),
        ("statement", statement(proof, plain)),
        *((name, line) for name, line in (("depth", depth_line(proof, plain)),) if line),
        ("inverse", inverse(proof)),
    ]
    head = "\n".join(f"{name:<12}{line}" for name, line in lines if line)
    steps = [f"  {place}. {lemma}: {claim}\n     {reason}" for place, lemma, claim, reason in _told(proof, plain)]
    if not steps:
        return head
    return "\n".join([head, "proof", *steps, f"     {closing(proof, plain)}"])


def markdown_of(proof: Proof) -> str:
    """For a page."""
    lines = [f"### `{shortened(proof.pattern)}`", "", f"**Statement.** {statement(proof, _math)}."]
    if depth := depth_line(proof, _math):
        lines += ["", f"**Depth.** {depth}."]
    if lengths := inverse(proof):
        lines += ["", f"**Inverse.** {lengths}."]
    if proof.steps:
        lines += ["", "**Proof.**", ""]
        lines += [
            f"{place}. *{lemma}*: {claim}, since {reason}." for place, lemma, claim, reason in _told(proof, _math)
        ]
        lines += ["", f"{closing(proof, _math)}. ∎"]
    return "\n".join(lines)


def latex_of(proof: Proof) -> str:
    """For a paper; needs amsmath and amsthm, and a `theorem` environment."""
    pattern = "".join(_ESCAPES.get(letter, letter) for letter in shortened(proof.pattern))
    lines = [r"\begin{theorem}", rf"For the pattern \texttt{{{pattern}}}: {statement(proof, _math)}."]
    if depth := depth_line(proof, _math):
        lines.append(f"{depth}.")
    lines.append(r"\end{theorem}")
    if proof.steps:
        lines += [r"\begin{proof}", r"\begin{enumerate}"]
        lines += [
            rf"\item \emph{{{lemma}}}: {claim}, since {reason}." for _, lemma, claim, reason in _told(proof, _math)
        ]
        lines += [r"\end{enumerate}", f"{closing(proof, _math)}.", r"\end{proof}"]
    return _sentence("\n".join(lines))


def json_of(proof: Proof) -> str:
    """One object on one line."""
    said = {
        "pattern": proof.pattern,
        "residual": proof.residual,
        "complete": proof.complete,
        "fails_from": proof.fails_from,
        "exact": proof.exact,
        "depth_upper": None if proof.upper is None else str(proof.upper),
        "depth_lower": None if proof.lower is None else str(proof.lower),
        "unit": proof.facts.unit,
        "lengths": [
            {"layers": layers, "at_least": _finite(low), "at_most": _finite(high)}
            for layers, low, high in _lengths(proof)
        ],
        "steps": [
            {"lemma": step.lemma, "statement": str(step.statement()), "because": filled(step.because(), plain)}
            for step in proof.steps
        ],
    }
    return json.dumps(said)


def _finite(length: int) -> int | None:
    return None if length >= INFINITY else length


# --- the sentences


def statement(proof: Proof, show: Printer) -> str:
    """Whether the pattern is complete."""
    if proof.complete is None:
        return "no proof found, neither that it is complete for every N nor that it ever fails"
    if proof.complete:
        own = "" if proof.facts.endless else ", with its own layers"
        return f"complete for every N{own}"
    at = number(proof.fails_from or 0)
    if not proof.facts.endless and proof.fails_first:
        return f"this stack is complete up to N = {number((proof.fails_from or 1) - 1)}, incomplete for every N >= {at}"
    least = ", and that is the least such length" if proof.fails_first else ""
    return f"never complete: incomplete for every N >= {at} with any number of layers{least}"


def depth_line(proof: Proof, show: Printer) -> str:
    """The depth or its bounds."""
    if proof.upper is not None and proof.exact:
        return f"{show(_depth_is(proof.upper))} exactly, for every N >= 2"
    bounds = []
    if proof.upper is not None:
        bounds.append(f"at most {show(proof.upper)}")
    if proof.lower is not None:
        bounds.append(f"at least {show(proof.lower)}")
    return f"{' and '.join(bounds)} layers, for every N >= 2" if bounds else ""


def _depth_is(formula: Basic) -> Basic:
    from sympy import Eq, Function, Symbol

    return Eq(Function("depth")(Symbol("N", integer=True, positive=True)), formula)


def closing(proof: Proof, show: Printer) -> str:
    """How the formulas follow."""
    from sympy import Function, Ge, Symbol

    n = Symbol("n" if proof.facts.unit > 1 else "N", integer=True, positive=True)
    for part in proof.parts:
        if isinstance(part, Distances | Layers):
            reached = Ge(Function("R")(Symbol("h")), n - 1 - part.shift)
            rest = " (at least one layer)" if part.shift or proof.facts.unit > 1 else ""
            return f"The depth is the least h with {show(reached)}{rest}"
    if proof.parts:
        return f"The depth is the least h with {show(Ge(Function('n')(Symbol('h')), n))}"
    if proof.complete is None:
        return "Nothing more was found"
    return "So the pattern is complete" if proof.complete else "So no number of layers completes the pattern"


def inverse(proof: Proof) -> str:
    """Up to which length so many layers are complete."""
    if not proof.parts:
        return ""
    told = []
    for layers, low, high in _lengths(proof):
        if low == high:
            told.append(f"{layers}: {'every N' if low >= INFINITY else number(low)}")
        else:
            above = "no bound" if high >= INFINITY else number(high)
            told.append(f"{layers}: {'every N' if low >= INFINITY else number(low)} to {above}")
    return f"layers and the N up to which they are complete: {', '.join(told)}"


def _lengths(proof: Proof) -> list[tuple[int, int, int]]:
    if not proof.parts:
        return []
    most = LAYERS_SHOWN if proof.facts.endless else min(LAYERS_SHOWN, len(proof.facts.inner))
    found = []
    for layers in range(1, most + 1):
        low, high = proof.length(layers)
        found.append((layers, low, high))
        if low >= INFINITY:
            break
    return found


def _told(proof: Proof, show: Printer) -> list[tuple[int, str, str, str]]:
    return [
        (place, step.lemma, _claim(step.statement(), show), filled(step.because(), show))
        for place, step in enumerate(proof.steps, 1)
    ]


def _claim(relation: Basic, show: Printer) -> str:
    """A conjunction as a list, cut in the middle where it is long."""
    from sympy import And, default_sort_key

    if not isinstance(relation, And):
        return show(relation)
    terms = sorted(relation.args, key=default_sort_key)
    shown = [show(term) for term in terms]
    if len(shown) > TERMS_SHOWN:
        shown = [*shown[: TERMS_SHOWN - 2], "...", shown[-1]]
    return ", ".join(shown)


def _sentence(text: str) -> str:
    """N >= 2 as a formula, and symbols that LaTeX does not take as they are."""
    text = re.sub(r"N >= (\d[\d ]*\d|\d)", _at_least, text)
    for symbol, command in (("−", "-"), ("⌈", r"\lceil"), ("⌉", r"\rceil"), ("∞", r"\infty")):
        text = text.replace(symbol, f"${command}$")
    return text


def _at_least(found: re.Match[str]) -> str:
    return rf"$N \ge {found[1].replace(' ', chr(92) + ',')}$"


def filled(said: Said, show: Printer) -> str:
    """The sentence with its formulas."""
    return said.text.format(*(show(formula) for formula in said.formulas))


# --- formulas


def plain(formula: Basic) -> str:
    """A formula in one line of text.

    >>> from sympy import Eq, Function, Ge, Implies, Symbol
    >>> h, R = Symbol("h"), Function("R")
    >>> plain(Implies(Ge(h, 2), Eq(R(h + 1), R(h) + 4)))
    'R(h + 1) = R(h) + 4 for h >= 2'

    """
    from sympy import And, Eq, Implies, Piecewise, StrictLessThan, true

    match formula:
        case Piecewise(args=pieces):
            told = [plain(value) + ("" if given is true else f" if {plain(given)}") for value, given in pieces]
            return ", else ".join(told)
        case Implies(args=(given, then)):
            return f"{plain(then)} for {plain(given)}"
        case And():
            return " and ".join(map(plain, formula.args))
        case Eq(args=(left, right)):
            return f"{plain(left)} = {plain(right)}"
        case StrictLessThan(args=(left, right)):
            return f"{plain(left)} < {plain(right)}"
    return re.sub(r"\boo\b", "∞", str(formula).replace("**", "^"))


def _math(formula: Basic) -> str:
    from sympy import latex

    return f"${latex(formula, fold_short_frac=False)}$"


_ESCAPES = {letter: "\\" + letter for letter in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
