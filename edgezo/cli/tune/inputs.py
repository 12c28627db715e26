"""Settings of `edgezo tune` and `edgezo plan` that are about files and the machine."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from edgezo.cli.files.task_data import PACKAGED
from edgezo.cli.settings.device import DeviceSettings
from edgezo.cli.settings.grouped_command import OptionGroups
from edgezo.cli.settings.options import setting
from edgezo.cli.settings.process import budget_setting, threads_setting, verify_setting
from edgezo_runtime.errors import UsageError

AUTO: Literal["auto"] = "auto"
"""Evaluations during the run as often as their cost allows."""

TUNE_GROUPS: OptionGroups = {
    "Data": ("data", "valid", "test", "template", "label", "max_seq", "long", "train_on"),
    "Budget": ("budget", "device", "device_budget", "threads", "when", "prefix_cache"),
    "What trains": ("adapter", "blocks", "modules", "schedule", "scope"),
    "Objective": ("objective", "reward", "max_new_tokens", "temperature", "stop"),
    "Method": (
        "method",
        "first_order",
        "first_order_lr",
        "lr",
        "lr_schedule",
        "horizon",
        "batch_size",
        "seed",
        "rollback",
    ),
    "Estimates": ("eps", "noise", "normalize", "clip", "rule", "average"),
    "Length of the run": ("steps", "max_time_s", "epochs"),
    "Evaluation": ("eval_every_s", "eval_batch_size", "keep"),
    "Answers meanwhile": ("serve", "serve_context"),
    "Run folder and output": ("output", "resume", "save_every", "log", "quiet", "as_json"),
}
"""Headings of the help of `edgezo tune` and `edgezo plan`."""

METHOD_OPTIONS = (
    "Options of single methods, such as --num-directions and --momentum: 'edgezo methods NAME' "
    "lists them."
)
"""Says where the options are that the help leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneInputs(DeviceSettings):
    """Data, budget and conditions of a run."""

    budget: str = budget_setting(dataclasses.MISSING)
    data: tuple[str, ...] = setting(
        (PACKAGED,),
        "rows to tune on: a file (.jsonl, .json, .csv, .tsv, .parquet, .arrow), a folder with such "
        "files for train, valid (or validation, val, dev) and test, or "
        f"{PACKAGED}, which comes with edgezo; may be given several times",
        metavar="FILE|DIR",
    )
    valid: tuple[str, ...] = setting(
        (),
        "rows to evaluate on before, during and after tuning, in place of those in the data "
        "folder; if neither is there, a tenth of the rows is held out and not tuned on, at least "
        "20 and at most 200; none evaluates on no rows; may be given several times",
        metavar="FILE|none",
    )
    test: tuple[str, ...] = setting(
        (),
        "rows to evaluate on once, after tuning, in place of those in the data folder; none takes "
        "none; may be given several times",
        metavar="FILE|none",
    )
    adapter: str | None = setting(
        None,
        "initial adapter: a run folder or an adapter file; the run takes over its scope, and "
        "template, labels and longest row where they are not given",
        metavar="PATH",
    )
    template: str | None = setting(
        None, "prompt, with fields of the row in braces: '{sentence} It was'", metavar="TEXT"
    )
    label: tuple[str, ...] = setting(
        (),
        "label word of a class, such as ' terrible'; one option per class, in class order",
        metavar="TEXT",
    )
    max_seq: int | None = setting(
        None,
        "longest row, in tokens; if not given, that of the initial adapter, else 512",
    )
    long: Literal["truncate", "drop"] | None = setting(
        None,
        "longer rows: truncate cuts their prompt, then the end of their answer; drop leaves them "
        "out; if not given, as for the initial adapter, else truncate",
    )
    train_on: Literal["all", "last"] | None = setting(
        None,
        "turns of the assistant to learn in conversations: all, or the last one; those with weight "
        "0 are not learned; if not given, as for the initial adapter, else all",
    )
    eval_batch_size: int = setting(32, "examples per pass in evaluations")
    eval_every_s: float | Literal["auto"] = setting(
        AUTO,
        "time between evaluations during the run: 30s, 10m. It counts time spent tuning, as "
        "`max_time_s` does; 0 evaluates before and after the run only; auto evaluates up to seven "
        "times, at equal distances, in about a tenth of the time of the run",
        metavar="auto|TIME",
    )
    when: str = setting(
        "",
        "conditions under which the run takes steps, separated by commas: battery[:PERCENT], "
        "mains, thermal[:CELSIUS], idle[:PERCENT]; auto takes battery, thermal and idle, as far as "
        "the system has the sensors",
        metavar="LIST",
    )
    log: tuple[str, ...] = setting(
        (),
        "also write losses, scores and memory for a tracker: csv, tensorboard, wandb, mlflow or "
        "trackio, each with an extra of its name; offline, unless its own environment variables "
        "say otherwise; may be given several times",
        metavar="TRACKER",
    )
    threads: int = threads_setting()
    verify: bool = verify_setting()

    def check(self) -> None:
        """Refuse values that are out of range.

        Raises:
            UsageError: naming the flag.
        """
        for name, low in (("max_seq", 1), ("eval_batch_size", 1), ("threads", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {value}: must be {low} or more")
        if self.eval_every_s != AUTO and not 0 <= self.eval_every_s < math.inf:
            raise UsageError(
                f"--eval-every {self.eval_every_s}: must be auto, or 0 seconds or more"
            )


@dataclass(frozen=True, slots=True)
class TuneBundle:
    """The argument BUNDLE, which a configuration file may name as well."""

    bundle: str | None = setting(None, "exported model")
