"""Progress: silent at first, one rewritten line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io
import threading
import time

import pytest

from sparsedsl import progress
from sparsedsl.progress import Progress, working


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(stream: io.StringIO, seconds: list[float], *, total: int | None = None) -> list[str]:
    """What has been written after each of these seconds, `done` being the whole seconds."""
    clock = Clock()
    written = []
    with Progress("searching", total=total, stream=stream, clock=clock) as progress:
        for each in seconds:
            clock.now = 100.0 + each
            progress.at(int(each))
            written.append(stream.getvalue())
            stream.seek(0)
            stream.truncate()
    return [*written, stream.getvalue()]


def test_nothing_is_shown_for_two_seconds() -> None:
    for stream in (Terminal(), io.StringIO()):
        assert shown(stream, [0.0, 1.0, 1.99]) == ["", "", "", ""]


def test_a_terminal_gets_one_line_that_is_rewritten_and_wiped() -> None:
    assert shown(Terminal(), [1.0, 2.0, 2.05, 4.0], total=8) == [
        "",
        "\rsearching: 2 / 8, 2 s, about 6 s left\x1b[K",
        "",
        "\rsearching: 4 / 8, 4 s, about 4 s left\x1b[K",
        "\r\x1b[K",
    ]


def test_any_other_stream_gets_a_line_every_ten_seconds() -> None:
    assert shown(io.StringIO(), [1.0, 2.0, 11.9, 12.0, 13.0, 200.0]) == [
        "",
        "searching: 2, 2 s\n",
        "",
        "searching: 12, 12 s\n",
        "",
        "searching: 200, 3 min\n",
        "",
    ]


def test_the_words_may_change_and_the_end_is_no_estimate() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress("first", total=1000, stream=stream, clock=clock)
    clock.now += 3
    progress.at(1000, "second")
    assert stream.getvalue() == "second: 1 000 / 1 000, 3 s\n"


def test_a_terminal_is_clean_after_an_interruption() -> None:
    stream, clock = Terminal(), Clock()
    progress = Progress("searching", stream=stream, clock=clock)

    def interrupted() -> None:
        with progress:
            clock.now += 3
            progress.at(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_work_without_steps_shows_its_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "SILENT_FOR", 0.01)
    with working("checking"):
        deadline = time.monotonic() + 10
        while not (shown := capsys.readouterr().err) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert shown == "checking: 0 s\n"


def test_short_work_is_silent_and_errors_pass_through(capsys: pytest.CaptureFixture[str]) -> None:
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt), working("checking"):
        raise KeyboardInterrupt
    assert threading.active_count() == threads
    assert capsys.readouterr().err == ""
