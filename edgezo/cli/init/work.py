"""Does the work of `edgezo init`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from edgezo.cli.data.check import as_result, lines, look
from edgezo.cli.files.output_file import new_file
from edgezo.cli.files.task_data import PACKAGED
from edgezo.cli.init.questions import Questions
from edgezo.cli.init.settings_file import settings_text
from edgezo.cli.settings.config_file import read_config
from edgezo.cli.terminal.output import note, print_result
from edgezo.cli.tune.command import FILE_CLASSES
from edgezo.cli.tune.default_bundle import NAME, default_bundle
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.system.files import atomic_write

_BUDGET = "50%"


def initialize(
    bundle: str | None,
    questions: Questions,
    *,
    data: tuple[str, ...],
    template: str | None,
    label: tuple[str, ...],
    budget: str | None,
    output: Path,
    plan: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Ask, look at the data, write the file, print the plan and the next command.

    Args:
        bundle: path of the model.
        questions: asks for what flags leave open.
        data: files or folders of rows.
        template: prompt of a row.
        label: label words.
        budget: memory of the process.
        output: file to write.
        plan: print the memory plan.
        force: may it replace a file?
        as_json: print the result as JSON.
    Raises:
        EdgezoError: a file is missing or wrong, or nothing fits.
    """
    if output.suffix.lower() != ".toml":
        raise UsageError(f"-o {output}: the file has to end in .toml")
    new_file(output, force)
    model = _model(bundle, questions)
    rows = data or (questions.text("Data (file or folder)", None, None, "--data"),)
    default = model == NAME and not Path(model).exists()
    place = str(default_bundle()) if default else model
    found = look(rows, bundle=Path(place), template=template, label=label)
    for line in lines(found):
        note(line)
    chosen = found.chosen
    if found.task == "writing" and template is None:
        text, words = None, []
    else:
        proposed = None if chosen is None else chosen.template
        text = questions.text("Template of the prompt", template, proposed, "--template")
        own = () if chosen is None else chosen.labels
        words = questions.texts("Label words, in class order", label, own) if own else list(label)
    if (text, tuple(words)) != (None if chosen is None else (chosen.template, chosen.labels)):
        given = tuple(words)
        found = look(rows, bundle=Path(place), template=text, label=given) if text else found
    size = questions.text("Memory budget", budget, _BUDGET, "--budget")
    content = settings_text(
        str(output),
        found,
        bundle=str(Path(place).resolve()),
        data=[path if path == PACKAGED else str(Path(path).resolve()) for path in rows],
        template=text,
        labels=words,
        budget=size,
    )
    try:
        atomic_write(output, content.encode())
    except OSError as error:
        raise RunFileError(f"{output}: cannot be written: {error.strerror}") from error
    settings = read_config(output, FILE_CLASSES)
    command = shlex.join(["edgezo", "tune", "--config", str(output), "-o", "run"])
    if plan and not as_json:
        _print_plan(settings)
    result = {"file": str(output), "settings": settings, "data": as_result(found), "next": command}
    print_result(result, ["", f"wrote {output}; next: {command}"], as_json)


def _model(given: str | None, questions: Questions) -> str:
    """A bundle, given, answered, or the only one in this folder; or the default model's name."""
    found = sorted(path.parent for path in Path().glob("*/manifest.json"))
    proposed = str(found[0]) if len(found) == 1 else NAME
    question = f"Bundle (folder of an exported model, or {NAME})"
    return questions.text(question, given, proposed, "BUNDLE")


def _print_plan(settings: dict[str, Any]) -> None:
    from edgezo.cli.terminal.progress import Progress
    from edgezo.cli.terminal.stop_signals import StopSignals
    from edgezo.cli.tune.inputs import TuneInputs
    from edgezo.cli.tune.job import prepare
    from edgezo.cli.tune.plan_report import print_plan
    from edgezo_runtime.config import TuneConfig
    from edgezo_runtime.journal.run_folder import RunFolder

    inputs = TuneInputs(**{name: value for name, value in settings.items() if name != "bundle"})
    root, folder = Path(settings["bundle"]), RunFolder(Path("run"))
    with StopSignals() as signals, Progress() as progress:
        job = prepare(root, inputs, TuneConfig(), folder, signals, tell=progress.part)
    print_plan(job, {}, [], enforce=False, as_json=False)
