"""Selects the blocks and tensors of a bundle that train."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgezo_runtime.bundle.trainables import TrainableInfo
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import UsageError

_MIDDLE = (0.27, 0.7)
"""Shares of the depth between which `blocks` auto selects."""


def select_blocks(config: TuneConfig, blocks: Sequence[int]) -> list[int]:
    """The blocks that train, of those that have trainables.

    Raises:
        UsageError: `blocks` has another form, or selects no block with trainables.
    """
    if not blocks:
        raise UsageError("the bundle has no trainables; export it with other `targets`")
    if config.blocks == "all" or (config.blocks == "auto" and config.schedule != "all"):
        chosen = list(blocks)
    elif config.blocks == "auto":
        # Measured on SmolLM2-135M and SST-2 with exact gradients; docs/decisions/0006.
        first, last = _MIDDLE
        total = blocks[-1] + 1
        chosen = [b for b in blocks if first <= (b + 0.5) / total <= last] or list(blocks)
    else:
        wanted = _parse_ranges(config.blocks)
        chosen = [b for b in blocks if any(first <= b <= last for first, last in wanted)]
    if not chosen:
        raise UsageError(
            f"`blocks` {config.blocks}: none of them has trainables; the bundle has them in "
            f"{blocks[0]} to {blocks[-1]}"
        )
    return chosen


def select_tensors(config: TuneConfig, infos: Sequence[TrainableInfo]) -> list[TrainableInfo]:
    """The trainables that train.

    Args:
        infos: trainables of the bundle.
    Raises:
        UsageError: `modules` names a module that has no trainables.
    """
    able = [info for info in infos if info.trains]
    if config.modules == "all":
        return able
    if config.modules == "auto":
        widths = {
            (info.block, info.module): info.shape[1] for info in infos if info.role == "lora_A"
        }
        widest = max(widths.values(), default=0)
        names = {module for (_, module), width in widths.items() if width == widest}
        return [info for info in able if not names or info.module in names]
    ends = [f".{name.strip()}" for name in config.modules.split(",")]
    for end in ends:
        if not any(f".{info.module}".endswith(end) for info in able):
            known = sorted({info.module.rpartition(".")[2] for info in able})
            raise UsageError(
                f"`modules` {config.modules}: '{end[1:]}' has no trainables; the bundle has them "
                f"in {', '.join(known)}"
            )
    return [info for info in able if f".{info.module}".endswith(tuple(ends))]


def _parse_ranges(text: str) -> list[tuple[int, int]]:
    """First and last block of every range."""
    found: list[tuple[int, int]] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,20})(?:-([0-9]{1,20}))?", part.strip())
        if match is None:
            raise UsageError(f"`blocks` {text}: expected auto, all, or ranges such as 8-19,25")
        first, last = match.groups()
        found.append((int(first), int(last or first)))
    return found
