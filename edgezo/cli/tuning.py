"""What `edgezo tune` does: check, evaluate, tune, evaluate, hand out adapter and receipt."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgezo._version import __version__
from edgezo.cli.default_bundle import default_bundle
from edgezo.cli.metrics import Metrics
from edgezo.cli.output import duration, note, percent, print_result, table, warn
from edgezo.cli.progress import Progress
from edgezo.cli.stop_signals import StopSignals
from edgezo.cli.task_data import PACKAGED, TaskData, find_task
from edgezo.cli.tune import TuneInputs
from edgezo_runtime.adapter import make_adapter
from edgezo_runtime.batches import Batches
from edgezo_runtime.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import DivergedError, InterruptedRunError, RunFileError, UsageError
from edgezo_runtime.estimate import Estimate, estimate_run
from edgezo_runtime.evaluate import Evaluation, evaluate
from edgezo_runtime.examples import ExampleSet, load_examples
from edgezo_runtime.files import atomic_write
from edgezo_runtime.memory import peak_rss_bytes, rss_bytes
from edgezo_runtime.run_folder import RunFolder
from edgezo_runtime.sizes import format_size, parse_size
from edgezo_runtime.tokenizer import TextTokenizer
from edgezo_runtime.tuner import StepReport, Tuner

CREATED_BY = f"edgezo {__version__}"

_DATA_SETTINGS = ("template", "label", "max_seq")
"""Settings that say how rows become tokens; a run goes on with the same ones."""


@dataclass(slots=True)
class _Job:
    """Everything a run needs, checked."""

    bundle: Bundle
    inputs: TuneInputs
    config: TuneConfig
    task: TaskData
    budget: int
    sets: dict[str, ExampleSet]
    estimate: Estimate
    warnings: list[str] = field(default_factory=list)

    def resolved(self) -> dict[str, Any]:
        """The run's config.json; `--config` reads it back."""
        inputs = dataclasses.asdict(self.inputs)
        for name in ("data", "valid", "test"):
            if inputs[name] not in (None, PACKAGED):
                inputs[name] = str(Path(inputs[name]).resolve())
        return {
            "created_by": CREATED_BY,
            "bundle": str(self.bundle.root),
            **inputs,
            "template": self.task.template,
            "label": list(self.task.labels),
            **dataclasses.asdict(self.config),
        }


def tune(
    bundle: str | None,
    inputs: TuneInputs,
    config: TuneConfig,
    output: Path | None,
    *,
    resume: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run the verb.

    Args:
        bundle: path, or None for the embedded default.
        inputs: data and budget.
        config: how to tune.
        output: folder of the run, or None for a new one.
        resume: continue the run in it.
        dry_run: stop before anything is written.
        as_json: print the result as JSON.
    Raises:
        EdgezoError: see the exit codes in `edgezo_runtime.errors`.
    """
    config.check()
    budget = parse_size(inputs.budget)
    root = Path(bundle) if bundle is not None else default_bundle()
    if output is None:
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        output = Path("runs") / f"{root.resolve().name}-{now}"
    with StopSignals() as signals:
        job = _prepare(root, inputs, config, budget, signals)
        for text in job.warnings:
            warn(text)
        if dry_run:
            _print_plan(job, output, as_json)
            return
        run = RunFolder(output)
        run.acquire()
        try:
            _begin(job, run, resume)
            result = _run(job, run, resume, signals)
        finally:
            run.release()
    print_result(result, _receipt_lines(result), as_json)
    if result["status"] == "interrupted":
        raise InterruptedRunError(
            f"interrupted after {result['steps']} steps; the state is saved, continue with "
            f"'edgezo tune --resume -o {output}'"
        )


def _prepare(
    root: Path, inputs: TuneInputs, config: TuneConfig, budget: int, signals: StopSignals
) -> _Job:
    task = find_task(inputs.data, inputs.valid, inputs.test, inputs.template, inputs.label)
    bundle = Bundle.open(root)
    if inputs.verify:
        verify(bundle, signals)
    manifest = bundle.manifest
    tokenizer = TextTokenizer.open(bundle.root, manifest.tokenizer, task=manifest.model.task)
    files = {"train": task.train, "valid": task.valid, "test": task.test}
    sets = {
        name: load_examples(
            file,
            tokenizer,
            template=task.template,
            labels=task.labels,
            max_seq=min(inputs.max_seq, manifest.model.max_seq),
        )
        for name, file in files.items()
        if file is not None
    }
    signals.check()
    others = [examples for name, examples in sets.items() if name != "train"]
    estimate = estimate_run(bundle, sets["train"], config, others, inputs.threads or None)
    close = estimate.check(budget)
    warnings = [] if close is None else [close]
    for name, examples in sets.items():
        warnings += [f"{name} rows: {warning.message}" for warning in examples.warnings]
    batches = Batches(sets["train"], config.batch_size, config.seed)
    warnings += [warning.message for warning in batches.warnings]
    if "valid" not in sets:
        warnings.append("no rows to evaluate on; give --valid FILE to see what the tuning brought")
    return _Job(bundle, inputs, config, task, budget, sets, estimate, warnings)


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


def _begin(job: _Job, run: RunFolder, resume: bool) -> None:
    """Check the folder; a new run gets its configuration before its journal."""
    if run.has_journal() and not resume:
        raise UsageError(
            f"{run.path}: holds a run; continue it with --resume or choose another folder with -o"
        )
    if run.has_journal():
        _check_same_rows(job, run)
    else:
        _write_config(job, run)
    note(f"run {run.path}: {_summary(job)}")


def _check_same_rows(job: _Job, run: RunFolder) -> None:
    """The tuner compares everything else."""
    if not run.config.is_file():
        return
    try:
        saved = json.loads(run.config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunFileError(f"{run.config}: not JSON: {error}") from error
    resolved = job.resolved()
    for name in _DATA_SETTINGS:
        if saved.get(name) != resolved[name]:
            raise RunFileError(
                f"{run.path}: cannot be continued, it was started with {name} "
                f"{saved.get(name)!r:.80}, now it is {resolved[name]!r:.80}"
            )


def _write_config(job: _Job, run: RunFolder) -> None:
    text = json.dumps(job.resolved(), indent=2, ensure_ascii=False) + "\n"
    atomic_write(run.config, text.encode())


def _summary(job: _Job) -> str:
    config = job.config
    ends = [f"{config.steps} steps"] if config.steps else []
    ends += [duration(config.max_time_s)] if config.max_time_s else []
    model = job.bundle.manifest.model
    return (
        f"{model.id} ({job.bundle.manifest.quant}) on {len(job.sets['train'])} rows, "
        f"{' or '.join(ends)}, {config.method} with {config.rule}, lr {config.lr:g}, "
        f"eps {config.eps:g}, batch {config.batch_size}, budget {format_size(job.budget)}"
    )


def _run(job: _Job, run: RunFolder, resume: bool, signals: StopSignals) -> dict[str, Any]:
    with Tuner.open(
        job.bundle,
        job.sets["train"],
        job.config,
        run,
        resume=resume,
        threads=job.inputs.threads or None,
    ) as tuner:
        signals.on_request(tuner.stop)
        _write_config(job, run)
        metrics = Metrics(run.metrics, tuner.step_number)
        session = _Session(job, tuner, metrics, signals)
        try:
            return session.run(run)
        finally:
            metrics.close()


class _Session:
    """One sitting of a run."""

    def __init__(self, job: _Job, tuner: Tuner, metrics: Metrics, signals: StopSignals) -> None:
        self._job = job
        self._tuner = tuner
        self._metrics = metrics
        self._signals = signals
        self._progress = Progress()
        self._rows = 0
        self._seconds = 0.0

    def run(self, run: RunFolder) -> dict[str, Any]:
        """Evaluate, tune, evaluate, write adapter and receipt; the receipt is the result."""
        result: dict[str, Any] = {}
        failure = self._until_stopped(self._tuning, result)
        steps = self._tuner.step_number
        self._tuner.snapshot()
        adapter = make_adapter(
            run.adapter,
            self._job.bundle,
            self._tuner.adapter(),
            steps=steps,
            created_by=CREATED_BY,
        )
        digest = adapter.save(run.adapter)
        if failure is None and not self._signals.requested:
            failure = self._until_stopped(self._closing, result)
        result["status"] = "interrupted" if self._signals.requested else "done"
        if failure is not None:
            result |= {"status": "diverged", "error": str(failure)}
        receipt = self._receipt(run, result, digest)
        text = json.dumps(receipt, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        atomic_write(run.receipt, text.encode())
        if failure is not None:
            raise DivergedError(
                f"{failure}; the state after {steps} steps is saved in {run.path}"
            ) from failure
        return receipt

    def _until_stopped(
        self, work: Callable[[dict[str, Any]], None], result: dict[str, Any]
    ) -> DivergedError | None:
        """Do something that a signal or a loss that is not finite can end."""
        try:
            work(result)
        except DivergedError as error:
            return error
        except InterruptedRunError:
            pass
        finally:
            self._progress.end()
        return None

    def _tuning(self, result: dict[str, Any]) -> None:
        result |= _named("before", self._evaluate("valid", "before"))
        self._steps()

    def _closing(self, result: dict[str, Any]) -> None:
        result |= _named("after", self._evaluate("valid", "after"))
        result |= _named("test", self._evaluate("test", "after"))

    def _steps(self) -> None:
        for report in self._tuner:
            self._rows += report.rows
            self._seconds += report.elapsed_s
            self._metrics.write(
                {
                    "event": "step",
                    "step": report.step,
                    "loss": report.loss,
                    "projected_grad": report.projected_grad,
                    "lr": report.lr,
                    "blocks": list(report.blocks),
                    "rows": report.rows,
                    "tokens": report.tokens,
                    "elapsed_s": round(report.elapsed_s, 4),
                }
            )
            if self._progress.due():
                self._progress.update(self._live_line(report))

    def _live_line(self, report: StepReport) -> str:
        budget = self._job.budget
        memory = [rss_bytes(), peak_rss_bytes(), budget]
        done = self._tuner.fraction_done
        left = self._tuner.elapsed_s * (1 - done) / done if done else 0.0
        return (
            f"step {report.step + 1}  loss {report.loss:.4f}  "
            f"{self._rows / max(self._seconds, 1e-9):.0f} rows/s  "
            f"memory {'/'.join(format_size(value) for value in memory)}  "
            f"{duration(left)} left"
        )

    def _evaluate(self, split: str, when: str) -> dict[str, Any] | None:
        """Evaluate on a split; what an earlier sitting found before tuning is taken from there."""
        examples = self._job.sets.get(split)
        if examples is None:
            return None
        if when == "before":
            known = self._metrics.find(event="eval", split=split, when=when)
            if known is not None:
                return known
        initial = when == "before"
        params = self._job.bundle.trainables() if initial else self._tuner.adapter()
        show = self._progress.count(f"evaluating {when} tuning, {split} rows")

        def tell(done: int, total: int) -> None:
            self._signals.check()
            show(done, total)

        size = self._job.inputs.eval_batch_size
        found: Evaluation = evaluate(self._tuner.engine, params, examples, size, tell)
        self._progress.end()
        check_loss(found, f"evaluating {when} tuning, {split} rows")
        entry = {
            "event": "eval",
            "split": split,
            "when": when,
            "step": 0 if initial else self._tuner.step_number,
            "rows": found.rows,
            "loss": found.loss,
            "accuracy": found.accuracy,
        }
        self._metrics.write(entry)
        return entry

    def _receipt(self, run: RunFolder, result: dict[str, Any], digest: str) -> dict[str, Any]:
        job, peak = self._job, peak_rss_bytes()
        warnings = list(job.warnings)
        if peak > job.budget:
            warnings.append(
                f"the peak of {format_size(peak)} was above the budget of {format_size(job.budget)}"
            )
            warn(warnings[-1])
        names = ("before", "after", "test")
        losses = {f"loss_{name}": result.get(f"loss_{name}") for name in names}
        shares = {f"accuracy_{name}": result.get(f"accuracy_{name}") for name in names}
        return {
            "status": result["status"],
            **({"error": result["error"]} if "error" in result else {}),
            "run": str(run.path),
            "model": job.bundle.manifest.model.id,
            "steps": self._tuner.step_number,
            "seconds": round(self._tuner.elapsed_s, 3),
            "rows_per_s": round(self._rows / self._seconds, 2) if self._seconds else None,
            **losses,
            **shares,
            "peak_bytes": peak,
            "budget_bytes": job.budget,
            "estimated_bytes": job.estimate.total,
            "adapter": str(run.adapter),
            "adapter_sha256": digest,
            "warnings": warnings,
            "created_by": CREATED_BY,
        }


def check_loss(found: Evaluation, what: str) -> None:
    """Refuse a loss that says nothing.

    Raises:
        DivergedError: it is not finite.
    """
    if not math.isfinite(found.loss):
        raise DivergedError(f"{what}: the mean loss is {found.loss}")


def _named(when: str, entry: dict[str, Any] | None) -> dict[str, Any]:
    if entry is None:
        return {}
    return {f"loss_{when}": entry["loss"], f"accuracy_{when}": entry["accuracy"]}


def _print_plan(job: _Job, output: Path, as_json: bool) -> None:
    parts = dataclasses.asdict(job.estimate)
    result = {
        "run": str(output),
        "config": job.resolved(),
        "rows": {name: len(examples) for name, examples in job.sets.items()},
        "longest": {name: examples.report.longest for name, examples in job.sets.items()},
        "estimated_bytes": job.estimate.total,
        "estimate": parts,
        "budget_bytes": job.budget,
        "warnings": job.warnings,
    }
    rows = [("run", f"{output} (not made)"), ("plan", _summary(job))]
    rows += [(f"{name} rows", str(len(examples))) for name, examples in job.sets.items()]
    rows.append(("memory", f"{format_size(job.estimate.total)} estimated"))
    rows += [(f"  {name}", format_size(size)) for name, size in parts.items()]
    print_result(result, table(rows), as_json)


def _receipt_lines(result: dict[str, Any]) -> list[str]:
    rows = [("run", str(result["run"]))]
    if result["accuracy_before"] is not None:
        change = f"{percent(result['accuracy_before'])} -> {percent(result['accuracy_after'])}"
        rows.append(("accuracy", change))
    if result["loss_before"] is not None:
        after = result["loss_after"]
        change = f"{result['loss_before']:.4f} -> {'-' if after is None else f'{after:.4f}'}"
        rows.append(("loss", change))
    if result["loss_test"] is not None:
        share = result["accuracy_test"]
        what = f"loss {result['loss_test']:.4f}"
        rows.append(("test", what if share is None else f"{percent(share)}, {what}"))
    rows.append(("steps", f"{result['steps']} in {duration(result['seconds'])}"))
    peak, budget = result["peak_bytes"], result["budget_bytes"]
    rows.append(("memory", f"{format_size(peak)} at the peak, budget {format_size(budget)}"))
    rows.append(("adapter", str(result["adapter"])))
    return table(rows)
