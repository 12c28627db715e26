"""Elements of SVG."""

from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from edgezo.pictures.svg import number, path, picture, tag, words


def test_elements() -> None:
    assert tag("line", x1=1.0, cls="a", stroke_width=2, fill=None) == (
        '<line x1="1" class="a" stroke-width="2"/>'
    )
    assert tag("g", tag("a"), name="b") == '<g name="b"><a/></g>'
    assert path([(0, 1), (2.5, -0.001)], "k", closed=True) == ('<path d="M0 1L2.5 0Z" class="k"/>')
    assert path([(0, 1)], "k") == ""
    assert [number(value) for value in (1.0, 0.125, -0.0, 1234.5)] == ["1", "0.12", "0", "1234.5"]


@given(st.text())
def test_any_text_is_well_formed(text: str) -> None:
    drawn = ElementTree.fromstring(picture(1, 1, text, words(0, 0, text, data_x=text)))
    found = drawn.findall("{http://www.w3.org/2000/svg}text")[0]
    plain = "".join(c for c in text if c.isprintable() and c.isascii())
    assert plain in "".join(c for c in (found.text or "") if c.isprintable() and c.isascii())
