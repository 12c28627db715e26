"""A picture as PNG, drawn by resvg."""

from __future__ import annotations

from edgezo_runtime.errors import EdgezoError, MissingExtraError

ZOOM = 2
"""Pixels of the image for one unit of the picture."""


def png(svg: str) -> bytes:
    """Draw an SVG file.

    Args:
        svg: its text.
    Raises:
        MissingExtraError: the extra `report` is not installed.
        EdgezoError: the picture cannot be drawn.
    """
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        raise MissingExtraError(
            "resvg-py is not installed, and drawing a PNG needs it; run pip install "
            "'edgezo[report]', or write an SVG file"
        ) from None
    try:
        return bytes(svg_to_bytes(svg_string=svg, zoom=ZOOM))
    except ValueError as error:
        raise EdgezoError(f"the picture cannot be drawn: {error}; write an SVG file") from error
