"""Opens a run: reads its data, makes its engine and its parts, and plans its memory.

The command line and `Tuner.open` both use it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.app.run_data import RunData, held_out, read_others, settled
from edgezo_runtime.budget.device_plan import DevicePlan, plan_device
from edgezo_runtime.budget.memory_limits import limited_engine, refusing_to_begin
from edgezo_runtime.budget.placement import ON_CPU, Placement
from edgezo_runtime.budget.plan import Plan, make_plan
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.questions import QuestionSet
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.scope import invocation
from edgezo_runtime.data.sources import read_given, rows_to_come
from edgezo_runtime.errors import DoesNotFitError
from edgezo_runtime.evaluation.objectives import Reward
from edgezo_runtime.governors import Governor, make_governors
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.methods.catalogue import METHODS
from edgezo_runtime.methods.config_check import check_end
from edgezo_runtime.system.memory import (
    available_bytes,
    peak_rss_bytes,
    release_freed,
    rss_bytes,
)
from edgezo_runtime.system.sizes import format_size
from edgezo_runtime.training.answer_task import AnswerTask
from edgezo_runtime.training.first_order_layout import why_no_first_order
from edgezo_runtime.training.forward_only import make_as_able, settle_method
from edgezo_runtime.training.initial_adapter import load_initial_adapter
from edgezo_runtime.training.run import Run


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
        device_plan: the plan for the memory of a GPU; None on the processor, or without a budget.
    """

    run: Run
    reader: RowReader | None
    sets: Mapping[str, ExampleSet]
    questions: Mapping[str, QuestionSet]
    plan: Plan | None
    longest: int | None
    warnings: Sequence[str]
    not_held_out: str = ""
    device_plan: DevicePlan | None = None


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
    placement: Placement = ON_CPU,
    governors: str | Sequence[str | Governor] = (),
    reward: Reward | None = None,
    adapter: Adapter | str | Path | None = None,
    resume: bool = True,
    check: Callable[[], None] = lambda: None,
    tell: Callable[[str, int, int], None] = lambda part, done, total: None,
    answer_tokens: int = 0,
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
        placement: the device that computes, and what may lie on it.
        governors: decide when steps may be taken: names, or functions.
        reward: scores generated texts, if that is the objective.
        adapter: initial adapter, its file or its run folder; None for the bundle's own trainables.
        resume: may the folder hold a run?
        check: called between the parts; raises to end the opening.
        tell: given the name of a part, how many of its rows or rehearsals are done, and how many
            there are, about or at most; 0 if nothing is known of that.
        answer_tokens: prompt and answer of the longest text that others ask for between steps, and
            that the plan counts; 0 plans for none.

    Raises:
        DoesNotFitError: the budget is too small, or memory was refused.
        EdgezoError: something is missing or damaged, or settings do not go together.
    """
    given = config
    config = placement.settled(config, bundle.manifest)
    chosen, absent = make_governors(governors)
    with refusing_to_begin():
        initial = load_initial_adapter(adapter, folder)
        data, doubts = settled(bundle, data, initial, folder, resume=resume)
        tell("tokenizing rows", 0, 0)
        train, reader = read_given(
            bundle,
            data.train,
            config,
            data.template,
            data.labels,
            data.max_seq,
            train_on=data.train_on,
            long=data.long,
            tell=partial(tell, "tokenizing rows"),
        )
        train, sources, why_none = held_out(data, train, config, folder, resume=resume)
        sets, questions = read_others(train, reader, sources)
        if reader is not None:  # what is read later is read quietly
            reader = replace(reader, tell=None)
        follow = process_bytes is None  # may rows follow?
        if not follow and not answer_tokens:  # the tokenizer takes some megabytes
            reader = None
        check()
        release_freed()
        data_bytes = 0 if process_bytes is None else max(0, rss_bytes() - process_bytes)
        engine = limited_engine(bundle, budget_bytes, threads, placement)
        try:
            task = AnswerTask(questions.get("train"), reward)

            def settle(config: TuneConfig) -> TuneConfig:
                return settle_method(
                    config,
                    bundle.manifest,
                    sets["train"],
                    adapter=initial is not None,
                    resumed=folder if resume else None,
                )

            def make(config: TuneConfig) -> Run:
                return Run(
                    engine,
                    sets["train"],
                    config,
                    folder,
                    adapter=initial,
                    task=task,
                    governors=chosen,
                )

            run, unable = make_as_able(config, settle, make)
            if resume:
                run.log.recall()
            plan, longest, device_plan = None, None, None
            if budget_bytes is not None:
                others = [examples for name, examples in sets.items() if name != "train"]
                if follow and reader is not None:
                    others.append(rows_to_come(bundle, run.examples, reader.max_seq))
                longest = max(int(part.lengths().max()) for part in [run.examples, *others])
                plan, device_plan = _planned(
                    run,
                    partial(
                        make_plan,
                        budget_bytes=budget_bytes,
                        others=others,
                        eval_batch_size=eval_batch_size,
                        process_bytes=process_bytes or 0,
                        data_bytes=data_bytes,
                        start_bytes=0 if process_bytes is None else peak_rss_bytes(),
                        answer_tokens=answer_tokens,
                        tell=partial(tell, "measuring passes for the memory plan"),
                    ),
                    check,
                )
            check_end(run.trajectory.settled)
            warnings = [*absent, *doubts, *_warnings(run, given, sets, plan, placement, unable)]
            if why_none:
                warnings.append(
                    f"no rows to evaluate on: {why_none}; give `valid` to see the effect of tuning"
                )
        except BaseException:
            engine.close()
            raise
    return OpenedRun(run, reader, sets, questions, plan, longest, warnings, why_none, device_plan)


def _planned(
    run: Run, make: Callable[[Run], Plan], check: Callable[[], None]
) -> tuple[Plan, DevicePlan | None]:
    """Plan the memory of the process, and that of a GPU.

    Args:
        run: the run; gives up its first-order steps if they do not fit and it does not need them.
        make: plans the memory of the process.
        check: called between the two.
    Raises:
        DoesNotFitError: a budget is too small for any way to run.
    """
    engine = run.engine
    while True:
        plan = make(run)
        check()
        plan.apply(engine)
        try:
            return plan, plan_device(engine, plan.growth.planned)
        except DoesNotFitError:
            if not run.trajectory.drop_first_order():
                raise
        engine.give_back()
        ledger = engine.model.device.ledger
        ledger.restart(ledger.limit_bytes)


def _warnings(
    run: Run,
    given: TuneConfig,
    sets: Mapping[str, ExampleSet],
    plan: Plan | None,
    placement: Placement,
    unable: str,
) -> list[str]:
    """Warnings for the user, one sentence each; `unable` says what the device cannot run."""
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
    if given.wants_first_order and (config.method != given.method or not run.first_order_blocks):
        reason = why_no_first_order(manifest) or placement.why_no_first_order(manifest)
        reason = reason or unable or "the budget has no room for gradients"
        how = "estimates gradients from losses"
        if config.method != given.method:
            how = f"takes the method {config.method}"
        found.append(f"no first-order steps; the run {how}: {reason}")
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
