"""Settings of `edgezo eval`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from edgezo.cli.options import setting
from edgezo_runtime.errors import UsageError


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
    choices: str | None = setting(
        None,
        "field with a row's own choices; 'label' or 'answer' is the right one",
        metavar="FIELD",
    )
    answers: bool = setting(
        False, "have answers written, and compare them with the rows': exact match and F1"
    )
    max_seq: int = setting(512, "longest row in tokens; what is longer is cut")
    limit: int = setting(0, "use the first rows only; 0 takes all")
    batch_size: int = setting(32, "examples a pass; the result does not depend on it")
    predictions: str | None = setting(
        None, "file for the class or answer of every row, one JSON object a line", metavar="FILE"
    )
    budget: str | None = setting(
        None, "peak resident memory: 8GB, 750MB, 80%, auto; no limit if not given", metavar="SIZE"
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
        kinds = {"--label": self.label, "--choices": self.choices, "--answers": self.answers}
        given = [name for name, value in kinds.items() if value]
        if len(given) > 1:
            raise UsageError(
                f"{' and '.join(given)}: give one of them; each is a way to score rows"
            )
        if self.choices and self.template is None:
            raise UsageError("--choices: they need a prompt; give --template '{field} ...'")
