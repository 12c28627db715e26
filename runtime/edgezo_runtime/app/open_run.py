"""Opens a run: reads its data, makes its engine and its parts, and plans its memory.

The command line and `Tuner.open` both use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.budget.memory_limits import limited_engine, refusing_to_begin
from edgezo_runtime.budget.plan import Plan, make_plan
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
from edgezo_runtime.data.scope import invocation
from edgezo_runtime.data.sources import Given, Source, read_given, read_source, rows_to_come
from edgezo_runtime.errors import UsageError
from edgezo_runtime.evaluation.objectives import Reward
from edgezo_runtime.governors import Governor, make_governors
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.journal.run_header import RunHeader
from edgezo_runtime.methods.catalogue import METHODS
from edgezo_runtime.system.memory import (
    available_bytes,
    peak_rss_bytes,
    release_freed,
    rss_bytes,
)
from edgezo_runtime.system.sizes import format_size
from edgezo_runtime.training.answer_task import AnswerTask
from edgezo_runtime.training.first_order_layout import why_no_first_order
from edgezo_runtime.training.initial_adapter import known_reading, load_initial_adapter
from edgezo_runtime.training.run import Run


@dataclass(frozen=True, slots=True)
class RunData:
    """The rows of a run, and how they are read.

    Attributes:
        train: rows to tune on.
        others: rows to evaluate on, by name.
        template: prompt with fields in braces; `NO_TEMPLATE` for rows that need none.
        labels: label words in class order.
        max_seq: longest row in tokens, at most the model's limit.
        train_on: turns of the assistant that are scored.
        long: what happens to longer rows.
        hold_out: hold rows out of `train` to evaluate on, under the name "valid", where they are
            enough and `others` has no such rows. A run that is resumed keeps what it began with.

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
    hold_out: bool = False


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """A run that is ready to start.

    Attributes:
        run: parts of the run; its folder is not touched yet.
        reader: reads rows like those of the run; None if the run was given tokens, or takes no more
            rows.
        sets: examples by name, "train" first.
        questions: the same as questions, if the objective scores generated answers.
        plan: memory plan; None without a budget.
        longest: tokens of the longest row that the plan covers; None without a budget.
        warnings: warnings for the user, to show before the run starts.
        not_held_out: why no rows are held out although that was asked for; else empty.
    """

    run: Run
    reader: RowReader | None
    sets: Mapping[str, ExampleSet]
    questions: Mapping[str, QuestionSet]
    plan: Plan | None
    longest: int | None
    warnings: Sequence[str]
    not_held_out: str = ""


def open_run(
    bundle: Bundle,
    data: RunData,
    config: TuneConfig,
    folder: RunFolder,
    *,
    budget_bytes: int | None = None,
    process_bytes: int | None = None,
    eval_batch_size: int = 32,
    threads: int | None = None,
    governors: str | Sequence[str | Governor] = (),
    reward: Reward | None = None,
    adapter: Adapter | str | Path | None = None,
    resume: bool = True,
    check: Callable[[], None] = lambda: None,
) -> OpenedRun:
    """Read and check the inputs of a run, and plan its memory. Writes nothing.

    Args:
        bundle: the model.
        data: rows.
        config: how to tune.
        folder: folder of the run; if it holds a run, the plan is that of the resumed run.
        budget_bytes: limit of the process's resident memory; None for no limit and no plan.
        process_bytes: resident memory of the process before it read any data, if the budget holds
            for the whole life of the process; None if it holds from now on, and more rows may be
            added.
        eval_batch_size: examples per pass of an evaluation.
        threads: compute threads of the process; None takes one per core.
        governors: decide when steps may be taken: names, or functions.
        reward: scores generated texts, if that is the objective.
        adapter: initial adapter, its file or its run folder; None for the bundle's own trainables.
        resume: may the folder hold a run?
        check: called between the parts; raises to end the opening.

    Raises:
        DoesNotFitError: the budget is too small, or memory was refused.
        EdgezoError: something is missing or damaged, or settings do not go together.
    """
    chosen, absent = make_governors(governors)
    with refusing_to_begin():
        initial = load_initial_adapter(adapter, folder)
        data, doubts = _settled(bundle, data, initial, folder, resume=resume)
        train, reader = read_given(
            bundle,
            data.train,
            config,
            data.template,
            data.labels,
            data.max_seq,
            train_on=data.train_on,
            long=data.long,
        )
        train, sources, why_none = _held_out(data, train, config, folder, resume=resume)
        sets, questions = _read_others(train, reader, sources)
        if process_bytes is not None:  # no rows will follow: the tokenizer takes some megabytes
            reader = None
        check()
        release_freed()
        data_bytes = 0 if process_bytes is None else max(0, rss_bytes() - process_bytes)
        engine = limited_engine(bundle, budget_bytes, threads)
        try:
            task = AnswerTask(questions.get("train"), reward)
            run = Run(
                engine, sets["train"], config, folder, adapter=initial, task=task, governors=chosen
            )
            if resume:
                run.log.recall()
            plan, longest = None, None
            if budget_bytes is not None:
                others = [examples for name, examples in sets.items() if name != "train"]
                if reader is not None:
                    others.append(rows_to_come(bundle, run.examples, reader.max_seq))
                longest = max(int(part.lengths().max()) for part in [run.examples, *others])
                plan = make_plan(
                    run,
                    budget_bytes,
                    others=others,
                    eval_batch_size=eval_batch_size,
                    process_bytes=process_bytes or 0,
                    data_bytes=data_bytes,
                    start_bytes=0 if process_bytes is None else peak_rss_bytes(),
                )
                check()
                plan.apply(engine)
            warnings = [*absent, *doubts, *_warnings(run, sets, plan)]
        except BaseException:
            engine.close()
            raise
    return OpenedRun(run, reader, sets, questions, plan, longest, warnings, why_none)


def _settled(
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


def _held_out(
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
    wanted, others = data.hold_out and "valid" not in data.others, dict[str, Given](data.others)
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


def _read_others(
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
                sets[name] = read_source(reader, source)
        return sets, {}
    questions = {"train": train}
    for name, source in others.items():
        if isinstance(source, QuestionSet):
            questions[name] = source
            continue
        if reader is None or isinstance(source, ExampleSet):
            raise UsageError(f"{name} rows: give them as rows or a file, to be read as questions")
        questions[name] = make_questions(reader, source)
    return {name: found.examples for name, found in questions.items()}, questions


def _warnings(run: Run, sets: Mapping[str, ExampleSet], plan: Plan | None) -> list[str]:
    """Warnings for the user, one sentence each."""
    found: list[str] = []
    manifest, config = run.engine.bundle.manifest, run.config
    if plan is not None and plan.choice.streamed and plan.weights_bytes > available_bytes():
        found.append(
            f"the weights of the blocks take {format_size(plan.weights_bytes)}, more than the free "
            f"memory: every step reads the streamed blocks from the disk"
        )
    for name, examples in sets.items():
        found += [f"{name} rows: {warning.message}" for warning in examples.warnings]
    found += [warning.message for warning in run.probes.batches.warnings]
    if config.wants_first_order and not run.first_order_blocks:
        reason = why_no_first_order(manifest) or "the budget has no room for gradients"
        found.append(f"no first-order steps; the run estimates gradients from losses: {reason}")
    scheme, kind = METHODS[config.method].scheme, manifest.scheme.kind
    if scheme and scheme != kind:
        found.append(
            f"`method` {config.method}: made for bundles exported with `trainable={scheme}`; this "
            f"bundle has {kind}"
        )
    if config.scope == "answer" and not invocation(sets["train"]):
        found.append(
            "the answers begin after different tokens, so the adapter cannot be exported for other "
            "programs; with `scope=all` it can"
        )
    return found
