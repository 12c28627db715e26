"""A tuning run as the planner sees it: what it reads of a run, and what it has the run do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edgezo_runtime.config import TuneConfig
    from edgezo_runtime.data.example_set import ExampleSet
    from edgezo_runtime.engine.engine import Engine
    from edgezo_runtime.engine.prefix_cache import AnswerCache, PrefixCache


class FirstOrderTensors(Protocol):
    """Trainables that take first-order steps."""

    @property
    def first_block(self) -> int:
        """The first block that has any of them."""

    @property
    def names(self) -> Sequence[str]:
        """Their names."""


class Layout(Protocol):
    """What trains, and how."""

    @property
    def first_order(self) -> FirstOrderTensors | None:
        """Trainables that take first-order steps; None where there are none."""


class State(Protocol):
    """Trainables, and what rules and samplers store."""

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""

    @property
    def theta(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """The trainables."""


class CacheMaker(Protocol):
    """Makes the cache of a run."""

    def make_cache(
        self, path: Path | None, max_bytes: int | None = None
    ) -> PrefixCache | AnswerCache | None:
        """Make the cache that suits the run; without a path it stores nothing."""


class PlannedSteps(Protocol):
    """The steps of a run."""

    @property
    def layout(self) -> Layout:
        """What trains, and how."""

    @property
    def state(self) -> State:
        """Trainables, and what rules and samplers store."""

    @property
    def groups(self) -> int:
        """Perturbed copies of a batch that are evaluated at once."""

    @property
    def probe_evaluator(self) -> CacheMaker:
        """Evaluates losses."""

    def grant(self, budget_bytes: int, longest: int) -> int:
        """Give generated texts a share of the budget, and return its bytes; 0 without texts."""

    def rehearse(
        self,
        others: Sequence[ExampleSet] = (),
        eval_batch_size: int = 32,
        *,
        max_rows: int | None = None,
    ) -> None:
        """Do what a step and an evaluation do, in one block of each kind; discard the results."""

    def drop_first_order(self) -> bool:
        """Give up first-order steps to save memory; False where the run needs them or has none."""


class PlannedRun(Protocol):
    """A tuning run that has not started."""

    @property
    def engine(self) -> Engine:
        """Runs the bundle."""

    @property
    def config(self) -> TuneConfig:
        """How to tune; only `prefix_cache` is read."""

    @property
    def examples(self) -> ExampleSet:
        """Training data."""

    @property
    def batch_size(self) -> int:
        """Examples per step."""

    @property
    def cache_limit(self) -> int:
        """Bytes that the cache may take on the disk."""

    @property
    def step_evaluator(self) -> PlannedSteps:
        """The steps of the run."""
