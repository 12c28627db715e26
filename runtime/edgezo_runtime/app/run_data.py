"""The rows of a run, and how they are read: settled with what the run or its adapter knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.hold_out import divide
from edgezo_runtime.data.questions import QuestionSet, make_questions
from edgezo_runtime.data.reading import (
    NAMES,
    LongRows,
    Reading,
    SettledReading,
    TrainOn,
    settle_reading,
)
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.sources import Given, Source, read_source
from edgezo_runtime.errors import UsageError
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.journal.run_header import RunHeader
from edgezo_runtime.training.initial_adapter import known_reading

HOLD_OUT = "auto"
"""In place of rows for validation: hold some of the training data out."""


@dataclass(frozen=True, slots=True)
class RunData:
    """The rows of a run, and how they are read.

    Attributes:
        train: rows to tune on.
        others: rows to evaluate on, by name; in place of "valid" rows, `HOLD_OUT` takes them from
            `train`, where those are enough.
        template: prompt with fields in braces; `NO_TEMPLATE` for rows that need none.
        labels: label words in class order.
        max_seq: longest row in tokens, at most the model's limit.
        train_on: turns of the assistant that are scored.
        long: what happens to longer rows.

    None and () take the setting of the run in the folder, else of the initial adapter, else none,
    512 tokens, all turns, and long rows are cut.
    """

    train: Given
    others: Mapping[str, Source] = field(default_factory=dict)
    template: str | None = None
    labels: Sequence[str] = ()
    max_seq: int | None = None
    train_on: TrainOn | None = None
    long: LongRows | None = None


def settled(
    bundle: Bundle, data: RunData, initial: Adapter | None, folder: RunFolder, *, resume: bool
) -> tuple[RunData, list[str]]:
    """The data with every setting of their reading, and warnings about it.

    Raises:
        UsageError: the settings contradict each other.
        RunFileError: the journal of the run is damaged.
    """
    given = {name: getattr(data, name) for name in NAMES} | {"labels": tuple(data.labels)}
    others = [] if initial is None else initial.differences(bundle)
    tokens = isinstance(data.train, ExampleSet) and all(
        value in (None, ()) for value in given.values()
    )
    if tokens or isinstance(data.train, QuestionSet) or isinstance(data.labels, str):
        return data, SettledReading(Reading()).warnings(*others)
    known = known_reading(initial, folder) if resume or not folder.has_journal() else None
    found = settle_reading(given, known, longest=bundle.manifest.model.max_seq)
    return replace(data, **found.reading.settings()), found.warnings(*others)


def held_out(
    data: RunData,
    train: ExampleSet | QuestionSet,
    config: TuneConfig,
    folder: RunFolder,
    *,
    resume: bool,
) -> tuple[ExampleSet | QuestionSet, Mapping[str, Given], str]:
    """Rows to tune on, rows to evaluate on, and why none are held out although `data` asks for it.

    The header of a journal says whether its run holds rows out: a resumed run trains on the same
    rows whatever is asked for now, and runs of earlier versions hold out none.

    Raises:
        RunFileError: the journal of the run is damaged.
    """
    others = dict[str, Given](data.others)
    given = others.get("valid")
    wanted = isinstance(given, str) and given == HOLD_OUT
    if wanted:
        del others["valid"]
    begun = resume and folder.has_journal()
    if begun:
        header = RunHeader.read(read_journal(folder.journal).header.meta, folder.journal)
        if not header.held_out:
            reason = "the run was begun without held-out rows"
            return train, others, reason if wanted else ""
    elif not wanted:
        return train, others, ""
    rows, held_out, reason = divide(train, config.seed)
    if wanted and held_out is not None:
        others["valid"] = held_out
    return rows, others, reason if wanted else ""


def read_others(
    train: ExampleSet | QuestionSet, reader: RowReader | None, others: Mapping[str, Given]
) -> tuple[dict[str, ExampleSet], dict[str, QuestionSet]]:
    """Read every set as examples; and as questions, if the training data are questions.

    Raises:
        UsageError: a set is text and the training data are tokens, or the other way round.
    """
    if isinstance(train, ExampleSet):
        sets = {"train": train}
        for name, source in others.items():
            if isinstance(source, ExampleSet):
                sets[name] = source
            elif reader is None or isinstance(source, QuestionSet):
                raise UsageError(f"{name} rows: give them as examples, like the training data")
            else:
                sets[name] = read_source(reader, source, split=_split(name))
        return sets, {}
    questions = {"train": train}
    for name, source in others.items():
        if isinstance(source, QuestionSet):
            questions[name] = source
            continue
        if reader is None or isinstance(source, ExampleSet):
            raise UsageError(f"{name} rows: give them as rows or a file, to be read as questions")
        questions[name] = make_questions(reader, source, split=_split(name))
    return {name: found.examples for name, found in questions.items()}, questions


def _split(name: str) -> Literal["train", "valid"]:
    """The file to read where rows are given as a folder."""
    return "valid" if name == "valid" else "train"
