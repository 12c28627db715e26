"""Confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence

from edgezo.pictures.svg import escaped, picture, tag, words

_MOST_LABEL = 14
_MOST_COUNTS = 12
"""Classes up to which the cells have their counts."""


_DARKEST = 0.62
"""Opacity of the shade of a whole line; counts can be read on it."""


def confusion_matrix(
    title: str, labels: Sequence[str], counts: Sequence[Sequence[int]], width: float = 360
) -> str:
    """Rows of the data by right class (down) and by predicted class (across).

    Each line is shaded by the shares of its right class.

    Args:
        title: in words.
        labels: names of the classes.
        counts: (C, C), by right class, then by predicted class.
        width: of the picture.
    """
    names = [_short(label) for label in labels]
    count = len(counts)
    left = min(110.0, 20 + 7.2 * max(map(len, names)))
    slanted = count > 3
    top = 34.0 + (min(60.0, 4.4 * max(map(len, names))) if slanted else 14.0)
    size = min((width - left - 10 - (30 if slanted else 0)) / count, 96.0)
    shift = max(0.0, (width - left - size * count) / 2 - 20)
    drawn = [words(left, 13, "predicted", "t m small"), words(0, top - 8, "right", "t m small")]
    for index, name in enumerate(names):
        middle = left + size * (index + 0.5)
        turn = f"rotate(-38 {middle:.1f} {top - 8:.1f})" if slanted else None
        anchor = "start" if slanted else "middle"
        drawn.append(words(middle, top - 8, name, "t small", text_anchor=anchor, transform=turn))
        y = top + size * (index + 0.5) + 4
        drawn.append(words(left - 8, y, name, "t small", text_anchor="end"))
    for right, row in enumerate(counts):
        whole = sum(row)
        for predicted, cell in enumerate(row):
            share = cell / whole if whole else 0.0
            told = f"{names[right]} taken for {names[predicted]}: {cell} of {whole} rows"
            x, y = left + size * predicted, top + size * right
            drawn.append(_cell(x, y, size, share, told))
            if count <= _MOST_COUNTS:
                middle_y = y + size / 2 + 4
                drawn.append(words(x + size / 2, middle_y, cell, "t b", text_anchor="middle"))
    moved = tag("g", *drawn, transform=f"translate({shift:.1f} 0)")
    return picture(width, top + size * count + 4, title, moved)


def _cell(x: float, y: float, size: float, share: float, told: str) -> str:
    place = {"x": x + 1, "y": y + 1, "width": size - 2, "height": size - 2, "rx": 3.0}
    back = tag("rect", cls="track", **place)
    return back + tag(
        "rect",
        tag("title", escaped(told)),
        cls="cell",
        fill_opacity=round(_DARKEST * share, 3),
        **place,
    )


def _short(label: str) -> str:
    text = label.strip() or label
    return text if len(text) <= _MOST_LABEL else text[: _MOST_LABEL - 1] + "…"
