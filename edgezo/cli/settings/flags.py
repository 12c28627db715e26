"""Settings in a message, as flags: the runtime names fields, people at a terminal type options.

"`lr_schedule` step: set `first_order` to 0" becomes "--lr-schedule step: set --first-order to 0".
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache

import click

_NAME = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`]*))?`")

_UNITS = ("_s", "_bytes")
"""Ends of names that a flag lacks, because its value carries the unit."""

_SWITCH = {"True": True, "False": False, "true": True, "false": False}


def with_flags(message: str) -> str:
    """Replace backquoted settings by the flags of the running command line.

    A name is replaced where some verb has an option for it; all else stays as it is, and so does
    every message outside of a command.

    Args:
        message: "`scope` all", "`prefix_cache=False`", "`max_time_s`", "`labels`".
    Returns:
        "--scope all", "--no-prefix-cache", "--max-time", "--label". Where memory is too short to
        load the verbs, the message is as it was, but for options of the running one.
    """
    ctx = click.get_current_context(silent=True)
    if ctx is None or "`" not in message:
        return message
    try:
        options = _options_of(ctx.find_root().command)
    except (ImportError, OSError, MemoryError):  # where memory is short no other verb can be loaded
        options = _options_of_running(ctx.find_root())

    def flag(found: re.Match[str]) -> str:
        name, value = found.groups()
        option = _find(name, options)
        return found.group() if option is None else _written(option, value) or found.group()

    return _NAME.sub(flag, message)


def _find(name: str, options: Mapping[str, click.Option]) -> click.Option | None:
    """The option of a setting: of its very name, of the name without unit, or of one of many."""
    spellings = [name, *(name.removesuffix(unit) for unit in _UNITS)]
    for spelling in spellings:
        if spelling in options:
            return options[spelling]
    single = options.get(name.removesuffix("s"))
    return single if single is not None and single.multiple else None


def _written(option: click.Option, value: str | None) -> str | None:
    """An option as it is typed; None where it cannot be given that value."""
    flag = next((text for text in option.opts if text.startswith("--")), option.opts[0])
    if value is None:
        return flag
    if not option.is_flag:
        return f"{flag} {shlex.quote(value.strip(chr(34) + chr(39)))}"
    switch = _SWITCH.get(value)
    if switch is None:
        return None
    others = [flag] if switch else option.secondary_opts
    return others[0] if others else None


def _options_of_running(root: click.Context) -> dict[str, click.Option]:
    """The options of the verb that runs, which is loaded already."""
    name = root.invoked_subcommand
    if name is None or not isinstance(root.command, click.Group):
        return {}
    verb = root.command.get_command(root, name)
    return {} if verb is None or isinstance(verb, click.Group) else _options_of(verb)


@cache
def _options_of(command: click.Command) -> dict[str, click.Option]:
    """Every option of a command and the verbs below it, by the name of its setting."""
    found: dict[str, click.Option] = {}
    for verb in _verbs(command):
        for option in verb.params:
            if isinstance(option, click.Option) and option.name and option.name != "help":
                found.setdefault(option.name, option)
    return found


def _verbs(command: click.Command) -> Iterator[click.Command]:
    if not isinstance(command, click.Group):
        yield command
        return
    ctx = click.Context(command)
    for name in command.list_commands(ctx):
        if (child := command.get_command(ctx, name)) is not None:
            yield from _verbs(child)
