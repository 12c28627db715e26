"""Snapshots: the trainables, the state of their rules and the counters of a run in one file.

A snapshot is a `.safetensors` file with tensors "theta/<name>" and "slot/<name>/<key>". Its
metadata has a JSON object under "edgezo" (format, version, step, digest, counters) and a checksum
of that text and all tensors under "crc32". It is written atomically, so a run always has a whole
snapshot.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.methods.rules.rule import Slot
from edgezo_runtime.system.files import atomic_path
from edgezo_runtime.system.safetensors_reader import (
    TensorHeader,
    TensorHeaderError,
    read_tensor_header,
    read_tensors,
)
from edgezo_runtime.system.safetensors_writer import write_tensors
from edgezo_runtime.system.typed_json import JsonShapeError, decode, parse_object

SNAPSHOT_VERSION = 1
_FORMAT = "edgezo-snapshot"
_REMEDY = "remove it; the journal is enough to resume"
_Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Snapshot:
    """The state of a run between two steps.

    Attributes:
        theta: the trainables, float32, by name.
        slots: state of the rule for each of them; None if it has none.
        step: number of steps done, which is also the number of the next step.
        digest: of the inputs of the run, such as configuration and bundle; see `load_snapshot`.
        counters: other JSON values that a resumed run needs.
    """

    theta: Mapping[str, npt.NDArray[np.float32]]
    slots: Mapping[str, Slot]
    step: int
    digest: str
    counters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Meta:
    """The content of a file beside its tensors."""

    format: str
    version: int
    step: int
    digest: str
    counters: dict[str, object]


def save_snapshot(path: str | Path, snapshot: Snapshot) -> None:
    """Write a snapshot atomically and durably.

    Args:
        path: the file to make or replace; its directory must exist.
        snapshot: the state.

    Raises:
        UsageError: theta is not float32, a slot belongs to no tensor, or a counter is not JSON.
        RunFileError: the disk did not take it; the old file, if any, is as it was.

    Memory:
        As for `write_tensors`.
    """
    tensors = _flatten(snapshot)
    meta = {
        "format": _FORMAT,
        "version": SNAPSHOT_VERSION,
        "step": snapshot.step,
        "digest": snapshot.digest,
        "counters": dict(snapshot.counters),
    }
    try:
        text = json.dumps(meta, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"snapshot counters: not JSON: {error}") from error
    try:
        with atomic_path(path) as temporary:
            checksum = _checksum(text, tensors)
            write_tensors(temporary, tensors, {"edgezo": text, "crc32": checksum})
    except OSError as error:
        raise RunFileError(f"snapshot '{path}' cannot be written: {error}") from error


def load_snapshot(
    path: str | Path, digest: str | None = None, like: Snapshot | None = None
) -> Snapshot:
    """Read a snapshot and check it.

    Args:
        path: the file; no link.
        digest: the digest that the snapshot must have; None accepts any.
        like: a snapshot of the same run. Names, dtypes and shapes must be the same. This is
            checked before the tensors are read. None accepts any.

    Returns:
        The state, in new arrays that the caller may change.

    Raises:
        RunFileError: the file is missing, no snapshot, of another version, damaged, or belongs to
            another run.
    """
    meta, tensors = _read(Path(path), digest, like)
    if meta.step < 0:
        raise RunFileError(f"snapshot '{path}' is damaged: {meta.step} steps; {_REMEDY}")
    theta: dict[str, npt.NDArray[np.float32]] = {}
    slots: dict[str, Slot] = {}
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        part = ""
        if kind == "slot":
            name, _, part = name.rpartition("/")
        if not name or kind not in ("theta", "slot") or (kind == "slot" and not part):
            raise RunFileError(
                f"snapshot '{path}' has an unexpected tensor {key[:80]!r}; {_REMEDY}"
            )
        if kind == "theta":
            if value.dtype != np.float32:
                raise RunFileError(
                    f"snapshot '{path}': {name[:80]!r} is {value.dtype}, not float32; {_REMEDY}"
                )
            theta[name] = value
            slots.setdefault(name, None)
        else:
            slots[name] = {**(slots.get(name) or {}), part: value}
    if lost := sorted(slots.keys() - theta.keys()):
        raise RunFileError(
            f"snapshot '{path}' has rule state of {lost[0][:80]!r} without the tensor; {_REMEDY}"
        )
    return Snapshot(theta, slots, meta.step, meta.digest, meta.counters)


def _flatten(snapshot: Snapshot) -> _Tensors:
    for name, theta in snapshot.theta.items():
        if theta.dtype != np.float32:
            raise UsageError(f"snapshot: '{name}' must be float32, not {theta.dtype}")
    if unknown := sorted(set(snapshot.slots) - set(snapshot.theta)):
        raise UsageError(f"snapshot: slots without a tensor: {', '.join(unknown)}")
    tensors: _Tensors = {f"theta/{name}": value for name, value in snapshot.theta.items()}
    for name, slot in snapshot.slots.items():
        tensors |= {f"slot/{name}/{key}": value for key, value in (slot or {}).items()}
    return {key: np.asarray(tensors[key], order="C") for key in sorted(tensors)}


def _checksum(text: str, tensors: _Tensors) -> str:
    """Take a CRC-32 of the metadata and of the tensors' names, types, shapes and little-endian
    bytes, in the order of the names; eight hexadecimal digits."""
    crc = zlib.crc32(text.encode())
    for key in sorted(tensors):
        value = tensors[key]
        little = np.asarray(value, value.dtype.newbyteorder("<"), order="C")
        crc = zlib.crc32(f"{key} {value.dtype.name} {value.shape}\n".encode(), crc)
        crc = zlib.crc32(little.reshape(-1).view(np.uint8).data, crc)
    return f"{crc:08x}"


def _read(path: Path, digest: str | None, like: Snapshot | None) -> tuple[_Meta, _Tensors]:
    """Read and check metadata and tensors; the version is checked first."""
    try:
        header = read_tensor_header(path, follow=False)
        text = header.metadata.get("edgezo", "")
        meta = _parse(text, path)
        if digest is not None and meta.digest != digest:
            raise RunFileError(
                f"snapshot '{path}' belongs to another run: its digest is {meta.digest!r:.80}, "
                f"that of this one {digest!r:.80}; {_REMEDY}"
            )
        if header.unknown:
            raise TensorHeaderError(f"tensor {header.unknown[0][:80]!r} has an unknown type")
        if like is not None:
            _check_forms(header, _flatten(like))
        tensors = read_tensors(path, header)
    except (OSError, TensorHeaderError) as error:
        raise RunFileError(f"snapshot '{path}' cannot be read: {error}; {_REMEDY}") from error
    if header.metadata.get("crc32") != _checksum(text, tensors):
        raise RunFileError(f"snapshot '{path}' is damaged: its checksum does not match; {_REMEDY}")
    return meta, tensors


def _check_forms(header: TensorHeader, expected: _Tensors) -> None:
    """Compare the tensors of a file with those of the same run.

    Raises:
        TensorHeaderError: a name, a dtype or a shape differs.
    """
    found = {name: f"{kept.dtype} {kept.shape}" for name, kept in header.tensors.items()}
    known = {name: f"{value.dtype} {value.shape}" for name, value in expected.items()}
    if odd := found.items() ^ known.items():
        name = min(name for name, _ in odd)
        raise TensorHeaderError(
            f"{name[:80]!r} is {found.get(name, 'missing')}, in this run "
            f"{known.get(name, 'nothing')}"
        )


def _parse(text: str, path: Path) -> _Meta:
    try:
        content = parse_object(text)
    except JsonShapeError:
        content = {}
    if content.get("format") != _FORMAT:
        raise RunFileError(f"'{path}' is not an edgezo snapshot")
    if content.get("version") != SNAPSHOT_VERSION:
        raise RunFileError(
            f"snapshot '{path}' has version {content.get('version')!r:.40}, this edgezo reads "
            f"{SNAPSHOT_VERSION}; use the edgezo that wrote it, or remove the snapshot"
        )
    try:
        return decode(_Meta, content)
    except JsonShapeError as error:
        raise RunFileError(f"snapshot '{path}' is damaged: {error}; {_REMEDY}") from error
