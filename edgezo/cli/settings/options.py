"""Command line options made from the fields of frozen dataclasses: each setting is written once.

A field's name, type, default and help become the flag. A `--config` file may hold the same fields,
and a run's config.json keeps them. A help text names other settings in backquotes.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from edgezo_runtime.config import OWN_RULE

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])

_KNOWN_NAMES = {
    "method": ("edgezo_runtime.methods.catalogue", "METHODS"),
    "rule": ("edgezo_runtime.methods.rules", "RULES", OWN_RULE),
    "lr_schedule": ("edgezo_runtime.methods.lr_schedules", "LR_SCHEDULES"),
    "format": ("edgezo_runtime.adapters.formats", "FORMATS"),
    "trainable": ("edgezo_runtime.bundle.manifest", "SCHEME_KINDS"),
}
"""Fields whose values are the keys of a dict in the runtime: its module, its name, more words."""

_NAME = re.compile(r"`([a-z][a-z0-9_]*)`")

_MOST_SHOWN = 12
"""Names that a help text lists; of more it shows NAME."""

_DURATION = re.compile(r"(?=.)" + "".join(rf"(?:(\d+\.?\d*|\.\d+){unit})?" for unit in "dhms"))
_PART_SECONDS = (86400.0, 3600.0, 60.0, 1.0)


def setting(default: Any, help: str, *, flags: tuple[str, ...] = (), metavar: str = "") -> Any:
    """Make a dataclass field that becomes an option.

    Args:
        default: its default; `dataclasses.MISSING` makes the option required.
        help: a noun or an imperative first; other settings in backquotes.
        flags: in place of the flag made from the field's name.
        metavar: what stands for the value in the help.
    """
    metadata = {"help": help, "flags": flags, "metavar": metavar}
    return dataclasses.field(default=default, metadata=metadata)


def options_of(*classes: type, hidden: bool = False) -> Callable[[Function], Function]:
    """Add an option for every field of some dataclasses.

    The command gets the values as keyword arguments under the fields' names; `build` collects them.

    Args:
        classes: the dataclasses.
        hidden: leave the options out of the help.
    """

    def decorate(function: Function) -> Function:
        for cls in reversed(classes):
            hints = typing.get_type_hints(cls)
            for field in reversed(flat_fields(cls)):
                function = _option(field, hints[field.name], hidden)(function)
        return function

    return decorate


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """Make a dataclass from a command's keyword arguments, of which it takes its own."""
    fields = dataclasses.fields(typing.cast(Any, cls))
    return cls(**{field.name: values[field.name] for field in fields})


def given_options(names: Iterable[str]) -> set[str]:
    """Those of some options of the running command that a flag or a file sets."""
    source = click.get_current_context().get_parameter_source
    return {name for name in names if source(name) is not ParameterSource.DEFAULT}


def flat_fields(cls: type) -> list[dataclasses.Field[Any]]:
    """The fields of a dataclass that are settings: those that are not dataclasses."""
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(typing.cast(Any, cls))
    return [field for field in fields if not dataclasses.is_dataclass(hints[field.name])]


def flag_name(field: str) -> str:
    """Flag of a field; that of `max_time_s` is --max-time, because the value carries its unit."""
    return "--" + field.removesuffix("_s").replace("_", "-")


def help_text(field: dataclasses.Field[Any]) -> str:
    """Help of a field, with the flags of the settings that it names."""
    return _NAME.sub(lambda found: flag_name(found[1]), field.metadata["help"])


def field_names(classes: Iterable[type]) -> dict[str, tuple[str, Any]]:
    """Every spelling of a setting in a file -> the field's name and type."""
    found: dict[str, tuple[str, Any]] = {}
    for cls in classes:
        hints = typing.get_type_hints(cls)
        for field in flat_fields(cls):
            flags = field.metadata.get("flags") or (flag_name(field.name),)
            entry = (field.name, hints[field.name])
            found[field.name] = entry
            for flag in flags:
                if flag.startswith("--"):
                    found[flag[2:]] = found[flag[2:].replace("-", "_")] = entry
    return found


def _option(
    field: dataclasses.Field[Any], hint: Any, hidden: bool
) -> Callable[[Function], Function]:
    flags = list(field.metadata.get("flags") or (flag_name(field.name),))
    settings: dict[str, Any] = {"help": help_text(field), "hidden": hidden}
    if hint is bool:
        flags = [f"{flag}/--no-{flag[2:]}" if flag.startswith("--") else flag for flag in flags]
    else:
        settings["type"] = _param_type(field, hint)
    if typing.get_origin(hint) is tuple:
        settings["multiple"] = True
    if field.default is dataclasses.MISSING:
        settings["required"] = True
    else:
        settings["default"] = field.default
        settings["show_default"] = field.default not in (None, "", ())
    if isinstance(settings.get("type"), Duration):
        shown = field.default if isinstance(field.default, str) else _shown(field.default)
        settings |= {"help": f"{settings['help']}  [default: {shown}]"}
        settings["show_default"] = False
    if field.metadata.get("metavar"):
        settings["metavar"] = field.metadata["metavar"]
    return click.option(*flags, field.name, **settings)


def _shown(seconds: Any) -> str:
    """A duration as it is written: "5m", "90s", "0"."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:g}m" if minutes and not rest else f"{seconds:g}{'s' if seconds else ''}"


def _param_type(field: dataclasses.Field[Any], hint: Any) -> Any:
    if field.name in _KNOWN_NAMES:
        return KeysOf(*_KNOWN_NAMES[field.name])
    if field.name.endswith("_s") and hint is float:
        return Duration()
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(parts) == 2 and field.name.endswith("_s"):
            return Duration(*typing.get_args(parts[1]))
        if len(parts) == 2:
            return NumberOrWord(*typing.get_args(parts[1]), kind=parts[0])
        (hint,) = parts
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return click.Choice(typing.get_args(hint))
    if origin is tuple:
        hint = typing.get_args(hint)[0]
    if hint is Path:
        return click.Path(path_type=Path)
    return hint


class KeysOf(click.ParamType):  # type: ignore[type-arg]  # no generic before click 8.4
    """One of some words, or of the keys of a dict, which is imported when the option is used."""

    name = "name"

    def __init__(self, module: str, attribute: str, *words: str) -> None:
        self._module = module
        self._attribute = attribute
        self._words = words

    def keys(self) -> list[str]:
        """The names that the option takes."""
        return [*self._words, *getattr(import_module(self._module), self._attribute)]

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The names, as `click.Choice` shows them, where they are few."""
        keys = self.keys()
        return f"[{'|'.join(keys)}]" if len(keys) <= _MOST_SHOWN else "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse an unknown name."""
        keys = self.keys()
        if value not in keys:
            self.fail(f"{value!r} is not one of {', '.join(keys)}", param, ctx)
        return str(value)


class Duration(click.ParamType):  # type: ignore[type-arg]  # no generic before click 8.4
    """A duration in seconds, written 90, 90s, 10m, 1h or 1h05m; or one of some words."""

    name = "duration"

    def __init__(self, *words: str) -> None:
        self._words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The words, then DURATION."""
        return "|".join([*self._words, "DURATION"])

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        """Seconds of a duration, or the word."""
        text = str(value).strip().lower()
        if text in self._words:
            return text
        try:
            return float(text)
        except ValueError:
            found = _DURATION.fullmatch(text)
        if found is None:
            self.fail(f"{value!r} is not a duration; write 90, 90s, 10m, 1h or 1h05m", param, ctx)
        parts = found.groups(default="0")
        return sum(float(part) * size for part, size in zip(parts, _PART_SECONDS, strict=True))


class NumberOrWord(click.ParamType):  # type: ignore[type-arg]  # no generic before click 8.4
    """A number or one of some words."""

    name = "number"

    def __init__(self, *words: str, kind: type[float] | type[int] = float) -> None:
        self._words = words
        self._kind = kind

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The words, then X for a number or N for a whole one."""
        return "|".join([*self._words, "X" if self._kind is float else "N"])

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | int | str:
        """The number or the word."""
        if value in self._words:
            return str(value)
        try:
            return self._kind(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor {' or '.join(self._words)}", param, ctx)
