"""Checks that receipt.json has the types that its readers rely on."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgezo_runtime.errors import RunFileError
from edgezo_runtime.system.typed_json import JsonShapeError, decode

_LARGEST = 2**62

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class _Gain:
    budget_bytes: int
    speedup: float


@dataclass(frozen=True, slots=True)
class _Plan:
    ledger: dict[str, int]
    smallest_bytes: int
    gains: tuple[_Gain, ...] = ()


@dataclass(frozen=True, slots=True)
class _Receipt:
    """The keys that readers use; a receipt of an earlier version may lack some."""

    status: str | None = None
    error: str | None = None
    model: str | None = None
    method: str | None = None
    objective: str | None = None
    rates: str | None = None
    scope: str | None = None
    adapter_sha256: str | None = None
    rows: int | None = None
    held_out: int | None = None
    steps: int | None = None
    steps_planned: int | None = None
    kept_step: int | None = None
    rows_per_s: float | None = None
    peak_bytes: int | None = None
    budget_bytes: int | None = None
    predicted_bytes: int | None = None
    workers: int | None = None
    chunk_tokens: int | None = None
    streamed_blocks: int | None = None
    plan: _Plan | None = None
    reliefs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def check_receipt(receipt: Mapping[str, Any], path: Path) -> None:
    """Check the values of a receipt that readers use.

    Args:
        receipt: content of the file; empty if there is none.
        path: of the file, for the message.
    Raises:
        RunFileError: a value has another type, or no run writes it.
    """
    try:
        found = decode(_Receipt, _known(_Receipt, receipt))
    except JsonShapeError as error:
        raise RunFileError(f"{path}: not the receipt of a run: {error}; remove it") from error
    digest = found.adapter_sha256
    if digest is not None and not _SHA256.fullmatch(digest):
        raise RunFileError(
            f"{path}: adapter_sha256 is {digest!r:.80}, expected 64 hexadecimal digits; remove it"
        )
    for name, value in _numbers(found):
        if not (math.isfinite(value) and 0 <= value < _LARGEST):
            raise RunFileError(f"{path}: {name} is {value!s:.40}, which no run writes; remove it")


def _known(kind: type, values: object) -> Any:
    """The keys of a JSON object that a class has; inner objects in the same way."""
    if not isinstance(values, Mapping):
        return values
    names = {field.name for field in dataclasses.fields(kind)}
    kept = {key: value for key, value in values.items() if key in names}
    if kind is _Receipt:
        kept["plan"] = _known(_Plan, kept.get("plan"))
    elif kind is _Plan and isinstance(kept.get("gains"), list):
        kept["gains"] = [_known(_Gain, gain) for gain in kept["gains"]]
    return kept


def _numbers(found: _Receipt) -> Iterator[tuple[str, float]]:
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        if isinstance(value, (int, float)):
            yield field.name, value
    if found.plan is not None:
        yield "smallest_bytes", found.plan.smallest_bytes
        yield from found.plan.ledger.items()
        for gain in found.plan.gains:
            yield "budget_bytes", gain.budget_bytes
            yield "speedup", gain.speedup
