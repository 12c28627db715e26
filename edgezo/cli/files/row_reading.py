"""How a command reads rows: by its options, else as the adapter was tuned, else as the data say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgezo.cli.files.task_data import read_task
from edgezo_runtime.data.reading import NAMES, Reading, SettledReading, settle_reading
from edgezo_runtime.errors import MissingFieldError, printable

_OPTIONS = {"labels": "label"}
"""Settings whose option has another name."""

_ORIGINS = {
    "given": "",
    "adapter": " (of the adapter)",
    "data": " (of task.json)",
    "default": "",
}


def settle_rows(
    options: object, adapter: Reading | None, source: Path | None, longest: int
) -> SettledReading:
    """Settle how the rows of a command are read.

    Args:
        options: has the command's options as attributes.
        adapter: reading of the adapter or of the run; None if there is none.
        source: file or folder of the rows; task.json of a folder has a template and label words.
        longest: most tokens of a row that the model takes.
    Raises:
        UsageError: the settings contradict each other.
        DataError: task.json is wrong.
    """
    given = {name: getattr(options, _OPTIONS.get(name, name)) for name in NAMES}
    offered: dict[str, Any] = {}
    if source is not None and source.is_dir() and not (given["template"] or given["labels"]):
        template, labels = read_task(source)
        offered = {} if template is None else {"template": template, "labels": labels}
    return settle_reading(given, adapter, offered, longest=longest)


@contextlib.contextmanager
def naming_the_template(settled: SettledReading) -> Iterator[None]:
    """Say where the template is from if a row lacks a field of it."""
    try:
        yield
    except MissingFieldError as error:
        if settled.origins["template"] != "adapter":
            raise
        raise MissingFieldError(
            f"{error}. The template is that of the adapter, {settled.reading.template!r:.80}; for "
            f"other rows give `template`, or `template=none` for rows that need none"
        ) from error


def reading_lines(settled: SettledReading) -> list[tuple[str, str]]:
    """Template and labels, and where they come from, for people."""
    reading = settled.reading
    origin = {name: _ORIGINS[settled.origins.get(name, "default")] for name in NAMES}
    template = "none" if reading.template is None else quoted(reading.template)
    lines = [("template", template + origin["template"])]
    if reading.labels:
        words = ", ".join(map(quoted, reading.labels))
        lines.append(("labels", words + origin["labels"]))
    return [*lines, ("longest row", f"{reading.max_seq} tokens{origin['max_seq']}")]


def reading_as_json(settled: SettledReading) -> dict[str, Any]:
    """The settings and their origins, for machines."""
    values: Mapping[str, Any] = {name: getattr(settled.reading, name) for name in NAMES}
    return {**values, "origins": dict(settled.origins)}


def quoted(text: str) -> str:
    """A text in quotes, harmless to a terminal."""
    return f"'{printable(text, 200)}'"
