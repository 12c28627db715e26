"""GPUs of every maker by WebGPU: Vulkan, Metal or Direct3D, through a plugin of onnxruntime."""

from __future__ import annotations

import ctypes.util
import importlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from edgezo_runtime.devices.gpu import Gpu, GpuFacts
from edgezo_runtime.devices.gpu_memory import gpu_total_bytes
from edgezo_runtime.devices.library import PLUGINS, import_onnxruntime, release
from edgezo_runtime.errors import MissingExtraError, UsageError
from edgezo_runtime.system.memory import total_bytes

PROVIDER = "WebGpuExecutionProvider"

SOFTWARE = "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"
"""Set to 1 in the environment, the provider takes a driver that computes on the processor."""

_SETTINGS = {"preferredLayout": "NCHW"}
"""As graphs are written. Otherwise transpositions are moved for the sake of convolutions, and
shapes that are reordered for it are computed by nodes that no file has."""

_LIBRARY = "edgezo-webgpu"

_MAKERS = {0x10DE: "NVIDIA", 0x1002: "AMD", 0x8086: "Intel", 0x106B: "Apple", 0x13B5: "Arm"}


def open_webgpu() -> Gpu:
    """Find the GPU that WebGPU drives.

    Raises:
        MissingExtraError: the plugin is not installed, or onnxruntime is too old for it.
        UsageError: there is no GPU that it can use.
    """
    ort = import_onnxruntime()
    device = _adapter(ort)
    software = device.device.type == ort.OrtHardwareDeviceType.CPU
    maker = _MAKERS.get(device.device.vendor_id, str(device.device.vendor))
    if software:
        facts = GpuFacts("software adapter", total_bytes(), is_software=True)
    else:
        facts = GpuFacts(f"{maker} GPU", gpu_total_bytes(device.device.vendor_id))
    return Gpu(
        "webgpu",
        PROVIDER,
        facts,
        ort,
        lambda options: options.add_provider_for_devices([device], _SETTINGS),
        None,
        _here,
    )


def _here(upload: Callable[[], None]) -> Future[None]:
    """Copy at once: a session hands work in and returns, so this is while the GPU computes."""
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
        plugin: Any = importlib.import_module("onnxruntime_ep_webgpu")  # it has no types
    except ImportError as error:
        raise MissingExtraError(
            "the WebGPU provider is not installed; run pip install 'edgezo[webgpu]'"
        ) from error
    found = _devices(ort)
    if not found:
        ort.set_default_logger_severity(3)  # it warns of a software adapter that was asked for
        ort.register_execution_provider_library(_LIBRARY, plugin.get_library_path())
        found = _devices(ort)
    found.sort(key=lambda device: device.device.type != ort.OrtHardwareDeviceType.GPU)
    if found and found[0].device.type == ort.OrtHardwareDeviceType.GPU:
        return found[0]
    if sys.platform.startswith("linux") and ctypes.util.find_library("vulkan") is None:
        raise UsageError(
            "`device` webgpu: the Vulkan loader is missing; install it (apt install libvulkan1) "
            "and the driver of the GPU"
        )
    if found and os.environ.get(SOFTWARE) == "1":
        return found[0]
    raise UsageError(
        f"`device` webgpu: there is no GPU with a driver; install the driver of the GPU, or set "
        f"{SOFTWARE}=1 to test with a driver that computes on the processor"
    )


def _devices(ort: Any) -> list[Any]:
    return [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]
