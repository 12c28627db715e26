"""Layers of bitsandbytes in NF4: codes of 4 bits, and the largest magnitude of every block.

    w = NF4[code] * absmax[block]
    absmax = nested_quant_map[code'] * nested_absmax[block'] + nested_offset

The second line is double quantization, which a layer may have.

References:
    Dettmers et al. 2023, QLoRA, arXiv:2305.14314. bitsandbytes, functional.py, `QuantState`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_export.sources.safetensors_folder import SafetensorsFolder
from edgezo_export.sources.stored_codes import NF4, CodedRows, CodeForm
from edgezo_runtime.errors import EdgezoError

_STATE = ".quant_state.bitsandbytes__nf4"
_OTHERS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")


@dataclass(frozen=True, slots=True)
class _State:
    """What a layer says of itself.

    Attributes:
        shape: outputs, inputs.
        size: weights of a block.
        nested_size: blocks that share a number of nested_absmax; None without double quantization.
        nested_offset: added to every absmax.
    """

    shape: tuple[int, int]
    size: int
    nested_size: int | None
    nested_offset: float


class Nf4Layers:
    """The NF4 layers of a checkpoint.

    Args:
        files: the tensors.
    """

    def __init__(self, files: SafetensorsFolder) -> None:
        self._files = files
        self._known = frozenset(files.names())
        self._states: dict[str, _State] = {}

    def parts(self) -> Mapping[str, frozenset[str]]:
        """Return the tensors that stand for each weight."""
        names = sorted(name.removesuffix(_STATE) for name in self._known if name.endswith(_STATE))
        return {
            name: self._known
            & {name, f"{name}{_STATE}", *(f"{name}.{suffix}" for suffix in _OTHERS)}
            for name in names
        }

    def shape(self, name: str) -> tuple[int, int]:
        """Return the shape of a weight: outputs, inputs."""
        return self._state(name).shape

    def form(self, name: str) -> CodeForm:
        """Return how the codes of a weight are stored.

        Raises:
            EdgezoError: its state is damaged, or blocks go across rows.
        """
        state = self._state(name)
        if state.shape[1] % state.size:
            raise EdgezoError(
                f"{name!r}: blocks of {state.size} weights go across its rows of "
                f"{state.shape[1]} inputs; export the unquantized model that it was made from"
            )
        return CodeForm(4, state.size, scale="F32", nf4=True)

    def codes(self, name: str) -> CodedRows:
        """Read all codes of a weight.

        Raises:
            EdgezoError: a tensor of it is missing, or has a shape that does not fit.
        """
        state = self._state(name)
        rows, width = state.shape
        packed = self._integers(name, "", rows * width // 2)
        codes = np.empty((rows, width), np.uint8)
        codes.reshape(-1)[0::2] = packed >> np.uint8(4)
        codes.reshape(-1)[1::2] = packed & np.uint8(15)
        table = self._floats(name, "quant_map", len(NF4))
        if not np.array_equal(table, NF4):
            raise EdgezoError(f"tensor '{name}.quant_map' has other numbers than those of NF4")
        blocks = rows * width // state.size
        return CodedRows(codes, self._absmax(name, state, blocks).reshape(rows, -1))

    def _absmax(self, name: str, state: _State, blocks: int) -> npt.NDArray[np.float32]:
        if state.nested_size is None:
            return self._floats(name, "absmax", blocks)
        codes = self._integers(name, "absmax", blocks)
        table = self._floats(name, "nested_quant_map", 256)
        nested = self._floats(name, "nested_absmax", -(-blocks // state.nested_size))
        scale = np.repeat(nested, state.nested_size)[:blocks]
        found: npt.NDArray[np.float32] = table[codes] * scale + np.float32(state.nested_offset)
        return found

    def _state(self, name: str) -> _State:
        if name not in self._states:
            self._states[name] = self._read_state(name)
        return self._states[name]

    def _read_state(self, name: str) -> _State:
        tensor = f"{name}{_STATE}"
        try:
            found = json.loads(self._files.read_integers(tensor).tobytes())
            rows, width = (int(dim) for dim in found["shape"])
            nested = found.get("nested_blocksize")
            state = _State(
                (rows, width),
                int(found["blocksize"]),
                None if nested is None else int(nested),
                float(found.get("nested_offset", 0.0)),
            )
            sizes = (*state.shape, state.size, state.nested_size or 1)
            if found["quant_type"] != "nf4" or min(sizes) < 1 or rows * width % 2:
                raise ValueError(found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EdgezoError(
                f"tensor {tensor!r} does not say how {name!r} is quantized: {error!r:.120}; "
                f"download the model again"
            ) from error
        return state

    def _floats(self, name: str, suffix: str, count: int) -> npt.NDArray[np.float32]:
        return self._files.read(self._checked(f"{name}.{suffix}", count)).reshape(-1)

    def _integers(self, name: str, suffix: str, count: int) -> npt.NDArray[np.uint8]:
        tensor = self._checked(f"{name}.{suffix}" if suffix else name, count)
        found: npt.NDArray[np.uint8] = self._files.read_integers(tensor).reshape(-1)
        return found

    def _checked(self, tensor: str, count: int) -> str:
        if tensor not in self._known:
            raise EdgezoError(f"tensor {tensor!r} is missing; download the model again")
        found = math.prod(self._files.shape(tensor))
        if found != count:
            raise EdgezoError(
                f"tensor {tensor!r} has {found} numbers, and should have {count}; download the "
                f"model again"
            )
        return tensor
