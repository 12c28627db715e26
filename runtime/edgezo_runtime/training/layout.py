"""The blocks that a run trains and the inputs of its steps, from bundle, configuration and rows."""

from __future__ import annotations

from collections.abc import Sequence

from edgezo_runtime.bundle.manifest import Manifest
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.methods.block_schedules import parse_schedule
from edgezo_runtime.methods.estimators import StepInfo
from edgezo_runtime.noise import derive_seed
from edgezo_runtime.training.carried_layout import carried_sites
from edgezo_runtime.training.feedback_layout import FeedbackLayout, learns_feedback
from edgezo_runtime.training.first_order_layout import FirstOrderLayout
from edgezo_runtime.training.selection import select_blocks, select_tensors


class RunLayout:
    """The division of a run's blocks and the plan of its steps. Needs neither data nor weights.

    Args:
        manifest: of the bundle.
        config: how to tune.
        rows: number of examples that the run begins with.
        first_order: number of last blocks that take first-order steps; with the method feedback,
            of those that learn by the carried error instead of by pairs.

    Attributes:
        first_order: layout of the blocks that take first-order steps; None if there are none.
        carried: their sites, if their gradients are those of the carried error; else None.
        feedback: layout of the sites that learn by feedback; None for other methods.
        blocks: blocks that gradients are estimated for, ascending; empty if all blocks take
            first-order steps, or learn by feedback.
        first: the first block that trains.
        config: how to tune, "auto" filled in.
        rows: number of examples now.
        batch_size: examples per step.

    Raises:
        UsageError: no block is left to train.
    """

    def __init__(
        self, manifest: Manifest, config: TuneConfig, rows: int, first_order: int = 0
    ) -> None:
        feedback = learns_feedback(config)
        self.carried = carried_sites(manifest, config) if feedback and first_order else None
        only = None
        if self.carried is not None:
            every = [site for own in self.carried.values() for site in own]
            only = {name for site in every for name in site.trains}
        self.first_order = (
            FirstOrderLayout(manifest, first_order, config, only) if first_order else None
        )
        self.feedback = FeedbackLayout(manifest, config) if feedback and not first_order else None
        own = select_tensors(config, manifest.trainables)
        self._names = {
            block: tuple(info.name for info in own if info.block == block)
            for block in range(manifest.model.num_blocks)
        }
        self._schedule = parse_schedule(config.schedule)
        able = [block for block, names in self._names.items() if names]
        end = manifest.model.num_blocks if self.first_order is None else self.first_order.start
        self.blocks = [block for block in select_blocks(config, able) if block < end]
        if feedback:
            self.blocks = []
        if config.schedule.startswith("last") and self.blocks:  # the same blocks in every step
            self.blocks = list(self._schedule(0, config.seed, self.blocks))
        others = (self.first_order, self.feedback)
        self.first = min([*self.blocks, *(own.first_block for own in others if own is not None)])
        self._given = config
        self.grow(rows)

    def grow(self, rows: int) -> None:
        """Take more examples into account: an epoch takes more steps, and a batch may fill."""
        self.config = self.settled(rows)
        self.rows = rows
        self.batch_size = min(int(self.config.batch_size), rows)

    def settled(self, rows: int) -> TuneConfig:
        """The configuration with "auto" filled in for a number of examples."""
        pairs = 0 if self.feedback is None else self.feedback.pairs
        return self._given.settled(rows, all_first_order=not self.blocks, pairs=pairs)

    @property
    def trained(self) -> dict[str, int]:
        """The trainables that gradients are estimated for, and the block of each."""
        return self.tensors(self.blocks)

    def tensors(self, blocks: Sequence[int]) -> dict[str, int]:
        """The same for some blocks only."""
        return {name: block for block in blocks for name in self._names[block]}

    def active(self, step: int) -> tuple[int, ...]:
        """The blocks that a step estimates gradients for."""
        return self._schedule(step, self.config.seed, self.blocks) if self.blocks else ()

    def info(self, step: int, blocks: tuple[int, ...], lr: float) -> StepInfo:
        """The inputs of the estimator for a step; a replay gives the same ones."""
        return StepInfo(
            seed=derive_seed(self.config.seed, "step", step),
            batch_size=self.batch_size,
            step=step,
            lr=lr,
            epoch=step * self.batch_size // self.rows,
            blocks=blocks,
        )
