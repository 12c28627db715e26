"""What a run needs, read and checked: bundle, rows, budget."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgezo._version import __version__
from edgezo.cli.output import duration
from edgezo.cli.progress import Progress
from edgezo.cli.stop_signals import StopSignals
from edgezo.cli.task_data import PACKAGED, TaskData, find_task
from edgezo.cli.tune import TuneInputs
from edgezo_runtime.batches import Batches
from edgezo_runtime.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.estimate import Estimate, estimate_run
from edgezo_runtime.examples import ExampleSet, load_examples
from edgezo_runtime.memory import release_freed
from edgezo_runtime.scope import choose_scope, invocation
from edgezo_runtime.sizes import format_size
from edgezo_runtime.tokenizer import TextTokenizer

CREATED_BY = f"edgezo {__version__}"


@dataclass(slots=True)
class Job:
    """Everything a run needs, checked."""

    bundle: Bundle
    inputs: TuneInputs
    config: TuneConfig
    task: TaskData
    budget: int
    sets: dict[str, ExampleSet]
    estimate: Estimate
    warnings: list[str] = field(default_factory=list)

    @property
    def scope(self) -> str:
        """Tokens the adapters act on, "auto" resolved."""
        continues = self.bundle.manifest.graphs.continues
        return choose_scope(self.config.scope, self.sets["train"], continues)

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

    def summary(self) -> str:
        """One line: the model, the rows and how."""
        config = self.config
        ends = [f"{config.steps} steps"] if config.steps else []
        ends += [duration(config.max_time_s)] if config.max_time_s else []
        model = self.bundle.manifest.model
        return (
            f"{model.id} ({self.bundle.manifest.quant}) on {len(self.sets['train'])} rows, "
            f"{' or '.join(ends)}, {config.method} with {config.rule}, lr {config.lr:g}, "
            f"eps {config.eps:g}, batch {config.batch_size}, scope {self.scope}, "
            f"budget {format_size(self.budget)}"
        )


def prepare(
    root: Path, inputs: TuneInputs, config: TuneConfig, budget: int, signals: StopSignals
) -> Job:
    """Read and check everything a run needs.

    Args:
        root: the bundle.
        inputs: data and budget, as given.
        config: how to tune.
        budget: bytes.
        signals: ends it early.
    Raises:
        EdgezoError: something is missing, damaged, or does not fit.
    """
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
    del tokenizer
    release_freed()
    others = [examples for name, examples in sets.items() if name != "train"]
    estimate = estimate_run(bundle, sets["train"], config, others, inputs.threads or None)
    close = estimate.check(budget)
    warnings = [] if close is None else [close]
    for name, examples in sets.items():
        warnings += [f"{name} rows: {warning.message}" for warning in examples.warnings]
    batches = Batches(sets["train"], config.batch_size, config.seed)
    warnings += [warning.message for warning in batches.warnings]
    if config.scope == "answer" and not invocation(sets["train"]):
        warnings.append(
            "answers do not all begin after the same token, so other programs cannot be told where "
            "the adapter acts and it cannot be exported for them; --scope all can"
        )
    if "valid" not in sets:
        warnings.append("no rows to evaluate on; give --valid FILE to see what the tuning brought")
    return Job(bundle, inputs, config, task, budget, sets, estimate, warnings)


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
