"""What the engine asks of a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy.typing as npt

from edgezo_runtime.devices.ledger import Ledger

DeviceName = Literal["cpu", "webgpu", "cuda"]


class Session(Protocol):
    """A graph that was opened."""

    def get_inputs(self) -> Sequence[Any]:
        """What it takes; each has a name and a type."""

    def get_outputs(self) -> Sequence[Any]:
        """What it makes; each has a name and a type."""

    def run_with_ort_values(self, outputs: Sequence[str], feed: Any, options: Any) -> Sequence[Any]:
        """Run it on values of its device, and return such values."""


class Opening(NamedTuple):
    """A graph to open.

    Attributes:
        content: of the ONNX file, which was checked.
        where: its path, for messages.
        in_order: run the nodes in the order of the file. Left to itself onnxruntime makes values
            long before they are needed, float32 copies of weights for one.
    """

    content: bytes
    where: str
    in_order: bool


class HeldWeights(Protocol):
    """The weights of one graph, which can be dropped and fetched again."""

    @property
    def values(self) -> Mapping[str, Any]:
        """Values of the device by input; fetched if they are not there."""

    @property
    def size_bytes(self) -> int:
        """What they take while they are there."""

    def fetch(self) -> None:
        """Have them come while the device computes; returns as soon as it can."""

    def drop(self) -> None:
        """Let them go; nothing that runs needs them."""


class Device(Protocol):
    """A place where graphs run, and the values that they run on.

    Attributes:
        name: short, for people and machines.
        provider: of onnxruntime.
        form: which form of a block it runs: that for the processor, or that for GPUs.
        workers: chunks that are computed at once; None for as many as there are threads.
        segments: do rows that are longer than a chunk go through a block in segments?
        ledger: what lies on it.
    """

    name: DeviceName
    provider: str
    form: Literal["processor", "gpu"]
    workers: int | None
    segments: bool
    ledger: Ledger

    @property
    def total_bytes(self) -> int | None:
        """Its memory; None if nothing tells, or if it is the processor."""

    def open(self, graph: Opening) -> Session:
        """Open a graph.

        Raises:
            BundleError: the device cannot run one of its nodes, which is named.
            Exception: what onnxruntime raises.
        """

    def put(self, array: npt.NDArray[Any]) -> Any:
        """Make a value of an array, which is copied only where it must be.

        Raises:
            ShortOfDeviceError: there is no room for it.
        """

    def take(self, value: Any) -> Any:
        """Make a value of one of the processor; itself on the processor.

        Raises:
            ShortOfDeviceError: there is no room for it.
        """

    def fetch(self, value: Any) -> npt.NDArray[Any]:
        """Make an array of a value; a view of it where that is possible."""

    def weights(self, views: Mapping[str, npt.NDArray[Any]], pages: Any) -> HeldWeights:
        """Take charge of weights.

        Args:
            views: of the mapped file, by input of the graph.
            pages: reads them ahead and drops them; see `Pages`.
        """


class Pages(Protocol):
    """Stretches of a mapped file."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all."""

    def fetch(self) -> None:
        """Have the system read them ahead; returns at once."""

    def drop(self) -> None:
        """Let them go; they come back from the file when they are touched."""
