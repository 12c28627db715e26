"""`edgezo tune`: the options; `run_command.py` does the work."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from edgezo.cli.files.task_data import keep_splits
from edgezo.cli.settings.config_file import config_option, read_config
from edgezo.cli.settings.grouped_command import GroupedCommand
from edgezo.cli.settings.method_config import CONFIG_CLASSES, build_config
from edgezo.cli.settings.options import build, options_of
from edgezo.cli.terminal.output import json_option
from edgezo.cli.terminal.quiet import quiet_option
from edgezo.cli.tune.inputs import METHOD_OPTIONS, TUNE_GROUPS, TuneBundle, TuneInputs
from edgezo.serve.limits import PORT
from edgezo_runtime.config import MethodOptions, TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.journal.run_folder import RunFolder

FILE_CLASSES = (TuneBundle, TuneInputs, *CONFIG_CLASSES)
"""The classes whose fields a configuration file may hold."""

_SERVE_AT = f"127.0.0.1:{PORT}"

enforce_option = click.option(
    "--enforce", is_flag=True, help="show the memory limits that this machine enforces"
)


def _resume_defaults(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """With --resume, the settings that the run was started with become the defaults."""
    ctx.params[str(param.name)] = value
    output, resume = ctx.params.get("output"), ctx.params.get("resume")
    if output is not None and resume:
        saved = RunFolder(output).config
        if saved.is_file():
            known = keep_splits(read_config(saved, FILE_CLASSES))
            ctx.default_map = {**known, **(ctx.default_map or {})}
    return value


@click.command(
    name="tune",
    cls=GroupedCommand,
    groups=TUNE_GROUPS,
    epilog=METHOD_OPTIONS,
    short_help="Tune a bundle on rows of text, within a memory budget.",
)
@click.argument("bundle", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="RUN",
    is_eager=True,
    callback=_resume_defaults,
    help="run folder  [default: runs/<bundle>-<time>]",
)
@click.option(
    "--resume",
    is_flag=True,
    is_eager=True,
    callback=_resume_defaults,
    help="resume the run in the folder, with its own settings",
)
@config_option(*FILE_CLASSES)
@options_of(TuneInputs, TuneConfig)
@options_of(MethodOptions, hidden=True)
@click.option(
    "--reward",
    metavar="FILE.py:FUNCTION",
    help="function that scores a generated text, given the text and its row; higher is better. It "
    "becomes the objective, and has to be given again to resume the run",
)
@click.option(
    "--serve",
    is_flag=False,
    flag_value=_SERVE_AT,
    metavar="[HOST:PORT]",
    help="answer by the OpenAI API meanwhile, with the adapter as it is; the plan counts the "
    f"memory  [{_SERVE_AT} without a value]",
)
@click.option(
    "--serve-context",
    type=click.IntRange(min=16),
    default=1024,
    show_default=True,
    metavar="N",
    help="most tokens of a served prompt and its answer",
)
@click.option("--dry-run", is_flag=True, help="check and plan the run, but tune nothing")
@enforce_option
@quiet_option
@json_option
def command(
    bundle: str | None,
    output: Path | None,
    resume: bool,
    reward: str | None,
    serve: str | None,
    serve_context: int,
    dry_run: bool,
    enforce: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Tune BUNDLE on rows of text, within a memory budget.

    Without BUNDLE and --data, tune SmolLM2-135M-Instruct on 529 commands to a device.

    A row of the data is a JSON object. With --template and --label, rows are classified. Without
    them, a row has messages, prompt and completion, instruction and output, or text.

    If RUN holds a run with the same settings, the command resumes it. The first Ctrl-C saves the
    run and ends it; a second one ends it at once.
    """
    config, inputs = build_config(values), build(TuneInputs, values)
    inputs.check()
    if resume and output is None:
        raise UsageError("--resume: no run folder is given; name it with -o")
    if reward is not None:
        if config.objective not in ("loss", "reward"):
            raise UsageError(
                f"--reward and --objective {config.objective}: a run has one objective; leave one "
                f"out"
            )
        config = dataclasses.replace(config, objective="reward")
    from edgezo.cli.tune.run_command import tune
    from edgezo.cli.tune.serving import Serving

    tune(
        bundle,
        inputs,
        config,
        output,
        reward=reward,
        serving=None if serve is None else Serving.at(serve, serve_context),
        dry_run=dry_run,
        enforce=enforce,
        as_json=as_json,
    )
