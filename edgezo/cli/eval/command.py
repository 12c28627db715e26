"""`edgezo eval`: scores of a bundle, with or without an adapter."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgezo.cli.eval.settings import EVAL_GROUPS, EvalSettings
from edgezo.cli.generate.settings import GenerationSettings
from edgezo.cli.settings.config_file import config_option
from edgezo.cli.settings.device import device_use
from edgezo.cli.settings.grouped_command import GroupedCommand
from edgezo.cli.settings.options import build, flat_fields, given_options, options_of
from edgezo.cli.terminal.output import json_option, print_result, table, warn
from edgezo.cli.terminal.progress import Progress
from edgezo.cli.terminal.quiet import quiet_option
from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo.wording import duration
from edgezo_runtime.errors import RunFileError, UsageError

if TYPE_CHECKING:
    from edgezo.cli.eval.tasks import Outcome


@click.command(
    name="eval",
    cls=GroupedCommand,
    groups=EVAL_GROUPS,
    short_help="Evaluate a bundle, with or without an adapter.",
)
@click.argument("bundle", required=False)
@config_option(EvalSettings, GenerationSettings)
@options_of(EvalSettings, GenerationSettings)
@quiet_option
@json_option
def command(bundle: str | None, as_json: bool, **values: Any) -> None:
    """Evaluate BUNDLE on rows of text.

    With label words, print loss, accuracy and F1 of the classes. With --choices, print the same of
    the choices of every row, which are compared by the mean log-probability of their tokens. With
    --answers, print exact match and F1 of generated answers, as SQuAD counts them. Otherwise print
    loss and perplexity of the answers' tokens.

    BUNDLE is by default that of the adapter's run; without an adapter it is SmolLM2-135M-Instruct.
    """
    settings, generation = build(EvalSettings, values), build(GenerationSettings, values)
    settings.check()
    started = time.monotonic()
    with StopSignals() as signals:
        found, result, lines = _evaluate(bundle, settings, generation, signals)
    result["seconds"] = round(time.monotonic() - started, 3)
    if settings.predictions is not None:
        _write_predictions(Path(settings.predictions), found)
    rows = [*found.lines(), *lines, ("time", duration(result["seconds"]))]
    print_result(result, table(rows), as_json)


def _evaluate(
    given: str | None, settings: EvalSettings, generation: GenerationSettings, signals: StopSignals
) -> tuple[Outcome, dict[str, Any], list[tuple[str, str]]]:
    """The scores; the result for machines; and lines about the settings, for people."""
    from edgezo.cli.eval.tasks import read_rows_to_score
    from edgezo.cli.files.row_reading import (
        naming_the_template,
        reading_as_json,
        reading_lines,
        settle_rows,
    )
    from edgezo.cli.files.task_data import folder_with_task
    from edgezo.cli.files.verify import verify
    from edgezo.cli.generate.loaded_generator import Tuned
    from edgezo.cli.settings.budget import resolve_budget
    from edgezo.cli.settings.known_bundle import known_bundle
    from edgezo_runtime.budget.memory_limits import limited_engine
    from edgezo_runtime.bundle.bundle import Bundle
    from edgezo_runtime.data.sources import open_tokenizer
    from edgezo_runtime.system.memory import peak_rss_bytes

    path = known_bundle(given, settings.adapter)
    bundle = Bundle.open(path, verify=None if settings.verify else False)
    if settings.verify:
        verify(bundle, signals)
    budget, warning = (None, None) if settings.budget is None else resolve_budget(settings.budget)
    tuned = Tuned.open(bundle, settings.adapter)
    settled = settle_rows(
        settings, tuned.reading, folder_with_task(settings.data), bundle.manifest.model.max_seq
    )
    names = given_options(field.name for field in flat_fields(GenerationSettings))
    generated = generation.settled(names, tuned.answers if settings.answers else None)
    differences = (*tuned.differences, *generated.differences)
    warnings = [*settled.warnings(*differences), *([warning] if warning else [])]
    with naming_the_template(settled), Progress() as progress:
        task = read_rows_to_score(
            settings, settled.reading, generated.settings.config(), bundle,
            open_tokenizer(bundle), budget, progress.count("tokenizing rows"),
        )  # fmt: skip
    if settings.predictions is not None and not task.predicts:
        raise UsageError(
            "--predictions: these rows have no predictions; give --label, --choices or --answers"
        )
    warnings += [warning.message for warning in task.examples.warnings]
    for text in warnings:
        warn(text)
    engine = limited_engine(
        bundle, budget, settings.threads or None, settings.place(bundle.manifest)
    )
    with Progress() as progress:
        show = progress.count("evaluating rows")

        def tell(done: int, total: int) -> None:
            signals.check()
            show(done, total)

        with engine.interruptible(signals.check):
            found = task.run(engine, tuned, tell)
    truncation = task.examples.report.truncation
    if truncation.dropped_rows:
        left = dict.fromkeys(example.line for example in task.examples)
        found = dataclasses.replace(found, left=tuple(left))
    result = {
        "bundle": str(path),
        "adapter": settings.adapter,
        "data": str(task.examples.path),
        **reading_as_json(settled),
        "scope": tuned.scope,
        **({"generation": generated.as_json()} if settings.answers else {}),
        **found.scores(),
        "long_rows": dataclasses.asdict(truncation),
        "peak_bytes": peak_rss_bytes(),
        **device_use(engine),
        "warnings": warnings,
    }
    return found, result, [*reading_lines(settled), *tuned.lines(), *generated.lines()]


def _write_predictions(path: Path, found: Outcome) -> None:
    from edgezo_runtime.system.files import atomic_write

    assert found.predictions is not None  # `command` has checked it
    name, numbers = ("row", range(found.rows)) if found.left is None else ("line", found.left)
    lines = [
        json.dumps({name: number, "prediction": chosen}, ensure_ascii=False) + "\n"
        for number, chosen in zip(numbers, found.predictions, strict=True)
    ]
    try:
        atomic_write(path, "".join(lines).encode())
    except OSError as error:
        raise RunFileError(f"{path}: cannot be written: {error.strerror}") from error
