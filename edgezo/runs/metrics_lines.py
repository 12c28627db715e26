"""Lines of a run's metrics.jsonl: one JSON object for every step, evaluation and event."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from edgezo_runtime.system.typed_json import parse_object

_LONGEST_LINE = 1 << 20


def metrics_lines(file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines with their objects, up to the first one that is not an entry.

    Args:
        file: the metrics, at their beginning.
    """
    while (line := file.readline(_LONGEST_LINE)).endswith(b"\n"):
        try:
            text = line.decode("utf-8")
            entry = parse_object(text)
        except ValueError:
            return
        if type(entry.get("event")) is not str or type(entry.get("step")) is not int:
            return
        yield text, entry
