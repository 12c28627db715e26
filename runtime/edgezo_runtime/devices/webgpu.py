"""GPUs of every maker by WebGPU: Vulkan, Metal or Direct3D, through a plugin of onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Literal, cast

import numpy.typing as npt

from edgezo_runtime.devices.device import DeviceName, Opening, Pages, Session
from edgezo_runtime.devices.ledger import Ledger
from edgezo_runtime.devices.library import PLUGINS, import_onnxruntime, release
from edgezo_runtime.devices.opening import open_session
from edgezo_runtime.devices.placement import RECORD, check_placement
from edgezo_runtime.devices.uploads import BoundSession, UploadedWeights, put_counted
from edgezo_runtime.errors import MissingExtraError, UsageError

PROVIDER = "WebGpuExecutionProvider"

SOFTWARE = "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"
"""Set to 1 in the environment, the provider takes a driver that computes on the processor."""

_LIBRARY = "edgezo-webgpu"


class WebGpu:
    """A GPU by WebGPU; see `Device`.

    Raises:
        MissingExtraError: the plugin is not installed, or onnxruntime is too old for it.
        UsageError: there is no GPU that it can use.
    """

    name: DeviceName = "webgpu"
    provider = PROVIDER
    form: Literal["processor", "gpu"] = "gpu"
    workers: int | None = 1
    segments = False

    def __init__(self) -> None:
        self._ort = import_onnxruntime()
        self._device = _adapter(self._ort)
        self.ledger = Ledger()
        self.size_nodes = 0

    @property
    def is_software(self) -> bool:
        """Does the driver compute on the processor?"""
        return bool(self._device.device.type == self._ort.OrtHardwareDeviceType.CPU)

    @property
    def vendor(self) -> str:
        """Maker of the GPU."""
        return str(self._device.device.vendor)

    def open(self, graph: Opening) -> Session:
        """Open a graph all of whose nodes run on the GPU, but for sizes.

        Raises:
            BundleError: a node does not.
            Exception: what onnxruntime raises.
        """
        session = open_session(
            self._ort,
            graph,
            {RECORD: "1"},
            lambda options: options.add_provider_for_devices([self._device], {}),
        )
        self.size_nodes += check_placement(session, graph, self.name)
        return BoundSession(session, self.name, self.ledger)

    def put(self, array: npt.NDArray[Any]) -> Any:
        """Copy an array to the GPU.

        Raises:
            ShortOfMemoryError: there is no room for it.
        """
        return self._copied(array, "a value")

    def take(self, value: Any) -> Any:
        """Copy a value of the processor to the GPU.

        Raises:
            ShortOfMemoryError: there is no room for it.
        """
        return self._copied(value.numpy(), "a value")

    def fetch(self, value: Any) -> npt.NDArray[Any]:
        """Wait for a value, and copy it to the host."""
        array = cast("npt.NDArray[Any]", value.numpy())
        self.ledger.cross(array.nbytes)
        return array

    def weights(self, views: Mapping[str, npt.NDArray[Any]], pages: Pages) -> UploadedWeights:
        """Weights that are copied to the GPU when they are needed."""
        return UploadedWeights(views, pages, self._copied, _here)

    def _copied(self, array: npt.NDArray[Any], what: str) -> Any:
        def copy(own: npt.NDArray[Any]) -> Any:
            return self._ort.OrtValue.ortvalue_from_numpy(own, self.name, 0)

        return put_counted(array, what, copy, self.ledger)


def _here(upload: Callable[[], None]) -> Future[None]:
    """Copy at once: sessions hand work in and return, so a copy is queued while the GPU computes."""
    done: Future[None] = Future()
    try:
        upload()
        done.set_result(None)
    except Exception as error:  # comes up where the weights are used, or not at all
        done.set_exception(error)
    return done


def _adapter(ort: Any) -> Any:
    """The device of onnxruntime: a GPU, or, where that is allowed, a software adapter.

    Raises:
        MissingExtraError: the plugin is not installed, or onnxruntime is too old for it.
        UsageError: there is no device.
    """
    if release(ort.__version__) < PLUGINS:
        raise MissingExtraError(
            f"onnxruntime {ort.__version__} takes no plugins; run pip install 'edgezo[webgpu]'"
        )
    try:
        import onnxruntime_ep_webgpu
    except ImportError as error:
        raise MissingExtraError(
            "the WebGPU provider is not installed; run pip install 'edgezo[webgpu]'"
        ) from error
    found = _devices(ort)
    if not found:
        ort.register_execution_provider_library(_LIBRARY, onnxruntime_ep_webgpu.get_library_path())
        found = _devices(ort)
    if not found:
        raise UsageError(
            "`device` webgpu: the provider finds no GPU; install the driver of the GPU, and on "
            "Linux the Vulkan loader (apt install libvulkan1); 'edgezo doctor' says more"
        )
    found.sort(key=lambda device: device.device.type != ort.OrtHardwareDeviceType.GPU)
    if found[0].device.type == ort.OrtHardwareDeviceType.CPU and os.environ.get(SOFTWARE) != "1":
        raise UsageError(
            f"`device` webgpu: the only adapter is a software one, slower than the processor; set "
            f"{SOFTWARE}=1 to use it for tests"
        )
    return found[0]


def _devices(ort: Any) -> list[Any]:
    return [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]
