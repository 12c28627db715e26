"""`edgezo init`: asks what a run needs, looks at the data, and writes edgezo.toml."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from edgezo.cli.files.output_file import force_option
from edgezo.cli.terminal.output import json_option
from edgezo.cli.terminal.quiet import quiet_option


@click.command(name="init", short_help="Write a file of settings for your data.")
@click.argument("bundle", required=False)
@click.option("--data", multiple=True, metavar="FILE|DIR", help="rows to tune on")
@click.option("--template", metavar="TEXT", help="prompt, with fields of the row in braces")
@click.option("--label", multiple=True, metavar="TEXT", help="label word of a class, in order")
@click.option("--budget", metavar="SIZE", help="memory that the whole process may take")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("edgezo.toml"),
    show_default=True,
    metavar="FILE",
    help="file to write",
)
@click.option("--yes", is_flag=True, help="ask nothing; take what is proposed")
@click.option("--plan/--no-plan", default=True, show_default=True, help="show the memory plan")
@force_option
@quiet_option
@json_option
def command(bundle: str | None, yes: bool, as_json: bool, **options: Any) -> None:
    """Write edgezo.toml for your data: settings with comments, which 'edgezo tune' reads.

    Five questions are asked, unless flags answer them: the bundle, the data, the template, the
    label words, the budget. The answers that are proposed come from the data: classes or texts to
    write, label words by their zero-shot margin, and the longest row.
    """
    from edgezo.cli.init.questions import Questions
    from edgezo.cli.init.work import initialize

    ask = not yes and not as_json and sys.stdin.isatty()
    initialize(bundle, Questions(ask), as_json=as_json, **options)
