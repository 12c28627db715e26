"""LoRA adapters as .gguf files for llama.cpp (its option --lora), written with the gguf package.

llama.cpp adds alpha / rank * B A to the weight that a pair of tensors is named after. In its files
the rows of q and k of the Llama family are interleaved for the rotary embedding, so the rows of B
are interleaved as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_export.sources.gguf_file import ARCHITECTURES, INTERLEAVED, deinterleave, interleave
from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.adapters.formats import check_format
from edgezo_runtime.adapters.lora_factors import LoraFactors, lora_factors
from edgezo_runtime.adapters.usage import Usage
from edgezo_runtime.errors import EdgezoError, MissingExtraError, RunFileError, UsageError
from edgezo_runtime.system.files import atomic_path

Float32 = npt.NDArray[np.float32]

_OTHER_NAMES = {"mistral": "llama", "gemma3_text": "gemma3"}
"""Names of architectures in transformers and, where they differ, in llama.cpp."""


def save_gguf(
    adapter: Adapter, path: Path, config: Mapping[str, object], invocation_text: str = ""
) -> None:
    """Write the file, atomically.

    Args:
        adapter: the adapter to write.
        path: of the file.
        config: the base model's config.json, for blocks and heads.
        invocation_text: text of the token from which on it acts, for the description.
    Raises:
        UsageError: llama.cpp has no such adapters, or does not support the architecture.
        MissingExtraError: the gguf package is not installed.
        RunFileError: the file cannot be written.
    """
    check_format(adapter, "gguf")
    gguf = import_gguf()
    layout = _Layout(adapter.info.architecture, config)
    factors = lora_factors(adapter)
    alpha = factors[0].scale * factors[0].rank
    tensors = layout.tensors(factors)
    usage = Usage(adapter.info, invocation_text)
    try:
        with atomic_path(path) as temporary:
            with contextlib.closing(gguf.GGUFWriter(temporary, layout.architecture)) as writer:
                writer.add_string("general.type", "adapter")
                writer.add_string("general.name", adapter.info.model)
                writer.add_string("adapter.type", "lora")
                writer.add_float32("adapter.lora.alpha", alpha)
                if adapter.info.scope == "answer":
                    kinds = gguf.GGUFValueType
                    tokens = list(adapter.info.invocation)
                    key = "adapter.alora.invocation_tokens"
                    writer.add_key_value(key, tokens, kinds.ARRAY, kinds.UINT32)
                description = f"an adapter that acts on {usage.acts_on()}"
                writer.add_string("general.description", description)
                for key, text in usage.metadata().items():
                    writer.add_string(key, text)
                for name, value in tensors.items():
                    writer.add_tensor(name, value)
                writer.write_header_to_file()
                writer.write_kv_data_to_file()
                writer.write_tensors_to_file()
            _require_whole(temporary, tensors)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFileError(f"{path}: cannot be written: {reason}") from error


def _require_whole(path: Path, tensors: Mapping[str, Float32]) -> None:
    """Compare the file with its tensors: numpy's `tofile`, used by gguf, ignores a full disk.

    Raises:
        OSError: they differ.
    """
    try:
        reader = import_gguf().GGUFReader(path)
        found = {tensor.name: tensor.data for tensor in reader.tensors}
    except (ValueError, KeyError, IndexError) as error:
        raise OSError("the file is truncated; is the disk full?") from error
    if found.keys() != tensors.keys() or not all(
        np.array_equal(found[name], value) for name, value in tensors.items()
    ):
        raise OSError("the file differs from what was written; is the disk full?")


def read_gguf(
    path: Path, modules: list[str], architecture: str, config: Mapping[str, object]
) -> list[LoraFactors]:
    """Read the adapters of some layers, to compare them.

    Args:
        path: the file.
        modules: paths of the layers.
        architecture: of the base model, in the spelling of transformers.
        config: the base model's config.json.
    Raises:
        RunFileError: the file is not an adapter, or lacks a layer.
    """
    gguf = import_gguf()
    layout = _Layout(architecture, config)
    try:
        reader = gguf.GGUFReader(path)
        found_fields = {
            key: reader.fields[key].contents()
            for key in ("general.architecture", "general.type", "adapter.type")
        }
        alpha = float(reader.fields["adapter.lora.alpha"].contents())
        tensors = {tensor.name: np.array(tensor.data, np.float32) for tensor in reader.tensors}
        if tuple(found_fields.values()) != (layout.architecture, "adapter", "lora"):
            raise RunFileError(f"{path}: not a LoRA of {layout.architecture}: {found_fields}")
        found: list[LoraFactors] = []
        for module in modules:
            name, heads = layout.place(module)
            a, b = tensors.pop(f"{name}.lora_a"), tensors.pop(f"{name}.lora_b")
            b = deinterleave(b, heads) if heads else b
            found.append(LoraFactors(module, a, b, alpha / len(a)))
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise RunFileError(
            f"{path}: differs from the adapter that was written: {error!r:.200}"
        ) from error
    if tensors:
        raise RunFileError(f"{path}: unexpected tensor {min(tensors)!r}")
    return found


class _Layout:
    """Names of layers in llama.cpp, and the heads of layers whose rows it interleaves.

    Args:
        architecture: in the spelling of transformers.
        config: the base model's config.json.
    """

    def __init__(self, architecture: str, config: Mapping[str, object]) -> None:
        self.architecture = _OTHER_NAMES.get(architecture, architecture)
        if self.architecture not in ARCHITECTURES:
            raise UsageError(
                f"`format` gguf: {architecture} models are not supported; supported are "
                f"{', '.join(ARCHITECTURES)}; use `format` peft and llama.cpp's own converter"
            )
        gguf = import_gguf()
        kinds = gguf.MODEL_ARCH_NAMES.items()
        kind = next(kind for kind, name in kinds if name == self.architecture)
        self._names = gguf.get_tensor_name_map(kind, _count(config, "num_hidden_layers"))
        self._heads = _count(config, "num_attention_heads")
        self._key_heads = _count(config, "num_key_value_heads", self._heads)

    def tensors(self, factors: list[LoraFactors]) -> dict[str, Float32]:
        """Return the tensors of these layers, by name.

        Raises:
            EdgezoError: llama.cpp has no such layer, two layers share a name, or heads do not
                divide the rows.
        """
        found: dict[str, Float32] = {}
        for one in factors:
            name, heads = self.place(one.module)
            if f"{name}.lora_a" in found:
                raise EdgezoError(
                    f"{one.module!r:.200}: another layer has the same name {name} in llama.cpp"
                )
            if heads and len(one.b) % (2 * heads):
                raise EdgezoError(
                    f"{one.module!r:.200}: {len(one.b)} rows cannot be those of {heads} heads; "
                    f"name the bundle that was tuned with `bundle`"
                )
            b = interleave(one.b, heads) if heads else one.b
            found[f"{name}.lora_a"] = np.ascontiguousarray(one.a)
            found[f"{name}.lora_b"] = np.ascontiguousarray(b)
        return found

    def place(self, module: str) -> tuple[str, int]:
        """Return the name of a layer's weight, and its heads if its rows are interleaved, else 0.

        Raises:
            EdgezoError: llama.cpp has no such layer.
        """
        name = self._names.get_name(module)
        if name is None:
            raise EdgezoError(
                f"llama.cpp has no name for {module!r:.200} in {self.architecture} models; use "
                f"`format` peft"
            )
        heads = 0
        if self.architecture in INTERLEAVED:
            kind = name.rpartition(".")[2]
            heads = {"attn_q": self._heads, "attn_k": self._key_heads}.get(kind, 0)
        return f"{name}.weight", heads


def _count(config: Mapping[str, object], key: str, default: int = 0) -> int:
    value = config.get(key)
    if value is None and default:
        return default
    if type(value) is not int or value < 1:
        raise EdgezoError(f"the base model's config has {key} {value!r:.40}; expected a number")
    return value


def import_gguf() -> Any:
    """Import the gguf package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module("gguf")
    except ImportError as error:
        raise MissingExtraError(
            "the gguf package is not installed; run pip install 'edgezo[gguf]'"
        ) from error
