"""`edgezo plan`: the memory that a run would take, part by part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edgezo.cli.settings.config_file import config_option
from edgezo.cli.settings.grouped_command import GroupedCommand
from edgezo.cli.settings.method_config import CONFIG_CLASSES, build_config
from edgezo.cli.settings.options import build, options_of, setting
from edgezo.cli.terminal.output import json_option
from edgezo.cli.terminal.quiet import quiet_option
from edgezo.cli.tune.command import enforce_option
from edgezo.cli.tune.inputs import METHOD_OPTIONS, TUNE_GROUPS, TuneBundle, TuneInputs
from edgezo_runtime.config import MethodOptions, TuneConfig
from edgezo_runtime.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInputs(TuneInputs):
    """The same settings as for `edgezo tune`, but the data may be missing."""

    data: tuple[str, ...] = setting(
        (),
        "rows to tune on, as for tune; if not given, rows of `max_seq` tokens are assumed, with "
        "classes if `label` is given",
        metavar="FILE|DIR",
    )


@click.command(
    name="plan",
    cls=GroupedCommand,
    groups=TUNE_GROUPS,
    epilog=METHOD_OPTIONS,
    short_help="Show the memory that a run would take, part by part.",
)
@click.argument("bundle", required=False)
@config_option(TuneBundle, PlanInputs, *CONFIG_CLASSES)
@options_of(PlanInputs, TuneConfig)
@options_of(MethodOptions, hidden=True)
@enforce_option
@quiet_option
@json_option
def command(bundle: str | None, enforce: bool, as_json: bool, **values: Any) -> None:
    """Show the memory that tuning BUNDLE would take, part by part, and tune nothing.

    The plan chooses the resident blocks, the size of chunks and the number of workers for the
    shortest step that the budget allows. It measures a pass of one block of each kind. If the
    budget is too small, the command names the smallest budget that fits and exits with code 3.

    BUNDLE is by default the one that 'edgezo tune' would take: SmolLM2-135M-Instruct.
    """
    config, inputs = build_config(values), build(PlanInputs, values)
    inputs.check()
    from edgezo_runtime.methods.config_check import check_config

    check_config(config)
    if not inputs.data and (inputs.valid or inputs.test or inputs.template):
        raise UsageError("--valid, --test and --template need --data")
    from edgezo.cli.terminal.progress import Progress
    from edgezo.cli.terminal.stop_signals import StopSignals
    from edgezo.cli.tune.default_bundle import default_bundle
    from edgezo.cli.tune.job import prepare
    from edgezo.cli.tune.plan_report import print_plan
    from edgezo.cli.tune.run_command import default_rank
    from edgezo_runtime.journal.run_folder import RunFolder

    root = default_bundle(default_rank(inputs, config)) if bundle is None else Path(bundle)
    with StopSignals() as signals, Progress() as progress:
        folder = RunFolder(Path("run"))
        job = prepare(root, inputs, config, folder, signals, tell=progress.part)
    print_plan(job, {}, [], enforce=enforce, as_json=as_json)
