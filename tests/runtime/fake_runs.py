"""A run whose parts only note that they are called, for the tests of the training loop."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.governors.gate import Gate
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.methods.estimators import StepInfo, Term
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.training.step_evaluator import StepResult
from tests.runtime.tuner_runs import BASE


class FakeRun:
    """The parts of a run that a loop calls, which only note that they were called.

    Attributes:
        calls: in their order.
        errors: what the next call of a name raises, the first one first.
    """

    def __init__(self, config: TuneConfig = BASE) -> None:
        self.calls: list[str] = []
        self.errors: dict[str, list[BaseException]] = {}
        self.config = config
        self.rates = Rates(0.03, 0.01)
        self.gate, self.lock = Gate(), threading.RLock()
        self.closed, self.loss = False, math.nan
        self.folder = SimpleNamespace(path=Path("run"), journal=Path("run/journal.bin"))
        self.state = SimpleNamespace(
            step=0, elapsed_s=2.0, hopeless="", events=["noticed"],
            monitor=SimpleNamespace(factor=0.5),
        )  # fmt: skip
        self.reliefs: list[str] = []
        self.resumed_steps = 0
        self.engine = SimpleNamespace(
            reliefs=self.reliefs, give_back=self.noted("give_back"),
            interruptible=lambda check: contextlib.nullcontext(), shrink=self.noted("shrink"),
        )  # fmt: skip
        self.evaluator = SimpleNamespace(
            evaluate=self._evaluate, grow=self.noted("grow"), tokens=lambda result: 11,
            without_losses=self._without_losses, measure=self._measure,
        )  # fmt: skip
        self.trajectory = SimpleNamespace(
            info=self._info, record=self._record, apply=self._apply, begin=self.noted("begin"),
            layout=SimpleNamespace(rows=8), settled=config,
        )  # fmt: skip
        self.log = SimpleNamespace(
            examples_at=self._examples_at, recording=self._recording, resume=self._resume,
            close=self.noted("close"), snapshot=self.noted("snapshot"),
        )  # fmt: skip
        self.examples = 8

    def noted(self, name: str) -> Callable[..., None]:
        def call(*args: object) -> None:
            self.note(name)

        return call

    def note(self, name: str) -> None:
        self.calls.append(name)
        if self.errors.get(name):
            raise self.errors[name].pop(0)

    @property
    def step_number(self) -> int:
        return int(self.state.step)

    def note_progress(self) -> None:
        self.note("progress")

    def start(self, measure: Callable[[], Rates], *, resume: bool) -> None:
        self.note("start")
        self.rates = measure()

    def _examples_at(self, step: int) -> range:
        self.note(f"examples {step}")
        return range(self.examples)

    def _info(self, lr: float) -> StepInfo:
        return StepInfo(9, 2, self.state.step, lr, blocks=(0, 1))

    def _evaluate(self, info: StepInfo, check: Callable[[], None]) -> StepResult:
        self.note("evaluate")
        check()
        batch: Any = None
        return StepResult(batch, np.array([[0.5], [0.75]]), [Term(3, (2.0,))], 4, b"")

    def _without_losses(self, info: StepInfo) -> StepResult:
        self.note("without losses")
        batch: Any = None
        return StepResult(batch, np.empty((0, 0)), [], 0, b"")

    def _measure(self, tell: object) -> Rates:
        self.note("measure")
        return Rates(0.25, 0.5)

    def _record(self, info: StepInfo, losses: Any, gradient: bytes, elapsed_s: float) -> StepRecord:
        return StepRecord(info.step, info.seed, info.lr, info.blocks, losses)

    @contextlib.contextmanager
    def _recording(self, record: StepRecord) -> Iterator[None]:
        self.note("journal")
        yield

    def _apply(self, record: StepRecord, terms: list[Term]) -> None:
        self.note("apply")
        self.state.step = record.step + 1

    def _resume(self) -> None:
        self.note("resume")
        self.state.step = self.resumed_steps


class Listener:
    """Notes in the calls of a run what it is told."""

    def __init__(self, run: FakeRun) -> None:
        self._run = run

    def on_pause(self, reason: str | None) -> None:
        self._run.note(f"pause {reason}")

    def on_snapshot(self) -> None:
        self._run.note("told of the snapshot")
