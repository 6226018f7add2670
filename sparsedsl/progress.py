"""Progress of anything that takes more than two seconds, and how an interruption ends.

    with Progress("searching", total=100) as progress:
        for done in range(100):
            progress.at(done)

Nothing is shown for two seconds. Then a terminal gets one line, rewritten in place and wiped at the end; any
other stream gets a line at most every ten seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from types import TracebackType
from typing import Self, TextIO

SILENT_FOR = 2.0
# Seconds between two lines: on a terminal, and elsewhere.
REWRITTEN_EVERY, PRINTED_EVERY = 0.1, 10.0
# The exit status of a program that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED_STATUS = 130


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what the user can do next; the command line ends with it in one line."""


class Progress:
    """What is being done, how far it is, how long it took, and how long it will take if that can be told.

    Cost
        A call of `at` reads the clock; it writes at most ten times a second.
    Example
        >>> import io
        >>> now, stream = [0.0], io.StringIO()
        >>> with Progress("searching", total=100, stream=stream, clock=lambda: now[0]) as progress:
        ...     for second in range(0, 31, 3):
        ...         now[0] = float(second)
        ...         progress.at(second)
        >>> print(stream.getvalue(), end="")
        searching: 3 / 100, 3 s, about 97 s left
        searching: 15 / 100, 15 s, about 85 s left
        searching: 27 / 100, 27 s, about 73 s left

    """

    def __init__(
        self,
        what: str,
        *,
        total: int | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total = what, total
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._started = clock()
        self._next = self._started + SILENT_FOR
        self._is_terminal = self._stream.isatty()
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wipe the line of a terminal, so that what follows starts clean."""
        if self._shown and self._is_terminal:
            self._write("\r\x1b[K")

    def at(self, done: int | None, what: str | None = None) -> None:
        """So much is done, None where that can't be told; `what` changes the words from here on."""
        self.what = what or self.what
        now = self._clock()
        if now < self._next:
            return
        self._shown = True
        line = self._line(done, now - self._started)
        if self._is_terminal:
            self._next = now + REWRITTEN_EVERY
            self._write(f"\r{line}\x1b[K")
        else:
            self._next = now + PRINTED_EVERY
            self._write(f"{line}\n")

    def _line(self, done: int | None, elapsed: float) -> str:
        total = self.total
        if done is None:
            return f"{self.what}: {_seconds(elapsed)}"
        number = f"{done:,}".replace(",", " ")
        if total is None:
            return f"{self.what}: {number}, {_seconds(elapsed)}"
        left = f", about {_seconds(elapsed * (total - done) / done)} left" if 0 < done < total else ""
        return f"{self.what}: {number} / {f'{total:,}'.replace(',', ' ')}, {_seconds(elapsed)}{left}"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show from a second thread how long the body has taken: for work whose steps are not counted.

    Cost
        A thread that wakes ten times a second, after the first two seconds.
    """
    over = Event()
    with Progress(what) as progress:
        clock = Thread(target=_tick, args=(progress, over), daemon=True)
        clock.start()
        try:
            yield
        finally:
            over.set()
            clock.join()


def _tick(progress: Progress, over: Event) -> None:
    pause = SILENT_FOR
    while not over.wait(pause):
        progress.at(None)
        pause = REWRITTEN_EVERY


def _seconds(seconds: float) -> str:
    """Seconds below two minutes, then minutes, then hours.

    >>> _seconds(97.4), _seconds(600), _seconds(20_000)
    ('97 s', '10 min', '5.6 h')

    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
