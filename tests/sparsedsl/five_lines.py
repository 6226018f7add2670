"""The shape of every error: five fields in their order, a field's further lines indented under it."""

from __future__ import annotations

import re


def assert_five_lines(text: str) -> None:
    """What, where, got, expected, try; each with something in it, on lines that fit a screen."""
    lines = text.rstrip("\n").split("\n")
    assert re.fullmatch(r"[A-Z][A-Za-z]+: \S.*", lines[0]), text
    fields = [line[2:12].strip() for line in lines[1:] if line[2:3] != " "]
    assert fields == ["where", "got", "expected", "try"], text
    assert all(line.startswith("  ") and len(line) > 12 for line in lines[1:]), text
    assert all(len(line) <= 250 for line in lines), text
