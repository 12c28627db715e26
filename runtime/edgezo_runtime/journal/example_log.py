"""The examples that an app added to a run: an append-only file in the run's folder.

    file    = magic "\\x89EZX\\r\\n\\x1a\\n" | version u32 | sha256 of what the run depends on
              then records, see `edgezo_runtime.system.framing`
    body    = number of its first example u64 | first step that is taken on them u64
              | how many (LEB128) | examples
    example = class + 1 (LEB128) | tokens | places; both as a count (LEB128) and int32s

Every record is on the disk before its examples are used, and before the next record is begun. So a
power cut can leave only the last record incomplete. No step has used its examples, and no app was
told that they are there. Anything else is damage. The first step on new examples is fixed when they
are added. So steps that a power cut takes back are done again on the same examples.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.example_set import Example, ExampleSet
from edgezo_runtime.errors import DataError, RunFileError, UsageError
from edgezo_runtime.journal.record_log import DamagedRecordError, RecordReader, RecordWriter
from edgezo_runtime.journal.step_record import pack_count, unpack_count
from edgezo_runtime.system.files import atomic_write, open_regular
from edgezo_runtime.system.framing import MAX_BODY, BodyStart

_VERSION = 1
_HEAD = struct.Struct("<8sI32s")  # magic, version, sha256
HEAD_BYTES = _HEAD.size
"""Offset of the first record."""
_MAGIC = b"\x89EZX\r\n\x1a\n"
_FIRST = struct.Struct("<QQ")  # example, step


class ExampleLog:
    """Examples that were added to a run.

    Args:
        path: the file; made at the first `append`.
        digest: of the run's inputs; a file of another run is refused.
        initial: the examples the run was started with; those of the file follow them.
        vocab_size: tokens are below it.

    Attributes:
        examples: all of them.
        incomplete_bytes: bytes that a crash left of a record whose examples were never used.

    Raises:
        RunFileError: the file is damaged, or of another run.
    """

    def __init__(self, path: Path, digest: str, initial: ExampleSet, vocab_size: int) -> None:
        self._path = path
        self._vocab_size = vocab_size
        self._digest = hashlib.sha256(digest.encode()).digest()
        self._writer: RecordWriter | None = None
        self.examples = initial
        self._initial = len(initial)
        self._ends: list[tuple[int, int]] = []
        self._length = 0
        self.incomplete_bytes = 0
        if path.exists():
            self._read()

    def count_at(self, step: int) -> int:
        """Number of examples that a step may use."""
        for first, end in reversed(self._ends):
            if first <= step:
                return end
        return self._initial

    def append(self, more: Sequence[Example], step: int) -> None:
        """Add examples; they are on the disk when this returns.

        Args:
            more: their `example_id` and `line` are set to follow the present examples.
            step: the first that is taken on them. If those before them begin later, so do these.
        Raises:
            DataError: one is not of the run's kind; `open` would take it for damage.
            RunFileError: the disk did not take them; nothing was added.
            UsageError: they need more than a record can hold (64 MiB).
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
            writer = self._opened()
            writer.append(body, sync=True)
        except OSError as error:
            raise RunFileError(
                f"{self._path}: cannot be written: {error.strerror}; the examples were not added"
            ) from error
        self._length = writer.length
        self.examples = grown
        self._ends.append((step, len(grown)))

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None and not self._writer.closed:
            self._writer.close()
            self._writer = None

    def _opened(self) -> RecordWriter:
        if self._writer is None:
            if not self._length:
                head = _HEAD.pack(_MAGIC, _VERSION, self._digest)
                atomic_write(self._path, head)
                self._length = len(head)
            self._writer = RecordWriter(self._path, self._length)
        if self._writer.closed:
            raise RunFileError(
                f"{self._path}: a write failed halfway and could not be undone; open the run again"
            )
        return self._writer

    # --- reading ---

    def _read(self) -> None:
        known = len(self.examples)
        try:
            with BufferedReader(open_regular(self._path)) as file:
                reader = RecordReader(file, self._read_head(file))
                found: list[Example] = []
                for body in reader:
                    found += self._unpacked(body, known + len(found), reader.position)
                self.examples = self.examples.plus(found)  # all at once: each call copies the set
                reader.require_incomplete(_start_of_body(len(self.examples)))
        except OSError as error:
            raise RunFileError(f"{self._path}: cannot be read: {error.strerror}") from error
        except DamagedRecordError as error:
            raise RunFileError(f"{self._path}: {error}; restore the file from a copy") from error
        self._length, self.incomplete_bytes = reader.position, reader.rest

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

    def _unpacked(self, body: bytes, first: int, offset: int) -> list[Example]:
        """The examples of a record.

        Args:
            body: of the record.
            first: number that its first example must have.
            offset: of the record, for the message.
        """
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
                f"{self._path}: the record at byte {offset} is damaged: {error}"
            ) from error
        self._ends.append((step, first + len(more)))
        return more


def _start_of_body(known: int) -> BodyStart:
    """How a record begins that proves damage before it: the damage was synced before it was begun.

    Args:
        known: examples before the damage.
    """

    def fits(start: bytes, distance: int) -> bool:
        first, _ = _FIRST.unpack_from(start)
        return bool(known < first <= known + distance)

    return BodyStart(_FIRST.size, _FIRST.size, fits)


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
    """Refuse an example that no reader of rows makes.

    Raises:
        ValueError: it does not fit the set.
    """
    tokens, places = example.tokens, example.places
    classified, count = like.classified, 2 if like.kind == "pairs" else 1
    if not 0 < tokens.size <= like.max_seq + 1:
        raise ValueError(f"an example of {tokens.size} tokens; the run takes {like.max_seq}")
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        raise ValueError(f"a token that is none of the model's {vocab_size}")
    inside = places.size > 0 and places[-1] < tokens.size and (np.diff(places) > 0).all()
    if not inside or places[0] < (1 if like.kind == "completion" else 0):
        raise ValueError("an example whose scored places are not in it")
    if like.kind != "completion" and places.size != count:
        raise ValueError(f"an example of {places.size} scored places")
    if classified != (0 <= example.label < like.num_classes):
        raise ValueError(f"an example of class {example.label} among {like.num_classes}")
