"""The log of the tensors of a weights file that are written, so that a killed export goes on.

A line of JSON for each tensor with the SHA-256 of its bytes; the first line says what is exported.
Nothing waits for the disk while tensors are written. Instead the bytes of all tensors in the log
are read when it is opened again, and the log ends before the first one that differs: what a power
cut left half written is written again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from edgezo_export.quantization.weights_plan import WrittenTensor
from edgezo_runtime.system.files import open_regular

_LOG = "log.jsonl"
_READ_BYTES = 1 << 20


class TensorLog:
    """The log of one weights file.

    Attributes:
        folder: where it lies.

    Args:
        folder: where it lies, beside the states of calibration rows.
        facts: what is exported and how, by a word for it; a log of other facts is not used.
        warn: called if there is such a log, with the first word in which it differs.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str], warn: Callable[[str], None]) -> None:
        self._path = folder / _LOG
        self.folder = folder
        self._facts = dict(facts)
        self._states: int | None = None
        self._warn = warn

    def begin(self, weights: Path, start: bytes, places: Mapping[str, WrittenTensor]) -> set[str]:
        """Find the tensors that are written already; a new log begins where none goes on.

        Args:
            weights: the weights file, which need not exist.
            start: its first bytes.
            places: of its tensors.
        """
        facts = self._facts | {"layout": hashlib.sha256(start).hexdigest()}
        lines = self._lines()
        earlier = lines[0] if lines else None
        found: set[str] = set()
        kept: list[Any] = [facts]
        if earlier == facts and weights.is_file():
            with open_regular(weights) as file:
                for line in lines[1:]:
                    if not self._holds(line, file, places):
                        break
                    kept.append(line)
                    found.update(line.get("tensors", ()))
                    self._states = line.get("states", self._states)
        elif isinstance(earlier, dict):
            changed = [name for name in facts if earlier.get(name) != facts[name]]
            if changed:
                self._warn(
                    f"an export to the same place was not finished, and it had another "
                    f"{changed[0]}: it began anew"
                )
        text = "".join(json.dumps(line) + "\n" for line in kept)
        self._path.write_text(text, encoding="utf-8")
        return found

    def add(self, weights: Path, names: Sequence[str], places: Mapping[str, WrittenTensor]) -> None:
        """Add tensors whose bytes are in the weights file."""
        with open_regular(weights) as file:
            digest = _digest(file, (places[name] for name in names))
        self._append({"tensors": list(names), "sha256": digest})

    def keep_states(self, block: int) -> None:
        """Take note that the states of a block are whole, for the next time.

        Those of an earlier block are removed.
        """
        path = self.folder / states_name(block)
        self._append({"states": block, "sha256": _digest_of(path)})
        for other in self.folder.glob(states_name("*")):
            if other != path:
                other.unlink()

    def stored_states(self) -> int | None:
        """The block whose states were kept last, if they are whole."""
        if self._states is None or not (self.folder / states_name(self._states)).is_file():
            return None
        return self._states

    def _append(self, line: Mapping[str, object]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _holds(self, line: Any, weights: FileIO, places: Mapping[str, WrittenTensor]) -> bool:
        """Are the bytes there that a line tells of?"""
        if not isinstance(line, dict):
            return False
        names = line.get("tensors")
        if names is None:
            path = self.folder / states_name(line.get("states"))
            return not path.is_file() or _digest_of(path) == line.get("sha256")
        known = isinstance(names, list) and all(name in places for name in names)
        return known and _digest(weights, (places[n] for n in names)) == line.get("sha256")

    def _lines(self) -> list[Any]:
        """The lines of an earlier log, up to one that is no JSON."""
        found: list[Any] = []
        with (
            contextlib.suppress(OSError, ValueError, RecursionError),
            io.BufferedReader(open_regular(self._path)) as file,
        ):
            for line in file:
                found.append(json.loads(line))
        return found


def states_name(block: object) -> str:
    """The file for the hidden states of calibration rows at the entry of a block."""
    return f"states-{block}.f32"


def _digest(file: FileIO, places: Iterable[WrittenTensor]) -> str:
    digest = hashlib.sha256()
    for place in places:
        file.seek(place.offset)
        left = place.length
        while left and (piece := file.read(min(_READ_BYTES, left))):
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()


def _digest_of(path: Path) -> str:
    with open_regular(path) as file:
        return _digest(file, [WrittenTensor(0, path.stat().st_size, "U8", ())])
