"""What keeps a run below its budget, and whether it is there on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
from edgezo_runtime.system.memory_guard import AVAILABLE_EVERY_S, LOW_BYTES, MemoryGuard
from edgezo_runtime.system.sizes import format_size

_SMALLEST_ARENA = 32 << 20


@dataclass(frozen=True, slots=True)
class MemoryLimit:
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


def limited_engine(bundle: Bundle, budget_bytes: int | None, threads: int | None) -> Engine:
    """An engine that keeps below a budget: its arena has a limit, and every block is looked after.

    Pressure begins a fiftieth below the budget, so that what a worker takes between two looks does
    not pass it.

    Args:
        bundle: opened bundle.
        budget_bytes: None for no memory_limits.
        threads: compute threads; None takes one a core.
    Raises:
        BundleError: a graph cannot be loaded.
        DoesNotFitError: the weights cannot be mapped, or the threads not be started.
        MemoryError: a graph was refused memory.
        MissingExtraError: onnxruntime is not installed.
    """
    if budget_bytes is None:
        return Engine(bundle, threads=threads)
    arena = max(_SMALLEST_ARENA, budget_bytes - resident_bytes())
    guard = MemoryGuard(budget_bytes, margin_bytes=budget_bytes // 50)
    return Engine(bundle, threads=threads, arena_bytes=arena, guard=guard)


@contextmanager
def refusing_to_begin() -> Iterator[None]:
    """Say of a run that is refused memory before it begins that it does not fit.

    Raises:
        DoesNotFitError: it was.
    """
    try:
        yield
    except (MemoryError, ImportError, OSError) as error:
        if isinstance(error, ImportError | OSError) and not is_unmapped(error):
            raise
        raise DoesNotFitError(
            f"memory is too short to begin: {str(error) or 'it was refused'}; end other programs, "
            f"or raise the limit ('ulimit -v', the control group's)"
        ) from error


def memory_limits(engine: Engine) -> list[MemoryLimit]:
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
        return MemoryLimit("arena", False, "onnxruntime may take what it wants")
    detail = f"onnxruntime is refused memory beyond {format_size(limit)}; the pass is cut smaller"
    return MemoryLimit("arena", True, detail, limit)


def _watch(engine: Engine) -> MemoryLimit:
    guard = engine.guard
    if guard is None:
        return MemoryLimit("watch", False, "no budget was given")
    limit = guard.budget_bytes - guard.margin_bytes
    how = "resident memory" if tells_resident() else f"peak memory ({sys.platform} tells no other)"
    detail = f"{how} at every block; from {format_size(limit)} on: stream, cut smaller, stop"
    return MemoryLimit("watch", True, detail, limit)


def _available() -> MemoryLimit:
    detail = (
        f"memory left to the machine every {AVAILABLE_EVERY_S:g} s, and what of the process was "
        f"swapped out; below {format_size(LOW_BYTES)} the same steps "
        f"({format_size(available_bytes())} now)"
    )
    return MemoryLimit("available", tells_resident(), detail, LOW_BYTES)


def _control_group() -> MemoryLimit:
    limit = limit_bytes()
    if limit is None:
        return MemoryLimit("control-group", False, "none has a limit")
    detail = f"the kernel ends what is beyond {format_size(limit)}; what it has left is watched"
    return MemoryLimit("control-group", True, detail, limit)


def _address_space() -> MemoryLimit:
    limits = [limit for limit in (address_space_limit(), data_limit()) if limit is not None]
    if not limits:
        return MemoryLimit("address-space", False, "neither ulimit -v nor -d is set")
    detail = f"allocations beyond {format_size(min(limits))} are refused; what is left is watched"
    return MemoryLimit("address-space", True, detail, min(limits))


def _unified() -> MemoryLimit:
    if not is_unified():
        return MemoryLimit("unified-memory", False, "no such board")
    if not tells_device():
        detail = "such a board, but what the graphics driver holds can only be read by root"
        return MemoryLimit("unified-memory", False, detail)
    detail = f"what the graphics driver holds counts as well; {format_size(total_bytes())} in all"
    return MemoryLimit("unified-memory", True, detail)
