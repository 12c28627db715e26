"""What a run takes of a GPU's memory, and which way to run fits there.

Weights are known. What passes hold beside them (states, keys and values, copies of trainables,
results) was counted by the device's ledger while the plan for the host's memory was rehearsed. A
rehearsal runs one block of each kind; the states that a first-order step keeps at the entries of
the other blocks are added.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edgezo_runtime.budget.memory_model import BackwardMemoryModel, MemoryModel
from edgezo_runtime.engine.chunks import Limits
from edgezo_runtime.engine.engine import Engine, Planned
from edgezo_runtime.errors import DoesNotFitError
from edgezo_runtime.system.sizes import format_size


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """How a run keeps below its budget of a device's memory.

    Attributes:
        device: name of the device.
        budget_bytes: the budget; None for none.
        blocks: weights of blocks that lie there at once.
        vocabulary: weights of the scorers.
        passes: what passes hold besides.
        workspace: what the provider is expected to hold inside the graph of a block that goes back:
            its activations, and a matrix as float32. The ledger does not see it.
        streamed: number of blocks that are copied there for each use.
        chunk_tokens: tokens of a chunk.
    """

    device: str
    budget_bytes: int | None
    blocks: int
    vocabulary: int
    passes: int
    workspace: int
    streamed: int
    chunk_tokens: int

    @property
    def predicted_bytes(self) -> int:
        """The predicted peak."""
        return self.blocks + self.vocabulary + self.passes + self.workspace

    def parts(self) -> dict[str, int]:
        """Bytes by part."""
        return {
            "blocks": self.blocks,
            "vocabulary": self.vocabulary,
            "passes": self.passes,
            "workspace": self.workspace,
        }


def plan_device(engine: Engine, formula: MemoryModel | None = None) -> DevicePlan | None:
    """Choose how to run within the limit of the device's ledger, and have the engine run so.

    Blocks stay there if they fit; else all are streamed, the next ones copied while one computes;
    then chunks are halved. Parts that go back keep their size.

    Args:
        engine: has rehearsed its passes.
        formula: of passes; None if no step is first-order.
    Returns:
        The plan; None on the processor.
    Raises:
        DoesNotFitError: not even the smallest chunks fit.
    """
    device = engine.model.device
    if device.form != "gpu":
        return None
    ledger = device.ledger
    sizes = [engine.model.block_bytes(index) for index in range(engine.num_blocks)]
    vocabulary = engine.model.vocabulary_bytes
    passes, tokens = _Passes.of(engine, formula), engine.limits.chunk_tokens

    def made(blocks: int, streamed: int) -> DevicePlan:
        limits = engine.limits
        held = passes.held(limits, limits.chunk_tokens / tokens, streams=bool(streamed))
        return DevicePlan(
            device.name,
            ledger.limit_bytes,
            blocks,
            vocabulary,
            held,
            passes.workspace,
            streamed,
            limits.chunk_tokens,
        )

    everything = frozenset(range(len(sizes)))
    streamed = engine.streamed
    plan = made(sum(sizes), len(streamed))
    if ledger.limit_bytes is None or (not streamed and plan.predicted_bytes <= ledger.limit_bytes):
        return plan
    while True:
        limits = engine.limits
        stretches = limits.stretches(sizes, everything)
        largest = max(sum(sizes[index] for index in stretch) for stretch in stretches)
        plan = made(min(2 * largest, sum(sizes)), len(sizes))
        if plan.predicted_bytes <= ledger.limit_bytes:
            engine.streamed = everything
            return plan
        smaller = limits.smaller()
        if smaller is None:
            needed = format_size(plan.predicted_bytes, up=True)
            parts = ", ".join(f"{name} {format_size(size)}" for name, size in plan.parts().items())
            raise DoesNotFitError(
                f"device budget {format_size(ledger.limit_bytes)}: the smallest that is enough is "
                f"'{needed}', with every block streamed and the smallest chunks ({parts}); give "
                f"`device_budget='{needed}'`, or a smaller `max_seq`"
            )
        engine.limits = dataclasses.replace(smaller, workers=limits.workers)


@dataclass(frozen=True, slots=True)
class _Passes:
    """What passes hold besides weights.

    Attributes:
        scores: forward passes, in chunks as rehearsed.
        gradient: the gradient of a first-order step in one block of each kind; 0 without one.
        back: the sizes of its parts; None without one.
        workspace: inside the graph of a block that goes back.
    """

    scores: int
    gradient: int
    back: BackwardMemoryModel | None
    workspace: int

    @classmethod
    def of(cls, engine: Engine, formula: MemoryModel | None) -> _Passes:
        """What the rehearsals of an engine left in its device's ledger."""
        peaks = dict(engine.model.device.ledger.passes_peaks)
        gradient = peaks.pop(_GRADIENT, 0)
        scores = max(peaks.values(), default=0)
        back = None if formula is None else formula.back
        if formula is None or back is None:
            return cls(max(scores, gradient), 0, None, 0)
        inside = back.tokens * formula.bytes_per_token + back.weights
        return cls(scores, gradient, back, inside)

    def held(self, limits: Limits, share: float, *, streams: bool) -> int:
        """Bytes of passes within limits.

        Args:
            limits: how the engine would run.
            share: tokens of its chunks, over those of the rehearsal.
            streams: are blocks streamed? All parts of a wave wait between blocks then.
        """
        scores = int(self.scores * share)
        if self.back is None:
            return scores
        kept = self.back.held_states(limits, streams=streams)
        return max(scores, self.gradient + kept)


_GRADIENT: Planned = "gradient"
