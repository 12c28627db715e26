"""What a run needs, read and checked: bundle, rows, budget."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgezo._version import __version__
from edgezo.cli.files.task_data import PACKAGED, TaskData, find_task
from edgezo.cli.settings.method_config import flat_config
from edgezo.cli.terminal.output import duration
from edgezo.cli.terminal.progress import Progress
from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo.cli.tune.inputs import TuneInputs
from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.budget.memory_limits import limited_engine, refusing_to_begin
from edgezo_runtime.budget.plan import Plan, make_plan
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.questions import QuestionSet, load_questions
from edgezo_runtime.data.random_rows import random_rows
from edgezo_runtime.data.scope import invocation
from edgezo_runtime.data.sources import load_examples, open_tokenizer
from edgezo_runtime.engine.sessions import import_onnxruntime
from edgezo_runtime.errors import DoesNotFitError, UsageError
from edgezo_runtime.evaluation.objectives import Reward
from edgezo_runtime.governors import make_governors
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.methods.catalogue import METHODS
from edgezo_runtime.system.memory import (
    available_bytes,
    limit_bytes,
    peak_rss_bytes,
    release_freed,
    rss_bytes,
    total_bytes,
)
from edgezo_runtime.system.sizes import format_size, parse_size
from edgezo_runtime.training.first_order_layout import why_no_first_order
from edgezo_runtime.training.start import read_start

CREATED_BY = f"edgezo {__version__}"


@dataclass(slots=True)
class Job:
    """Everything a run needs, checked."""

    bundle: Bundle
    inputs: TuneInputs
    config: TuneConfig
    task: TaskData | None
    sets: dict[str, ExampleSet]
    tuner: Tuner
    plan: Plan
    questions: dict[str, QuestionSet] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def scope(self) -> str:
        """Tokens the adapters act on, "auto" resolved."""
        return self.tuner.scope

    @property
    def budget(self) -> int:
        """Bytes the process may take."""
        return self.plan.budget_bytes

    def resolved(self) -> dict[str, Any]:
        """The run's config.json; `--config` reads it back."""
        inputs = dataclasses.asdict(self.inputs)
        for name in ("data", "valid", "test", "adapter"):
            if inputs[name] not in (None, PACKAGED):
                inputs[name] = str(Path(inputs[name]).resolve())
        return {
            "created_by": CREATED_BY,
            "bundle": str(self.bundle.root),
            **inputs,
            "template": self.task.template if self.task else self.inputs.template,
            "label": list(self.task.labels if self.task else self.inputs.label),
            **flat_config(self.config),
        }

    def summary(self) -> str:
        """One line: the model, the rows and how."""
        config = self.tuner.settled
        ends = [f"{config.steps} steps"] if config.steps else []
        ends += [duration(config.max_time_s)] if config.max_time_s else []
        model = self.bundle.manifest.model
        return (
            f"{model.id} ({self.bundle.manifest.quant}) on {len(self.sets['train'])} rows, "
            f"{' or '.join(ends)}, {self._step_evaluator()}, batch {config.batch_size}, "
            f"scope {self.scope}, "
            f"budget {format_size(self.budget)}: {self.plan.words()}"
        )

    def _step_evaluator(self) -> str:
        """The method, its rates, and what first-order steps take."""
        config, tail = self.config, self.tuner.num_first_order_blocks
        exact = f"first-order steps of the last {tail} blocks, lr {_rate(config.first_order_lr)}"
        if not self.tuner.estimated_blocks:
            return f"{config.method}: {exact}"
        rates = f"{config.method}, lr {_rate(config.lr)}, eps {_rate(config.eps)}"
        return f"{rates}, {exact}" if tail else rates


def prepare(
    root: Path,
    inputs: TuneInputs,
    config: TuneConfig,
    run: RunFolder,
    signals: StopSignals,
    reward: Reward | None = None,
    *,
    resume: bool = False,
) -> Job:
    """Read and check everything a run needs, and plan its memory. Writes nothing.

    Args:
        root: the bundle.
        inputs: data and budget, as given.
        config: how to tune.
        run: folder of the run.
        signals: ends it early.
        reward: scores texts, where that is the objective.
        resume: continue the run in it.
    Raises:
        EdgezoError: something is missing, damaged, or does not fit.
    """
    with refusing_to_begin():
        return _prepare(root, inputs, config, run, signals, reward, resume)


def _prepare(
    root: Path,
    inputs: TuneInputs,
    config: TuneConfig,
    run: RunFolder,
    signals: StopSignals,
    reward: Reward | None,
    resume: bool,
) -> Job:
    import_onnxruntime()
    budget, resolved = resolve_budget(inputs.budget)
    process = rss_bytes()
    bundle = Bundle.open(root, verify=None if inputs.verify else False)
    if inputs.verify:
        verify(bundle, signals)
    task = None
    questions: dict[str, QuestionSet] = {}
    if inputs.data is None:
        if config.writes and not inputs.label:
            raise UsageError(
                f"--objective {config.objective}: what texts take depends on the prompts; give "
                f"--data FILE"
            )
        sets = {"train": _rows_of_any_text(bundle, inputs, config)}
    else:
        task = find_task(inputs.data, inputs.valid, inputs.test, inputs.template, inputs.label)
        if config.writes and not task.labels:
            questions = _read_questions(bundle, inputs, config, task)
            sets = {name: found.examples for name, found in questions.items()}
        else:
            sets = _read(bundle, inputs, task)
    if inputs.eval_every_s and "valid" not in sets:
        raise UsageError(
            f"--eval-every {duration(inputs.eval_every_s)}: there are no rows to evaluate on; give "
            f"--valid FILE"
        )
    signals.check()
    release_freed()
    data = max(0, rss_bytes() - process)
    train, *others = sets.values()
    rows = questions.get("train", train)
    start = _start(inputs, run)
    governors, absent = make_governors(inputs.when)
    engine = limited_engine(bundle, budget, inputs.threads or None)
    tuner = Tuner(engine, rows, config, run, start=start, reward=reward, governors=governors)
    if resume:
        tuner.recall()
    plan = make_plan(
        tuner,
        budget,
        others=others,
        eval_batch_size=inputs.eval_batch_size,
        process_bytes=process,
        data_bytes=data,
        start_bytes=peak_rss_bytes(),
    )
    signals.check()
    plan.apply(tuner.engine)
    warnings = [*absent] if resolved is None else [resolved, *absent]
    if plan.choice.streamed and plan.weights_bytes > available_bytes():
        warnings.append(
            f"the weights of the blocks, {format_size(plan.weights_bytes)}, are more than is free: "
            f"a step reads what is streamed from the disk"
        )
    other = start.fits_warning(bundle) if start is not None else None
    warnings += [other] if other is not None else []
    for name, examples in sets.items():
        warnings += [f"{name} rows: {warning.message}" for warning in examples.warnings]
    warnings += [warning.message for warning in tuner.warnings]
    if config.wants_first_order and not tuner.num_first_order_blocks:
        reason = why_no_first_order(bundle.manifest) or "the budget has no room for gradients"
        warnings.append(f"no first-order steps, the run descends by losses alone: {reason}")
    scheme, kind = METHODS[config.method].scheme, bundle.manifest.scheme.kind
    if scheme and scheme != kind:
        warnings.append(
            f"{config.method} is made for what 'edgezo export --trainable {scheme}' lets train; "
            f"in this bundle {kind} trains"
        )
    if config.scope == "answer" and not invocation(train):
        warnings.append(
            "answers do not all begin after the same token, so other programs cannot be told where "
            "the adapter acts and it cannot be exported for them; --scope all can"
        )
    if task is not None and "valid" not in sets:
        warnings.append("no rows to evaluate on; give --valid FILE to see what the tuning brought")
    return Job(bundle, inputs, config, task, sets, tuner, plan, questions, warnings)


def _start(inputs: TuneInputs, run: RunFolder) -> Adapter | None:
    """The adapter to begin from.

    A run that is continued has a copy of its own; what lies where it was may have changed.
    """
    if inputs.adapter is None:
        return None
    path = Path(inputs.adapter)
    began = run.has_journal() and run.start.exists()
    if began and str(path.resolve()) == run.settings().get("adapter"):
        path = run.start
    return read_start(path, run)


def resolve_budget(text: str) -> tuple[int, str | None]:
    """Bytes of a budget as given, and a warning where less than that is free now.

    Raises:
        UsageError: it is no size, or more than the machine or the control group has.
    """
    available, total = available_bytes(), total_bytes()
    if not available:
        raise DoesNotFitError("no memory is left to this process; end other programs")
    budget = parse_size(text, available=available)
    if budget > total:
        raise UsageError(
            f"--budget {text}: {format_size(budget)} is more than the {format_size(total)} this "
            f"{'control group' if limit_bytes() == total else 'machine'} has; give a smaller "
            f"size, a share such as 80%, or auto"
        )
    if budget > available + rss_bytes():
        return budget, (
            f"the budget of {format_size(budget)} is more than the {format_size(available)} that "
            f"are free now; the run steps back when less than that is left"
        )
    return budget, None


def _read(bundle: Bundle, inputs: TuneInputs, task: TaskData) -> dict[str, ExampleSet]:
    """The sets of a task, tokenized; the one to tune on first."""
    tokenizer = open_tokenizer(bundle)
    return {
        name: load_examples(
            file,
            tokenizer,
            template=task.template,
            labels=task.labels,
            max_seq=min(inputs.max_seq, bundle.manifest.model.max_seq),
        )
        for name, file in task.files()
    }


def _read_questions(
    bundle: Bundle, inputs: TuneInputs, config: TuneConfig, task: TaskData
) -> dict[str, QuestionSet]:
    """The same as questions, with room for an answer."""
    room = bundle.manifest.model.max_seq - config.max_new_tokens
    if room < 1:
        raise UsageError(
            f"--max-new-tokens {config.max_new_tokens}: the model takes "
            f"{bundle.manifest.model.max_seq} tokens in all"
        )
    tokenizer = open_tokenizer(bundle)
    longest = min(inputs.max_seq, room)
    return {
        name: load_questions(file, tokenizer, template=task.template, max_seq=longest)
        for name, file in task.files()
    }


def _rows_of_any_text(bundle: Bundle, inputs: TuneInputs, config: TuneConfig) -> ExampleSet:
    """Rows as long as they may be, to plan for before there are data."""
    model = bundle.manifest.model
    tokens = max(2, min(inputs.max_seq, model.max_seq))
    label_ids = range(1, 1 + len(inputs.label))
    rows = config.settled(1 << 30, all_first_order=False).batch_size
    return random_rows(int(rows), tokens, model.vocab_size, label_ids)


def verify(bundle: Bundle, signals: StopSignals) -> None:
    """Check a bundle's digests, with progress.

    Raises:
        BundleError: a file was altered.
    """
    with Progress() as progress:

        def tell(done: int, total: int) -> None:
            signals.check()
            if progress.due() and total > 1 << 30:
                progress.update(f"checking {bundle.root} {100 * done // total}%")

        bundle.verify(tell)


def _rate(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
