"""What keeps a run below its budget, and whether it is there on this machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from edgezo_runtime.engine import Engine
from edgezo_runtime.guard import AVAILABLE_EVERY_S, LOW_BYTES
from edgezo_runtime.memory import (
    address_space_limit,
    available_bytes,
    is_unified,
    limit_bytes,
    total_bytes,
)
from edgezo_runtime.sessions import ENVIRONMENT
from edgezo_runtime.sizes import format_size

_STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Fence:
    """One of them.

    Attributes:
        name: stable, for machines.
        active: is it there?
        detail: what it does, in words.
        limit_bytes: where it stands, None if it is no number of bytes.
    """

    name: str
    active: bool
    detail: str
    limit_bytes: int | None = None


def fences(engine: Engine) -> list[Fence]:
    """All of them, as they stand for an engine."""
    return [
        _plan(engine),
        _arena(),
        _watch(engine),
        _available(),
        _control_group(),
        _address_space(),
        _unified(),
    ]


def _plan(engine: Engine) -> Fence:
    limits = engine.limits
    return Fence(
        "plan",
        engine.guard is not None,
        f"{len(engine.streamed)} of {engine.num_blocks} blocks streamed, {limits.workers} workers, "
        f"chunks of {limits.chunk_tokens} tokens",
    )


def _arena() -> Fence:
    limit = ENVIRONMENT.arena_bytes
    if limit is None:
        return Fence("arena", False, "onnxruntime may take what it wants")
    detail = f"onnxruntime is refused memory beyond {format_size(limit)}; the pass is cut smaller"
    return Fence("arena", True, detail, limit)


def _watch(engine: Engine) -> Fence:
    guard = engine.guard
    if guard is None:
        return Fence("watch", False, "no budget was given")
    limit = guard.budget_bytes - guard.margin_bytes
    how = "resident memory" if _STATM.exists() else f"peak memory ({sys.platform} tells no other)"
    detail = f"{how} at every block; from {format_size(limit)} on: stream, cut smaller, stop"
    return Fence("watch", True, detail, limit)


def _available() -> Fence:
    detail = (
        f"memory left to the machine every {AVAILABLE_EVERY_S:g} s, and what of the process was "
        f"swapped out; below {format_size(LOW_BYTES)} the same steps "
        f"({format_size(available_bytes())} now)"
    )
    return Fence("available", True, detail, LOW_BYTES)


def _control_group() -> Fence:
    limit = limit_bytes()
    if limit is None:
        return Fence("control-group", False, "none has a limit")
    detail = f"the kernel ends what is beyond {format_size(limit)}; what it has left is watched"
    return Fence("control-group", True, detail, limit)


def _address_space() -> Fence:
    soft = address_space_limit()
    if soft is None:
        return Fence("address-space", False, "ulimit -v is not set")
    detail = f"allocations beyond {format_size(soft)} are refused; what it leaves is watched"
    return Fence("address-space", True, detail, soft)


def _unified() -> Fence:
    if not is_unified():
        return Fence("unified-memory", False, "no such board")
    detail = f"what the graphics driver holds counts as well; {format_size(total_bytes())} in all"
    return Fence("unified-memory", True, detail)
