"""A GPU that onnxruntime drives: values are copied there once, and results stay there."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy.typing as npt

from edgezo_runtime.devices.device import DeviceName, Opening, Pages, Session
from edgezo_runtime.devices.ledger import Ledger
from edgezo_runtime.devices.opening import open_session
from edgezo_runtime.devices.placement import RECORD, check_placement
from edgezo_runtime.devices.uploads import BoundSession, UploadedWeights, put_counted


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """What is known of a GPU.

    Attributes:
        label: maker and model, for people.
        total_bytes: its memory; None if nothing tells.
        is_software: does its driver compute on the processor?
        float16: has it 16-bit arithmetic? None if nothing tells.
    """

    label: str
    total_bytes: int | None
    is_software: bool = False
    float16: bool | None = None


@dataclass(slots=True)
class Gpu:
    """A GPU; see `Device`.

    Attributes:
        name: short, and its name for onnxruntime.
        provider: of onnxruntime.
        facts: what is known of it.
        size_nodes: nodes of opened graphs that compute sizes on the processor.
    """

    name: DeviceName
    provider: str
    facts: GpuFacts
    _ort: Any
    _prepare: Callable[[Any], None]
    _providers: Any
    _ahead: Callable[[Callable[[], None]], Future[None]]
    form: Literal["processor", "gpu"] = "gpu"
    workers: int | None = 1
    segments: bool = False
    ledger: Ledger = field(default_factory=Ledger)
    size_nodes: int = 0
    _waiting: weakref.WeakSet[UploadedWeights] = field(default_factory=weakref.WeakSet)

    def __post_init__(self) -> None:
        waiting = self._waiting  # not the GPU itself, which has the ledger

        def make_room() -> None:
            for weights in list(waiting):
                weights.drop()

        self.ledger.make_room = make_room

    @property
    def total_bytes(self) -> int | None:
        """Its memory; None if nothing tells."""
        return self.facts.total_bytes

    def open(self, graph: Opening) -> Session:
        """Open a graph all of whose nodes run on the GPU, but for sizes.

        Raises:
            BundleError: a node does not.
            Exception: what onnxruntime raises.
        """
        known = {RECORD: "1"}
        session = open_session(self._ort, graph, known, self._prepare, self._providers)
        self.size_nodes += check_placement(session, graph, self.name)
        return BoundSession(session, self.name, self.ledger)

    def put(self, array: npt.NDArray[Any]) -> Any:
        """Copy an array to the GPU.

        Raises:
            ShortOfDeviceError: there is no room for it.
        """
        return self._copied(array, "a value")

    def take(self, value: Any) -> Any:
        """Copy a value of the processor to the GPU.

        Raises:
            ShortOfDeviceError: there is no room for it.
        """
        return self._copied(value.numpy(), "a value")

    def fetch(self, value: Any) -> npt.NDArray[Any]:
        """Wait for a value, and copy it to the host."""
        array = cast("npt.NDArray[Any]", value.numpy())
        self.ledger.fetched(array.nbytes)
        return array

    def weights(self, views: Mapping[str, npt.NDArray[Any]], pages: Pages) -> UploadedWeights:
        """Weights that are copied to the GPU when they are needed."""
        return UploadedWeights(views, pages, self._copied, self._waiting, self._ahead)

    def _copied(self, array: npt.NDArray[Any], what: str) -> Any:
        def copy(own: npt.NDArray[Any]) -> Any:
            return self._ort.OrtValue.ortvalue_from_numpy(own, self.name, 0)

        return put_counted(array, what, copy, self.ledger)
