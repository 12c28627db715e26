"""Elements of SVG as text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]|[\ud800-\udfff]")
"""Characters that XML does not allow."""


def escaped(text: object) -> str:
    """A text as content or attribute of an element."""
    return html.escape(_UNPRINTABLE.sub("\ufffd", str(text)), quote=True)


def number(value: float) -> str:
    """A coordinate, with at most two decimals."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def tag(name: str, /, *children: str, **attributes: object) -> str:
    """An element.

    Args:
        name: of the element.
        children: its content, escaped.
        attributes: by name; `cls` is class, an underscore a hyphen; None leaves one out.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            text = number(value) if isinstance(value, float) else escaped(value)
            parts.append(f'{"class" if key == "cls" else key.replace("_", "-")}="{text}"')
    opened = " ".join(parts)
    return f"<{opened}>{''.join(children)}</{name}>" if children else f"<{opened}/>"


def words(x: float, y: float, text: object, cls: str = "t", **attributes: object) -> str:
    """A line of text with its baseline at a point."""
    return tag("text", escaped(text), x=float(x), y=float(y), cls=cls, **attributes)


def path(points: Iterable[tuple[float, float]], cls: str, *, closed: bool = False) -> str:
    """A line through points; "" for fewer than two."""
    places = [f"{number(x)} {number(y)}" for x, y in points]
    if len(places) < 2:
        return ""
    return tag("path", d="M" + "L".join(places) + ("Z" if closed else ""), cls=cls)


def picture(width: float, height: float, title: str, *children: str, cls: str = "chart") -> str:
    """A picture, described by its title for those who do not see it."""
    return tag(
        "svg",
        tag("title", escaped(title)),
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        cls=cls,
    )
