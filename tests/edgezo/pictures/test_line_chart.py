"""Curves."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from edgezo.pictures.line_chart import Band, Line, LineChart, Mark

SVG = "{http://www.w3.org/2000/svg}"


def drawn(chart: LineChart, width: float = 360, height: float = 250) -> ElementTree.Element:
    return ElementTree.fromstring(chart.svg(width, height))


def texts(svg: ElementTree.Element) -> list[str]:
    return [found.text or "" for found in svg.iter(f"{SVG}text")]


def test_everything_is_there() -> None:
    chart = LineChart(
        "Loss & more",
        [Line([(0, 1.0), (10, 0.5), (20, 0.25)], "loss", 1, "dots")],
        bands=[Band([(0, 0.9, 1.1), (20, 0.2, 0.3)])],
        marks=[Mark((10, 0.5), "best")],
        limits=[(1.4, "limit")],
        events=[(5, "<why>")],
    )
    svg = drawn(chart)
    assert {"best", "limit", "1"} <= set(texts(svg))
    assert svg.findall(f".//{SVG}title")[0].text == "Loss & more"
    assert "<why>" in [found.text for found in svg.iter(f"{SVG}title")]
    assert len(list(svg.iter(f"{SVG}circle"))) == 4
    assert len(list(svg.iter(f"{SVG}path"))) == 2


def test_a_curve_is_where_its_numbers_are() -> None:
    """The lowest number lies at the bottom of the area, the highest at its top."""
    svg = drawn(LineChart("x", [Line([(0, 0.0), (100, 1.0)])]), 360, 250)
    path = next(svg.iter(f"{SVG}path")).get("d") or ""
    (x0, y0), (x1, y1) = [tuple(map(float, pair.split())) for pair in path[1:].split("L")]
    assert (y0, y1, x1) == (250 - 36, 14, 360 - 14)
    assert x0 < 50


def test_numbers_beyond_the_top_stay_in_the_picture() -> None:
    svg = drawn(LineChart("x", [Line([(0, 1.0), (1, 1e6), (2, 1.0)])], top=2.0))
    places = re.findall(r"[\d.]+ ([\d.]+)", next(svg.iter(f"{SVG}path")).get("d") or "")
    assert min(map(float, places)) >= 14


def test_labels_stay_in_the_picture() -> None:
    marks = [Mark((0, 1.0), "kept: .123456"), Mark((1, 1.0), "kept: .123456")]
    svg = drawn(LineChart("x", [Line([(0, 1.0), (1, 1.0)])], marks=marks))
    places = [
        (float(text.get("x") or 0), 3.5 * len(text.text or ""))
        for text in svg.iter(f"{SVG}text")
        if (text.text or "").startswith("kept")
    ]
    assert len(places) == 2
    assert all(half <= place <= 360 - half for place, half in places)


def test_nothing_to_draw() -> None:
    assert texts(drawn(LineChart("x", [Line([])]))) == ["nothing was recorded"]


def test_a_single_point_is_a_dot() -> None:
    svg = drawn(LineChart("x", [Line([(3, 0.7)])]))
    assert len(list(svg.iter(f"{SVG}circle"))) == 1
