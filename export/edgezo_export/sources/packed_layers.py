"""Layers of GPTQ and AWQ: codes packed into int32, and a scale and a zero for each group.

    w[n, k] = scale[g, n] * (code[n, k] - zero[g, n])

GPTQ packs neighbours along the inputs, AWQ (gemm) along the outputs. Groups are neighbours, or
`g_idx` says the group of each input (act-order).

References:
    AutoGPTQ, qlinear_cuda_old.py. AutoAWQ, gemm.py and packing_utils.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_export.sources.safetensors_folder import SafetensorsFolder
from edgezo_export.sources.stored_codes import CodedRows, CodeForm
from edgezo_runtime.errors import EdgezoError

_WORD = 32
_AWQ_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)
"""The column of each half byte of a word of AWQ, the lowest first."""

UInt8 = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class _Groups:
    """What is known of the groups of a layer.

    Attributes:
        form: of the codes.
        zeros: (G, N).
        order: (K,) int32, None for the inputs' own.
    """

    form: CodeForm
    zeros: UInt8
    order: Int32 | None


class PackedLayers:
    """The layers of a checkpoint that are packed into int32.

    Args:
        files: the tensors.
        bits: of a code.
        size: inputs of a group, None for all of a layer.
    """

    _SUFFIXES: tuple[str, ...] = ("qweight", "qzeros", "scales", "g_idx")

    def __init__(self, files: SafetensorsFolder, bits: int, size: int | None) -> None:
        self._files = files
        self._bits = bits
        self._size = size
        self._per_word = _WORD // bits
        self._known = frozenset(files.names())
        self._groups: dict[str, _Groups] = {}

    def parts(self) -> Mapping[str, frozenset[str]]:
        """Return the tensors that stand for each weight."""
        stems = [name.removesuffix(".qweight") for name in self._known if name.endswith(".qweight")]
        return {
            f"{stem}.weight": self._known & {f"{stem}.{suffix}" for suffix in self._SUFFIXES}
            for stem in sorted(stems)
        }

    def form(self, name: str) -> CodeForm:
        """Return how the codes of a weight are stored.

        Raises:
            EdgezoError: a tensor of it is missing, or has a shape that does not fit.
        """
        return self._of(name).form

    def shape(self, name: str) -> tuple[int, int]:
        """Return the shape of a weight: outputs, inputs."""
        raise NotImplementedError

    def codes(self, name: str) -> CodedRows:
        """Read all codes of a weight.

        Raises:
            EdgezoError: as `form`.
        """
        groups, codes = self._of(name), self._unpacked(name)
        if groups.order is not None:
            codes = codes[:, groups.order]
        scales = self._files.read(self._tensor(name, "scales"))
        return CodedRows(
            np.ascontiguousarray(codes),
            np.ascontiguousarray(scales.T),
            zero=np.ascontiguousarray(groups.zeros.T) if groups.form.zero is None else None,
            order=groups.order,
        )

    def _of(self, name: str) -> _Groups:
        if name not in self._groups:
            self._groups[name] = self._read_groups(name)
        return self._groups[name]

    def _read_groups(self, name: str) -> _Groups:
        outputs, width = self.shape(name)
        size = self._size or width
        if width % size:
            raise EdgezoError(
                f"{name!r}: its {width} inputs do not fall into groups of {size} "
                f"(quantization_config.group_size)"
            )
        scales = self._tensor(name, "scales")
        self._check(scales, (width // size, outputs))
        zeros = self._zeros(name, (width // size, outputs))
        order = self._order(name, width, size)
        first = int(zeros.flat[0])
        form = CodeForm(
            self._bits,
            size,
            zero=first if (zeros == first).all() else None,
            scale="F16" if self._files.stored(scales).dtype == "F16" else "F32",
            order="" if order is None else hashlib.sha256(order.tobytes()).hexdigest()[:16],
        )
        return _Groups(form, zeros, order)

    def _order(self, name: str, width: int, size: int) -> Int32 | None:
        stem = name.removesuffix(".weight")
        if f"{stem}.g_idx" not in self._known:
            return None
        tensor = self._tensor(name, "g_idx")
        self._check(tensor, (width,))
        group = self._files.read_integers(tensor)
        if group.min(initial=0) < 0 or (np.bincount(group, minlength=width // size) != size).any():
            raise EdgezoError(
                f"tensor {tensor!r}: its groups have other numbers of inputs than {size} "
                f"(quantization_config.group_size); download the model again"
            )
        order = np.argsort(group, kind="stable").astype(np.int32)
        return None if np.array_equal(order, np.arange(width)) else order

    def _zeros(self, name: str, shape: tuple[int, int]) -> UInt8:
        tensor = self._tensor(name, "qzeros")
        self._check(tensor, (shape[0], shape[1] // self._per_word))
        return self._columns(self._files.read_integers(tensor))

    def _columns(self, words: npt.NDArray[np.generic]) -> UInt8:
        """Unpack (A, B) words to (A, B * n) numbers, neighbours along the last axis."""
        parts = [self._part(words, index) for index in range(self._per_word)]
        found: UInt8 = np.stack(parts, axis=2).reshape(len(words), -1)
        return found

    def _part(self, words: npt.NDArray[np.generic], index: int) -> UInt8:
        mask = np.uint32((1 << self._bits) - 1)
        own = words.view(np.uint32) >> np.uint32(index * self._bits)
        found: UInt8 = (own & mask).astype(np.uint8)
        return found

    def _unpacked(self, name: str) -> UInt8:
        """Read the (N, K) codes, inputs in the order of the model."""
        raise NotImplementedError

    def _tensor(self, name: str, suffix: str) -> str:
        tensor = f"{name.removesuffix('.weight')}.{suffix}"
        if tensor not in self._known:
            raise EdgezoError(
                f"tensor {tensor!r} is missing, without which {name!r} cannot be read; download "
                f"the model again"
            )
        return tensor

    def _check(self, tensor: str, shape: tuple[int, ...]) -> None:
        found = self._files.shape(tensor)
        if found != shape:
            raise EdgezoError(
                f"tensor {tensor!r} is {found}, and should be {shape}: quantization_config is that "
                f"of another model, or the file is damaged; download the model again"
            )


class GptqLayers(PackedLayers):
    """Layers of GPTQ: qweight (K bits / 32, N), qzeros (G, N bits / 32), scales (G, N).

    Args:
        files: the tensors.
        bits: of a code.
        size: inputs of a group, None for all of a layer.
        offset: what zeros are stored less by: 1, and 0 in format gptq_v2.
    """

    def __init__(self, files: SafetensorsFolder, bits: int, size: int | None, offset: int) -> None:
        super().__init__(files, bits, size)
        self._offset = offset

    def shape(self, name: str) -> tuple[int, int]:
        """Return the shape of a weight: outputs, inputs."""
        words, outputs = _matrix(self._files, self._tensor(name, "qweight"))
        return outputs, words * self._per_word

    def _zeros(self, name: str, shape: tuple[int, int]) -> UInt8:
        found = super()._zeros(name, shape)
        # Zeros are stored less one in as many bits: what is stored as the largest number is 0.
        return (found + np.uint8(self._offset)) & np.uint8((1 << self._bits) - 1)

    def _unpacked(self, name: str) -> UInt8:
        words = self._files.read_integers(self._tensor(name, "qweight"))
        outputs, width = self.shape(name)
        codes = np.empty((outputs, width), np.uint8)
        for index in range(self._per_word):
            codes[:, index :: self._per_word] = self._part(words, index).T
        return codes


class AwqLayers(PackedLayers):
    """Layers of AWQ in the layout gemm: qweight (K, N / 8), qzeros (G, N / 8), scales (G, N).

    Args:
        files: the tensors.
        size: inputs of a group, None for all of a layer.
    """

    _SUFFIXES = ("qweight", "qzeros", "scales")

    def __init__(self, files: SafetensorsFolder, size: int | None) -> None:
        super().__init__(files, 4, size)

    def shape(self, name: str) -> tuple[int, int]:
        """Return the shape of a weight: outputs, inputs."""
        width, words = _matrix(self._files, self._tensor(name, "qweight"))
        return words * self._per_word, width

    def _columns(self, words: npt.NDArray[np.generic]) -> UInt8:
        found = np.empty((*words.shape, self._per_word), np.uint8)
        for index, column in enumerate(_AWQ_COLUMNS):
            found[:, :, column] = self._part(words, index)
        return found.reshape(len(words), -1)

    def _unpacked(self, name: str) -> UInt8:
        return self._columns(self._files.read_integers(self._tensor(name, "qweight"))).T


def _matrix(files: SafetensorsFolder, tensor: str) -> tuple[int, int]:
    shape = files.shape(tensor)
    if len(shape) != 2 or 0 in shape:
        raise EdgezoError(f"tensor {tensor!r} is {shape}, and should be a matrix of int32")
    return shape[0], shape[1]
