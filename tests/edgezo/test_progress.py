"""Lines of progress, on a simulated clock."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import click
import pytest

from edgezo.cli.terminal.board import Board
from edgezo.cli.terminal.progress import BAR_S, PLAIN_S, Progress


class Clock:
    """A clock that stands still until it is set forward."""

    def __init__(self) -> None:
        self.now = 1234.5

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_keep_their_rhythm() -> None:
    """Evaluations and notes shifted it: each was followed by a line at once."""
    clock, stream = Clock(), io.StringIO()
    progress, shown = Progress(stream, clock), []

    def after(seconds: float, call: Callable[[], None]) -> None:
        clock.now += seconds
        before = stream.tell()
        call()
        if stream.tell() > before:
            shown.append(clock.now)

    for number in range(1, 101):
        after(1.7, lambda: progress.update("step"))
        if number % 9 == 0:  # an evaluation
            tell = progress.count("evaluating")
            for part in range(4):
                after(0.3, lambda: tell(part, 4))  # noqa: B023  # called at once
            progress.end()
        if number % 13 == 0:  # a note
            progress.end()
    first = stream.getvalue().splitlines().index("evaluating 0/4")
    assert first == 2  # comes at once, after 13.9 s
    assert shown[first] - shown[0] == pytest.approx(8 * 1.7 + 0.3)
    del shown[first]
    beats = [int((at - shown[0]) // PLAIN_S) for at in shown]
    assert beats == list(range(int((clock.now - shown[0]) // PLAIN_S) + 1))


def test_steps_alone_come_at_the_first_chance_after_every_beat() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, clock)
    for second in range(0, 70, 7):
        clock.now = 100.0 + second
        progress.update(f"{second}")
    assert stream.getvalue().split() == ["0", "14", "21", "35", "42", "56", "63"]


def test_a_forced_line_shifts_nothing() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, clock)
    for second in range(25):
        clock.now = 50.0 + second
        progress.update(f"{second}", force=second == 8)
    assert stream.getvalue().split() == ["0", "8", "10", "20"]


def test_a_live_line_is_shown_again_at_once_after_another_line() -> None:
    clock, stream = Clock(), Terminal()
    progress = Progress(stream, clock)
    progress.update("one")
    assert not progress.due()
    progress.end()
    assert progress.due()
    progress.update("two")
    clock.now += 0.2
    progress.update("3")
    assert stream.getvalue() == "\rone\r   \r\rtwo\r3  "


def test_without_rich_a_terminal_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = Progress(stream, Clock(), block=True)
    progress.show(Board("step 1", 0.5), "step 1  loss 0.5")
    assert stream.getvalue() == "\rstep 1  loss 0.5"


def test_a_bar_fits_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    clock, later = Clock(), Later()
    tell = Progress(stream, clock, later).count("checking x", lambda count: f"{count} MB")
    tell(2, 4)
    clock.now += BAR_S
    tell(3, 4)
    (line,) = stream.getvalue().split("\r")[1:]
    assert line.startswith("checking x  ")
    assert line.endswith("   75 %  3 MB/4 MB")
    assert len(line) == 49


def test_a_quiet_command_shows_nothing() -> None:
    stream = io.StringIO()
    with click.Context(click.Command("x")) as context:
        context.meta["edgezo.quiet"] = True
        progress = Progress(stream, Clock())
        progress.update("a line", force=True)
        progress.count("rows")(1, 2)
        progress.show(Board("step 1"), "step 1")
    assert stream.getvalue() == ""


def test_work_of_unknown_length_is_counted() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, clock)
    for rows in range(0, 2000, 250):
        progress.part("tokenizing rows", rows, 0)
        clock.now += 3.0
    progress.part("measuring passes", 1, 0)  # other work tells its first line at once
    assert stream.getvalue().splitlines() == [
        "tokenizing rows", "tokenizing rows, 1000", "tokenizing rows, 1750", "measuring passes, 1",
    ]  # fmt: skip
    terminal = Terminal()
    live = Progress(terminal, clock, Later())
    live.part("tokenizing rows", 0, 0)
    clock.now += BAR_S
    live.part("tokenizing rows", 250, 0)
    assert terminal.getvalue().strip() == "tokenizing rows  250"


class Later:
    """Calls that are to come, made by hand."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None]]] = []
        self.cancelled = 0

    def __call__(self, seconds: float, call: Callable[[], None]) -> Later:
        self.waiting.append((seconds, call))
        return self

    def cancel(self) -> None:
        self.cancelled += 1


def test_work_that_tells_nothing_gets_a_bar_after_a_second() -> None:
    clock, stream, later = Clock(), Terminal(), Later()
    progress = Progress(stream, clock, later)
    progress.part("evaluating", 0, 50)
    ((seconds, call),) = later.waiting
    assert (seconds, stream.getvalue()) == (BAR_S, "")
    clock.now += seconds
    call()
    assert "evaluating" in stream.getvalue()
    assert stream.getvalue().endswith("  0 %  0/50")


def test_short_work_gets_no_bar() -> None:
    clock, stream, later = Clock(), Terminal(), Later()
    progress = Progress(stream, clock, later)
    for done in range(4):
        progress.part("reading", done, 3)
        clock.now += 0.3
    progress.end()
    assert later.cancelled == 1
    later.waiting[0][1]()  # the thread came too late to be cancelled
    assert stream.getvalue() == ""


def test_the_second_of_following_work_begins_with_it() -> None:
    clock, stream, later = Clock(), Terminal(), Later()
    progress = Progress(stream, clock, later)
    progress.part("reading", 0, 3)
    clock.now += 0.6
    progress.part("tokenizing", 0, 3)
    clock.now += 0.4
    later.waiting[0][1]()
    assert stream.getvalue() == ""
    assert later.waiting[1][0] == pytest.approx(0.6)
    clock.now += 0.6
    later.waiting[1][1]()
    assert "tokenizing" in stream.getvalue()
