"""Settings of `edgezo tune` and `edgezo plan` that are about files and the machine."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from edgezo.cli.options import setting
from edgezo.cli.task_data import PACKAGED
from edgezo_runtime.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneInputs:
    """What `edgezo tune` works on, and within what."""

    budget: str = setting(
        dataclasses.MISSING,
        "memory the whole process may take: 8GB, 8GiB, 750MB, 80% of what is free, auto",
        metavar="SIZE",
    )
    data: str | None = setting(
        PACKAGED,
        "a .jsonl file, a folder of train, valid and test.jsonl, or the set that comes with edgezo",
        metavar="FILE|DIR",
    )
    valid: str | None = setting(
        None, "rows to evaluate on before and after; a folder's own by default", metavar="FILE"
    )
    test: str | None = setting(None, "rows to evaluate on once, at the end", metavar="FILE")
    adapter: str | None = setting(
        None, "run folder or adapter file to begin from; its scope holds", metavar="PATH"
    )
    template: str | None = setting(
        None, "prompt with a row's fields in braces: '{sentence} It was'", metavar="TEXT"
    )
    label: tuple[str, ...] = setting(
        (), "word of a class, one option a class, in class order: ' terrible'", metavar="TEXT"
    )
    max_seq: int = setting(512, "longest row in tokens; what is longer is cut")
    eval_batch_size: int = setting(32, "examples a pass in evaluations")
    eval_every_s: float = setting(
        0.0,
        "evaluate during the run as well, after every so much tuning (30s, 10m, not counted in "
        "--max-time); 0: never",
        metavar="TIME",
    )
    when: str = setting(
        "",
        "step only while the device can spare it, commas between: battery[:PERCENT], mains, "
        "thermal[:CELSIUS], idle[:PERCENT], or auto: what of these the system can tell",
        metavar="LIST",
    )
    threads: int = setting(0, "compute threads; 0 takes one a core")
    verify: bool = setting(True, "check the digests of the bundle's files first")

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises:
            UsageError: naming the flag.
        """
        for name, low in (("max_seq", 1), ("eval_batch_size", 1), ("threads", 0)):
            value = getattr(self, name)
            if value < low:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {value}: must be {low} or more")
        if not 0 <= self.eval_every_s < math.inf:
            raise UsageError(f"--eval-every {self.eval_every_s}: must be 0 seconds or more")


@dataclass(frozen=True, slots=True)
class TuneBundle:
    """The argument BUNDLE, which a file may name as well."""

    bundle: str | None = setting(None, "exported model")
