"""Adapters as .onnx_adapter files, which onnxruntime's `LoraAdapter` loads.

Each tensor is named after the graph input that it is for. Names and layout are those of Olive:
"<module>.lora_A.weight" is (in, rank), "<module>.lora_B.weight" (rank, out), and B has the scale.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.adapters.formats import check_format
from edgezo_runtime.adapters.lora_factors import lora_factors
from edgezo_runtime.devices.library import import_onnxruntime
from edgezo_runtime.errors import MissingExtraError, RunFileError
from edgezo_runtime.system.files import atomic_path

Float32 = npt.NDArray[np.float32]

_VERSION = 1


def onnx_tensors(adapter: Adapter) -> dict[str, Float32]:
    """The tensors by the names of graph inputs.

    Raises:
        UsageError: the adapter is no LoRA, or acts on answers only.
    """
    check_format(adapter, "onnx")
    tensors: dict[str, Float32] = {}
    for one in lora_factors(adapter):
        tensors[f"{one.module}.lora_A.weight"] = np.ascontiguousarray(one.a.T)
        scaled = one.b.T * np.float32(one.scale)
        tensors[f"{one.module}.lora_B.weight"] = np.ascontiguousarray(scaled)
    return tensors


def save_onnx_adapter(adapter: Adapter, path: Path) -> None:
    """Write the file, atomically.

    Raises:
        UsageError: the adapter is no LoRA, or acts on answers only.
        MissingExtraError: the installed onnxruntime has no adapters (before 1.20).
        RunFileError: it cannot be written.
    """
    tensors = onnx_tensors(adapter)
    ort = adapters_of_onnxruntime()
    content = ort.AdapterFormat()
    content.set_adapter_version(_VERSION)
    content.set_model_version(_VERSION)
    values = {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in tensors.items()}
    content.set_parameters(values)
    try:
        with atomic_path(path) as temporary:
            try:
                content.export_adapter(str(temporary.resolve()))
            except Exception as error:  # onnxruntime's errors have no common public base class
                raise RunFileError(f"{path}: cannot be written: {error!s:.300}") from error
    except OSError as error:
        raise RunFileError(f"{path}: cannot be written: {error.strerror}") from error


def adapters_of_onnxruntime() -> Any:
    """Import onnxruntime with adapters.

    Raises:
        MissingExtraError: it has none, or is not installed.
    """
    ort = import_onnxruntime()
    if not hasattr(ort, "AdapterFormat") or not hasattr(ort, "LoraAdapter"):
        raise MissingExtraError(
            f"onnxruntime {ort.__version__} has no adapters; run pip install 'onnxruntime>=1.20'"
        )
    return ort
