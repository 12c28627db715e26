"""ONNX Runtime sessions that share one memory arena and one pool of workers.

The defaults are costly when a model is many sessions: every session brings a spinning thread pool
(two to three times slower on two cores; worse beside other processes) and an arena that never
shrinks (1.2 to 1.7 GB for thirty blocks). Prepacking would copy weights to the heap; without it
they stay pages of the mapped file that the kernel may drop, and run as fast.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.bundle.manifest_types import TensorInfo
from edgezo_runtime.bundle.onnx_file import MAX_BYTES, check_onnx
from edgezo_runtime.devices.cpu import CPU
from edgezo_runtime.devices.device import Device, Opening, Session
from edgezo_runtime.devices.faults import ShortOfMemoryError, is_loss, is_refusal
from edgezo_runtime.devices.library import import_onnxruntime
from edgezo_runtime.errors import (
    BundleError,
    DeviceLostError,
    DoesNotFitError,
    EdgezoError,
    InterruptedRunError,
    UsageError,
)
from edgezo_runtime.system.fair_lock import FairLock
from edgezo_runtime.system.files import read_regular
from edgezo_runtime.system.memory import (
    available_bytes,
    return_large_blocks,
    save_addresses,
)

_END_S = 10.0
"""How long the end of the interpreter waits for a pass to reach its next block."""

_OPENING = 8 << 20
"""Bytes that must be left before a graph is opened, besides `_PER_BYTE` per byte of its file.
onnxruntime can corrupt its heap when it is refused memory while it opens a graph."""

_PER_BYTE = 16

_NO_ROOM = "a graph cannot be opened for lack of memory"


def run_graph(session: Session, outputs: list[str], feed: Any, options: Any = None) -> list[Any]:
    """Run a session on values of its device.

    Raises:
        ShortOfMemoryError: it was refused memory.
        DeviceLostError: the device is gone.
        BundleError: the graph does not take or make what its bundle's manifest says.
    """
    try:
        return list(session.run_with_ort_values(outputs, feed, options))
    except ShortOfMemoryError:
        raise
    except Exception as error:  # onnxruntime's errors have no common public base class
        if is_loss(error):
            raise DeviceLostError(_lost(error)) from error
        if is_refusal(error):
            raise ShortOfMemoryError("onnxruntime was refused memory") from error
        raise BundleError(
            f"onnxruntime could not run a graph of the bundle, from {', '.join(outputs)[:80]}: "
            f"{str(error)[:400]}; run 'edgezo export --force'"
        ) from error


def require_shape(value: Any, shape: tuple[int, ...], what: str) -> None:
    """Refuse a result of a graph that has a wrong shape.

    Args:
        value: an OrtValue.
        shape: the expected shape.
        what: names the result in the message.
    Raises:
        BundleError: the shape is another one.
    """
    found = tuple(value.shape())
    if found != shape:
        raise BundleError(
            f"a graph of the bundle made {what} of shape {found}, expected {shape}; "
            f"run 'edgezo export --force'"
        )


class SharedEnvironment:
    """The one arena and the workers of the process, which all its engines share.

    ONNX Runtime keeps an arena for the life of the process, so the first caller's limit holds. The
    workers live as long as an engine uses them; the first of these engines sets their number.
    Passes of all engines take turns, so that the memory of one pass is needed at a time, and no
    more threads compute than were asked for.

    Attributes:
        threads: number of workers.
        arena_bytes: limit of the arena; None for none.
        turns: held by the pass that runs.
        ending: is the interpreter about to end?
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a collected engine may release where one is prepared
        self._registered = False
        self._process: int | None = None
        self._users = 0
        self._pool: ThreadPoolExecutor | None = None
        self.threads = 0
        self.arena_bytes: int | None = None
        self.turns = FairLock()
        self.ending = False

    def end(self) -> None:
        """Have the pass that runs end at the next block, and no other begin.

        For the end of the interpreter: a thread that comes out of onnxruntime after that aborts
        the process.
        """
        self.ending = True
        self.turns.wait(_END_S)

    def require_time(self) -> None:
        """Refuse to begin or continue anything when the interpreter ends.

        Raises:
            InterruptedRunError: it does.
        """
        if self.ending:
            raise InterruptedRunError("the interpreter ends")

    def forget(self) -> None:
        """In a forked process: the workers, and the holders of locks, are in the other one."""
        self._lock = threading.RLock()
        self._users, self._pool = 0, None
        self.turns = FairLock()

    def require_process(self) -> None:
        """Refuse a process that was forked from one that had used onnxruntime.

        There, opening a session can block for ever: the fork copies the locks of onnxruntime, but
        not the threads that hold them.

        Raises:
            UsageError: this is such a process.
        """
        if self._process is not None and self._process != os.getpid():
            raise UsageError(
                f"this process was forked after onnxruntime had started its threads in process "
                f"{self._process}, and cannot use it; start a process of its own (spawn), or fork "
                f"before a bundle is opened"
            )

    @property
    def workers(self) -> ThreadPoolExecutor:
        """The workers; new ones if the last user has released them.

        Raises:
            UsageError: as for `require_process`.
        """
        self.require_process()
        with self._lock:
            if self._pool is None:
                self._pool = _started(self.threads)
            return self._pool

    def release(self) -> None:
        """Undo one call of `prepare`; the workers end with the last one."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._pool is not None:
                self._pool.shutdown(wait=False)
                self._pool = None

    def prepare(self, threads: int | None, arena_bytes: int | None) -> None:
        """Make the workers and the arena unless they exist. `release` must follow.

        Args:
            threads: compute threads; None takes one per core that this process may use.
            arena_bytes: hard limit of the arena, None for no limit.
        Raises:
            DoesNotFitError: the system does not give so many threads.
            UsageError: as for `require_process`.
        """
        self.require_process()
        ort = import_onnxruntime()
        with self._lock:
            self._process = os.getpid()
            self._users += 1
            try:
                self._prepare(ort, threads, arena_bytes)
            except BaseException:
                self.release()
                raise

    def _prepare(self, ort: Any, threads: int | None, arena_bytes: int | None) -> None:
        if arena_bytes is not None:
            return_large_blocks()
        if self._pool is None:
            save_addresses()
            self.threads = threads or available_cores()
            self._pool = _started(self.threads)
        if not self._registered:
            self.arena_bytes = arena_bytes
            ort.set_default_logger_severity(3)
            # Growing by what was asked for: the default doubles, and keeps what it took.
            settings: dict[str, int] = {"arena_extend_strategy": 1}
            if arena_bytes is not None:
                settings["max_mem"] = arena_bytes
            place = ort.OrtMemoryInfo(
                "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
            )
            ort.create_and_register_allocator(place, ort.OrtArenaCfg(settings))
            self._registered = True

    def open(
        self, bundle: Bundle, file: str, *, in_order: bool = False, device: Device = CPU
    ) -> Session:
        """Open one graph of a bundle.

        Args:
            bundle: the bundle.
            file: the graph's file in it.
            in_order: run the nodes in the order of the file; see `Opening`.
            device: what runs it.

        Raises:
            BundleError: the graph is damaged, holds what no graph of a bundle does, or needs what
                this onnxruntime or the device does not have.
            DeviceLostError: the device is gone.
            ShortOfMemoryError: there is no memory for it.
            UsageError: as for `require_process`.
        """
        self.require_process()
        ort = import_onnxruntime()
        self._process = os.getpid()
        path = bundle.path(file)
        content = _read(path)
        check_onnx(content, str(path))
        if available_bytes() < _OPENING + _PER_BYTE * len(content):
            raise ShortOfMemoryError(_NO_ROOM)
        try:
            return device.open(Opening(content, str(path), in_order))
        except EdgezoError:
            raise
        except Exception as error:  # onnxruntime's errors have no common public base class
            if is_loss(error):
                raise DeviceLostError(_lost(error)) from error
            if is_refusal(error):
                raise ShortOfMemoryError(_NO_ROOM) from error
            raise BundleError(
                f"{path}: onnxruntime {ort.__version__} cannot load this graph: {error}; "
                f"run 'edgezo export --force' again or install another onnxruntime"
            ) from error


def _lost(error: Exception) -> str:
    return (
        f"the device was lost: {str(error)[:200]}; the steps so far are saved: resume the run, "
        f"with `device` cpu if the device does not come back"
    )


def check_ends(
    session: Session,
    inputs: Iterable[TensorInfo],
    outputs: Iterable[TensorInfo],
    where: str,
) -> None:
    """Compare the inputs and outputs of a graph with what the manifest says of them.

    Args:
        session: the graph, opened.
        inputs: what the manifest says it takes.
        outputs: what the manifest says it makes.
        where: its path, for the message.
    Raises:
        BundleError: a name or a type differs.
    """
    for side, known, found in (
        ("input", inputs, session.get_inputs()),
        ("output", outputs, session.get_outputs()),
    ):
        said = {(tensor.name, _TYPES.get(tensor.dtype, tensor.dtype)) for tensor in known}
        own = {(end.name, end.type) for end in found}
        if side == "output":  # more than the manifest tells of does no harm
            own &= said
        if odd := said ^ own:
            name, kind = min(odd)
            told = "the manifest" if (name, kind) in said else "the graph"
            raise BundleError(
                f"{where}: {side} {name[:80]!r} of type {kind} is in {told} only; "
                f"run 'edgezo export --force'"
            )


_TYPES = {
    "float16": "tensor(float16)",
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    **{name: f"tensor({name})" for name in ("bool", "int8", "int32", "int64")},
    **{name: f"tensor({name})" for name in ("uint8", "uint16", "uint32")},
}


def _read(path: Path) -> bytes:
    """The bytes of a graph.

    Raises:
        BundleError: it cannot be read, or is too large for one.
    """
    try:
        return read_regular(path, MAX_BYTES)
    except OSError as error:
        raise BundleError(
            f"{path}: no graph: {error.strerror}; run 'edgezo export --force'"
        ) from error


def _started(threads: int) -> ThreadPoolExecutor:
    """A pool whose threads all run: later, when memory is short, none could be started.

    Raises:
        DoesNotFitError: the system does not give so many.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="edgezo")
    together = threading.Barrier(threads)
    try:
        for _ in range(threads):
            pool.submit(together.wait)
    except RuntimeError as error:
        together.abort()
        pool.shutdown(wait=False)
        raise DoesNotFitError(
            f"{threads} threads cannot be started: {error}; set fewer `threads`, or raise "
            f"the limit on memory ('ulimit -v', the control group's) or on processes"
        ) from error
    return pool


ENVIRONMENT = SharedEnvironment()
"""The environment of this process."""

atexit.register(ENVIRONMENT.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ENVIRONMENT.forget)


def available_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
