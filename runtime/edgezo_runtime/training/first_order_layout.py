"""First-order steps of the last blocks: tensors, learning rates, and gradients in the journal.

A gradient cannot be computed from a few recorded losses. The journal stores it, so a replay needs
neither data nor backward graphs. It is rounded to 8 bits before it is used, with one scale per
tensor: 580 bytes per block and step for adapters of rank 1 on SmolLM2's down_proj.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.manifest import Manifest, TrainableInfo
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.system.framing import MAX_BODY
from edgezo_runtime.system.sizes import format_size
from edgezo_runtime.training.selection import select_blocks, select_tensors

Float32 = npt.NDArray[np.float32]

RELATIVE_STEP = 0.02
"""Largest learning rate, as a share of the root mean square of a tensor's elements."""

_LEVELS = 127
_SCALE_BYTES = 4
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
    size = sum(_SCALE_BYTES + math.prod(info.shape) for info in infos)
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
    """The tensors of the last blocks, which take first-order steps, and their packed gradients.

    Args:
        manifest: of the bundle.
        blocks: number of last blocks, at least 1.
        config: selects the blocks and tensors that train; None for all.

    Attributes:
        start: the first of the last blocks.
        blocks: the last blocks that train, ascending.
        first_block: the first block that trains.
        names: names of the tensors that train.
        tensors: the block of each tensor that trains.

    Raises:
        UsageError: the model has fewer blocks, or these blocks have nothing to train.
    """

    def __init__(self, manifest: Manifest, blocks: int, config: TuneConfig | None = None) -> None:
        num_blocks = manifest.model.num_blocks
        if not 1 <= blocks <= num_blocks:
            raise UsageError(f"`first_order` {blocks}: the model has {num_blocks} blocks")
        self.start = num_blocks - blocks
        infos = manifest.trainables
        own = [info for info in infos if info.trains and info.block >= self.start]
        if config is not None and config.modules != "auto":
            own = [info for info in select_tensors(config, infos) if info.block >= self.start]
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
        self._shapes = {info.name: info.shape for info in infos if info.name in self.names}

    @property
    def nbytes(self) -> int:
        """Bytes of a packed gradient."""
        sizes = self._sizes()
        return sum(sizes.values()) + _SCALE_BYTES * len(sizes)

    def _sizes(self) -> dict[str, int]:
        return {name: math.prod(self._shapes[name]) for name in self.names}

    def pack(self, gradient: Mapping[str, Float32]) -> bytes:
        """A gradient as the journal stores it: a float32 scale and int8 multiples per tensor."""
        parts: list[bytes] = []
        for name in self.names:
            grad = gradient[name]
            scale = np.float32(np.abs(grad).max()) / np.float32(_LEVELS)
            levels = np.rint(grad / scale) if scale else np.zeros_like(grad)
            parts += [scale.astype("<f4").tobytes(), levels.astype(np.int8).tobytes()]
        return b"".join(parts)

    def unpack(self, data: bytes) -> dict[str, Float32]:
        """The rounded gradient that `pack` wrote.

        Raises:
            RunFileError: the data have another length, or a scale that is not finite.
        """
        sizes = self._sizes()
        if len(data) != self.nbytes:
            raise RunFileError(
                f"a step's gradient has {len(data)} bytes in the journal, expected {self.nbytes}"
            )
        found: dict[str, Float32] = {}
        start = 0
        for name, size in sizes.items():
            scale = np.frombuffer(data, "<f4", 1, start).astype(np.float32)
            if not np.isfinite(scale).all():
                raise RunFileError(f"a step's gradient of '{name}' is not finite")
            levels = np.frombuffer(data, np.int8, size, start + _SCALE_BYTES)
            found[name] = levels.reshape(self._shapes[name]).astype(np.float32) * scale
            start += _SCALE_BYTES + size
        return found
