"""Short runs on a tiny model in which something is refused memory, and how they end."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import BudgetStopError
from tests.runtime.tiny_sets import random_set

T = TypeVar("T")

SIZES = (24, 57, 35, 49)
STEPS = 2


def _config(**values: Any) -> TuneConfig:
    return TuneConfig(
        **{"scope": "all", **values}, steps=STEPS, max_time_s=0, batch_size=2, lr=0.03, save_every=1
    )


CONFIGS = {
    "all": _config(blocks="all"),
    "prefix": _config(blocks="1"),
    "answer": _config(blocks="1", scope="answer"),
    "first_order": _config(blocks="all", scope="answer", first_order=1),
}
"""Whole prompts, whole prompts behind kept states, last tokens behind kept keys and values, those
with first-order steps."""


@dataclass(slots=True)
class Refusals:
    """Counts calls and refuses the one numbered `first`.

    Attributes:
        first: from 0.
        lasting: are those after it refused as well?
        error: what a refused caller gets.
        seen: calls so far.
    """

    first: int
    lasting: bool
    error: Callable[[], BaseException]
    seen: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def ask(self) -> None:
        """Count, and refuse if it is time."""
        with self._lock:
            number, self.seen = self.seen, self.seen + 1
        if number == self.first or (self.lasting and number > self.first):
            raise self.error()

    @property
    def reached(self) -> bool:
        """Was anything refused?"""
        return self.seen > self.first


@dataclass(frozen=True, slots=True)
class Run:
    """A short run that can be begun again and again.

    Attributes:
        bundle: the model.
        config: how to tune.
        folder: where its folders are made.
        threads: workers.
    """

    bundle: Bundle
    config: TuneConfig
    folder: Path
    threads: int = 2

    def open(self, name: str, *, resume: bool = False, budget_bytes: int | None = None) -> Tuner:
        """A tuner in a folder of its own."""
        examples = random_set("labels", SIZES, self.bundle.manifest.tokenizer.pad_id)
        return Tuner.open(
            self.bundle, examples, self.config, self.folder / name,
            resume=resume, threads=self.threads, budget=budget_bytes,
        )  # fmt: skip

    def undisturbed(self) -> list[str]:
        """Digests of the run that nothing happens to, by the steps it has behind it."""
        with self.open("undisturbed") as tuner:
            digests = [digest(tuner)]
            for _ in tuner:
                digests.append(digest(tuner))
        return digests

    def ending(
        self, name: str, disturbed: AbstractContextManager[T], expected: list[str]
    ) -> tuple[str, T]:
        """Whether a run is "done" or was "stopped" while something is refused, and what was.

        It has to stand where the undisturbed run stood; stopped, it is gone on with to the end.

        Args:
            name: its folder.
            disturbed: while it is entered, something is refused.
            expected: what `undisturbed` gave.
        """
        with self.open(name) as tuner:
            try:
                with disturbed as refusals:
                    for _ in tuner:
                        pass
                stopped = False
            except BudgetStopError:
                stopped = True
            if not tuner.closed:
                assert digest(tuner) == expected[tuner.step_number]
        if not stopped:
            assert tuner.step_number == STEPS
            return "done", refusals
        with self.open(name, resume=True) as tuner:
            for _ in tuner:
                pass
            assert digest(tuner) == expected[-1]
        return "stopped", refusals


def digest(tuner: Tuner) -> str:
    """Of all that a run hands out and goes on from."""
    found = hashlib.sha256(str((tuner.step_number, tuner.run.state.norm_state)).encode())
    for values in (tuner.run.state.theta, tuner.adapter()):
        for name in sorted(values):
            found.update(name.encode() + values[name].tobytes())
    return found.hexdigest()
