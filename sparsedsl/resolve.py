"""What a pattern's text means where a user types one, as on the command line."""

from __future__ import annotations

import runpy
import traceback
from pathlib import Path

from sparsedsl.errors import NotAPattern, SparseDSLError, UnknownName, clipped, marked, nearest
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from sparsedsl.text import parse

# Characters kept of the reason for which a file stops.
LONGEST_REASON = 200


def resolve(text: str) -> Pattern | PerHead | Stack:
    """The pattern that a text names.

    Set
        `sliding(1024) | power_attention(block=64)`: an expression of constructors and catalogue entries.
        `model.py:local`: a pattern by its name in a Python file, which is run, but not as `__main__`.
        `model.py`: the only pattern of the file, names that start with `_` aside.
    Cost
        Of an expression: linear in its length. Of a file: whatever the file does.
    Raises
        SyntaxMistake, UnknownName: an expression that does not parse; and what its calls raise.
        UnknownName: no such file, or no such name in it.
        NotAPattern: the file stops with an error, or the name is of something else; without a name, the file
        holds no pattern, or several.
    Example
        >>> print(resolve("streaming_llm(window=8) | strided(64) & causal()"))
        (sliding(8) | sink(4)) & causal() | strided(64) & causal()

    """
    file, colon, name = text.strip().rpartition(":")
    if colon and file.endswith(".py"):
        return _named(file, name)
    if text.strip().endswith(".py"):
        return _only(text.strip())
    from sparsedsl.patterns.catalogue import CATALOGUE

    return parse(text, names=CATALOGUE)


def _named(file: str, name: str) -> Pattern | PerHead | Stack:
    values = _values(file)
    where = marked(f"{file}:{name}", len(file) + 1, len(file) + 1 + len(name))
    if name not in values:
        patterns = list(_patterns(values))
        raise UnknownName(
            "the file has no such name",
            where=where,
            got=f"name = {name!r}",
            expected=f"the name of a pattern: {', '.join(patterns) or 'this file has none'}",
            hint=f"{file}:{nearest(name, patterns) or patterns[0]}" if patterns else "pattern = sliding(1024) in it",
        )
    value = values[name]
    if not isinstance(value, Pattern | PerHead | Stack):
        raise NotAPattern(
            "the name is not a pattern's",
            where=where,
            got=f"{name} of type {type(value).__name__}",
            expected="a Pattern, per_head([...]) or Stack([...])",
            hint=_instead(file, name, values),
        )
    return value


def _instead(file: str, name: str, values: dict[str, object]) -> str:
    """What to type for a name that is not a pattern's."""
    if callable(values[name]):
        return f"in the file, pattern = {name}(...), then {file}:pattern"
    patterns = list(_patterns(values))
    return f"{file}:{patterns[0]}" if patterns else "in the file, pattern = sliding(1024)"


def _only(file: str) -> Pattern | PerHead | Stack:
    patterns = _patterns(_values(file))
    if not patterns:
        raise NotAPattern(
            "the file holds no pattern",
            where=marked(file, 0, len(file)),
            got="no pattern at module level",
            expected="one, such as: pattern = sliding(1024)",
            hint="where a function makes the pattern, call it in the file and name the result",
        )
    if len(set(patterns.values())) > 1:
        raise NotAPattern(
            "the file holds several patterns",
            where=marked(file, 0, len(file)),
            got=", ".join(patterns),
            expected="one pattern, or a name after a colon",
            hint=f"{file}:{next(iter(patterns))}",
        )
    return next(iter(patterns.values()))


def _patterns(values: dict[str, object]) -> dict[str, Pattern | PerHead | Stack]:
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, Pattern | PerHead | Stack) and not name.startswith("_")
    }


def _values(file: str) -> dict[str, object]:
    """The names of a file at module level, once it has run."""
    path = Path(file)
    if not path.is_file():
        stems = [each.stem for each in path.parent.glob("*.py") if each.is_file()]
        beside = nearest(path.stem, stems)
        raise UnknownName(
            "there is no such file",
            where=marked(file, 0, len(file)),
            got=str(path.absolute()),
            expected="a Python file, or a pattern",
            hint=str(path.with_name(f"{beside}.py"))
            if beside
            else "sliding(1024), or the path of a file that is there",
        )
    try:
        return runpy.run_path(file, run_name="pattern_file")
    except SparseDSLError:
        raise  # a mistake in a pattern already says what to type instead
    except (Exception, SystemExit) as error:
        raise NotAPattern(
            "the file stops with an error",
            where=marked(file, 0, len(file)),
            got=f"{type(error).__name__}: {clipped(str(error), LONGEST_REASON)}{_line_of(error, file)}",
            expected="a file that runs to its end",
            hint=f"python {file}",
        ) from error


def _line_of(error: BaseException, file: str) -> str:
    """The last line of the file in the traceback; none where the file does not even parse."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f", line {lines[-1]}" if lines else ""
