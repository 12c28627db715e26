"""Settings in messages of the library become the flags that people type."""

from __future__ import annotations

import click
import pytest

from edgezo.cli import main
from edgezo.cli.settings import flags
from edgezo.cli.settings.flags import with_flags
from edgezo.cli.settings.method_config import CONFIG_CLASSES
from edgezo.cli.settings.options import flag_name, flat_fields
from edgezo.cli.terminal.output import warn
from edgezo_runtime.errors import UsageError
from tests.edgezo.conftest import Invoke

SETTINGS = [field.name for cls in CONFIG_CLASSES for field in flat_fields(cls)]


def translated(message: str) -> str:
    """A message as the command line shows it."""
    with click.Context(main):
        return with_flags(message)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("`lr_schedule` step: expected linear", "--lr-schedule step: expected linear"),
        ("expected linear; set `first_order` to 0", "expected linear; set --first-order to 0"),
        ("give `template` and `labels`", "give --template and --label"),
        ("raise `budget_bytes` or `max_time_s`", "raise --budget or --max-time"),
        ("export it with other `targets`", "export it with other --targets"),
        (
            "give `reward`, or a larger `num_directions`",
            "give --reward, or a larger --num-directions",
        ),
        ("set `prefix_cache=False`", "set --no-prefix-cache"),
        ("set `prefix_cache=True`", "set --prefix-cache"),
        ("set `first_order=0`", "set --first-order 0"),
        ('set `scope="all"`', "set --scope all"),
        ("give `template='{field} ...'`", "give --template '{field} ...'"),
    ],
)
def test_settings_become_flags(message: str, shown: str) -> None:
    assert translated(message) == shown


@pytest.mark.parametrize(
    "message",
    [
        "no setting is named",
        "call `close` first, then `Tuner.open`",
        "`lr schedule`, `` and `--lr`",
        "set `normalize=maybe`",
        "`resume=False` has no flag",
        "`help` is of no verb",
        "lr_schedule without quotes, 'lr' in others",
        "`lrs` is no option",
    ],
)
def test_all_else_stays_as_it_is(message: str) -> None:
    assert translated(message) == message


def test_a_message_is_shown_where_no_verb_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pins an ImportError in place of the message, under a limit of the address space."""
    found = flags._options_of

    def refused(command: click.Command) -> dict[str, click.Option]:
        if isinstance(command, click.Group):
            raise ImportError("failed to map segment from shared object")
        return found(command)

    monkeypatch.setattr(flags, "_options_of", refused)
    message = "set fewer `threads`, or another `format`"
    with click.Context(main) as ctx:
        assert with_flags(message) == message
        ctx.invoked_subcommand = "tune"
        assert with_flags(message) == "set fewer --threads, or another `format`"


def test_a_message_outside_of_a_command_stays_as_it_is() -> None:
    assert with_flags("set `lr` to 1") == "set `lr` to 1"


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_of_a_run_has_its_flag(name: str) -> None:
    assert translated(f"set `{name}`") == f"set {flag_name(name)}"


def test_errors_and_warnings_name_flags(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        warn("`max_seq` is small")
        raise UsageError("`lr` fast: expected a number")

    monkeypatch.setattr("edgezo.cli.tune.run_command.tune", fail)
    found = invoke("tune", "b", "--budget", "1GB", code=2).stderr
    assert found == "warning: --max-seq is small\nerror: --lr fast: expected a number\n"
