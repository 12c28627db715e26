"""First-order steps of the last blocks: which tensors, how fast, and what the journal keeps.

A gradient is no function of a few recorded losses, so the journal keeps it, and a replay needs
neither data nor backward graphs. It is rounded to 8 bits before it is used, one scale a tensor: 580
bytes a block and step for adapters of rank 1 on SmolLM2's down_proj.
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
"""Largest learning rate over the root mean square of a tensor's elements."""

_LEVELS = 127
_SCALE_BYTES = 4
_SPARE_BYTES = 2**20
"""Room for the rest of a record: losses, blocks, time."""


def first_order_count(config: TuneConfig, manifest: Manifest) -> int:
    """How many of the last blocks take first-order steps, memory aside."""
    if isinstance(config.first_order, int):
        return config.first_order
    return (
        0
        if not config.wants_first_order or why_no_first_order(manifest)
        else manifest.model.num_blocks
    )


def why_no_first_order(manifest: Manifest) -> str | None:
    """Why first-order steps of all blocks cannot be taken with a bundle; None if they can."""
    if isinstance(manifest.backward, str):
        return manifest.backward
    return _too_long([info for info in manifest.trainables if info.trains])


def _too_long(infos: Sequence[TrainableInfo]) -> str | None:
    """Whether the gradient of these tensors does not fit a record of the journal."""
    size = sum(_SCALE_BYTES + math.prod(info.shape) for info in infos)
    if size + _SPARE_BYTES <= MAX_BODY:
        return None
    return (
        f"a gradient takes {format_size(size)} in the journal, whose records end at "
        f"{format_size(MAX_BODY)}"
    )


def first_order_rates(initial: Mapping[str, Float32], lr: float) -> dict[str, float]:
    """The learning rate of each tensor: lr, or `RELATIVE_STEP` of its size where that is less.

    What a step does to losses is measured where a run begins, and there a factor that meets a zero,
    such as LoRA's A, does nothing at all. Its own size bounds its steps instead; what begins at
    zero has no size.

    Args:
        initial: tensors by name, as the run begins.
        lr: learning rate.
    """
    rates: dict[str, float] = {}
    for name, value in initial.items():
        size = math.sqrt(float(np.mean(np.square(value.astype(np.float64)))))
        rates[name] = min(lr, RELATIVE_STEP * size) if size else lr
    return rates


class FirstOrderLayout:
    """The tensors of the last blocks that take first-order steps, and their gradient's bytes.

    Args:
        manifest: of the bundle.
        blocks: how many blocks, at least 1.
        config: says which of them train at all; None for all.

    Attributes:
        start: the first of them.
        blocks: those of them that train, ascending.
        first_block: the first of those.
        names: of the tensors that train.
        tensors: their blocks.

    Raises:
        UsageError: so many blocks make no sense, or they have nothing to train.
    """

    def __init__(self, manifest: Manifest, blocks: int, config: TuneConfig | None = None) -> None:
        num_blocks = manifest.model.num_blocks
        if not 1 <= blocks <= num_blocks:
            raise UsageError(f"--first-order {blocks}: the model has {num_blocks} blocks")
        self.start = num_blocks - blocks
        infos = manifest.trainables
        own = [info for info in infos if info.trains and info.block >= self.start]
        if config is not None and config.modules != "auto":
            own = [info for info in select_tensors(config, infos) if info.block >= self.start]
        able = {info.block for info in own}
        if not able:
            raise UsageError(f"--first-order {blocks}: these blocks have nothing to train")
        if config is not None and config.blocks != "auto":
            every = {info.block for info in infos if info.trains}
            able &= set(select_blocks(config, sorted(every)))
            if not able:
                raise UsageError(
                    f"--first-order {blocks}: --blocks {config.blocks} leaves nothing to train "
                    f"from block {self.start} on"
                )
        self.tensors = {info.name: info.block for info in own if info.block in able}
        self.names = tuple(self.tensors)
        reason = _too_long([info for info in own if info.block in able])
        if reason:
            raise UsageError(f"--first-order {blocks}: {reason}; take fewer blocks")
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
        """A gradient as the journal keeps it: a float32 scale and int8 multiples of it a tensor."""
        parts: list[bytes] = []
        for name in self.names:
            grad = gradient[name]
            scale = np.float32(np.abs(grad).max()) / np.float32(_LEVELS)
            levels = np.rint(grad / scale) if scale else np.zeros_like(grad)
            parts += [scale.astype("<f4").tobytes(), levels.astype(np.int8).tobytes()]
        return b"".join(parts)

    def unpack(self, data: bytes) -> dict[str, Float32]:
        """The gradient that `pack` wrote, as it was rounded.

        Raises:
            RunFileError: it is of another length.
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
