"""Lines that are redrawn in place, on a terminal that an emulator plays."""

from __future__ import annotations

import io
import re
from importlib.util import find_spec

import pytest

from edgezo.cli.terminal.board import Board
from edgezo.cli.terminal.live_block import LiveBlock
from edgezo.cli.terminal.progress import Progress

pytestmark = pytest.mark.skipif(find_spec("rich") is None, reason="rich is not installed")


class Terminal(io.StringIO):
    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


def screen(written: str) -> list[str]:
    """What a terminal shows after some output: lines, carriage returns, moves up, erased lines."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1] or 1)
        elif part.endswith("K") and part.startswith("\x1b"):
            lines[row] = ""
        elif not part.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


@pytest.fixture(autouse=True)
def terminal_of_80(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("COLUMNS", "80"), ("LINES", "30"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_lines_are_redrawn_in_place_and_removed() -> None:
    stream = Terminal()
    block = LiveBlock(stream)
    block.show(["one  ####", "two"])
    assert screen(stream.getvalue()) == ["one  ####", "two"]
    block.show(["three", "four", "five"])
    assert screen(stream.getvalue()) == ["three", "four", "five"]
    block.remove()
    assert screen(stream.getvalue()) == []
    stream.write("a note\n")
    block.show(["six"])
    assert screen(stream.getvalue()) == ["a note", "six"]


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    def colours() -> list[str]:
        stream = Terminal()
        block = LiveBlock(stream)
        block.show(["one  ####"])
        block.remove()
        return re.findall(r"\x1b\[[\d;]*3\d[\d;]*m", stream.getvalue())

    assert colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert colours() == []


def test_a_narrow_terminal_wraps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    block = LiveBlock(stream)
    assert block.width == 29
    block.show(["x" * 100, "y"])
    assert screen(stream.getvalue()) == ["x" * 30, "y"]
    block.remove()


def test_evaluations_are_shown_below_the_steps() -> None:
    stream = Terminal()
    now = [0.0]
    progress = Progress(stream, lambda: now[0], block=True)
    progress.show(Board("step 1", 0.25, facts=["32 rows/s"]), "step 1, a line")
    now[0] += 1
    count = progress.count("evaluating")
    count(0, 10)
    now[0] += 2  # a bar comes once the work takes a second
    count(5, 10)
    first, second, third = screen(stream.getvalue())
    assert first.startswith("step 1  █")
    assert (second, third.split()[0], third.split()[-1]) == ("32 rows/s", "evaluating", "5/10")
    progress.end()
    assert screen(stream.getvalue()) == []


def test_a_dumb_terminal_and_a_pipe_get_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    Progress(pipe, block=True).show(Board("step 1"), "a line")
    monkeypatch.setenv("TERM", "dumb")
    dumb = Terminal()
    Progress(dumb, block=True).show(Board("step 1"), "a line")
    assert pipe.getvalue() == dumb.getvalue() == "a line\n"
