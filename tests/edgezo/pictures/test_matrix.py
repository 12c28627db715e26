"""Confusion matrices."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from edgezo.pictures.matrix import confusion_matrix

SVG = "{http://www.w3.org/2000/svg}"


def test_cells_are_shaded_by_the_share_of_their_line() -> None:
    svg = ElementTree.fromstring(confusion_matrix("x", [" bad", " good"], [[3, 1], [0, 0]]))
    cells = [own for own in svg.iter(f"{SVG}rect") if own.get("class") == "cell"]
    shades = [float(own.get("fill-opacity") or 0) for own in cells]
    assert shades == pytest.approx([0.465, 0.155, 0, 0], abs=0.006)
    told = [title.text for own in cells for title in own.iter(f"{SVG}title")]
    assert told[1] == "bad taken for good: 1 of 4 rows"
    assert [own.text for own in svg.iter(f"{SVG}text")].count("0") == 2


@pytest.mark.parametrize("count", [2, 6, 12, 40])
def test_it_fits_in_its_width(count: int) -> None:
    labels = [f"a long label {number}" for number in range(count)]
    counts = [[1] * count for _ in range(count)]
    svg = ElementTree.fromstring(confusion_matrix("x", labels, counts, 360))
    moved = float((next(svg.iter(f"{SVG}g")).get("transform") or "")[10:].split()[0])
    for cell in svg.iter(f"{SVG}rect"):
        assert moved + float(cell.get("x") or 0) + float(cell.get("width") or 0) <= 360
    texts = [own.text for own in svg.iter(f"{SVG}text")]
    assert ("1" in texts) == (count <= 12)
