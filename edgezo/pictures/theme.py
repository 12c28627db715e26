"""Colours and type of charts and pages, light and dark."""

from __future__ import annotations

import re
from collections.abc import Mapping

FONT = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, "
    "sans-serif"
)
MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"

SERIES = 6
"""Colours of lines; the seventh line has the first again."""

PARTS = (
    "process", "data", "graphs", "adapter", "prologue", "epilogue", "blocks", "texts",
    "activations", "reserve",
)  # fmt: skip
"""Parts of a ledger that have a colour each."""

LIGHT: Mapping[str, str] = {
    "page": "#f6f7f9", "panel": "#ffffff", "ink": "#16191d", "muted": "#59616b",
    "line": "#dfe3e8", "faint": "#eef0f3", "good": "#0b7a4b", "bad": "#b42318",
    "warn": "#8a5300", "warn-bg": "#fff6e5", "code": "#f3f5f7",
    "cell": "#1f5fd6",
    "s0": "#1f5fd6", "s1": "#c2410c", "s2": "#0b7f76", "s3": "#b8216b", "s4": "#6d39d6",
    "s5": "#557a0e",
    "process": "#74808f", "data": "#0e8fae", "graphs": "#8a5cf0", "adapter": "#d6337f",
    "prologue": "#6f9a16", "epilogue": "#c99a06", "blocks": "#2f6fe0", "texts": "#0fa394",
    "activations": "#e2661a", "reserve": "#e6e9ed",
}  # fmt: skip

DARK: Mapping[str, str] = {
    "page": "#0e1116", "panel": "#171b21", "ink": "#e9ecf1", "muted": "#a0aab6",
    "line": "#2e353f", "faint": "#222831", "good": "#4cc38a", "bad": "#ff8a80",
    "warn": "#f2c063", "warn-bg": "#2b2415", "code": "#10141a",
    "cell": "#2f63c0",
    "s0": "#7db0ff", "s1": "#ff9d5c", "s2": "#45cdbf", "s3": "#ff85bd", "s4": "#b79cff",
    "s5": "#b5d35c",
    "process": "#8d99a8", "data": "#33c1e0", "graphs": "#a98bff", "adapter": "#f472b0",
    "prologue": "#a4cf4a", "epilogue": "#eec84b", "blocks": "#6aa3ff", "texts": "#3fd0c0",
    "activations": "#ff9a55", "reserve": "#2a313a",
}  # fmt: skip

_RULES = """\
.chart .t{font:13px FONT;fill:var(--ink)}
.chart .m{fill:var(--muted)}
.chart .b{font-weight:600}
.chart .h{font:600 24px FONT;fill:var(--ink)}
.chart .small{font-size:12px}
.chart .halo{paint-order:stroke;stroke:var(--panel);stroke-width:4px;stroke-linejoin:round}
.chart .grid{stroke:var(--faint);stroke-width:1}
.chart .axis{stroke:var(--line);stroke-width:1}
.chart .rule{stroke:var(--muted);stroke-width:1.25;stroke-dasharray:5 4}
.chart .event{stroke:var(--warn);stroke-width:1.5;stroke-dasharray:2 3}
.chart .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.chart .thin{fill:none;stroke-width:1;opacity:.38}
.chart .dashed{fill:none;stroke-width:1.5;stroke-dasharray:5 4}
.chart .band{opacity:.13;stroke:none}
.chart .ring{fill:var(--panel);stroke-width:2.5}
.chart .back{fill:var(--panel)}
.chart .track{fill:var(--reserve)}
.chart .cell{fill:var(--cell)}
"""


def variables(theme: Mapping[str, str]) -> str:
    """The colours as custom properties of CSS."""
    return "".join(f"--{name}:{value};" for name, value in theme.items())


def chart_rules() -> str:
    """CSS of charts, whose colours are custom properties."""
    colours = [f".f-s{n}{{fill:var(--s{n})}}.k-s{n}{{stroke:var(--s{n})}}" for n in range(SERIES)]
    colours += [f".f-{name}{{fill:var(--{name})}}" for name in PARTS]
    return _RULES.replace("FONT", FONT) + "\n".join(colours) + "\n"


def fixed_rules(theme: Mapping[str, str]) -> str:
    """CSS of charts with the colours of one theme, for programs without custom properties."""
    return re.sub(r"var\(--([a-z0-9-]+)\)", lambda found: theme[found[1]], chart_rules())


def contrast(one: str, other: str) -> float:
    """Contrast of two colours "#rrggbb", 1 to 21, as WCAG 2 defines it."""
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
