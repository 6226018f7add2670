"""Single changes of a certificate's JSON: numbers, texts, truths, entries and fields."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from random import Random

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
Path = tuple[str | int, ...]
Field = tuple[str, ...]


def places(value: Json, path: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Every value inside, with the way to it; the whole comes first."""
    yield path, value
    if isinstance(value, dict):
        for name, part in value.items():
            yield from places(part, (*path, name))
    elif isinstance(value, list):
        for at, part in enumerate(value):
            yield from places(part, (*path, at))


def fields(certificate: Json) -> list[Field]:
    """The names on the way to each field, such as ("claim", "layers")."""
    return sorted({_field(path) for path, _ in places(certificate) if path})


def mutated(certificate: Json, random: Random, field: Field | None = None) -> tuple[Json, str]:
    """The certificate with one change, and what was changed.

    The place is drawn by its field first, so that the long lists do not take all draws.
    """
    if field is None:
        field = random.choice(fields(certificate))
    path, value = random.choice([each for each in places(certificate) if each[0] and _field(each[0]) == field])
    changed = copy.deepcopy(certificate)
    parent = changed
    for step in path[:-1]:
        parent = parent[step]  # type: ignore[index]
    what = _change(parent, path[-1], value, random)
    return changed, f"{'/'.join(map(str, path))}: {what}"


def _field(path: Path) -> Field:
    return tuple(step for step in path if isinstance(step, str))


def _change(parent: Json, step: str | int, value: Json, random: Random) -> str:
    assert isinstance(parent, dict | list)
    if isinstance(parent, list) and isinstance(step, int) and random.random() < 0.5:
        what = random.choice(["drop", "double", "swap"])
        other = random.randrange(len(parent))
        if what == "drop":
            del parent[step]
        elif what == "double":
            parent.insert(step, copy.deepcopy(value))
        else:
            parent[step], parent[other] = parent[other], parent[step]
        return what
    if isinstance(parent, dict) and random.random() < 0.1:
        del parent[step]  # type: ignore[arg-type]
        return "drop"
    new = _other(value, random)
    parent[step] = new  # type: ignore[index]
    return f"{str(value)[:60]} -> {str(new)[:60]}"


def _other(value: Json, random: Random) -> Json:
    others: list[Json]
    match value:
        case bool():
            others = [not value, int(value), None]
        case int():
            others = [value + 1, value - 1, 2 * value, value + random.randint(2, 2000), 0, -value]
            others += [None, str(value), float(value), bool(value)]
        case str():
            at = random.randrange(len(value) + 1)
            letter = random.choice("0123456789abcdef()|& ")
            before, after = value[:at], value[at:]
            others = [before + letter + after[1:], before + letter + after, before + after[1:], None]
        case None:
            others = [0, 1, 2, 28, False, "null"]
        case list():
            others = [[], value[:-1], [*value, 0], [*value, *value], value[::-1], None, {}]
        case _:
            others = [None, [], {}, 0]
    return random.choice(others)
