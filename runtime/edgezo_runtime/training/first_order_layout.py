"""First-order steps of the last blocks: their tensors and learning rates."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.manifest import Manifest, TrainableInfo
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.system.framing import MAX_BODY
from edgezo_runtime.system.sizes import format_size
from edgezo_runtime.training.gradient_codec import GradientCodec
from edgezo_runtime.training.selection import select_blocks, select_tensors

Float32 = npt.NDArray[np.float32]

RELATIVE_STEP = 0.02
"""Largest learning rate, as a share of the root mean square of a tensor's elements."""

_SPARE_BYTES = 2**20
"""Room for the rest of a record: losses, blocks, time."""


def first_order_count(config: TuneConfig, manifest: Manifest) -> int:
    """Number of last blocks that take first-order steps if memory allows."""
    if isinstance(config.first_order, int):
        return config.first_order
    return (
        0
        if not config.wants_first_order or why_no_first_order(manifest)
        else manifest.model.num_blocks
    )


def why_no_first_order(manifest: Manifest) -> str | None:
    """Why not all blocks of a bundle can take first-order steps; None if they can."""
    if isinstance(manifest.backward, str):
        return manifest.backward
    return _too_long([info for info in manifest.trainables if info.trains])


def _too_long(infos: Sequence[TrainableInfo]) -> str | None:
    """Why the gradient of these tensors does not fit a record of the journal; None if it does."""
    size = GradientCodec({info.name: info.shape for info in infos}).nbytes
    if size + _SPARE_BYTES <= MAX_BODY:
        return None
    return (
        f"a gradient takes {format_size(size)} in the journal, whose records hold "
        f"{format_size(MAX_BODY)} at most"
    )


def first_order_rates(initial: Mapping[str, Float32], lr: float) -> dict[str, float]:
    """The learning rate of each tensor: lr, or `RELATIVE_STEP` of its size if that is less.

    The effect of a step on losses is measured before the first step. At that point a factor whose
    counterpart is zero, such as LoRA's A, has no effect, so its own size bounds its steps. A tensor
    that is zero at first has no size, and takes lr.

    Args:
        initial: initial tensors by name.
        lr: learning rate.
    """
    rates: dict[str, float] = {}
    for name, value in initial.items():
        size = math.sqrt(float(np.mean(np.square(value.astype(np.float64)))))
        rates[name] = min(lr, RELATIVE_STEP * size) if size else lr
    return rates


class FirstOrderLayout:
    """The tensors of the last blocks, which take first-order steps.

    Args:
        manifest: of the bundle.
        blocks: number of last blocks, at least 1.
        config: selects the blocks and tensors that train; None for all.
        only: names of tensors that may train; None for all.

    Attributes:
        start: the first of the last blocks.
        blocks: the last blocks that train, ascending.
        first_block: the first block that trains.
        names: names of the tensors that train.
        tensors: the block of each tensor that trains.
        codec: packs their gradients for the journal.

    Raises:
        UsageError: the model has fewer blocks, or these blocks have nothing to train.
    """

    def __init__(
        self,
        manifest: Manifest,
        blocks: int,
        config: TuneConfig | None = None,
        only: Collection[str] | None = None,
    ) -> None:
        num_blocks = manifest.model.num_blocks
        if not 1 <= blocks <= num_blocks:
            raise UsageError(f"`first_order` {blocks}: the model has {num_blocks} blocks")
        self.start = num_blocks - blocks
        infos = manifest.trainables
        own = [info for info in infos if info.trains and info.block >= self.start]
        if config is not None and config.modules != "auto":
            own = [info for info in select_tensors(config, infos) if info.block >= self.start]
        if only is not None:
            own = [info for info in own if info.name in only]
        able = {info.block for info in own}
        if not able:
            raise UsageError(f"`first_order` {blocks}: these blocks have nothing to train")
        if config is not None and config.blocks != "auto":
            every = {info.block for info in infos if info.trains}
            able &= set(select_blocks(config, sorted(every)))
            if not able:
                raise UsageError(
                    f"`first_order` {blocks}: `blocks` {config.blocks} leaves nothing to train "
                    f"from block {self.start} on"
                )
        self.tensors = {info.name: info.block for info in own if info.block in able}
        self.names = tuple(self.tensors)
        reason = _too_long([info for info in own if info.block in able])
        if reason:
            raise UsageError(f"`first_order` {blocks}: {reason}; take fewer blocks")
        self.blocks = tuple(sorted(able))
        self.first_block = self.blocks[0]
        self.codec = GradientCodec({i.name: i.shape for i in own if i.block in able})
