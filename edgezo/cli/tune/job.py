"""The job of `edgezo tune` and `edgezo plan`: an opened run, and its settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgezo._version import CREATED_BY
from edgezo.cli.files.row_reading import naming_the_template, settle_rows
from edgezo.cli.files.task_data import (
    NONE,
    PACKAGED,
    TaskData,
    find_task,
    folder_with_task,
)
from edgezo.cli.files.verify import verify
from edgezo.cli.settings.budget import resolve_budget
from edgezo.cli.settings.flags import with_flags
from edgezo.cli.settings.method_config import flat_config
from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo.cli.tune.inputs import AUTO, TuneInputs
from edgezo.wording import duration
from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.app.open_run import OpenedRun, open_run
from edgezo_runtime.app.run_data import HOLD_OUT, RunData
from edgezo_runtime.budget.memory_limits import refusing_to_begin
from edgezo_runtime.budget.plan import Plan
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.random_rows import random_rows
from edgezo_runtime.data.reading import NO_TEMPLATE, Reading, SettledReading
from edgezo_runtime.data.sources import Source
from edgezo_runtime.devices.library import import_onnxruntime
from edgezo_runtime.errors import UsageError
from edgezo_runtime.evaluation.objectives import Reward
from edgezo_runtime.generation.generator import why_no_text
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.system.memory import rss_bytes
from edgezo_runtime.system.sizes import format_size
from edgezo_runtime.training.initial_adapter import known_reading, load_initial_adapter
from edgezo_runtime.training.run import Run


@dataclass(frozen=True, slots=True)
class Job:
    """A run that is ready to start, and its settings.

    Attributes:
        inputs: data and budget.
        config: how to tune.
        task: files of the data; None for a plan without data.
        reading: how the rows are read.
        opened: the run.
        plan: memory plan of the run.
        warnings: warnings for the user.
    """

    inputs: TuneInputs
    config: TuneConfig
    task: TaskData | None
    reading: Reading
    opened: OpenedRun
    plan: Plan
    warnings: tuple[str, ...]

    @property
    def run(self) -> Run:
        """The parts of the run."""
        return self.opened.run

    @property
    def bundle(self) -> Bundle:
        """The model."""
        return self.run.engine.bundle

    @property
    def sets(self) -> Mapping[str, ExampleSet]:
        """Examples by name."""
        return self.opened.sets

    @property
    def budget(self) -> int:
        """Bytes that the process may take."""
        return self.plan.budget_bytes

    @property
    def held_out(self) -> int:
        """Rows of the training data that the run does not tune on."""
        return self.sets["train"].held_out

    def resolved(self) -> dict[str, Any]:
        """The values of the run's config.json, which `--config` reads."""
        inputs = dataclasses.asdict(self.inputs)
        if self.task is not None and self.inputs.data != (PACKAGED,):
            test = self.task.test
            inputs["test"] = (NONE,) if test is None else tuple(map(str, test.files))
        for name in ("data", "valid", "test"):
            inputs[name] = _as_saved(inputs[name])
        if self.inputs.adapter is not None:
            inputs["adapter"] = str(Path(self.inputs.adapter).resolve())
        return {
            "created_by": CREATED_BY,
            "bundle": str(self.bundle.root),
            **inputs,
            "template": self.reading.template,
            "label": list(self.reading.labels),
            "max_seq": self.inputs.max_seq or self.reading.max_seq,
            "train_on": self.reading.train_on,
            "long": self.reading.long,
            **flat_config(self.config),
        }

    def summary(self) -> str:
        """One line: the model, the rows and the method."""
        config = self.run.trajectory.settled
        ends = [f"{config.steps} steps"] if config.steps else []
        ends += [duration(float(config.max_time_s))] if config.max_time_s else []
        model = self.bundle.manifest.model
        rows = f"{len(self.sets['train'])} rows"
        if self.held_out:
            rows += f" ({self.held_out} more are held out: evaluated on, not tuned on)"
        return (
            f"{model.id} ({self.bundle.manifest.quant}) on {rows}, "
            f"{' or '.join(ends)}, {self._method()}, batch {config.batch_size}, "
            f"scope {self.run.scope}, "
            f"budget {format_size(self.budget)}: {self.plan.words()}"
        )

    def _method(self) -> str:
        """The method, its rates, and the blocks that take first-order steps."""
        config, first_order = self.run.config, len(self.run.first_order_blocks)
        own = f"first-order steps of the last {self.run.rates.num_first_order} blocks"
        own += f", lr {_rate(config.first_order_lr)}"
        if self.run.trajectory.layout.feedback is not None:
            pairs = self.run.trajectory.layout.feedback.pairs
            rates = f"lr {_rate(config.lr)}, eps {_rate(config.eps)}"
            return f"{config.method} from {pairs} pairs, {rates}"
        if self.run.trajectory.layout.carried is not None:
            count = len(self.run.trajectory.layout.carried)
            rate = _rate(config.lr)
            return f"{config.method}: the error carried back to {count} blocks, lr {rate}"
        if not self.run.trajectory.layout.blocks:
            return f"{config.method}: {own}"
        rates = f"{config.method}, lr {_rate(config.lr)}, eps {_rate(config.eps)}"
        return f"{rates}, {own}" if first_order else rates


def prepare(
    root: Path,
    inputs: TuneInputs,
    config: TuneConfig,
    folder: RunFolder,
    signals: StopSignals,
    reward: Reward | None = None,
    *,
    resume: bool = False,
    tell: Callable[[str, int, int], None] = lambda part, done, total: None,
    answer_tokens: int = 0,
) -> Job:
    """Read and check the inputs of a run, and plan its memory. Writes nothing.

    Args:
        root: path of the bundle.
        inputs: data and budget, as given.
        config: how to tune.
        folder: folder of the run.
        signals: can interrupt it.
        reward: scores texts, if that is the objective.
        resume: resume the run in the folder.
        tell: as for `open_run`.
        answer_tokens: prompt and answer of the longest text that is served meanwhile.
    Raises:
        EdgezoError: an input is missing, is damaged, or does not fit.
    """
    with refusing_to_begin():
        import_onnxruntime()
        budget, less = resolve_budget(inputs.budget)
        process = rss_bytes()
        bundle = Bundle.open(root, verify=None if inputs.verify else False)
        if answer_tokens and (reason := why_no_text(bundle.manifest)) is not None:
            raise UsageError(f"--serve: bundle {bundle.root} cannot generate: {reason}")
        placement = inputs.place(bundle.manifest)
        config = placement.settled(config, bundle.manifest)
        if inputs.verify:
            verify(bundle, signals)
        initial = load_initial_adapter(_initial_adapter(inputs, folder), folder)
        settled = _settle(bundle, inputs, folder, initial)
        reading, task = settled.reading, None
        if not inputs.data:
            data = RunData(_rows_of_any_text(bundle, reading, config))
        else:
            task = find_task(inputs.data, inputs.valid, inputs.test)
            train, *others = task.files()
            settings = reading.settings()
            if reading.template is None:
                settings["template"] = NO_TEMPLATE
            own: dict[str, Source] = {} if inputs.valid == (NONE,) else {"valid": HOLD_OUT}
            data = RunData(train[1], {**own, **dict(others)}, **settings)
        signals.check()
        with naming_the_template(settled):
            opened = open_run(
                bundle,
                data,
                config,
                folder,
                budget_bytes=budget,
                process_bytes=process,
                eval_batch_size=inputs.eval_batch_size,
                threads=inputs.threads or None,
                placement=placement,
                governors=inputs.when,
                reward=reward,
                adapter=initial,
                resume=resume,
                check=signals.check,
                tell=tell,
                answer_tokens=answer_tokens,
            )
    if inputs.eval_every_s not in (AUTO, 0) and "valid" not in opened.sets:
        opened.run.close()
        why = f": {opened.not_held_out}" if opened.not_held_out else ""
        raise UsageError(
            f"--eval-every {duration(float(inputs.eval_every_s))}: there are no rows to evaluate "
            f"on{why}; give --valid FILE"
        )
    if opened.plan is None:
        raise AssertionError("a run with a budget has a plan")
    unused = dataclasses.replace(settled, differences=()).warnings()
    warnings = [*([] if less is None else [less]), *unused, *opened.warnings]
    told = tuple(map(with_flags, warnings))
    return Job(inputs, config, task, reading, opened, opened.plan, told)


def _settle(
    bundle: Bundle, inputs: TuneInputs, folder: RunFolder, initial: Adapter | None
) -> SettledReading:
    """Settle how rows are read; a run that resumes does not look at the data's task.json again."""
    known, longest = known_reading(initial, folder), bundle.manifest.model.max_seq
    if not inputs.data:  # there are no rows: label words need no template
        own = known or Reading()
        most = min(inputs.max_seq or own.max_seq, longest)
        labels = inputs.label or own.labels
        return SettledReading(dataclasses.replace(own, labels=labels, max_seq=most))
    source = None if folder.has_journal() else folder_with_task(inputs.data)
    return settle_rows(inputs, known, source, longest)


def _initial_adapter(inputs: TuneInputs, folder: RunFolder) -> Path | None:
    """The initial adapter; for a run that resumes, the copy that the run stores.

    The original file may have changed since.
    """
    if inputs.adapter is None:
        return None
    path = Path(inputs.adapter)
    begun = folder.has_journal() and folder.start.exists()
    if begun and str(path.resolve()) == folder.settings().get("adapter"):
        return folder.start
    return path


def _rows_of_any_text(bundle: Bundle, reading: Reading, config: TuneConfig) -> ExampleSet:
    """Rows of the greatest length, for a plan without data.

    Raises:
        UsageError: the objective scores generated texts, whose memory depends on the prompts.
    """
    if config.needs_answers and not reading.labels:
        raise UsageError(
            f"--objective {config.objective}: the memory for generated texts depends on the "
            f"prompts; give --data FILE"
        )
    model = bundle.manifest.model
    tokens = max(2, reading.max_seq)
    label_ids = range(1, 1 + len(reading.labels))
    rows = config.settled(1 << 30, all_first_order=False).batch_size
    return random_rows(int(rows), tokens, model.vocab_size, label_ids)


def _as_saved(paths: Sequence[str]) -> str | list[str] | None:
    """Files of the data in config.json: a string, or a list of several."""
    saved = [path if path in (PACKAGED, NONE) else str(Path(path).resolve()) for path in paths]
    return saved if len(saved) > 1 else (*saved, None)[0]


def _rate(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
