"""What a run takes of a GPU's memory, and which way to run fits there.

Weights are known. What passes hold beside them (states, keys and values, copies of trainables,
results) was counted by the device's ledger while the plan for the host's memory was rehearsed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edgezo_runtime.engine.engine import Engine
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
        streamed: number of blocks that are copied there for each use.
        chunk_tokens: tokens of a chunk.
    """

    device: str
    budget_bytes: int | None
    blocks: int
    vocabulary: int
    passes: int
    streamed: int
    chunk_tokens: int

    @property
    def predicted_bytes(self) -> int:
        """The predicted peak."""
        return self.blocks + self.vocabulary + self.passes

    def parts(self) -> dict[str, int]:
        """Bytes by part."""
        return {"blocks": self.blocks, "vocabulary": self.vocabulary, "passes": self.passes}


def plan_device(engine: Engine) -> DevicePlan | None:
    """Choose how to run within the limit of the device's ledger, and have the engine run so.

    Blocks stay there if they fit; else all are streamed, the next ones copied while one computes;
    then chunks are halved.

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
    passes, tokens = ledger.passes_peak_bytes, engine.limits.chunk_tokens

    def made(blocks: int, held: int, streamed: int, limit: int) -> DevicePlan:
        own = device.name, ledger.limit_bytes
        return DevicePlan(*own, blocks, vocabulary, held, streamed, limit)

    everything = frozenset(range(len(sizes)))
    streamed = engine.streamed
    plan = made(sum(sizes), passes, len(streamed), tokens)
    if ledger.limit_bytes is None or (not streamed and plan.predicted_bytes <= ledger.limit_bytes):
        return plan
    while True:
        limits = engine.limits
        stretches = limits.stretches(sizes, everything)
        largest = max(sum(sizes[index] for index in stretch) for stretch in stretches)
        held = passes * limits.chunk_tokens // tokens
        plan = made(min(2 * largest, sum(sizes)), held, len(sizes), limits.chunk_tokens)
        if plan.predicted_bytes <= ledger.limit_bytes:
            engine.streamed = everything
            return plan
        smaller = limits.smaller()
        if smaller is None:
            needed = format_size(plan.predicted_bytes, up=True)
            raise DoesNotFitError(
                f"device budget {format_size(ledger.limit_bytes)}: the smallest that is enough is "
                f"'{needed}', with every block streamed and the smallest chunks (blocks "
                f"{format_size(plan.blocks)}, vocabulary {format_size(vocabulary)}, passes "
                f"{format_size(held)}); give `device_budget='{needed}'`, or a smaller `max_seq`"
            )
        engine.limits = dataclasses.replace(smaller, workers=limits.workers)
