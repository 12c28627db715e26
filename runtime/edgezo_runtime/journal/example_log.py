"""The examples that an app added to a run: an append-only file in the run's folder.

    file    = magic "\\x89EZX\\r\\n\\x1a\\n" | version u32 | sha256 of what the run depends on
              then frames, see `edgezo_runtime.system.framing`
    body    = number of its first example u64 | first step that is taken on them u64
              | how many (LEB128) | examples
    example = class + 1 (LEB128) | tokens | places; both as a count (LEB128) and int32s

Every frame is on the disk before its examples are used, and before the next one is begun. So a
power cut can tear the last frame only, whose examples no step has seen and no app was told are
there; anything else is damage. The step is fixed when examples are added: where a power cut takes
back steps that were not safe yet, they are done again on what they were done on.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.example_set import Example, ExampleSet
from edgezo_runtime.errors import DataError, RunFileError, UsageError
from edgezo_runtime.journal.step_record import pack_count, unpack_count
from edgezo_runtime.system.files import atomic_write, open_regular, sync_descriptor
from edgezo_runtime.system.framing import (
    FRAME,
    MAX_BODY,
    SEARCH_BYTES,
    RecordSearchError,
    find_whole,
    pack_record,
    read_body,
    write_whole,
)

_VERSION = 1
_HEAD = struct.Struct("<8sI32s")  # magic, version, sha256
HEAD_BYTES = _HEAD.size
"""Where the first frame is."""
_MAGIC = b"\x89EZX\r\n\x1a\n"
_FIRST = struct.Struct("<QQ")  # example, step


class ExampleLog:
    """Examples that were added to a run.

    Args:
        path: the file; made at the first `append`.
        digest: what the run depends on; a file of another run is refused.
        initial: the examples the run was started with; those of the file follow them.
        vocab_size: tokens are below it.

    Attributes:
        examples: all of them.
        torn_bytes: what a crash left of examples that nobody was told are there.

    Raises:
        RunFileError: the file is damaged, or of another run.
    """

    def __init__(self, path: Path, digest: str, initial: ExampleSet, vocab_size: int) -> None:
        self._path = path
        self._vocab_size = vocab_size
        self._digest = hashlib.sha256(digest.encode()).digest()
        self._file: FileIO | None = None
        self.examples = initial
        self._initial = len(initial)
        self._ends: list[tuple[int, int]] = []
        self._broken = False
        self._length = 0
        self.torn_bytes = 0
        if path.exists():
            self._read()

    def count_at(self, step: int) -> int:
        """How many examples a step is taken on."""
        for first, end in reversed(self._ends):
            if first <= step:
                return end
        return self._initial

    def append(self, more: Sequence[Example], step: int) -> None:
        """Add examples; they are on the disk when this returns.

        Args:
            more: their `example_id` and `line` are made to follow those there are.
            step: the first that is taken on them, if those before them are used by then.
        Raises:
            DataError: one is not of the run's kind; `open` would take it for damage.
            RunFileError: the disk did not take them; nothing was added.
            UsageError: they are more than a record takes (64 MiB).
        """
        for number, example in enumerate(more, 1):
            try:
                _check(example, self.examples, self._vocab_size)
            except ValueError as error:
                raise DataError(f"example {number} of those to be added: {error}") from error
        first = len(self.examples)
        grown = self.examples.plus(more)
        step = max(step, self._ends[-1][0] if self._ends else 0)
        body = _FIRST.pack(first, step) + pack_count(len(more)) + b"".join(map(_pack, more))
        if len(body) > MAX_BODY:
            raise UsageError(f"{len(more)} examples take {len(body)} bytes; add fewer at a time")
        try:
            file = self._opened()
            data = pack_record(body)
            try:
                file.truncate(self._length)  # what a crash or an interrupt left
                write_whole(file, data)
                sync_descriptor(file.fileno())
            except BaseException:  # an interrupt as well must not leave half a record
                self._cut_back(file)
                raise
        except OSError as error:
            raise RunFileError(
                f"{self._path}: cannot be written: {error.strerror}; the examples were not added"
            ) from error
        self._length += len(data)
        self.examples = grown
        self._ends.append((step, len(grown)))

    def _cut_back(self, file: FileIO) -> None:
        """Take half a record away, or let nothing follow it."""
        try:
            file.truncate(self._length)
        except OSError:
            self._broken = True

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> FileIO:
        if self._broken:
            raise RunFileError(
                f"{self._path}: a write failed by half and could not be taken back; open the run "
                f"again"
            )
        if self._file is None:
            if not self._length:
                head = _HEAD.pack(_MAGIC, _VERSION, self._digest)
                atomic_write(self._path, head)
                self._length = len(head)
            self._file = open_regular(self._path, "ab", follow=False)
        return self._file

    # --- reading ---

    def _read(self) -> None:
        try:
            with BufferedReader(open_regular(self._path)) as file:
                size = os.fstat(file.fileno()).st_size
                self._length = self._read_head(file)
                found: list[Example] = []
                while (body := read_body(file, self._length, size)) is not None:
                    found += self._taken(body, len(self.examples) + len(found))
                    self._length += FRAME.size + len(body)
                self.examples = self.examples.plus(found)  # at once: each time copies all
                self.torn_bytes = size - self._length
                if self.torn_bytes:
                    self._require_torn(file, size)
        except OSError as error:
            raise RunFileError(f"{self._path}: cannot be read: {error.strerror}") from error

    def _read_head(self, file: BinaryIO) -> int:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or not head.startswith(_MAGIC):
            raise RunFileError(f"{self._path}: not a file of examples")
        _, version, digest = _HEAD.unpack(head)
        if version != _VERSION:
            raise RunFileError(
                f"{self._path}: has version {version}, this edgezo reads {_VERSION}; use the "
                f"edgezo that wrote it"
            )
        if digest != self._digest:
            raise RunFileError(f"{self._path}: its examples were added to another run")
        return _HEAD.size

    def _taken(self, body: bytes, first: int) -> list[Example]:
        """The examples of a record, the first of which has this number."""
        try:
            number, step = _FIRST.unpack_from(body)
            if number != first:
                raise ValueError(f"begins with example {number}, expected {first}")
            if self._ends and step < self._ends[-1][0]:
                raise ValueError(f"is of step {step}, the one before of {self._ends[-1][0]}")
            count, at = unpack_count(body, _FIRST.size)
            more: list[Example] = []
            for _ in range(count):
                example, at = _unpack(body, at)
                _check(example, self.examples, self._vocab_size)
                more.append(example)
            if at != len(body):
                raise ValueError(f"{len(body) - at} bytes too many")
        except (struct.error, IndexError, ValueError) as error:
            raise RunFileError(
                f"{self._path}: the record at byte {self._length} is damaged: {error}"
            ) from error
        self._ends.append((step, first + len(more)))
        return more

    def _require_torn(self, file: BinaryIO, size: int) -> None:
        """Refuse a bad frame that a whole one follows: it had been synced before that was begun."""
        known = len(self.examples)

        def fitting(frame: bytes, distance: int) -> int:
            _, length, _ = FRAME.unpack_from(frame)
            first, _ = _FIRST.unpack_from(frame, FRAME.size)
            fits = 0 < length <= MAX_BODY and known < first <= known + distance
            return int(length) if fits else 0

        starts = FRAME.size + _FIRST.size, FRAME.size + _FIRST.size
        try:
            torn = self.torn_bytes <= SEARCH_BYTES
            torn = torn and find_whole(file, self._length, size, starts, fitting) is None
        except RecordSearchError:
            torn = False
        if not torn:
            raise RunFileError(
                f"{self._path}: damaged at byte {self._length}; restore the file from a copy"
            )


def _pack(example: Example) -> bytes:
    parts = [pack_count(example.label + 1)]
    for numbers in (example.tokens, example.places):
        parts += [pack_count(numbers.size), numbers.astype("<i4").tobytes()]
    return b"".join(parts)


def _unpack(body: bytes, at: int) -> tuple[Example, int]:
    label, at = unpack_count(body, at)
    arrays: list[npt.NDArray[Any]] = []
    for _ in range(2):
        count, at = unpack_count(body, at)
        end = at + 4 * count
        if end > len(body):
            raise ValueError(f"{count} numbers in {len(body) - at} bytes")
        arrays.append(np.frombuffer(body[at:end], "<i4").astype(np.int32))
        at = end
    return Example(0, 0, arrays[0], arrays[1], label - 1), at


def _check(example: Example, like: ExampleSet, vocab_size: int) -> None:
    """Refuse what no reader of rows makes.

    Raises:
        ValueError: it does not go with the set.
    """
    tokens, places = example.tokens, example.places
    classified = like.kind != "completion"
    if not 0 < tokens.size <= like.max_seq + 1:
        raise ValueError(f"an example of {tokens.size} tokens; the run's have {like.max_seq}")
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        raise ValueError(f"a token that is none of the model's {vocab_size}")
    inside = places.size > 0 and places[-1] < tokens.size and (np.diff(places) > 0).all()
    if not inside or places[0] < (0 if classified else 1):
        raise ValueError("an example whose scored places are not in it")
    if classified != (0 <= example.label < like.num_classes) or (classified and places.size != 1):
        raise ValueError(f"an example of class {example.label} among {like.num_classes}")
