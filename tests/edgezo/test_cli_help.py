"""The help: options under headings, those of single methods in `edgezo methods`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import click
import pytest

from edgezo.cli import main
from edgezo.cli.settings.grouped_command import GroupedCommand
from edgezo.cli.settings.method_config import CONFIG_CLASSES
from edgezo.cli.settings.missing import HINTS, hint
from edgezo.cli.settings.options import flag_name, flat_fields, help_text
from edgezo.cli.tune.inputs import TuneInputs
from edgezo_runtime.config import MethodOptions
from edgezo_runtime.methods.catalogue import METHODS
from tests.edgezo.conftest import Invoke

MOST = 12
"""Options that a list without headings may have."""


def verbs(command: click.Command = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every verb."""
    if not isinstance(command, click.Group):
        yield path
        return
    ctx = click.Context(command)
    for name in command.list_commands(ctx):
        child = command.get_command(ctx, name)
        assert child is not None
        yield from verbs(child, (*path, name))


def found(path: tuple[str, ...]) -> click.Command:
    """A verb."""
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        child = command.get_command(click.Context(command), name)
        assert child is not None
        command = child
    return command


def visible(command: click.Command) -> list[click.Option]:
    """The options that the help lists."""
    return [p for p in command.params if isinstance(p, click.Option) and not p.hidden]


@pytest.mark.parametrize("path", list(verbs()), ids=" ".join)
def test_long_lists_have_headings(path: tuple[str, ...]) -> None:
    command = found(path)
    if len(visible(command)) > MOST:
        assert isinstance(command, GroupedCommand)
    if isinstance(command, GroupedCommand):
        grouped = Counter(name for names in command.groups.values() for name in names)
        assert max(grouped.values()) == 1
        assert max(map(len, command.groups.values())) <= MOST


@pytest.mark.parametrize("path", list(verbs()), ids=" ".join)
def test_the_help_lists_every_option_once(invoke: Invoke, path: tuple[str, ...]) -> None:
    text = invoke(*path, "--help").stdout
    listed = Counter(re.findall(r"^  (?:-., )?(--[a-z0-9-]+)", text, re.MULTILINE))
    long = [next(o for o in option.opts if o.startswith("--")) for option in visible(found(path))]
    assert listed == Counter([*long, "--help"])
    assert "`" not in text


def test_the_headings_of_tune_name_its_options() -> None:
    tune = found(("tune",))
    assert isinstance(tune, GroupedCommand)
    grouped = {name for names in tune.groups.values() for name in names}
    assert {option.name for option in visible(tune)} - grouped == {
        "config",
        "verify",
        "dry_run",
        "enforce",
    }
    assert grouped <= {option.name for option in visible(tune)}


@pytest.mark.parametrize("verb", ["tune", "plan"])
def test_options_of_single_methods_are_with_the_methods(invoke: Invoke, verb: str) -> None:
    text = invoke(verb, "--help").stdout
    assert "edgezo methods NAME" in " ".join(text.split())
    for field in flat_fields(MethodOptions):
        flag = flag_name(field.name)
        assert not re.search(rf"^ +{flag}\b", text, re.MULTILINE)
        owner = next(name for name, method in METHODS.items() if field.name in method.options())
        shown = invoke("methods", owner).stdout
        assert re.search(rf"^{flag} .*  {re.escape(help_text(field))}$", shown, re.MULTILINE)


def test_help_texts_name_settings_that_exist() -> None:
    classes = (TuneInputs, *CONFIG_CLASSES)
    flags = {option for param in found(("tune",)).params for option in param.opts}
    for field in (field for cls in classes for field in flat_fields(cls)):
        assert set(re.findall(r"--[a-z][a-z0-9-]*", help_text(field))) <= flags
        assert "--" not in field.metadata["help"]


REQUIRED = [
    (path, param) for path in verbs() for param in found(path).params if param.required
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "param"), REQUIRED, ids=[" ".join((*path, str(own.name))) for path, own in REQUIRED]
)
def test_whatever_is_required_says_what_to_give(
    path: tuple[str, ...], param: click.Parameter
) -> None:
    """`edgezo tune` alone said "Missing option '--budget'." and no more."""
    assert hint(" ".join(path), param)


def test_every_hint_is_of_something_required() -> None:
    names = {name for path, own in REQUIRED for name in (own.name, " ".join((*path, own.name)))}
    assert set(HINTS) <= names


def test_a_missing_option_says_what_to_give(invoke: Invoke) -> None:
    shown = invoke("tune", code=2).stderr
    assert "Error: Missing option '--budget'. Give the memory that the whole process" in shown
    assert "Missing argument 'RUN...'. Give the folders" in invoke("runs", "rm", code=2).stderr
