"""What a disk may hold after a power cut, given what a process did to the files of a folder.

A write, a cut, a new name: none of it has to be there until an fsync of the file, or of the folder
for names, has returned. Until then any part of it may be, in any order, and of a write any leading
part. That is more than common file systems do, and what POSIX allows.

References:
    Pillai et al. 2014, All File Systems Are Not Created Equal: On the Complexity of Crafting
    Crash-Consistent Applications, OSDI: crash states from a trace of system calls.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from edgezo_runtime.journal.example_log import HEAD_BYTES
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.system.framing import RECORD_PREFIX, read_body
from tests.crash.disk_library import Operation
from tests.crash.sampling import every

_NAMES = ("create", "rename", "unlink", "mkdir")
_DATA = ("write", "truncate")
_UNREAD = (".edgezo-tmp", "prefix.cache", "lock")
"""Ends of the names of files whose bytes a run that goes on never reads."""

Key = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class CrashState:
    """The files after a cut.

    Attributes:
        point: operations that the process had done.
        what: became of those that no fsync covers, in words.
        files: bytes by path.
    """

    point: int
    what: str
    files: dict[str, bytes]

    def write(self, folder: Path) -> None:
        """Make the files."""
        for path, data in self.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """A moment of a power cut.

    Attributes:
        certain: what the disk holds whatever becomes of what no fsync covers.
        states: what it may hold; of those that no reader can tell apart, one.
        tried: choices that were looked at.
    """

    certain: CrashState
    states: dict[Key, CrashState]
    tried: int


def crash_points(
    operations: Sequence[Operation], *, first: int = 0, samples: int = 16, seed: int = 0
) -> Iterator[CrashPoint]:
    """Every moment before, between and behind the operations, and what the disk may hold then.

    Of the operations without an fsync: none, all, all but one, one alone, one torn, some at random.

    Args:
        operations: of the process.
        first: how many of them were there before it began.
        samples: how many random choices a moment.
        seed: of those.
    """
    generator = random.Random(seed)
    for point in range(first, len(operations) + 1):
        disk = _Disk(operations[:point])
        certain = disk.state(point, "nothing more", set())
        states, tried = {_key(certain): certain}, 1
        seen: set[tuple[frozenset[int], tuple[int, int] | None]] = set()
        for what, chosen, torn in _choices(disk, samples, generator):
            tried += 1
            alike = frozenset(chosen & disk.read), torn if torn[0] in disk.read else None
            if alike not in seen:
                seen.add(alike)
                state = disk.state(point, what, chosen, torn)
                states.setdefault(_key(state), state)
        yield CrashPoint(certain, states, tried)


@dataclass(frozen=True, slots=True)
class Cut:
    """A disk that a power cut can leave.

    Attributes:
        state: its files.
        safe_steps: steps that must be on it, wherever it came from.
        safe_examples: bytes that a file of examples must begin with then.
    """

    state: CrashState
    safe_steps: int
    safe_examples: bytes


def all_cuts(
    operations: Sequence[Operation], folder: Path, first: int = 0
) -> tuple[list[Cut], int]:
    """Every disk that a run which goes on can tell apart, and how many choices led to them.

    Args:
        operations: of a run in its folder.
        folder: for what is certain at every moment.
        first: how many of them were there before the run began.
    """
    found: dict[Key, Cut] = {}
    tried = 0
    for point in crash_points(operations, first=first, samples=16 // every(4)):
        tried += point.tried
        safe = _safe_steps(point.certain, folder / str(point.certain.point))
        kept = _whole_examples(point.certain.files.get("examples.bin", b""))
        for key, state in point.states.items():
            known = found.get(key, Cut(state, 0, b""))
            longer = max(kept, known.safe_examples, key=len)
            found[key] = Cut(known.state, max(safe, known.safe_steps), longer)
    return list(found.values()), tried


def _whole_examples(data: bytes) -> bytes:
    """A file of examples without what was torn when the run began: nobody was told of it."""
    file, end = BytesIO(data), min(len(data), HEAD_BYTES)
    while (body := read_body(file, end, len(data))) is not None:
        end += RECORD_PREFIX.size + len(body)
    return data[:end]


def resting(files: Mapping[str, bytes]) -> list[Operation]:
    """Operations that leave these files, all of them safe: where a run goes on."""
    made: list[Operation] = []
    for path, data in files.items():
        folder = _parent(path)
        made += [
            Operation("create", path),
            Operation("write", path, data=data),
            Operation("sync", path),
            Operation("sync", folder),
        ]
    return made


def _safe_steps(state: CrashState, folder: Path) -> int:
    """Steps whose records are there."""
    journals = [path for path in state.files if path.rpartition("/")[2] == "journal.bin"]
    if not journals:
        return 0
    state.write(folder)
    return sum(1 for _ in read_journal(folder / journals[0]).records)


def _key(state: CrashState) -> Key:
    return tuple(
        sorted(
            (path, b"" if path.endswith(_UNREAD) else data) for path, data in state.files.items()
        )
    )


def _choices(
    disk: _Disk, samples: int, generator: random.Random
) -> Iterator[tuple[str, set[int], tuple[int, int]]]:
    """Which of the pending operations are there, and which write is torn where."""
    pending, whole = disk.pending, (-1, 0)
    everything = set(pending)
    yield "all", everything, whole
    for index in pending:
        yield f"all but {index}", everything - {index}, whole
        yield f"{index} alone", {index}, whole
        size = len(disk.operations[index].data)
        for length in sorted({1, size // 2, size - 1} - {0, size}):
            if length > 0:
                yield f"{index} torn at {length}", everything, (index, length)
                earlier = {other for other in pending if other <= index}
                yield f"up to {index}, torn at {length}", earlier, (index, length)
    for _ in range(samples if len(pending) > 1 else 0):
        yield "some", {index for index in pending if generator.random() < 0.5}, whole


@dataclass(slots=True)
class _Disk:
    """Operations, and what is known of them.

    Attributes:
        operations: all there were.
        pending: those that no fsync covers, ascending.
        inodes: of the file that each concerns.
        read: those pending that a reader can notice.
    """

    operations: Sequence[Operation]
    pending: list[int] = field(default_factory=list)
    inodes: list[int] = field(default_factory=list)
    read: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        names: dict[str, int] = {}
        covered: set[int] = set()
        read: set[int] = set()
        for index, operation in enumerate(self.operations):
            if operation.kind == "create":
                names[operation.path] = index
            inode = names.get(operation.path, -1)
            self.inodes.append(inode)
            if not (operation.other or operation.path).endswith(_UNREAD):
                read.add(inode)
            if operation.kind == "rename":
                names[operation.other] = names.pop(operation.path)
            elif operation.kind == "unlink":
                names.pop(operation.path, None)
            elif operation.kind == "sync":
                covered |= {at for at in range(index) if self._covers(operation, inode, at)}
        self.pending = [
            index
            for index, operation in enumerate(self.operations)
            if operation.kind != "sync" and index not in covered
        ]
        self.read = {
            index
            for index in self.pending
            if self.operations[index].kind not in _DATA or self.inodes[index] in read
        }

    def _covers(self, sync: Operation, inode: int, index: int) -> bool:
        operation = self.operations[index]
        if operation.kind in _DATA:
            return self.inodes[index] == inode
        if operation.kind not in _NAMES:
            return False
        folder = sync.path
        return inode < 0 and folder in {_parent(operation.path), _parent(operation.other)}

    def state(
        self, point: int, what: str, chosen: set[int], torn: tuple[int, int] = (-1, 0)
    ) -> CrashState:
        """The files, if of the pending operations these reached the disk."""
        pending = set(self.pending)
        content: dict[int, bytearray] = {}
        names: dict[str, int] = {}
        for index, operation in enumerate(self.operations):
            if index in pending and index not in chosen:
                continue
            inode = self.inodes[index]
            if operation.kind == "create":
                names[operation.path] = inode
            elif operation.kind == "rename":
                names.pop(operation.path, None)
                names[operation.other] = inode
            elif operation.kind == "unlink":
                names.pop(operation.path, None)
            elif operation.kind == "truncate":
                data = content.setdefault(inode, bytearray())
                del data[operation.offset :]
                data.extend(bytes(operation.offset - len(data)))
            elif operation.kind == "write":
                data = content.setdefault(inode, bytearray())
                part = operation.data[: torn[1]] if index == torn[0] else operation.data
                data.extend(bytes(max(0, operation.offset - len(data))))
                data[operation.offset : operation.offset + len(part)] = part
        files = {path: bytes(content.get(inode, b"")) for path, inode in names.items()}
        return CrashState(point, what, files)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
