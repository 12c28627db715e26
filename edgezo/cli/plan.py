"""`edgezo plan`: where the bytes of a run would go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edgezo.cli.config_file import config_option
from edgezo.cli.method_config import CONFIG_CLASSES, build_config
from edgezo.cli.options import build, options_of, setting
from edgezo.cli.output import json_option
from edgezo.cli.tune import enforce_option
from edgezo.cli.tune_inputs import TuneInputs
from edgezo_runtime.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInputs(TuneInputs):
    """What `edgezo tune` works on; data may be missing."""

    data: str | None = setting(
        None,
        "as for tune; without, rows of --max-seq tokens, classified if there is --label",
        metavar="FILE|DIR",
    )


@click.command(name="plan", short_help="Say where the memory of a run would go.")
@click.argument("bundle")
@config_option(PlanInputs, *CONFIG_CLASSES)
@options_of(PlanInputs, *CONFIG_CLASSES)
@enforce_option
@json_option
def command(bundle: str, enforce: bool, as_json: bool, **values: Any) -> None:
    """Say where the memory of tuning BUNDLE would go, part by part, and tune nothing.

    What stays resident, the size of chunks and the number of workers are chosen for the shortest
    step that the budget allows. A pass is measured on one block of each kind. Exit code 3 where
    the budget is too small, with the smallest that would do.
    """
    config, inputs = build_config(values), build(PlanInputs, values)
    inputs.check()
    from edgezo_runtime.methods.config_check import check_config

    check_config(config)
    if inputs.data is None and (inputs.valid or inputs.test or inputs.template):
        raise UsageError("--valid, --test and --template: they need --data")
    from edgezo.cli.planning import print_plan
    from edgezo.cli.stop_signals import StopSignals
    from edgezo.cli.tune_job import prepare
    from edgezo_runtime.journal.run_folder import RunFolder

    with StopSignals() as signals:
        job = prepare(Path(bundle), inputs, config, RunFolder(Path("run")), signals)
    print_plan(job, {}, [], enforce=enforce, as_json=as_json)
