"""The processor: weights are pages of the mapped file, values are arrays, nothing is copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from edgezo_runtime.devices.device import DeviceName, Opening, Pages, Session
from edgezo_runtime.devices.ledger import Ledger
from edgezo_runtime.devices.library import import_onnxruntime
from edgezo_runtime.devices.opening import open_session

_PROVIDER = "CPUExecutionProvider"

_SETTINGS = {"session.disable_prepacking": "1", "session.use_env_allocators": "1"}


@dataclass(frozen=True, slots=True)
class MappedWeights:
    """Weights that stay pages of their file.

    Attributes:
        values: OrtValues by input, views of the file.
        pages: where they lie in it.
    """

    values: Mapping[str, Any]
    pages: Pages

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        return self.pages.size_bytes

    def fetch(self) -> None:
        """Have the system read the pages ahead."""
        self.pages.fetch()

    def drop(self) -> None:
        """Let the pages go."""
        self.pages.drop()


class Cpu:
    """The processor; see `Device`."""

    name: DeviceName = "cpu"
    provider = _PROVIDER
    form: Literal["processor", "gpu"] = "processor"
    workers: int | None = None
    segments = True

    def __init__(self) -> None:
        self.ledger = Ledger()  # stays empty: the budget of the process counts this memory

    @property
    def total_bytes(self) -> int | None:
        """None: the budget of the process counts this memory."""
        return None

    @cached_property
    def _ort(self) -> Any:
        return import_onnxruntime()

    def open(self, graph: Opening) -> Session:
        """Open a graph in the arena of the process, with kernels of one thread.

        Raises:
            Exception: what onnxruntime raises.
        """
        return cast(Session, open_session(self._ort, graph, _SETTINGS, providers=[_PROVIDER]))

    def put(self, array: npt.NDArray[Any]) -> Any:
        """An OrtValue of the array, which is not copied if it is contiguous."""
        return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))

    def take(self, value: Any) -> Any:
        """The value itself."""
        return value

    def fetch(self, value: Any) -> npt.NDArray[Any]:
        """A view."""
        return cast("npt.NDArray[Any]", value.numpy())

    def weights(self, views: Mapping[str, npt.NDArray[Any]], pages: Pages) -> MappedWeights:
        """Values that are views of the file."""
        values = self._ort.OrtValue.ortvalue_from_numpy
        return MappedWeights({name: values(view) for name, view in views.items()}, pages)

    def shrink_options(self) -> Any:
        """Options of a run that shrinks the arena."""
        options = self._ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return options


CPU = Cpu()
"""The processor of this process."""
