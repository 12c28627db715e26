"""Memory limits: the limits that keep a run below its budget, and which are in force here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edgezo_runtime.budget.placement import ON_CPU, Placement
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.sessions import ENVIRONMENT
from edgezo_runtime.errors import DoesNotFitError
from edgezo_runtime.system.memory import (
    address_space_limit,
    available_bytes,
    data_limit,
    is_unified,
    is_unmapped,
    limit_bytes,
    resident_bytes,
    tells_device,
    tells_resident,
    total_bytes,
)
from edgezo_runtime.system.memory_errors import refusal_reason
from edgezo_runtime.system.memory_guard import AVAILABLE_EVERY_S, LOW_BYTES, MemoryGuard
from edgezo_runtime.system.sizes import format_size

_SMALLEST_ARENA = 32 << 20


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """One limit on the memory of a run.

    Attributes:
        name: stable, for machines.
        active: is the limit in force?
        detail: what the limit does, for people.
        limit_bytes: the limit; None if it is not a number of bytes.
    """

    name: str
    active: bool
    detail: str
    limit_bytes: int | None = None


def limited_engine(
    bundle: Bundle,
    budget_bytes: int | None,
    threads: int | None,
    placement: Placement = ON_CPU,
) -> Engine:
    """Open an engine that keeps below a budget: its arena has a limit, and a guard checks the
    memory at every block.

    Pressure begins a fiftieth below the budget, so that what a worker takes between two checks does
    not exceed it.

    Args:
        bundle: opened bundle.
        budget_bytes: what the process may take; None for no limits.
        threads: compute threads; None takes one per core.
        placement: the device, and what may lie on it.
    Raises:
        BundleError: a graph cannot be loaded.
        DoesNotFitError: the weights cannot be mapped, or the threads cannot be started.
        MemoryError: a graph was refused memory.
        MissingExtraError: onnxruntime is not installed.
    """
    device = placement.device
    device.ledger.restart(placement.budget_bytes)
    if budget_bytes is None:
        return Engine(bundle, threads=threads, device=device)
    arena = max(_SMALLEST_ARENA, budget_bytes - resident_bytes())
    guard = MemoryGuard(budget_bytes, margin_bytes=budget_bytes // 50)
    return Engine(bundle, threads=threads, arena_bytes=arena, guard=guard, device=device)


@contextmanager
def refusing_to_begin() -> Iterator[None]:
    """Turn a refusal of memory, before a run begins, into `DoesNotFitError`.

    Raises:
        DoesNotFitError: memory was refused.
    """
    try:
        yield
    except (MemoryError, ImportError, OSError) as error:
        if isinstance(error, ImportError | OSError) and not is_unmapped(error):
            raise
        raise DoesNotFitError(
            f"memory is too short to begin: {refusal_reason(error)}; end other programs, "
            f"or raise the limit ('ulimit -v', the control group's)"
        ) from error


def memory_limits(engine: Engine) -> list[MemoryLimit]:
    """List all limits, as they are for an engine."""
    return [
        _plan(engine),
        _arena(),
        _guard(engine),
        _available(),
        _control_group(),
        _address_space(),
        _unified(),
    ]


def _plan(engine: Engine) -> MemoryLimit:
    limits = engine.limits
    return MemoryLimit(
        "plan",
        engine.guard is not None,
        f"{len(engine.streamed)} of {engine.num_blocks} blocks streamed, {limits.workers} workers, "
        f"chunks of {limits.chunk_tokens} tokens",
    )


def _arena() -> MemoryLimit:
    limit = ENVIRONMENT.arena_bytes
    if limit is None:
        return MemoryLimit("arena", False, "onnxruntime has no limit")
    size = format_size(limit)
    detail = f"onnxruntime takes at most {size}; a pass that needs more uses smaller chunks"
    return MemoryLimit("arena", True, detail, limit)


def _guard(engine: Engine) -> MemoryLimit:
    guard = engine.guard
    if guard is None:
        return MemoryLimit("watch", False, "no budget was given")
    limit = guard.budget_bytes - guard.margin_bytes
    how = "resident memory" if tells_resident() else f"peak memory ({sys.platform} has no other)"
    detail = (
        f"checks {how} at every block; from {format_size(limit)} on, passes take fewer "
        f"workers, then stream their blocks, then take smaller chunks, then stop"
    )
    return MemoryLimit("watch", True, detail, limit)


def _available() -> MemoryLimit:
    detail = (
        f"checks the memory left to the machine and the swapped part of the process every "
        f"{AVAILABLE_EVERY_S:g} s; below {format_size(LOW_BYTES)}, passes do the same "
        f"({format_size(available_bytes())} now)"
    )
    return MemoryLimit("available", tells_resident(), detail, LOW_BYTES)


def _control_group() -> MemoryLimit:
    limit = limit_bytes()
    if limit is None:
        return MemoryLimit("control-group", False, "no control group has a limit")
    size = format_size(limit)
    detail = (
        f"above {size}, the kernel kills a process of the group; the guard checks how much is left"
    )
    return MemoryLimit("control-group", True, detail, limit)


def _address_space() -> MemoryLimit:
    limits = [limit for limit in (address_space_limit(), data_limit()) if limit is not None]
    if not limits:
        return MemoryLimit("address-space", False, "neither ulimit -v nor ulimit -d is set")
    size = format_size(min(limits))
    detail = f"the system refuses allocations beyond {size}; the guard checks how much is left"
    return MemoryLimit("address-space", True, detail, min(limits))


def _unified() -> MemoryLimit:
    if not is_unified():
        return MemoryLimit("unified-memory", False, "this is not a board with unified memory")
    if not tells_device():
        detail = "only root can read how much memory the graphics driver holds"
        return MemoryLimit("unified-memory", False, detail)
    detail = (
        f"memory of the graphics driver counts as used; the board has "
        f"{format_size(total_bytes())} in all"
    )
    return MemoryLimit("unified-memory", True, detail)
