"""`--config FILE`: settings from JSON or TOML, which replace defaults; flags replace them."""

from __future__ import annotations

import difflib
import json
import tomllib
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from edgezo.cli.settings.options import Function, field_names
from edgezo_runtime.errors import UsageError
from edgezo_runtime.system.files import read_regular
from edgezo_runtime.system.typed_json import parse_json

_LARGEST_FILE = 1 << 20
_LARGEST = 2**64

IGNORED = ("created_by",)
"""Keys of a run's config.json that are not settings."""

FORMER_NAMES = {"hybrid": "first_order", "hybrid_lr": "first_order_lr", "guard": "rollback"}
"""Names that settings had in earlier versions, which a config.json may hold."""


ONE_OR_MORE = ("data", "valid", "test")
"""Settings that are a list, for which a string or null may stand."""

YAML_SUFFIXES = (".yaml", ".yml")


def read_config(path: Path, classes: Sequence[type]) -> dict[str, Any]:
    """Read settings from a file.

    Args:
        path: a TOML file if it ends in .toml, else JSON.
        classes: dataclasses whose fields it may hold, by the field's name or its flag.
    Returns:
        Values by field name.
    Raises:
        UsageError: the file cannot be read, or a key or the type of a value is wrong.
    """
    known = field_names(classes)
    values: dict[str, Any] = {}
    for key, value in _parse(path).items():
        if key in IGNORED:
            continue
        key = FORMER_NAMES.get(key, key)
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"{path}: unknown setting {key!r:.80}{hint}")
        name, hint_type = known[key]
        if name in values:
            raise UsageError(f"{path}: {key!r} is set twice under different names")
        if name in ONE_OR_MORE and typing.get_origin(hint_type) is tuple:
            value = _as_list(value)
        values[name] = _check(path, key, value, hint_type)
    return values


def config_option(*classes: type) -> Callable[[Function], Function]:
    """The option --config, which sets the defaults of the other options."""

    def load(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
        if path is not None:
            ctx.default_map = {**(ctx.default_map or {}), **read_config(path, classes)}
        return path

    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=load,
        help="JSON or TOML file of settings; flags override it",
    )


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = read_regular(path, _LARGEST_FILE).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or a path with a NUL
        raise UsageError(f"--config {path}: cannot be read: {error}") from error
    try:
        content = tomllib.loads(text) if path.suffix.lower() == ".toml" else parse_json(text)
    except (ValueError, RecursionError) as error:
        if path.suffix.lower() in YAML_SUFFIXES:
            raise UsageError(
                f"--config {path}: YAML is not read; write the settings as TOML (FILE.toml: "
                "lr = 0.001) or as JSON"
            ) from error
        kind = "TOML" if path.suffix.lower() == ".toml" else "JSON"
        raise UsageError(f"--config {path}: not {kind}: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"--config {path}: expected an object of settings at the top")
    return content


def _as_list(value: Any) -> Any:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


def _check(path: Path, key: str, value: Any, hint: Any) -> Any:
    """Refuse values that the option's own parser would convert (1.5 steps, "no" as true)."""
    texts = value if isinstance(value, list) else [value]
    if any(isinstance(text, str) and not _is_plain(text) for text in texts):
        raise UsageError(
            f"{path}: {key!r} has a NUL, or characters that are not Unicode; remove them"
        )
    origin = typing.get_origin(hint)
    if value is None and origin in (typing.Union, types.UnionType):
        return None
    if origin in (typing.Union, types.UnionType):
        hint, *words = (part for part in typing.get_args(hint) if part is not type(None))
        if any(value in typing.get_args(word) for word in words):  # a number or a word
            return value
        origin = typing.get_origin(hint)
    if origin is tuple:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise _wrong(path, key, value, "a list of strings")
    if hint is bool and not isinstance(value, bool):
        raise _wrong(path, key, value, "true or false")
    if hint is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise _wrong(path, key, value, "a whole number")
    if hint is float and (isinstance(value, bool) or not isinstance(value, int | float | str)):
        raise _wrong(path, key, value, "a number")
    if hint is int and abs(value) >= _LARGEST:
        raise _wrong(path, key, value, "a smaller number")
    if hint not in (bool, int, float) and not isinstance(value, str):
        raise _wrong(path, key, value, "a string")
    return value


def _is_plain(text: str) -> bool:
    """Is it free of NULs and lone surrogates, which no path can have?"""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _shown(value: Any) -> str:
    try:
        return f"{json.dumps(value, default=str):.60}"
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        return f"a {type(value).__name__}"


def _wrong(path: Path, key: str, value: Any, expected: str) -> UsageError:
    return UsageError(f"{path}: {key!r:.80} is {_shown(value)}; expected {expected}")
