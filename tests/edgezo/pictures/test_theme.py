"""Colours can be told apart, and texts can be read."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from edgezo.pictures.theme import (
    DARK,
    LIGHT,
    PARTS,
    SERIES,
    chart_rules,
    contrast,
    fixed_rules,
    variables,
)

THEMES = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])


def mixed(theme: Mapping[str, str], top: str, share: float, below: str) -> str:
    """A colour over another one."""
    pairs = [(theme[top][at : at + 2], theme[below][at : at + 2]) for at in (1, 3, 5)]
    parts = [round(int(one, 16) * share + int(two, 16) * (1 - share)) for one, two in pairs]
    return "#" + "".join(f"{part:02x}" for part in parts)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)  # the known limit
    assert contrast("#123456", "#123456") == 1


@THEMES
def test_texts_can_be_read(theme: Mapping[str, str]) -> None:
    for name in ("ink", "muted", "good", "bad", "warn"):
        for back in ("panel", "page", "code"):
            assert contrast(theme[name], theme[back]) >= 4.5, (name, back)
    assert contrast(theme["ink"], theme["warn-bg"]) >= 7
    for share in (0.0, 0.3, 0.62):
        assert contrast(theme["ink"], mixed(theme, "cell", share, "reserve")) >= 4.5


@THEMES
def test_lines_and_parts_can_be_seen(theme: Mapping[str, str]) -> None:
    for number in range(SERIES):
        assert contrast(theme[f"s{number}"], theme["panel"]) >= 3
    for part in PARTS[:-1]:
        assert contrast(theme[part], theme["panel"]) >= 2.3, part
    colours = [theme[name] for name in PARTS]
    assert len(set(colours)) == len(colours)


def test_both_themes_have_every_colour_of_the_rules() -> None:
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", chart_rules()))
    assert used <= LIGHT.keys() == DARK.keys()
    assert "var(" not in fixed_rules(DARK)
    assert "--ink:#" in variables(LIGHT)
