"""trainable.safetensors: the initial values of the trainables, written tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgezo_export.quantization.quantize import NonFiniteWeightError, count_not_finite
from edgezo_export.schemes.scheme import Edit, Origin
from edgezo_runtime.errors import EdgezoError

_ALIGNMENT = 8


def write_initial(path: Path, edits: Sequence[Edit], origin: Origin) -> None:
    """Write the initial value of every tensor of a bundle's edits.

    Args:
        path: the file to make.
        edits: in the order of the blocks.
        origin: the source of the values.
    Raises:
        EdgezoError: the disk is full, or a value cannot be computed or is not finite.
    Memory:
        The tensors of one edit.
    """
    infos = sorted((info for edit in edits for info in edit.tensors), key=lambda info: info.name)
    header: dict[str, object] = {}
    offsets: dict[str, int] = {}
    end = 0
    for info in infos:
        start, end = end, end + 4 * int(np.prod(info.shape))
        offsets[info.name] = start
        spans = {"dtype": "F32", "shape": list(info.shape), "data_offsets": [start, end]}
        header[info.name] = spans
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    first = 8 + len(text)
    try:
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(first + end)
            for edit in edits:
                for info, value in zip(edit.tensors, edit.values(origin), strict=True):
                    if value.shape != info.shape:
                        raise ValueError(f"{info.name!r}: {value.shape}, planned {info.shape}")
                    if bad := count_not_finite(value):
                        raise NonFiniteWeightError(
                            f"tensor {info.name!r}: {bad} of its initial {value.size} numbers are "
                            f"not finite (NaN or infinite); download the model again, or export an "
                            f"earlier checkpoint of its training"
                        )
                    file.seek(first + offsets[info.name])
                    file.write(np.ascontiguousarray(value, "<f4").tobytes())
    except OSError as error:
        raise EdgezoError(f"cannot write {path}: {error.strerror or error}") from error
