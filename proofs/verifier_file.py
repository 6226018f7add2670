"""Reading a certificate that nobody trusts: a bounded text, plain JSON, known fields, numbers in range.

Part of the verifier: it imports nothing of what writes certificates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn

from sparsedsl.errors import Rejected

FORMAT = "sparsedsl certificate"
VERSION = 1
MOST_BYTES = 1 << 22
MOST_DIGITS = 24
LONGEST_PATTERN = 100_000
MOST_LAYERS = 1 << 12
MOST_TOKENS = 1 << 40
MOST_LEVELS = 40
WORD = 64

_WORD_TEXT = re.compile("[0-9a-f]{16}")


def reject(step: str, why: str, *, got: str = "", expected: str = "") -> NoReturn:
    """Raise, for a certificate that fails at a step."""
    raise Rejected(f"the certificate is rejected at step {step!r}: {why}", where=step, got=got, expected=expected)


@dataclass(frozen=True, slots=True)
class Tree:
    """Sets that share what repeats; see docs/certificates.md."""

    words: tuple[int, ...]
    pairs: tuple[tuple[int, ...], ...]

    def sets(self, roots: tuple[int, ...]) -> list[int]:
        """The sets at these places of the last level, as bits; only what they need is unfolded."""
        wanted = [sorted(set(roots))]
        for level in reversed(self.pairs):
            wanted.append(sorted({part for at in wanted[-1] for part in level[2 * at : 2 * at + 2]}))
        unfolded = {at: self.words[at] for at in wanted.pop()}
        for height, level in enumerate(self.pairs):
            half = WORD << height
            unfolded = {at: unfolded[level[2 * at]] | unfolded[level[2 * at + 1]] << half for at in wanted.pop()}
        return [unfolded[root] for root in roots]


class _Evidence(NamedTuple):
    kind: str
    tree: Tree | None
    steps: tuple[tuple[int, ...], ...]
    reach: tuple[int, ...]
    pairs: int | None
    joined: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """The fields of a file, their types and ranges checked, and nothing else."""

    pattern: str
    seq_len: int
    residual: bool | Literal["either"]
    complete: bool
    layers: int | None
    query: int | None
    key: int | None
    kind: str
    tree: Tree | None
    steps: tuple[tuple[int, ...], ...]
    reach: tuple[int, ...]
    pairs: int | None
    joined: tuple[int, ...]


def read(path: Path) -> Content:
    """The content of a file.

    Raises
        Rejected: the file is too large, no plain file, or cannot be read; or what `content_of` finds.
    """
    # A pipe that nobody writes to would never end, nor would a device.
    if path.exists() and not path.is_file():
        reject("file", "it is no plain file", got=str(path))
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        reject("file", "it cannot be read", got=f"{path}: {error.strerror}")
    return content_of(data)


def content_of(data: bytes) -> Content:
    """The content of the bytes of a file. Time and memory O(bytes)."""
    if len(data) > MOST_BYTES:
        reject("file", "it is too large", expected=f"at most {MOST_BYTES} bytes")
    try:
        parsed = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_no_float,
            parse_constant=_no_float,
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        reject("json", "it is not JSON in UTF-8", got=str(error)[:80])
    return _content(parsed)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        reject("json", "an object names a field twice")
    return found


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        reject("json", "a number is too long", expected=f"at most {MOST_DIGITS} digits")
    if text == "-0":
        reject("json", "zero has no sign")
    return int(text)


def _no_float(text: str) -> NoReturn:
    reject("json", "numbers are whole", got=text[:40])


def _content(parsed: object) -> Content:
    version = parsed.get("version") if isinstance(parsed, dict) else None
    if type(version) is not int or version != VERSION:
        reject("version", "this version is not known", got=str(version)[:40], expected=str(VERSION))
    top = _fields(
        parsed, "format", "version", "pattern", "digest", "seq_len", "residual", "claim", "evidence", of="certificate"
    )
    if top["format"] != FORMAT:
        reject("fields", "it is no certificate of this kind", expected=FORMAT)
    pattern = _text(top["pattern"], "pattern")
    if len(pattern) > LONGEST_PATTERN:
        reject("pattern", "its text is too long", expected=f"at most {LONGEST_PATTERN} characters")
    if top["digest"] != sha256(pattern.encode("utf-8", "surrogatepass")).hexdigest():
        reject("digest", "it is not that of the pattern's text")
    complete, layers, query, key = _claim(top["claim"])
    kind, tree, steps, reach, pairs, joined = _evidence(top["evidence"])
    return Content(
        pattern=pattern,
        seq_len=_number(top["seq_len"], "seq_len", 1, MOST_TOKENS),
        residual="either" if top["residual"] == "either" else _truth(top["residual"], "residual"),
        complete=complete,
        layers=layers,
        query=query,
        key=key,
        kind=kind,
        tree=tree,
        steps=steps,
        reach=reach,
        pairs=pairs,
        joined=joined,
    )


def _claim(value: object) -> tuple[bool, int | None, int | None, int | None]:
    if isinstance(value, dict) and value.get("complete") is True:
        claim = _fields(value, "complete", "layers", of="claim")
        return True, _number(claim["layers"], "layers", 1, MOST_LAYERS), None, None
    claim = _fields(value, "complete", "layers", "query", "key", of="claim")
    _truth(claim["complete"], "complete")
    layers = None if claim["layers"] is None else _number(claim["layers"], "layers", 1, MOST_LAYERS)
    query, key = (_number(claim[name], name, 0, MOST_TOKENS) for name in ("query", "key"))
    return False, layers, query, key


def _evidence(value: object) -> _Evidence:
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind == "pairs":
        evidence = _fields(value, "kind", "pairs", "joined", of="evidence")
        most = MOST_TOKENS**2
        pairs = _number(evidence["pairs"], "pairs", 1, most)
        return _Evidence("pairs", None, (), (), pairs, _numbers(evidence["joined"], "joined", MOST_LAYERS, most))
    reach: tuple[int, ...] = ()
    if kind == "distances":
        evidence = _fields(value, "kind", "reach", "levels", "steps", of="evidence")
        reach = _numbers(evidence["reach"], "reach", MOST_LAYERS, MOST_TOKENS)
    elif kind == "query":
        evidence = _fields(value, "kind", "levels", "steps", of="evidence")
    else:
        reject("fields", "the kind of evidence is not known", expected="distances, query or pairs")
    steps = _list(evidence["steps"], "steps", MOST_LAYERS)
    roots = tuple(_numbers(step, "steps", MOST_BYTES, MOST_BYTES) for step in steps)
    tree = _tree(_list(evidence["levels"], "levels", MOST_LEVELS), roots)
    return _Evidence(str(kind), tree, roots, reach, None, ())


def _tree(levels: list[object], roots: tuple[tuple[int, ...], ...]) -> Tree:
    """The tree, each level in the order in which the one above names its entries, and each entry once."""
    if not levels:
        reject("tree", "it has no level")
    pairs: list[tuple[int, ...]] = []
    named: Iterator[int] | tuple[int, ...] = (root for step in roots for root in step)
    for height in range(len(levels) - 1, -1, -1):
        entries = _list(levels[height], "levels", MOST_BYTES)
        size = len(entries) if height == 0 else len(entries) // 2
        _check_order(named, size, height)
        if height:
            level = _numbers(entries, "levels", MOST_BYTES, MOST_BYTES)
            halves = list(zip(level[::2], level[1::2], strict=False))
            if len(level) % 2 or len(set(halves)) < len(halves):
                reject("tree", f"level {height} has half a pair, or a pair twice")
            pairs.append(level)
            named = level
    words = [_text(each, "levels") for each in _list(levels[0], "levels", MOST_BYTES)]
    if len(set(words)) < len(words) or not all(map(_WORD_TEXT.fullmatch, words)):
        reject("tree", "level 0 has a word twice, or one that is not 16 hexadecimal digits")
    return Tree(tuple(int(word, 16) for word in words), tuple(reversed(pairs)))


def _check_order(named: Iterator[int] | tuple[int, ...], size: int, height: int) -> None:
    """Each entry is named, and the first time in the order of the list."""
    known = 0
    for at in named:
        if at > known:
            reject("tree", f"level {height} is not in the order in which its entries are named")
        known += at == known
    if known != size:
        reject("tree", f"level {height} has entries that are not named, or names one that it lacks")


# --- fields, types, ranges


def _fields(value: object, *names: str, of: str) -> dict[str, object]:
    if not isinstance(value, dict) or set(value) != set(names):
        reject("fields", f"{of} does not have its fields", expected=", ".join(names))
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        reject("fields", f"{name} is not a text")
    return value


def _truth(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        reject("fields", f"{name} is neither true nor false")
    return value


def _number(value: object, name: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        reject("fields", f"{name} is not a whole number from {least} to {most}", got=str(value)[:40])
    return value


def _numbers(value: object, name: str, longest: int, most: int) -> tuple[int, ...]:
    return tuple(_number(each, name, 0, most) for each in _list(value, name, longest))


def _list(value: object, name: str, most: int) -> list[object]:
    if not isinstance(value, list) or len(value) > most:
        reject("fields", f"{name} is not a list of at most {most} entries")
    return value
