"""Writing files so that an interruption leaves no half of one."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step: a reader finds the old text or the new one, never a part.

    A link stays a link. A terminal or a pipe can't be renamed to, and is written to as it is.

    Cost
        One more file, in the same folder, until the text is written.
    Raises
        OSError: the file can't be written.
    Example
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder) / "a.txt", "whole")
        ...     [(each.name, each.read_text()) for each in Path(folder).iterdir()]
        [('a.txt', 'whole')]

    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        target.write_text(text, encoding="utf-8")
        return
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
