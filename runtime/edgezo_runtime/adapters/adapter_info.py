"""What an adapter file says of itself.

One JSON object in the header of the file, under a single key because safetensors writes several
keys in no fixed order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgezo_runtime.bundle.manifest_types import ModelTask
from edgezo_runtime.bundle.trainables import MAX_AXIS, SchemeInfo, scheme_problem
from edgezo_runtime.config import AnswerSettings
from edgezo_runtime.data.reading import Reading
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.errors import RunFileError, UsageError, printable
from edgezo_runtime.system.typed_json import JsonShapeError, decode, parse_object

VERSION = 3
INFO_KEY = "edgezo_adapter"
"""Key of the metadata in the header of the file."""


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """The metadata of an adapter file.

    Attributes:
        version: version of the format.
        created_by: the program that wrote it, e.g. "edgezo 0.1.0".
        model: id of the base model.
        architecture: its Hugging Face model_type.
        task: what it predicts.
        bundle_sha256: digest of the manifest of the bundle it was tuned on.
        scheme: the scheme of its tensors, as in the bundle's manifest.
        complete: are all modules in it that the bundle adapts? Unchanged modules are left out,
            except for schemes that act everywhere.
        steps: training steps taken.
        scope: tokens that it acts on; see `edgezo_runtime.data.scope`.
        invocation: the token from which on it acts, if that is always the same one.
        reading: how the rows that it was tuned on became tokens; None if that is not known.
        answers: how the answers were generated that it was tuned on; None if none were.
    """

    version: int
    created_by: str
    model: str
    architecture: str
    task: ModelTask
    bundle_sha256: str
    scheme: SchemeInfo
    complete: bool
    steps: int
    scope: Scope = "all"
    invocation: tuple[int, ...] = ()
    reading: Reading | None = None
    answers: AnswerSettings | None = None


def parse_info(file: Path, text: str) -> AdapterInfo:
    """Read the metadata of an adapter file.

    Args:
        file: its path, for the message.
        text: JSON.
    Raises:
        RunFileError: they are damaged, or of another version.
    """
    try:
        content = parse_object(text)
        _upgrade(content)
        if content.get("version") != VERSION:
            raise RunFileError(
                f"{file}: adapter of version {content.get('version')!r:.20}, this edgezo reads "
                f"version {VERSION}; use the edgezo that wrote it "
                f"({content.get('created_by', 'unknown')!s:.60})"
            )
        info = decode(AdapterInfo, content)
    except JsonShapeError as error:
        raise RunFileError(f"{file}: damaged header: {error}") from error
    problem = scheme_problem(info.scheme, MAX_AXIS)
    if problem is not None:
        raise RunFileError(f"{file}: scheme.{problem}")
    for name in ("created_by", "model", "architecture"):
        text = getattr(info, name)
        if not text.isprintable():
            raise RunFileError(f"{file}: {name} {text[:80]!r} has characters that do not print")
    if info.steps < 0 or not all(0 <= token <= MAX_AXIS for token in info.invocation):
        raise RunFileError(f"{file}: damaged header: {info.steps} steps, {info.invocation[:4]}")
    if info.reading is not None:
        try:
            info.reading.check()
        except UsageError as error:
            raise RunFileError(f"{file}: damaged header: {printable(error, 200)}") from error
    return info


def _upgrade(content: dict[str, object]) -> None:
    """Turn the metadata of earlier versions into those of this one.

    Version 1 knew LoRA only; version 2 did not say how rows were read.
    """
    if content.get("version") == 1:
        scheme = {name: content.pop(name, None) for name in ("rank", "alpha", "targets")}
        content |= {"version": 2, "scheme": {"kind": "lora", **scheme}}
    if content.get("version") == 2:
        content["version"] = VERSION
