"""`edgezo eval`: loss and accuracy of a bundle, with or without an adapter."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edgezo.cli.config_file import config_option
from edgezo.cli.options import build, options_of, setting
from edgezo.cli.output import duration, json_option, percent, print_result, table, warn
from edgezo.cli.progress import Progress
from edgezo.cli.stop_signals import StopSignals
from edgezo.cli.task_data import folder_of, read_task
from edgezo_runtime.errors import RunFileError, UsageError

if TYPE_CHECKING:
    from edgezo_runtime.evaluate import Evaluation
    from edgezo_runtime.scope import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSettings:
    """What `edgezo eval` is asked for."""

    data: str = setting(
        dataclasses.MISSING,
        "a .jsonl file, a folder, or device_commands: the set that comes with edgezo",
        metavar="FILE|DIR",
    )
    split: Literal["train", "valid", "test"] = setting("valid", "which file of a folder")
    adapter: str | None = setting(None, "run folder or adapter file", metavar="PATH")
    template: str | None = setting(
        None, "prompt with a row's fields in braces: '{sentence} It was'", metavar="TEXT"
    )
    label: tuple[str, ...] = setting(
        (), "word of a class, one option a class, in class order: ' terrible'", metavar="TEXT"
    )
    max_seq: int = setting(512, "longest row in tokens; what is longer is cut")
    limit: int = setting(0, "use the first rows only; 0 takes all")
    batch_size: int = setting(32, "examples a pass; the result does not depend on it")
    predictions: str | None = setting(
        None, "file for the class of every row, one JSON object a line", metavar="FILE"
    )
    threads: int = setting(0, "compute threads; 0 takes one a core")
    verify: bool = setting(True, "check the digests of the bundle's files first")

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises:
            UsageError: naming the flag.
        """
        for name, low in (("max_seq", 1), ("limit", 0), ("batch_size", 1), ("threads", 0)):
            value = getattr(self, name)
            if value < low:
                raise UsageError(f"--{name.replace('_', '-')} {value}: must be {low} or more")


@click.command(name="eval", short_help="Evaluate a bundle, with or without an adapter.")
@click.argument("bundle")
@config_option(EvalSettings)
@options_of(EvalSettings)
@json_option
def command(bundle: str, as_json: bool, **values: Any) -> None:
    """Evaluate BUNDLE on rows of text: the loss and, where there are label words, the accuracy."""
    settings = build(EvalSettings, values)
    settings.check()
    started = time.monotonic()
    with StopSignals() as signals:
        found, result = _evaluate(bundle, settings, signals)
    result["seconds"] = round(time.monotonic() - started, 3)
    if settings.predictions is not None:
        _write_predictions(Path(settings.predictions), found)
    rows = [("rows", str(found.rows)), ("loss", f"{found.loss:.4f}")]
    if found.accuracy is None:
        rows.append(("perplexity", f"{result['perplexity']:.2f}"))
    else:
        rows.append(("accuracy", percent(found.accuracy)))
    rows.append(("time", duration(result["seconds"])))
    print_result(result, table(rows), as_json)


def _evaluate(
    path: str, settings: EvalSettings, signals: StopSignals
) -> tuple[Evaluation, dict[str, Any]]:
    from edgezo.cli.tune_job import verify
    from edgezo.cli.tune_session import check_loss
    from edgezo_runtime.adapter import load_adapter
    from edgezo_runtime.bundle import Bundle
    from edgezo_runtime.engine import Engine
    from edgezo_runtime.evaluate import evaluate
    from edgezo_runtime.examples import load_examples
    from edgezo_runtime.memory import peak_rss_bytes
    from edgezo_runtime.tokenizer import TextTokenizer

    bundle = Bundle.open(path, verify=None if settings.verify else False)
    if settings.verify:
        verify(bundle, signals)
    manifest = bundle.manifest
    warnings: list[str] = []
    params = bundle.trainables()
    scope: Scope = "all"
    if settings.adapter is not None:
        adapter = load_adapter(Path(settings.adapter))
        params, scope = adapter.params(bundle), adapter.info.scope
        other = adapter.fits_warning(bundle)
        warnings += [other] if other is not None else []
    source = folder_of(settings.data)
    template, labels = settings.template, settings.label
    if template is None and not labels and source.is_dir():
        template, labels = read_task(source)
    examples = load_examples(
        source,
        TextTokenizer.open(
            bundle.root,
            manifest.tokenizer,
            task=manifest.model.task,
            vocab_size=manifest.model.vocab_size,
        ),
        template=template,
        labels=labels,
        max_seq=min(settings.max_seq, manifest.model.max_seq),
        split=settings.split,
        limit=settings.limit or None,
    )
    warnings += [warning.message for warning in examples.warnings]
    for text in warnings:
        warn(text)
    with Progress() as progress:
        show = progress.count("evaluating rows")

        def tell(done: int, total: int) -> None:
            signals.check()
            show(done, total)

        engine = Engine(bundle, threads=settings.threads or None)
        found = evaluate(engine, params, examples, settings.batch_size, tell, scope=scope)
    check_loss(found, str(examples.path))
    return found, {
        "bundle": str(path),
        "adapter": settings.adapter,
        "data": str(examples.path),
        "rows": found.rows,
        "loss": found.loss,
        "accuracy": found.accuracy,
        "perplexity": _perplexity(found),
        "peak_bytes": peak_rss_bytes(),
        "warnings": warnings,
    }


def _perplexity(found: Evaluation) -> float | None:
    """exp of the mean loss of the rows; None for label words, and where it overflows."""
    if found.accuracy is not None or found.loss > 700:
        return None
    return math.exp(found.loss)


def _write_predictions(path: Path, found: Evaluation) -> None:
    from edgezo_runtime.files import atomic_write

    if found.accuracy is None:
        raise UsageError("--predictions: the rows have no classes; give --template and --label")
    lines = [
        json.dumps({"row": row, "prediction": int(chosen)}) + "\n"
        for row, chosen in enumerate(found.predictions)
    ]
    try:
        atomic_write(path, "".join(lines).encode())
    except OSError as error:
        raise RunFileError(f"{path}: cannot be written: {error.strerror}") from error
