"""Bars."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from edgezo.pictures.bars import bar_drawing, gauge, part_class, stacked_bar

RECT = "{http://www.w3.org/2000/svg}rect"


def test_parts_are_as_wide_as_they_are_large() -> None:
    parts = [("blocks", 300.0, "a"), ("process", 100.0, "b")]
    svg = ElementTree.fromstring(stacked_bar("x", parts, 400))
    found = [(float(r.get("x") or 0), float(r.get("width") or 0)) for r in svg.iter(RECT)]
    assert found == [(0, 298.5), (300, 98.5)]
    assert [r.get("class") for r in svg.iter(RECT)] == ["f-blocks", "f-process"]
    assert bar_drawing([], 100) == ""
    assert part_class("other", 7) == "f-s1"


@pytest.mark.parametrize(("share", "width"), [(0.5, 100), (1.7, 200), (-1, 0)])
def test_a_gauge(share: float, width: float) -> None:
    svg = ElementTree.fromstring(gauge("x", share, 0.25, 200))
    track, bar, mark = svg.iter(RECT)
    assert (float(track.get("width") or 0), float(bar.get("width") or 0)) == (200, width)
    assert float(mark.get("x") or 0) == 49
    assert (bar.get("class") == "f-s1") == (share > 1)
