"""Readings: the settings by which rows become tokens.

A run stores its reading in its journal and in its adapter, so that whoever has the adapter can read
rows as the run did. A setting is one field here, under the name that it has in `RowReader`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgezo_runtime.data.template import Template
from edgezo_runtime.errors import UsageError

NO_TEMPLATE = "none"
"""Takes no template, neither of an adapter nor of the data. A template names a field, so this word
is none."""

MAX_SEQ = 512
"""Longest row in tokens, unless the model takes fewer or another limit is set."""

TrainOn = Literal["all", "last"]
"""Turns of the assistant that are scored in a conversation, but for those with weight 0."""

LongRows = Literal["truncate", "drop"]
"""What happens to rows that are longer than `max_seq`: they are cut, or left out."""

_TASK = ("template", "labels")
"""Settings that belong together: label words need a template."""

Origin = Literal["given", "adapter", "data", "default"]
"""Where the value of a setting comes from."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows become tokens, besides the tokenizer; fields as in `RowReader`.

    Attributes:
        template: prompt with fields of the row in braces; None reads a row by its own fields.
        labels: label words in class order.
        max_seq: longest row in tokens.
        train_on: turns of the assistant that are scored.
        long: what happens to rows that are longer.
    """

    template: str | None = None
    labels: tuple[str, ...] = ()
    max_seq: int = MAX_SEQ
    train_on: TrainOn = "all"
    long: LongRows = "truncate"

    @classmethod
    def of(cls, reader: Any) -> Reading:
        """The settings of an object that has them as attributes, such as a `RowReader`."""
        return cls(**{name: getattr(reader, name) for name in NAMES})

    def settings(self) -> dict[str, Any]:
        """The settings by name, as `RowReader` takes them."""
        return {name: getattr(self, name) for name in NAMES}

    def check(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            UsageError: naming the setting.
        """
        if self.max_seq < 1:
            raise UsageError(f"max_seq must be 1 token or more, not {self.max_seq}")
        if self.labels and self.template is None:
            raise UsageError(
                "label words need a prompt; give `template` '{field} ...' with `labels`"
            )
        if self.template is not None:
            Template.parse(self.template)

    def differences(self, now: Reading) -> list[str]:
        """Describe how another reading differs from this one; empty if it does not."""
        found = []
        for name in NAMES:
            old, new = getattr(self, name), getattr(now, name)
            if old == new:
                continue
            text = f"`{name}` was {_shown(old)}, is {_shown(new)}"
            if name == "labels" and sorted(old) == sorted(new):
                text += " (the same words in another order are other classes)"
            found.append(text)
        return found


NAMES = tuple(one.name for one in dataclasses.fields(Reading))
"""The settings of a reading."""

_DEFAULTS = Reading()


@dataclass(frozen=True, slots=True)
class SettledReading:
    """A reading, and where each of its settings comes from.

    Attributes:
        reading: the settings.
        origins: by setting.
        differences: settings that were given, and differ from those of the adapter.
        unused: settings that come with the data, and that the adapter has otherwise.
    """

    reading: Reading
    origins: Mapping[str, Origin] = field(default_factory=dict)
    differences: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def warnings(self, *others: str) -> list[str]:
        """Sentences about what differs between the adapter, the data and the settings.

        Args:
            others: further differences from the adapter.
        """
        differences = [*others, *self.differences]
        found = [f"the adapter was tuned otherwise: {'; '.join(differences)}"] * bool(differences)
        if self.unused:
            names = " and ".join(f"`{name}`" for name in self.unused)
            found.append(
                f"{names} of the data's task.json: not used, because the adapter was tuned with "
                f"others; give them to use them"
            )
        return found


def settle_reading(
    given: Mapping[str, Any],
    adapter: Reading | None = None,
    data: Mapping[str, Any] | None = None,
    *,
    longest: int,
) -> SettledReading:
    """Settle how rows are read: given settings go before the adapter's, those before the data's.

    An adapter without a template leaves template and labels to the data.

    Args:
        given: the settings that the user gives; None and () are not given, and the template
            `NO_TEMPLATE` stands for none.
        adapter: reading of the adapter or of the run; None if there is none.
        data: template and labels that come with the data; taken together, and only where neither
            is given.
        longest: most tokens of a row that the model takes.
    Raises:
        UsageError: the settings contradict each other.
    """
    given = {name: value for name, value in given.items() if value not in (None, ())}
    plain = given.get("template") == NO_TEMPLATE
    known = {} if adapter is None else adapter.settings()
    if plain or (adapter is not None and adapter.template is None):
        known = {name: value for name, value in known.items() if name not in _TASK}
    offered = {} if data is None or any(name in given for name in _TASK) else dict(data)
    layers: tuple[tuple[Origin, Mapping[str, Any]], ...] = (
        ("given", given | ({"template": None} if plain else {})),
        ("adapter", known),
        ("data", offered),
        ("default", _DEFAULTS.settings()),
    )
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for name in NAMES:
        origins[name], values[name] = next(
            (origin, layer[name]) for origin, layer in layers if name in layer
        )
    values["max_seq"] = min(values["max_seq"], longest)
    reading = Reading(**values)
    reading.check()
    own = adapter and dataclasses.replace(adapter, max_seq=min(adapter.max_seq, longest))
    return SettledReading(
        reading,
        origins,
        () if own is None else tuple(own.differences(reading)),
        tuple(name for name, value in offered.items() if value != values[name]),
    )


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(f'{word!r:.40}' for word in value[:8])}{', ...' * (len(value) > 8)}]"
    return "none" if value is None else f"{value!r:.80}"
