"""What a run trains, and what a step is told: a function of bundle, configuration and row count."""

from __future__ import annotations

from collections.abc import Sequence

from edgezo_runtime.bundle.manifest import Manifest
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.methods.block_schedules import parse_schedule
from edgezo_runtime.methods.estimators import StepInfo
from edgezo_runtime.noise import derive_seed
from edgezo_runtime.training.first_order_layout import FirstOrderLayout
from edgezo_runtime.training.selection import select_blocks, select_tensors


class RunLayout:
    """The division of a run's blocks and the plan of its steps. Needs neither data nor weights.

    Args:
        manifest: of the bundle.
        config: how to tune.
        rows: examples to tune on, at first.
        first_order: how many of the last blocks are left to first-order steps.

    Attributes:
        first_order: their layout; None where there are none.
        blocks: those that estimates are for, ascending; none where first-order steps train all.
        first: the first block that trains at all.
        config: how to tune, "auto" filled in.
        rows: likewise.
        batch_size: examples a step.

    Raises:
        UsageError: no block is left to train.
    """

    def __init__(
        self, manifest: Manifest, config: TuneConfig, rows: int, first_order: int = 0
    ) -> None:
        self.first_order = FirstOrderLayout(manifest, first_order, config) if first_order else None
        own = select_tensors(config, manifest.trainables)
        self._names = {
            block: tuple(info.name for info in own if info.block == block)
            for block in range(manifest.model.num_blocks)
        }
        self._schedule = parse_schedule(config.schedule)
        able = [block for block, names in self._names.items() if names]
        end = manifest.model.num_blocks if self.first_order is None else self.first_order.start
        self.blocks = [block for block in select_blocks(config, able) if block < end]
        if config.schedule.startswith("last") and self.blocks:  # the same blocks in every step
            self.blocks = list(self._schedule(0, config.seed, self.blocks))
        self.first = min(
            [*self.blocks, *([] if self.first_order is None else [self.first_order.first_block])]
        )
        self._given = config
        self.grow(rows)

    def grow(self, rows: int) -> None:
        """Go on with so many examples: passes over the data take more steps, a batch may fill."""
        self.config = self.settled(rows)
        self.rows = rows
        self.batch_size = min(int(self.config.batch_size), rows)

    def settled(self, rows: int) -> TuneConfig:
        """The configuration with "auto" filled in, for so many examples."""
        return self._given.settled(rows, all_first_order=not self.blocks)

    @property
    def trained(self) -> dict[str, int]:
        """Trainables that estimates are for, and the block of each."""
        return self.tensors(self.blocks)

    def tensors(self, blocks: Sequence[int]) -> dict[str, int]:
        """Those of some blocks."""
        return {name: block for block in blocks for name in self._names[block]}

    def active(self, step: int) -> tuple[int, ...]:
        """Blocks of a step."""
        return self._schedule(step, self.config.seed, self.blocks) if self.blocks else ()

    def info(self, step: int, blocks: tuple[int, ...], lr: float) -> StepInfo:
        """What the estimator is told of a step; the same when it is replayed."""
        return StepInfo(
            seed=derive_seed(self.config.seed, "step", step),
            batch_size=self.batch_size,
            step=step,
            lr=lr,
            epoch=step * self.batch_size // self.rows,
            blocks=blocks,
        )
