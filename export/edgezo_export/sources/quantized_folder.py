"""Folders whose layers are quantized: GPTQ, AWQ, and NF4 of bitsandbytes.

A layer "X.weight" of the model is several tensors of the checkpoint. They are read as codes
(`edgezo_export.sources.stored_codes`), or as the float32 numbers that the codes mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgezo_export.sources.nf4_layers import Nf4Layers
from edgezo_export.sources.packed_layers import AwqLayers, GptqLayers
from edgezo_export.sources.safetensors_folder import SafetensorsFolder
from edgezo_export.sources.stored_codes import CodedRows, CodeForm, StoredForm
from edgezo_runtime.errors import EdgezoError, UsageError

Float32 = npt.NDArray[np.float32]


class Layers(Protocol):
    """The quantized layers of a checkpoint."""

    def parts(self) -> Mapping[str, frozenset[str]]:
        """Return the tensors that stand for each weight."""

    def shape(self, name: str) -> tuple[int, int]:
        """Return the shape of a weight: outputs, inputs."""

    def form(self, name: str) -> CodeForm:
        """Return how its codes are stored."""

    def codes(self, name: str) -> CodedRows:
        """Read all codes of a weight."""


def open_checkpoint(folder: Path, quantization: object) -> SafetensorsFolder | QuantizedFolder:
    """Open the tensors of a folder.

    Args:
        folder: of the model.
        quantization: `quantization_config` of its config.json, None if it has none.
    Raises:
        UsageError: it is quantized in a way that cannot be read.
        EdgezoError: the checkpoint is damaged.
    """
    files = SafetensorsFolder(folder)
    if quantization is None:
        return files
    settings = quantization if isinstance(quantization, dict) else {}
    method = settings.get("quant_method")
    if method not in _METHODS:
        refuse(folder, "quant_method", method)
    return QuantizedFolder(files, _METHODS[method](folder, files, settings), folder)


class QuantizedFolder:
    """The tensors of a folder by the names of the model, quantized layers among them.

    Args:
        files: the tensors as they are stored.
        layers: the quantized ones.
        folder: of the model.
    Raises:
        EdgezoError: no layer is quantized, or one is there quantized and as it was.
    Memory:
        The codes of one layer, a byte each.
    """

    def __init__(self, files: SafetensorsFolder, layers: Layers, folder: Path) -> None:
        self._files = files
        self._layers = layers
        self._last: tuple[str, CodedRows] | None = None
        of_layers = layers.parts()
        if not of_layers:
            raise EdgezoError(
                f"{folder}: config.json has a quantization_config, and no tensor is quantized; "
                f"remove the entry, or download the model again"
            )
        parts = frozenset[str]().union(*of_layers.values())
        plain = [name for name in files.names() if name not in parts]
        doubled = sorted(of_layers.keys() & set(plain))
        if doubled:
            raise EdgezoError(
                f"{folder}: {doubled[0]!r} is there quantized and as a tensor of its own; remove "
                f"the one that is not meant"
            )
        self._names = [*plain, *of_layers]
        self._quantized = of_layers.keys()

    def names(self) -> list[str]:
        """Return the names of all tensors, quantized layers last."""
        return list(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._layers.shape(name) if name in self._quantized else self._files.shape(name)

    def form(self, name: str) -> StoredForm:
        """Return how a tensor is stored."""
        return self._layers.form(name) if name in self._quantized else self._files.form(name)

    def read(self, name: str) -> Float32:
        """Read a whole tensor as float32.

        Raises:
            EdgezoError: it is damaged.
        """
        if name not in self._quantized:
            return self._files.read(name)
        return self.read_rows(name, 0, self.shape(name)[0])

    def read_rows(self, name: str, start: int, stop: int) -> Float32:
        """Read rows start..stop of the first axis as float32.

        Raises:
            EdgezoError: it is damaged.
        """
        if name not in self._quantized:
            return self._files.read_rows(name, start, stop)
        return self.read_codes(name, start, stop).values(self._layers.form(name))

    def read_codes(self, name: str, start: int, stop: int) -> CodedRows:
        """Read the codes of rows start..stop.

        Raises:
            EdgezoError: they are damaged.
        """
        if name not in self._quantized:
            return self._files.read_codes(name, start, stop)
        if self._last is None or self._last[0] != name:
            self._last = name, self._layers.codes(name)
        return self._last[1].taken(slice(start, stop))


def refuse(folder: Path, key: str, value: object) -> None:
    """Refuse a setting of the quantization.

    Raises:
        UsageError: always.
    """
    raise UsageError(
        f"{folder}: quantization_config.{key} = {value!r} in config.json is not supported; gptq "
        f"with 4 or 8 bits, awq (gemm, 4 bits) and bitsandbytes (nf4) are; export the unquantized "
        f"model that it was made from"
    )


def _gptq(folder: Path, files: SafetensorsFolder, settings: Mapping[str, Any]) -> Layers:
    bits = _allowed(folder, settings, "bits", (4, 8))
    version = _allowed(folder, settings, "checkpoint_format", ("gptq", "gptq_v2"), "gptq")
    _allowed(folder, settings, "pack_dtype", ("int32",), "int32")
    if settings.get("dynamic"):
        refuse(folder, "dynamic", settings["dynamic"])
    return GptqLayers(files, bits, _group_size(folder, settings), 1 if version == "gptq" else 0)


def _awq(folder: Path, files: SafetensorsFolder, settings: Mapping[str, Any]) -> Layers:
    _allowed(folder, settings, "bits", (4,), 4)
    version = settings.get("version", settings.get("format", "gemm"))
    if str(version).lower() != "gemm":
        refuse(folder, "version" if "version" in settings else "format", version)
    return AwqLayers(files, _group_size(folder, settings))


def _nf4(folder: Path, files: SafetensorsFolder, settings: Mapping[str, Any]) -> Layers:
    if settings.get("load_in_8bit"):
        refuse(folder, "load_in_8bit", True)
    _allowed(folder, settings, "load_in_4bit", (True,))
    _allowed(folder, settings, "bnb_4bit_quant_type", ("nf4",), "fp4")
    _allowed(folder, settings, "bnb_4bit_quant_storage", ("uint8",), "uint8")
    return Nf4Layers(files)


def _allowed(
    folder: Path,
    settings: Mapping[str, Any],
    key: str,
    values: tuple[object, ...],
    default: object = None,
) -> Any:
    value = settings.get(key, default)
    if value not in values:
        refuse(folder, key, value)
    return value


def _group_size(folder: Path, settings: Mapping[str, Any]) -> int | None:
    """Inputs of a group; None for all inputs of a layer."""
    size = settings.get("group_size", 128)
    if type(size) is not int or not (size == -1 or size > 0):
        refuse(folder, "group_size", size)
    return None if size == -1 else int(size)


_METHODS: dict[object, Callable[[Path, SafetensorsFolder, Mapping[str, Any]], Layers]] = {
    "awq": _awq,
    "bitsandbytes": _nf4,
    "gptq": _gptq,
}
"""quant_method -> what reads its layers."""
