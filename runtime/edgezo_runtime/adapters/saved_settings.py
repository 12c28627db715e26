"""Settings in a run's config.json, for adapters and journals that do not hold them themselves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgezo_runtime.adapters.adapter_info import AdapterInfo
from edgezo_runtime.config import AnswerSettings, TuneConfig
from edgezo_runtime.data.reading import LongRows, Reading, TrainOn
from edgezo_runtime.errors import RunFileError, UsageError, printable
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.system.typed_json import JsonShapeError, decode


@dataclass(frozen=True, slots=True)
class _Saved:
    """The keys of config.json that matter here."""

    max_seq: int
    template: str | None = None
    label: tuple[str, ...] = ()
    train_on: TrainOn = "all"
    long: LongRows = "truncate"
    objective: Literal["loss", "accuracy", "f1", "exact-match", "reward"] = "loss"
    max_new_tokens: int = 32
    temperature: float = 0.0
    stop: tuple[str, ...] = ()


def settings_of_run(run: RunFolder) -> tuple[Reading | None, AnswerSettings | None]:
    """How a run read its rows and generated its answers, by its config.json.

    Args:
        run: the run; one that an app began has no such file.
    Raises:
        RunFileError: the file is damaged.
    """
    content = run.settings()
    if content.get("max_seq") is None:
        return None, None
    names = {field.name for field in dataclasses.fields(_Saved)}
    try:
        saved = decode(_Saved, {key: value for key, value in content.items() if key in names})
        reading = Reading(saved.template, saved.label, saved.max_seq, saved.train_on, saved.long)
        reading.check()
    except (JsonShapeError, UsageError) as error:
        raise RunFileError(
            f"{run.config}: not the settings of a run: {printable(error, 200)}"
        ) from error
    config = TuneConfig(
        objective=saved.objective,
        max_new_tokens=saved.max_new_tokens,
        temperature=saved.temperature,
        stop=saved.stop,
    )
    return reading, config.answers(classes=bool(saved.label))


def with_settings_of_run(info: AdapterInfo, file: Path) -> AdapterInfo:
    """Complete the metadata of an adapter that an earlier version left in its run folder.

    Args:
        info: the metadata of the file.
        file: the adapter.
    Raises:
        RunFileError: the settings of the run are damaged.
    """
    run = RunFolder(file.parent)
    if info.reading is not None or file.name != run.adapter.name:
        return info
    reading, answers = settings_of_run(run)
    return dataclasses.replace(info, reading=reading, answers=answers)
