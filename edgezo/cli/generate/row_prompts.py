"""Prompts of `edgezo generate` that are made of rows, by a template or by the chat template."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgezo.cli.files.row_reading import naming_the_template, quoted, settle_rows
from edgezo.cli.generate.loaded_generator import LoadedGenerator
from edgezo_runtime.data.prompts import prompt_tokens
from edgezo_runtime.data.reading import LongRows, SettledReading, TrainOn
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.template import Template
from edgezo_runtime.errors import DataError
from edgezo_runtime.system.typed_json import JsonShapeError, parse_json


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of `edgezo generate` that say how rows are read."""

    template: str | None
    label: tuple[str, ...] = ()
    max_seq: int | None = None
    train_on: TrainOn | None = None
    long: LongRows | None = None


@dataclass(frozen=True, slots=True)
class RowPrompts:
    """Makes prompts of rows.

    Attributes:
        settled: template and longest row.
        opened: tokenizer, adapter, model.
        most: most tokens of a prompt.
    """

    settled: SettledReading
    opened: LoadedGenerator
    most: int

    @classmethod
    def of(cls, opened: LoadedGenerator, template: str | None, new_tokens: int) -> RowPrompts:
        """Settle how rows are read.

        Args:
            opened: tokenizer, adapter, model.
            template: the option; None takes the template of the adapter.
            new_tokens: most tokens of a generated text.
        """
        longest = opened.generator.engine.bundle.manifest.model.max_seq
        settled = settle_rows(_Options(template), opened.tuned.reading, None, longest)
        return cls(settled, opened, max(1, min(settled.reading.max_seq, longest - new_tokens)))

    def tokens(self, rows: Sequence[str]) -> list[list[int]]:
        """The prompts of some rows.

        Args:
            rows: each in JSON.
        Raises:
            DataError: a row is not JSON, lacks a field of the template, or is no conversation.
            UsageError: a row needs a template, and there is none.
            BundleError: a row is a conversation, and the bundle has no usable chat template.
        """
        reader = RowReader(self.opened.tokenizer, **self.settled.reading.settings())
        with naming_the_template(self.settled):
            return [prompt_tokens(reader, _parse(row), self.most) for row in rows]

    def warnings(self, texts: Sequence[str], others: Sequence[str]) -> list[str]:
        """Warn of what differs from the adapter: its bundle, its template, other settings.

        Args:
            texts: prompts that are used as they are.
            others: further differences.
        """
        found = self.settled.warnings(*self.opened.tuned.differences, *others)
        template = None if self.opened.tuned.reading is None else self.opened.tuned.reading.template
        if template is not None:
            parts = map(re.escape, Template.parse(template).literals)
            pattern = re.compile("(?s:.*)".join(parts))
            if strange := sum(text != "-" and not pattern.fullmatch(text) for text in texts):
                found.append(
                    f"the adapter was tuned on prompts of the template {quoted(template)}, and "
                    f"{strange} of the prompts are not; --row makes one of the fields of a row"
                )
        return found


def _parse(row: str) -> Any:
    """The value of a row; texts and numbers are refused, because --prompt takes texts.

    Raises:
        DataError: the row is no JSON object or array.
    """
    try:
        value = parse_json(row)
    except JsonShapeError as error:
        raise DataError(f"--row {row:.80}: {error}") from error
    if not isinstance(value, (dict, list)):
        raise DataError(f"--row {row:.80}: expected an object of fields, or an array of messages")
    return value
