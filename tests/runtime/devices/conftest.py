"""The GPU that tests run on: SwiftShader's Vulkan driver, which computes on the processor."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.devices.device import Device

DRIVERS = (
    "/usr/lib/chromium/vk_swiftshader_icd.json",
    "/usr/lib64/chromium-browser/vk_swiftshader_icd.json",
)
"""Where packages of Chromium put it."""


def software_gpu() -> dict[str, str]:
    """What the environment must say for the provider to take the driver.

    Skips the test where the driver, the loader or the provider is absent. A driver that the
    environment names already is taken, so that the same tests run on a real GPU.
    """
    if importlib.util.find_spec("onnxruntime_ep_webgpu") is None:
        pytest.skip("needs the WebGPU provider: pip install 'edgezo[webgpu]'")
    named = os.environ.get("VK_DRIVER_FILES")
    driver = named or next((path for path in DRIVERS if Path(path).is_file()), None)
    if driver is None:
        pytest.skip("needs SwiftShader's Vulkan driver: apt install chromium libvulkan1")
    return {"VK_DRIVER_FILES": driver, "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1"}


@pytest.fixture(scope="session")
def gpu() -> Device:
    """A GPU by WebGPU; the environment of the process stays set, as the driver stays loaded."""
    os.environ.update(software_gpu())
    from edgezo_runtime.devices import self_test
    from edgezo_runtime.devices.choice import choose_device
    from edgezo_runtime.errors import UsageError

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self_test, "_MOST_RUNS", 1)  # its speed decides nothing here
            return choose_device("webgpu").device
    except UsageError as error:
        pytest.skip(f"the driver cannot be used: {error}")


@pytest.fixture
def free_gpu(gpu: Device):
    """The GPU without a limit, before and after."""
    gpu.ledger.limit_bytes = None
    yield gpu
    gpu.ledger.limit_bytes = None


def tiny(quant: str, name: str = "llama") -> Bundle:
    """The bundle of a tiny model."""
    from tests.bundles.tiny import tiny_bundle

    return Bundle.open(tiny_bundle(name, quant))
