"""What passes take of memory once a run has rows that are heavier than those it was planned for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgezo_runtime.budget.ledger import budget_for
from edgezo_runtime.budget.memory_model import MemoryModel
from edgezo_runtime.data.heavy_batches import RowSizes
from edgezo_runtime.engine.memory_relief import Reservation, Way

if TYPE_CHECKING:
    from edgezo_runtime.data.example_set import ExampleSet
    from edgezo_runtime.training.run import Run


@dataclass(frozen=True, slots=True)
class Growth:
    """A plan carried over to heavier rows by its formula: no step can wait for a rehearsal.

    Attributes:
        run: the run.
        others: sets that the run is evaluated on.
        sizes: of the rows that steps take now.
        carried: bytes expected of passes of other sizes, per byte that the formula implies.
        passes: bytes of passes as planned, by the way to run.
        planned: the formula for the rows of the plan.
        peaks: predicted peaks of the plan, by the way to run.
        reservation: what passes take with the rows that the run has now.
    """

    run: Run
    others: Sequence[ExampleSet]
    sizes: RowSizes
    carried: float
    passes: Mapping[Way, int]
    planned: MemoryModel
    peaks: Mapping[Way, int]
    reservation: Reservation

    @property
    def apart(self) -> bool:
        """Were losses and gradients measured each by itself? A step has but one of them."""
        return not self.run.probes.layout.blocks

    @property
    def smallest_bytes(self) -> int:
        """The smallest budget that is enough for the rows that the run has now."""
        return budget_for(min(self.reservation.peaks.values()))

    def with_rows(self, more: ExampleSet, batch: int) -> Growth:
        """Count rows that are added.

        Args:
            more: the rows.
            batch: examples of a batch from then on.
        """
        sizes = self.sizes.joined(RowSizes.of(more, batch))
        if sizes == self.sizes:
            return self
        formula = MemoryModel.of(self.run, self.others, sizes)
        peaks = {way: peak + self._more(way, formula) for way, peak in self.peaks.items()}
        return replace(self, sizes=sizes, reservation=replace(self.reservation, peaks=peaks))

    def _more(self, way: Way, formula: MemoryModel) -> int:
        """Count the bytes that passes take beyond those of the plan."""
        limits, streams = way[0], bool(way[1])
        before = self.planned.activations(limits, streams=streams)
        now = formula.activations(limits, streams=streams)
        if now <= before:
            return 0
        return int(self.passes[way] * (self.carried * now / before - 1))
