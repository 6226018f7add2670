"""A flow as text for one screen."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import TYPE_CHECKING

from sparsedsl.proofs.report import number, shortened

if TYPE_CHECKING:
    from sparsedsl.proofs.flow import Depth, Distance, Flow

# Units of a cut that are listed.
UNITS_SHOWN = 16
# Numbers of paths up to this one are told in full.
LONGEST_NUMBER = 10**12


def report(flow: Flow) -> str:
    """What the flow is of, a table by distance, a table by depth, and what is told of the whole."""
    units = "tokens" if flow.unit == 1 else "blocks"
    fields = [
        ("pattern", shortened(flow.pattern)),
        ("tokens", _tokens(flow)),
        ("layers", f"{number(flow.layers)}, with the residual connection at alpha = {flow.alpha:g}"),
        ("model", "uniform weights in every row, one alpha in every layer: assumptions, no measurement"),
    ]
    tail = [
        ("effective", _effective(flow, units)),
        ("bottleneck", _bottleneck(flow, units)),
        ("sink share", _sink(flow, units)),
    ]
    if flow.lost > 1e-9:
        tail.append(("lost", f"{flow.lost:.2%} of the influence ends in rows without a key"))
    return "\n".join(
        [
            *_lines(fields),
            "",
            f"by distance, in {units}, after all layers: the worst of each range",
            *_table(("distance", "tokens", "hops", "mean", "paths", "influence", "any query"), _by_distance(flow)),
            "mean: of the joined pairs; paths, influence: on the last query; any query: the least influence on any",
            "",
            f"by depth, in {units}: reach, and the least influence on the last query by distance",
            *_by_depth(flow),
            "",
            *_lines(tail),
        ]
    )


def _lines(fields: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{name:<12}{text}" for name, text in fields]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]


def _tokens(flow: Flow) -> str:
    text = number(flow.seq_len)
    if flow.unit > 1:
        text += f", {number(flow.units)} blocks of {number(flow.unit)}"
    return text if flow.exact else f"{text}; a block reads all that one of its tokens reads"


def _by_distance(flow: Flow) -> list[tuple[str, ...]]:
    ends = [(each.first, each.last) for each in flow.depths[-1].ranges]
    return [_range(flow.distances[first : last + 1], flow) for first, last in ends]


def _range(each: Sequence[Distance], flow: Flow) -> tuple[str, ...]:
    first, last = each[0].distance, each[-1].distance
    never = any(one.hops is None for one in each)
    # A distance d has units - d queries; their mean is over the joined ones.
    joined = [flow.units - one.distance - one.unjoined for one in each]
    total = sum((one.mean_hops or 0.0) * count for one, count in zip(each, joined, strict=True))
    return (
        _span(first, last),
        number(last * flow.unit),
        "never" if never else str(max(one.hops or 0 for one in each)),
        f"{total / sum(joined):.2f}" if any(joined) else "-",
        _count(min(one.paths for one in each)),
        f"{min(one.influence for one in each):.1e}",
        f"{min(one.least_influence for one in each):.1e}",
    )


def _span(first: int, last: int) -> str:
    return number(first) if first == last else f"{number(first)}-{number(last)}"


def _count(paths: int) -> str:
    if paths <= LONGEST_NUMBER:
        return number(paths)
    # Not by a float, which ends at 308 digits: math.log10 takes whole numbers of any size.
    exponent = int(log10(paths))
    mantissa = f"{paths / 10**exponent:.1f}"
    return f"{mantissa}e+{exponent}" if mantissa != "10.0" else f"1.0e+{exponent + 1}"


def _by_depth(flow: Flow) -> list[str]:
    depths = [each for each in flow.depths if _is_listed(each.layers, flow.layers)]
    ranges = depths[-1].ranges
    # Four of them: the nearest, two between, the farthest.
    places = sorted({round(step * (len(ranges) - 1) / 3) for step in range(4)})
    head = (
        "layers",
        "contiguous",
        "effective",
        *(f"at {_span(ranges[place].first, ranges[place].last)}" for place in places),
    )
    return _table(head, [_depth(each, places) for each in depths])


def _is_listed(layers: int, most: int) -> bool:
    return most <= 8 or layers == most or layers & (layers - 1) == 0


def _depth(each: Depth, places: Sequence[int]) -> tuple[str, ...]:
    influence = (f"{each.ranges[place].influence:.1e}" for place in places)
    return (str(each.layers), number(each.contiguous), number(each.effective_reach), *influence)


def _effective(flow: Flow, units: str) -> str:
    reach = flow.effective_reach
    tokens = "" if flow.unit == 1 else f" ({number(reach * flow.unit)} tokens)"
    return (
        f"{number(reach)} {units}{tokens}: up to there each distance has {flow.fraction:.2%} of the influence "
        f"at distance 1, or more"
    )


def _bottleneck(flow: Flow, units: str) -> str:
    found = flow.bottleneck
    direct = "beside a direct edge, " if found.direct else ""
    if found.cut is None:
        why = "there is one unit only" if flow.units == 1 else "too many edges"
        return f"not looked for: {why}"
    if not found.cut:
        return f"{direct}no path leads from the last query to the first key"
    listed = ", ".join(map(number, found.cut[:UNITS_SHOWN])) + (", ..." if len(found.cut) > UNITS_SHOWN else "")
    noun = units.removesuffix("s") if len(found.cut) == 1 else units
    return f"{direct}{number(len(found.cut))} {noun} carry all from the first key to the last query: {listed}"


def _sink(flow: Flow, units: str) -> str:
    text = f"{flow.sink_share:.2%} of the last query's influence is of the first {units.removesuffix('s')}"
    if flow.absolute_units is None:
        return f"{text}; absolute keys are not known without a normal form"
    if flow.absolute_units == 0:
        return f"{text}; the pattern names no absolute keys"
    count = "one" if flow.absolute_units == 1 else number(flow.absolute_units)
    noun = units.removesuffix("s") if flow.absolute_units == 1 else units
    return f"{text}, {flow.absolute_share:.2%} of the {count} absolute {noun}"
