"""`edgezo tune`: the options; the work is in `tuning`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from edgezo.cli.config_file import config_option, read_config
from edgezo.cli.method_config import CONFIG_CLASSES, build_config
from edgezo.cli.options import build, options_of
from edgezo.cli.output import json_option
from edgezo.cli.tune_inputs import TuneBundle, TuneInputs
from edgezo_runtime.errors import UsageError
from edgezo_runtime.journal.run_folder import RunFolder

FILE_CLASSES = (TuneBundle, TuneInputs, *CONFIG_CLASSES)
"""Whose fields a configuration file may hold."""


enforce_option = click.option(
    "--enforce", is_flag=True, help="show what keeps the run below its budget on this machine"
)


def _resume_defaults(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """With --resume, what the run was started with is the default of everything."""
    ctx.params[str(param.name)] = value
    output, resume = ctx.params.get("output"), ctx.params.get("resume")
    if output is not None and resume:
        saved = RunFolder(output).config
        if saved.is_file():
            known = read_config(saved, FILE_CLASSES)
            ctx.default_map = {**known, **(ctx.default_map or {})}
    return value


@click.command(name="tune", short_help="Tune a bundle on rows of text, within a memory budget.")
@click.argument("bundle", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="RUN",
    is_eager=True,
    callback=_resume_defaults,
    help="folder of the run  [default: runs/<bundle>-<time>]",
)
@click.option(
    "--resume",
    is_flag=True,
    is_eager=True,
    callback=_resume_defaults,
    help="continue the run in the folder, with its own settings",
)
@config_option(*FILE_CLASSES)
@options_of(TuneInputs, *CONFIG_CLASSES)
@click.option(
    "--reward",
    metavar="FILE.py:FUNCTION",
    help="a function of a text that the model wrote and of its row: the more it returns the "
    "better; it becomes the objective, and must be given again to continue the run",
)
@click.option("--dry-run", is_flag=True, help="check and plan everything, tune nothing")
@enforce_option
@json_option
def command(
    bundle: str | None,
    output: Path | None,
    resume: bool,
    reward: str | None,
    dry_run: bool,
    enforce: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Tune BUNDLE on rows of text with forward passes only, within a memory budget.

    Without BUNDLE and --data: SmolLM2-135M-Instruct on 500 commands to a device.

    A row of the data is a JSON object. With --template and --label it is classified; without, it
    has messages, prompt and completion, instruction and output, or text.

    Where RUN holds a run with the same settings it is continued; the same command can simply be
    given again. The first Ctrl-C ends the run and saves it; a second one ends it at once.
    """
    config, inputs = build_config(values), build(TuneInputs, values)
    inputs.check()
    if resume and output is None:
        raise UsageError("--resume: name the folder of the run with -o")
    if reward is not None:
        if config.objective not in ("loss", "reward"):
            raise UsageError(
                f"--reward: --objective {config.objective} is another one; leave it out"
            )
        config = dataclasses.replace(config, objective="reward")
    from edgezo.cli.tuning import tune

    tune(
        bundle,
        inputs,
        config,
        output,
        reward=reward,
        dry_run=dry_run,
        enforce=enforce,
        as_json=as_json,
    )
