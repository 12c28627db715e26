"""The block of lines, as characters."""

from __future__ import annotations

import io

import pytest

from edgezo.cli.terminal.board import BLOCKS, PLAIN, Board, Gauge, bar, bar_line, glyphs_for

BOARD = Board(
    title="step 5 of 10",
    share=0.5,
    left="1m02s left",
    curve=[4.0, 3.0, 2.0, 1.0],
    curve_text="loss 0.3571",
    facts=["epoch 0.50", "validation 84.0 % at step 4", "32 rows/s", "900 tokens/s", "61 C"],
    gauges=[Gauge("memory", 0.75, "277 MB, peak 323 MB of 512 MB")],
)


def test_a_wide_block() -> None:
    assert BOARD.lines(80, PLAIN) == [
        "step 5 of 10  ####################....................   50 %  1m02s left",
        "loss 0.3571  #+-_",
        "epoch 0.50  validation 84.0 % at step 4  32 rows/s  900 tokens/s  61 C",
        "memory        #####################.......   75 %  277 MB, peak 323 MB of 512 MB",
    ]


@pytest.mark.parametrize("width", [20, 30, 40, 60, 200])
def test_a_narrow_terminal_cuts_nothing_important(width: int) -> None:
    lines = BOARD.lines(width, BLOCKS)
    assert all(len(line) <= width for line in lines)
    assert lines[0].startswith("step 5 of 10")
    assert len(lines) <= 8
    assert ("█" in lines[0]) == (width >= 48)


def test_bars() -> None:
    assert [bar(share, 4, PLAIN) for share in (-1, 0, 0.5, 1, 9)] == [
        "....", "....", "##..", "####", "####",
    ]  # fmt: skip
    assert bar_line("reading", None, "", 40, PLAIN) == "reading"
    words = "277 MB, peak 323 MB of 1.00 GB"  # it was cut to "of 1"
    assert bar_line("memory", 0.3, words, 40, PLAIN) == f"memory  {words}"
    assert bar_line("memory", 0.3, words, 46, PLAIN) == f"memory   30 %  {words}"


@pytest.mark.parametrize(
    ("encoding", "glyphs"),
    [("utf-8", BLOCKS), ("cp437", PLAIN), ("cp1252", PLAIN), ("ascii", PLAIN)],
)
def test_code_pages(encoding: str, glyphs: object) -> None:
    """That of the old Windows console has full blocks, but not those of a curve."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    assert glyphs_for(stream) is glyphs
    "".join(BOARD.lines(80, glyphs_for(stream))).encode(encoding)
