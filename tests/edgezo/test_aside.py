"""What libraries of others print while a command runs."""

from __future__ import annotations

import io

import click
import pytest

from edgezo.cli.terminal.aside import Aside
from edgezo.cli.terminal.quiet import quiet_option

COLOURED = "\x1b[1m\x1b[38;5;208mtrackio show\x1b[0m \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "name", "value", "colours"),
    [
        (io.StringIO, "NO_COLOR", "", False),
        (Terminal, "NO_COLOR", "", True),
        (Terminal, "NO_COLOR", "1", False),
        (Terminal, "TERM", "dumb", False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    stream: type[io.StringIO], name: str, value: str, colours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv(name, value)
    out = stream()
    aside = Aside(out)
    print(COLOURED, file=aside, flush=True)
    assert out.getvalue() == (COLOURED if colours else "trackio show link") + "\n"
    assert aside.isatty() is colours


def test_characters_that_are_not_there_fail_nothing() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="cp1252")
    print("caf\u00e9 \U0001f3af", file=Aside(out), flush=True)
    assert raw.getvalue() == "caf\u00e9 ?\n".encode("cp1252")


def test_a_quiet_command_prints_nothing_of_it() -> None:
    @click.command()
    @quiet_option
    def command() -> None:
        print("noise", file=Aside(out))

    for args, told in (["--quiet"], ""), ([], "noise\n"):
        out = io.StringIO()
        command.main(args, standalone_mode=False)
        assert out.getvalue() == told
