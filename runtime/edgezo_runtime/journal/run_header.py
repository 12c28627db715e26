"""The inputs of a run, as the header of its journal records them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import AnswerSettings, TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.reading import Reading
from edgezo_runtime.data.scope import Scope, invocation
from edgezo_runtime.errors import RunFileError, UsageError, printable
from edgezo_runtime.methods.config_check import check_config
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.system.typed_json import JsonShapeError, decode, encode

_NO_INPUTS = ("rates", "reading")
"""Fields that do not identify a run: rates may be measured, and `tokens` says what a reading makes
of the rows."""

_OMITTED_IF_EMPTY = ("start", "reward", "reading", "held_out")
MAX_ROWS = 2**40

_FORMAT_NAMES = {
    "config": {"first_order": "hybrid", "first_order_lr": "hybrid_lr", "rollback": "guard"},
    "rates": {"num_first_order": "tail", "first_order_lr": "tail_lr"},
}
"""Fields that have another name in a journal: the file format keeps its first names."""


@dataclass(frozen=True, slots=True)
class RunHeader:
    """The inputs of a run, and the rates that were measured before its first step.

    Attributes:
        config: how to tune; fields that may change when a run is resumed have their defaults.
        bundle: SHA-256 of each file of the bundle, by name.
        data: SHA-256 of the file of examples.
        tokens: SHA-256 of the tokens that template, labels and tokenizer make of the examples.
        rows: number of examples.
        scope: tokens that the adapters act on.
        invocation: the token at which answers begin, if it is always the same.
        rates: learning rates and perturbation scale of the run.
        start: SHA-256 of the tensors of the initial adapter; empty without one.
        reward: name and digest of the function that scores texts; empty without one.
        reading: how rows became tokens; None if the run was given tokens.
        held_out: rows of the file that the run holds out of its examples, to evaluate on.
    """

    config: TuneConfig
    bundle: dict[str, str]
    data: str
    tokens: str
    rows: int
    scope: Scope
    invocation: tuple[int, ...]
    rates: Rates
    start: str = ""
    reward: str = ""
    reading: Reading | None = None
    held_out: int = 0

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        config: TuneConfig,
        examples: ExampleSet,
        scope: Scope,
        rates: Rates,
        start: str = "",
        reward: str = "",
    ) -> RunHeader:
        """The header of a new run."""
        return cls(
            config,
            {name: info.sha256 for name, info in sorted(bundle.manifest.files.items())},
            examples.sha256,
            examples.tokens_sha256(),
            len(examples),
            scope,
            invocation(examples),
            rates,
            start,
            reward,
            examples.reading,
            examples.held_out,
        )

    @classmethod
    def read(cls, meta: Mapping[str, Any], path: Path) -> RunHeader:
        """Read the header of a journal.

        Args:
            meta: its JSON values.
            path: of the journal, for the message.

        Raises:
            RunFileError: the values are not those of a run.
        """
        try:
            header = decode(cls, _renamed(meta, to_format=False))
            check_config(header.config)
            header.rates.check()
            if header.reading is not None:
                header.reading.check()
        except (JsonShapeError, UsageError) as error:
            raise RunFileError(
                f"{path}: the header is no run's: {printable(error, 400)}; was it made by another "
                f"version of edgezo?"
            ) from error
        if not 1 <= header.rows <= MAX_ROWS or not 0 <= header.held_out <= MAX_ROWS:
            raise RunFileError(
                f"{path}: the header has {header.rows} rows, and holds out {header.held_out}"
            )
        return header

    def as_json(self) -> dict[str, Any]:
        """JSON values for a journal, in the form in which they are read again (0.0 for 0)."""
        return _renamed(self._values(), to_format=True)

    def _values(self) -> dict[str, Any]:
        """JSON values under the names of the fields."""
        config = decode(TuneConfig, encode(self.config.identity()), "config")
        values = {**encode(self), "config": encode(config.identity())}
        for name in _OMITTED_IF_EMPTY:
            if not values[name]:
                del values[name]
        return values

    def inputs(self) -> dict[str, Any]:
        """Values that must not change."""
        return {name: value for name, value in self._values().items() if name not in _NO_INPUTS}

    @property
    def answers(self) -> AnswerSettings | None:
        """How answers were generated, if they were scored."""
        if self.reading is None:
            return None
        return self.config.answers(classes=bool(self.reading.labels))

    def digest(self) -> str:
        """SHA-256 of the inputs."""
        inputs = _renamed(self.inputs(), to_format=True)
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _renamed(values: Mapping[str, Any], *, to_format: bool) -> dict[str, Any]:
    """The values of a header under the names of the format, or under those of the fields."""
    found = dict(values)
    for group, names in _FORMAT_NAMES.items():
        inner = found.get(group)
        if isinstance(inner, dict):
            known = names if to_format else {old: new for new, old in names.items()}
            found[group] = {known.get(name, name): value for name, value in inner.items()}
    return found


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Describe the differences of two JSON objects; empty if there are none."""
    found: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found.extend(f"{printable(key)}.{text}" for text in differences(before, after))
        elif before != after:
            found.append(f"{printable(key)} was {before!r:.60}, is {after!r:.60}")
    return found
