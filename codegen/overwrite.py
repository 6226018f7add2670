"""What a build may replace: files that an earlier build wrote, and nothing of anyone else's."""

from __future__ import annotations

from pathlib import Path

from sparsedsl.codegen.header import MARK
from sparsedsl.errors import WrongValue

# The mark stands in the docstring that begins a file.
HEAD = 4096


def is_ours(path: Path) -> bool:
    """Whether a build wrote the file, or it is empty.

    Cost
        One read of its beginning.
    Example
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "a.py"
        ...     _ = file.write_text("mine = 1")
        ...     is_ours(file)
        False

    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    return not head or MARK.encode() in head


def may_replace(path: Path) -> None:
    """Raise WrongValue where the path is a file with something in it that no build wrote."""
    if path.is_file() and not is_ours(path):
        raise WrongValue(
            "the file is not from a build, and would be lost",
            where=f"-o {path}",
            got=f"{path}, which does not say that sparsedsl generated it",
            expected="a new file, or one that an earlier build wrote",
            hint=f"-o {path.stem}_attention.py, or --force to replace it",
        )
