"""Runs `edgezo tune`: opens the run, tunes, and prints the result."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO, cast

from edgezo.cli.terminal.aside import Aside
from edgezo.cli.terminal.output import note, print_result, warn
from edgezo.cli.terminal.progress import Progress
from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo.cli.tune.default_bundle import NAME, default_bundle
from edgezo.cli.tune.inputs import TuneInputs
from edgezo.cli.tune.job import Job, prepare
from edgezo.cli.tune.metrics import Metrics
from edgezo.cli.tune.plan_report import limit_lines, print_plan
from edgezo.cli.tune.receipt import receipt_lines
from edgezo.cli.tune.reward_file import load_reward
from edgezo.cli.tune.run_end import early_end, resume_command
from edgezo.cli.tune.serving import Beside, Serving, listening
from edgezo.cli.tune.session import Session
from edgezo.trackers.tracker import Open, TrackedRun, load_trackers
from edgezo.trackers.tracking import Tracking
from edgezo_runtime.adapters.saved_settings import settings_of_run
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import BudgetStopError, InterruptedRunError, OtherInputsError
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.methods.config_check import check_config
from edgezo_runtime.system.files import atomic_write
from edgezo_runtime.system.memory_errors import budget_stop
from edgezo_runtime.training.feedback_layout import learns_feedback
from edgezo_runtime.training.forward_only import leaves_to_feedback

MOST_RANK = 8
"""Largest rank that is chosen for a run."""


def tune(
    bundle: str | None,
    inputs: TuneInputs,
    config: TuneConfig,
    output: Path | None,
    *,
    reward: str | None,
    serving: Serving | None = None,
    dry_run: bool,
    enforce: bool,
    as_json: bool,
) -> None:
    """Run the verb.

    Args:
        bundle: path of the bundle; None for the default model.
        inputs: data and budget.
        config: how to tune.
        output: folder of the run, which is resumed if it holds one; None for a new folder.
        reward: file and function that scores texts.
        serving: where to answer meanwhile; None: nowhere.
        dry_run: stop before anything is written.
        enforce: show the memory limits.
        as_json: print the result as JSON.
    Raises:
        EdgezoError: the run cannot begin, or ends early.
    """
    check_config(config)
    judge = None if reward is None else load_reward(reward)
    root = Path(bundle) if bundle is not None else default_bundle(default_rank(inputs, config))
    if output is None:
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        name = NAME if bundle is None else root.resolve().name
        output = Path("runs") / f"{name}-{now}"
    resume = resume_command(output, reward)
    progress = Progress(block=not dry_run)  # what is loaded here counts against the budget
    openers = {} if dry_run else load_trackers(inputs.log)
    with progress, StopSignals() as signals, _naming_the_command(output, resume):
        run = RunFolder(output)
        job = prepare(
            root,
            inputs,
            config,
            run,
            signals,
            judge,
            resume=run.has_journal(),
            tell=progress.part,
            answer_tokens=0 if serving is None else serving.context,
        )
        progress.end()
        if dry_run:
            _print_dry_run(job, enforce=enforce, as_json=as_json)
            return
        for text in job.warnings:
            warn(text)
        run.acquire()
        try:
            with listening(serving) as beside:
                _begin(job, run)
                if enforce:
                    for line in limit_lines(job):
                        note(line)
                result = _run(job, signals, progress, openers, beside)
        except MemoryError as error:
            raise budget_stop(
                error,
                f"; the steps so far are in {output}",
            ) from error
        finally:
            run.release()
    early = early_end(result, output, reward)
    print_result(result, [*receipt_lines(result), *([early] if early else [])], as_json)
    if early and as_json:
        note(early)
    if result["status"] == "interrupted":
        planned = f" of {result['steps_planned']}" if result["steps_planned"] else ""
        raise InterruptedRunError(
            f"interrupted after {result['steps']}{planned} steps; the state is saved; to go on: "
            f"{resume}"
        )


def default_rank(inputs: TuneInputs, config: TuneConfig) -> int | None:
    """The rank of the default model's adapters: with feedback, one for each direction of errors."""
    directions = len(inputs.label) - 1 if inputs.label else MOST_RANK
    learns = learns_feedback(config) or (config.first_order == 0 and leaves_to_feedback(config))
    return min(directions, MOST_RANK) if learns and directions > 1 else None


@contextlib.contextmanager
def _naming_the_command(output: Path, resume: str) -> Iterator[None]:
    """Add the command that resumes a run to the errors after which it helps."""
    try:
        yield
    except OtherInputsError as error:
        raise OtherInputsError(f"{error}; to take the inputs from the run: {resume}") from error
    except BudgetStopError as error:
        if resume in str(error) or not RunFolder(output).has_journal():
            raise
        raise BudgetStopError(f"{error}; to resume the run: {resume}") from error


def _begin(job: Job, run: RunFolder) -> None:
    """Check the folder. A new run gets its configuration before its journal."""
    if run.has_journal():
        _check_same_rows(job, run)
        note(f"{run.path} holds a run with the same settings: resuming it")
    else:
        _write_config(job, run)
    note(f"run {run.path}: {job.summary()}")


def _check_same_rows(job: Job, run: RunFolder) -> None:
    """Refuse other rows than those of the run; the tuner compares all other inputs."""
    saved, _ = settings_of_run(run)
    if saved is None:
        return
    most = job.bundle.manifest.model.max_seq
    saved = dataclasses.replace(saved, max_seq=min(saved.max_seq, most))
    if changed := saved.differences(job.reading):
        raise OtherInputsError(
            f"{run.path}: cannot be resumed, the run was started with other inputs: "
            f"{'; '.join(changed)}; use the same inputs, or choose another folder"
        )


def _write_config(job: Job, run: RunFolder) -> None:
    text = json.dumps(job.resolved(), indent=2, ensure_ascii=False) + "\n"
    atomic_write(run.config, text.encode())


def _run(
    job: Job,
    signals: StopSignals,
    progress: Progress,
    openers: Mapping[str, Open],
    beside: Beside,
) -> dict[str, Any]:
    with Tuner(job.opened) as tuner:
        signals.on_request(tuner.stop)
        tuner.start(tell=progress.part)
        progress.end()
        folder = job.run.folder
        _write_config(job, folder)
        tracked = TrackedRun(
            folder.path, folder.path.resolve().name, job.resolved(), tuner.step_number
        )
        tracking = Tracking(openers, tracked, warn, cast(TextIO, Aside()))
        metrics = Metrics(folder.metrics, tuner.step_number, tracking.take)
        try:
            with beside(tuner, progress):
                return Session(job, tuner, metrics, signals, progress).tune()
        finally:
            tracking.close()
            metrics.close()


def _print_dry_run(job: Job, *, enforce: bool, as_json: bool) -> None:
    run = str(job.run.folder.path)
    more = {
        "run": run,
        "config": job.resolved(),
        "rows": {name: len(examples) for name, examples in job.sets.items()},
    }
    rows = [("run", f"{run} (not made)"), ("settings", job.summary())]
    rows += [(f"{name} rows", str(len(examples))) for name, examples in job.sets.items()]
    print_plan(job, more, rows, enforce=enforce, as_json=as_json)
