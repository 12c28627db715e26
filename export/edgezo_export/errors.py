"""Errors of the exporter.

EdgezoError
+-- UnsupportedModelError   the architecture, or a part of it, has no exporter
"""

from __future__ import annotations

from edgezo_runtime.errors import EdgezoError


class UnsupportedModelError(EdgezoError, ValueError):
    """The model cannot be split into blocks; the message names the part that prevents it."""
