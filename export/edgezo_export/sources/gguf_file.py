"""Read .gguf files tensor by tensor under Hugging Face names.

The gguf package provides the name tables and the quantization formats; the parameter names of the
model come from a copy built on torch's meta device. Two changes of llama.cpp's converter are
undone: the rows of q and k of the Llama family (interleaved for its rotary embedding) and the norms
of Gemma (stored as w + 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgezo_export.sources.gguf_codes import BLOCKS, FLOATS, coded_rows
from edgezo_export.sources.gguf_parts import check_parts, parts_of
from edgezo_export.sources.pointer_files import refuse_pointer
from edgezo_export.sources.stored_codes import CodedRows, StoredForm
from edgezo_runtime.errors import EdgezoError, UsageError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")
INTERLEAVED = ("llama",)  # the architecture of Mistral files, too
_OFFSET_NORMS = ("gemma2", "gemma3")
_TOKENS = "tokenizer.ggml.tokens"
_ENDS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
"""Tokens that end a text, a turn, and a message of a turn; at each llama.cpp stops."""


@dataclass(frozen=True, slots=True)
class _Stored:
    file: Path
    offset: int
    kind: Any  # GGMLQuantizationType
    shape: tuple[int, ...]
    heads: int  # of a tensor with interleaved rows, else 0
    shift: float  # added to every value


class GgufFile:
    """The tensors of a .gguf file, or of several that a model is split into.

    They are named as the transformers model names them.

    Attributes:
        architecture: as llama.cpp names it.
        model_name: the name in the file, else that of the file.
        eos_ids: tokens that end a text, a turn or a message, in this order.
        tokens: number of tokens of the file's tokenizer.
    """

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            UsageError: the architecture is not supported.
            EdgezoError: the file is not GGUF, is truncated, or scales rotary frequencies.
        Memory:
            The header, including the vocabulary, until this returns.
        """
        self._path = path
        self._raw: dict[str, tuple[Path, int, Any, tuple[int, ...]]] = {}
        files = parts_of(path)
        self.tokens = 0
        found = [self._read_header(file) for file in files]
        check_parts(files, found, len(self._raw))
        fields = found[0]
        self.architecture = str(fields.get("general.architecture"))
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise UsageError(
                f"{path}: GGUF architecture {self.architecture!r}; supported are {known}; "
                "export the Hugging Face model instead"
            )
        self.model_name = str(fields.get("general.name") or path.stem)
        ends = (fields.get(name) for name in _ENDS)
        self.eos_ids = tuple(dict.fromkeys(end for end in ends if isinstance(end, int)))
        self._check_rotary(fields)
        self._stored: dict[str, _Stored] = {}

    def _read_header(self, file: Path) -> dict[str, object]:
        """Add the tensors of a file, and return its metadata without the vocabulary."""
        from gguf import GGUFReader

        refuse_pointer(file)
        try:
            reader = GGUFReader(file)
            fields = {
                name: field.contents()
                for name, field in reader.fields.items()
                if not name.startswith("tokenizer.") or name in _ENDS
            }
            if _TOKENS in reader.fields:
                self.tokens = len(reader.fields[_TOKENS].data)
        except (ValueError, KeyError, IndexError, OverflowError, MemoryError) as error:
            raise EdgezoError(f"{file}: damaged or truncated GGUF file: {error!r:.200}") from error
        if reader.byte_order != "I":
            raise EdgezoError(f"{file}: byte order differs from this machine's")
        for tensor in reader.tensors:
            name, offset = str(tensor.name), int(tensor.data_offset)
            if name in self._raw:
                raise EdgezoError(f"{file}: tensor {name!r} is in {self._raw[name][0]} as well")
            shape = tuple(int(dim) for dim in reversed(tensor.shape.tolist()))
            self._raw[name] = file, offset, tensor.tensor_type, shape
        return fields

    def _check_rotary(self, fields: dict[str, object]) -> None:
        scaling = fields.get(f"{self.architecture}.rope.scaling.type", "none")
        if scaling != "none":
            raise EdgezoError(
                f"{self._path}: rotary scaling {scaling!r} cannot be restored from GGUF; "
                "export the Hugging Face model instead"
            )

    def bind(self, config: PretrainedConfig) -> None:
        """Map the tensors to their Hugging Face names.

        Args:
            config: the config that transformers reads from this file.
        Raises:
            EdgezoError: a tensor of the file has no place in the model, or another shape.
        """
        by_gguf = _names_by_gguf_name(self.architecture, config)
        lost = sorted(self._raw.keys() - by_gguf.keys())
        if lost:
            raise EdgezoError(
                f"{self._path}: {len(lost)} tensors have no place in {type(config).__name__}, "
                f"first {lost[0]!r}; export the Hugging Face model instead"
            )
        for gguf_name, (file, offset, kind, shape) in self._raw.items():
            name, expected = by_gguf[gguf_name]
            if shape != expected:
                self._check_vocabulary(gguf_name, shape)
                raise EdgezoError(
                    f"{self._path}: {name!r} is {shape}, {type(config).__name__} has {expected}; "
                    "export the Hugging Face model instead"
                )
            heads = 0
            if self.architecture in INTERLEAVED and ".attn_q." in gguf_name:
                heads = config.num_attention_heads
            elif self.architecture in INTERLEAVED and ".attn_k." in gguf_name:
                heads = config.num_key_value_heads
            offset_norm = self.architecture in _OFFSET_NORMS and gguf_name.endswith("norm.weight")
            shift = -1.0 if offset_norm else 0.0
            self._stored[name] = _Stored(file, offset, kind, shape, heads, shift)

    def _check_vocabulary(self, gguf_name: str, shape: tuple[int, ...]) -> None:
        if gguf_name in ("token_embd.weight", "output.weight") and self.tokens > shape[0]:
            raise EdgezoError(
                f"{self._path}: its tokenizer has {self.tokens} tokens, {gguf_name} {shape[0]} "
                f"rows, and llama.cpp reads no such file; export the Hugging Face model instead"
            )

    def names(self) -> list[str]:
        """Return the Hugging Face names of all tensors, in file order."""
        return list(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a stored tensor."""
        return self._stored[name].shape

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Read a whole tensor as float32, dequantized.

        Raises:
            EdgezoError: the file ends early or the quantization is unknown to the gguf package.
        """
        return self.read_rows(name, 0, self._stored[name].shape[0])

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Read rows start..stop of the first axis as float32.

        Raises:
            EdgezoError: the file ends early or the quantization is unknown to the gguf package.
        """
        stored = self._stored[name]
        if not 0 <= start <= stop <= stored.shape[0]:
            raise IndexError(f"rows {start}..{stop} of tensor {name!r} {stored.shape}")
        if len(stored.shape) == 1:  # a vector is one row of blocks
            values = self._dequantize(stored, 0, 1, stored.shape[0]).reshape(stored.shape)
            if stored.heads:
                values = deinterleave(values, stored.heads)
            return values[start:stop] + np.float32(stored.shift)
        head = stored.shape[0] // stored.heads if stored.heads else 1
        first, last = start // head * head, -(-stop // head) * head
        width = math.prod(stored.shape[1:])
        values = self._dequantize(stored, first, last, width)
        values = values.reshape(last - first, *stored.shape[1:])
        if stored.heads:
            values = deinterleave(values, (last - first) // head)
        if stored.shift:
            values = values + np.float32(stored.shift)
        return values[start - first : stop - first]

    def form(self, name: str) -> StoredForm:
        """Return how a tensor is stored.

        Raises:
            UsageError: in a type whose codes cannot be kept.
        """
        stored = self._stored[name]
        kind = stored.kind.name
        if kind in FLOATS:
            return "F32" if stored.shift else FLOATS[kind]
        if kind in BLOCKS and len(stored.shape) == 2:
            return BLOCKS[kind].form
        raise UsageError(
            f"{stored.file}: tensor {name!r} is {kind}, whose codes cannot be kept; `quant` keep "
            f"takes {', '.join((*BLOCKS, *FLOATS))}: take another file of the model, or another "
            f"`quant`, which rounds the weights again"
        )

    def read_codes(self, name: str, start: int, stop: int) -> CodedRows:
        """Read the codes of rows start..stop.

        Raises:
            EdgezoError: the file ends early.
        """
        stored = self._stored[name]
        head = stored.shape[0] // stored.heads if stored.heads else 1
        first, last = start // head * head, -(-stop // head) * head
        found = coded_rows(self._bytes(stored, first, last, stored.shape[1]), stored.kind.name)
        if stored.heads:
            order = deinterleave(np.arange(last - first), (last - first) // head)
            found = found.taken(order)
        return found.taken(slice(start - first, stop - first))

    def _bytes(self, stored: _Stored, first: int, last: int, width: int) -> npt.NDArray[np.uint8]:
        """Read rows first..last of `width` values, (rows, bytes)."""
        from gguf.constants import GGML_QUANT_SIZES

        block, block_bytes = GGML_QUANT_SIZES[stored.kind]
        row_bytes = width // block * block_bytes
        count = (last - first) * row_bytes
        if count == 0:
            return np.empty((last - first, row_bytes), np.uint8)
        data = np.fromfile(stored.file, np.uint8, count, offset=stored.offset + first * row_bytes)
        if len(data) != count:
            raise EdgezoError(f"{stored.file}: ends inside a tensor; download the file again")
        return data.reshape(last - first, row_bytes)

    def _dequantize(
        self, stored: _Stored, first: int, last: int, width: int
    ) -> npt.NDArray[np.float32]:
        """Read rows first..last of `width` values, (rows, width)."""
        from gguf.quants import dequantize

        rows = self._bytes(stored, first, last, width)
        if rows.size == 0:
            return np.empty((last - first, width), np.float32)
        plain = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
        if stored.kind.name in plain:
            return rows.view(plain[stored.kind.name]).astype(np.float32, copy=False)
        try:
            values = dequantize(rows, stored.kind)
        except NotImplementedError as error:
            raise EdgezoError(
                f"{stored.file}: {stored.kind.name} cannot be dequantized; take another file of "
                f"the model, such as Q4_K_M"
            ) from error
        return values.astype(np.float32, copy=False)


def interleave(values: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Reorder the rows of each head from (half, pair), as in transformers, to (pair, half)."""
    pairs = values.shape[0] // heads // 2
    split = values.reshape(heads, 2, pairs, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(values.shape)


def deinterleave(values: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Reorder the rows of each head from (pair, half), as in llama.cpp, to (half, pair)."""
    pairs = values.shape[0] // heads // 2
    split = values.reshape(heads, pairs, 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(values.shape)


def _names_by_gguf_name(
    architecture: str, config: PretrainedConfig
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the name and shape of the model's parameters by their names in GGUF."""
    import torch
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    from edgezo_export.sources.parameter_names import causal_class

    arch = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture)
    table = get_tensor_name_map(arch, config.num_hidden_layers)
    with torch.device("meta"):
        model = causal_class(config)(config)
    found = {}
    for name, tensor in model.state_dict().items():
        base, _, suffix = name.rpartition(".")
        gguf_base = table.get_name(base)
        if gguf_base is not None:
            found[f"{gguf_base}.{suffix}"] = (name, tuple(tensor.shape))
    return found
