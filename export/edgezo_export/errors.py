"""Errors of the exporter.

EdgezoError
+-- UnsupportedModelError   the architecture, or a part of it, has no exporter
"""

from __future__ import annotations

from edgezo_runtime.errors import EdgezoError


class UnsupportedModelError(EdgezoError, ValueError):
    """The model cannot be cut into blocks; says which part stands in the way."""
