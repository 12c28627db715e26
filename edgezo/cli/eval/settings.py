"""Settings of `edgezo eval`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from edgezo.cli.files.task_data import PACKAGED
from edgezo.cli.settings.device import DeviceSettings
from edgezo.cli.settings.grouped_command import OptionGroups
from edgezo.cli.settings.options import setting
from edgezo.cli.settings.process import budget_setting, threads_setting, verify_setting
from edgezo_runtime.errors import UsageError

EVAL_GROUPS: OptionGroups = {
    "Data": ("data", "split", "limit", "max_seq", "long", "train_on"),
    "Model": ("adapter", "verify"),
    "Budget": ("budget", "device", "device_budget", "threads", "batch_size"),
    "Scores": ("template", "label", "choices", "answers"),
    "Generated answers": ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "stop"),
    "Output": ("predictions", "as_json"),
}
"""Headings of the help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSettings(DeviceSettings):
    """Settings of `edgezo eval` besides those of generated answers."""

    data: tuple[str, ...] = setting(
        dataclasses.MISSING,
        f"rows to evaluate on: a file, a folder, or {PACKAGED}, which comes with edgezo; may be "
        "given several times",
        metavar="FILE|DIR",
    )
    split: Literal["train", "valid", "test"] = setting("valid", "file of a folder")
    adapter: str | None = setting(None, "run folder or adapter file", metavar="PATH")
    template: str | None = setting(
        None,
        "prompt, with fields of the row in braces: '{sentence} It was'; if not given, that of the "
        "adapter; none takes none",
        metavar="TEXT",
    )
    label: tuple[str, ...] = setting(
        (),
        "label word of a class, such as ' terrible'; one option per class, in class order; if not "
        "given, those of the adapter",
        metavar="TEXT",
    )
    choices: str | None = setting(
        None,
        "field with the row's own choices; the field 'label' or 'answer' says which one is right",
        metavar="FIELD",
    )
    answers: bool = setting(
        False, "generate answers, and compare them with those of the rows: exact match and F1"
    )
    max_seq: int | None = setting(
        None,
        "longest row, in tokens; if not given, that of the adapter, else 512",
    )
    long: Literal["truncate", "drop"] | None = setting(
        None,
        "longer rows: truncate cuts their prompt, then the end of their answer; drop leaves them "
        "out; if not given, as for the adapter, else truncate",
    )
    train_on: Literal["all", "last"] | None = setting(
        None,
        "turns of the assistant to score in conversations: all, or the last one; those with weight "
        "0 are not scored; if not given, as for the adapter, else all",
    )
    limit: int = setting(0, "number of rows to use, from the first on; 0 takes all")
    batch_size: int = setting(32, "examples per pass; the scores do not depend on it")
    predictions: str | None = setting(
        None,
        "file for the predicted class or answer of every row, one JSON object per line: by the "
        "number of the row from 0, or by its line from 1 if rows are left out",
        metavar="FILE",
    )
    budget: str | None = budget_setting(None, "; there is no limit if not given")
    threads: int = threads_setting()
    verify: bool = verify_setting()

    def check(self) -> None:
        """Refuse values that are out of range or exclude each other.

        Raises:
            UsageError: naming the flag.
        """
        for name, low in (("max_seq", 1), ("limit", 0), ("batch_size", 1), ("threads", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise UsageError(f"--{name.replace('_', '-')} {value}: must be {low} or more")
        kinds = {"--label": self.label, "--choices": self.choices, "--answers": self.answers}
        given = [name for name, value in kinds.items() if value]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)}: rows are scored in one way; give one of them")
