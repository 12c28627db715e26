"""Classification tasks of the benchmarks: prompts, label words, class balance.

    python -m tests.benchmarks.tasks [--data FOLDER] [--bundle BUNDLE]

Prints the rows of every split and the share of its largest class: the accuracy of a constant
answer. With a bundle, also prints the accuracy of the untuned model on the validation rows.

The prompts ask the same as those of MeZO (arXiv:2305.17333, appendix E.2). They end so that the
next token is the label word. All label words are single tokens of SmolLM2's tokenizer, so a row is
scored once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import edgezo
from tests.benchmarks.children import environment
from tests.benchmarks.targets import DATA, parser, print_table


@dataclass(frozen=True, slots=True)
class Task:
    """The form in which the rows of a task go to a model.

    Attributes:
        template: prompt with fields in braces.
        labels: label words in class order.
    """

    template: str
    labels: tuple[str, ...]

    def options(self) -> list[str]:
        """Options of `edgezo tune` and `edgezo eval`."""
        labels = [part for label in self.labels for part in ("--label", label)]
        return ["--template", self.template, *labels]


TASKS = {
    "sst2": Task("{sentence} It was", (" terrible", " great")),
    "rte": Task(
        '{premise}\nDoes this mean that "{hypothesis}" is true? Yes or No?\nAnswer:',
        (" Yes", " No"),
    ),
    "cb": Task(
        'Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\nAnswer:',
        (" Yes", " No", " Maybe"),
    ),
    "boolq": Task("{passage}\nQuestion: {question}?\nAnswer:", (" No", " Yes")),
    "trec": Task(
        "Question: {sentence}\nThe answer is a description, entity, expression, human, location or "
        "number?\nType:",
        (" description", " entity", " expression", " human", " location", " number"),
    ),
    "device_commands": Task(
        '"{text}" is about the',
        (" light", " music", " timer", " weather", " message", " map", " volume", " heat"),
    ),
}


@dataclass(frozen=True, slots=True)
class TaskRows:
    """A task and its files.

    Attributes:
        task: prompts and label words.
        train: rows to tune on.
        valid: rows to evaluate on.
        test: rows to evaluate on once, or None.
    """

    task: Task
    train: Path
    valid: Path
    test: Path | None = None

    def options(self) -> list[str]:
        """Options of `edgezo tune`."""
        test = ["--test", str(self.test)] if self.test else []
        return ["--data", str(self.train), "--valid", str(self.valid), *test, *self.task.options()]


PACKAGED = "device_commands"
"""The task whose rows are those of edgezo itself."""


def find_rows(name: str, data: Path = DATA) -> TaskRows:
    """The files of a task, without a check that they exist; a test set only if it exists.

    Raises:
        ValueError: there is no such task.
    """
    if name not in TASKS:
        raise ValueError(f"task {name}: expected one of {', '.join(TASKS)}")
    if name == PACKAGED:
        folder = Path(edgezo.__file__).parent / "data" / PACKAGED
        own = (folder / f"{part}.jsonl" for part in ("train", "valid", "test"))
        return TaskRows(TASKS[name], *own)
    train, valid, test = (data / name / f"{part}.jsonl" for part in ("train", "validation", "test"))
    return TaskRows(TASKS[name], train, valid, test if test.is_file() else None)


def class_counts(file: Path) -> Counter[int]:
    """Rows of every class."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return Counter(json.loads(line)["label"] for line in lines)


def majority(counts: Counter[int]) -> float:
    """Share of the largest class."""
    return max(counts.values()) / counts.total()


def zero_shot(rows: TaskRows, bundle: Path) -> float:
    """Accuracy of the untuned model on the validation rows."""
    command = [sys.executable, "-m", "edgezo", "eval", str(bundle), "--data", str(rows.valid)]
    command += [*rows.task.options(), "--json"]
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout)["accuracy"])


def main() -> int:
    """Count, evaluate, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, default=DATA, metavar="FOLDER")
    arguments.add_argument("--bundle", type=Path)
    options = arguments.parse_args()
    table = []
    for name in TASKS:
        rows = find_rows(name, options.data)
        if not rows.valid.is_file():
            print(f"skipped: {rows.valid} is not there")
            continue
        for file in filter(None, (rows.train, rows.valid, rows.test)):
            counts = class_counts(file)
            balance = "/".join(str(counts[label]) for label in range(len(rows.task.labels)))
            found = (
                zero_shot(rows, options.bundle) if options.bundle and file == rows.valid else "-"
            )
            table.append([name, file.stem, counts.total(), balance, majority(counts), found])
    if table:
        print_table(["task", "split", "rows", "classes", "largest", "zero-shot"], table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
