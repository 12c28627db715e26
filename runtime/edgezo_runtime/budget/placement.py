"""Where a run computes, and how much of a device's memory it may take."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edgezo_runtime.bundle.manifest import Manifest
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.devices.choice import Wanted, choose_device
from edgezo_runtime.devices.cpu import CPU
from edgezo_runtime.devices.device import Device
from edgezo_runtime.engine.block_forms import BackwardForms
from edgezo_runtime.errors import UsageError
from edgezo_runtime.system.sizes import parse_size


@dataclass(frozen=True, slots=True)
class Placement:
    """The device of a run.

    Attributes:
        device: what runs the graphs.
        reason: why it was taken, for people; empty where nobody asked.
        budget_bytes: what may lie on it; None for no limit.
    """

    device: Device
    reason: str = ""
    budget_bytes: int | None = None

    def settled(self, config: TuneConfig, manifest: Manifest) -> TuneConfig:
        """The settings as they are on the device.

        Where the bundle has no backward graphs for it, no steps are first-order unless the user
        asks for them.
        """
        if config.first_order == "auto" and self.why_no_first_order(manifest):
            return dataclasses.replace(config, first_order=0)
        return config

    def why_no_first_order(self, manifest: Manifest) -> str | None:
        """Why a GPU takes no first-order steps with a bundle; None if it does."""
        if self.device.form != "gpu":
            return None
        return BackwardForms.of(manifest, self.device.form).reason


ON_CPU = Placement(CPU)
"""Where runs compute unless they are told otherwise."""


def place(manifest: Manifest, wanted: Wanted, budget: str | int | None = None) -> Placement:
    """Choose the device for a bundle.

    Args:
        manifest: of the bundle.
        wanted: a device, or how to choose one.
        budget: what may lie on a GPU: "4GB", a number of bytes, "80%" of its memory, "auto".
    Raises:
        UsageError: there is no such device, its memory is not known, or a budget for the memory of
            a GPU was given without one.
        MissingExtraError: its provider is not installed.
    """
    if wanted == "auto" and isinstance(manifest.gpu, str):
        found = Placement(CPU, f"the bundle ({manifest.quant}) has no graphs for GPUs")
    else:
        chosen = choose_device(wanted)
        found = Placement(chosen.device, "" if wanted == "cpu" else chosen.reason)
    if budget is None:
        return found
    if found.device.form != "gpu":
        if wanted == "auto":
            return found
        raise UsageError(
            f"`device_budget` {budget}: the run computes on the processor, whose memory `budget` "
            f"limits; set `device` to gpu, or leave it out"
        )
    return dataclasses.replace(found, budget_bytes=_bytes(budget, found.device))


def _bytes(budget: str | int, device: Device) -> int:
    total = device.total_bytes
    share = isinstance(budget, str) and (budget.strip() == "auto" or budget.strip().endswith("%"))
    if share and total is None:
        raise UsageError(
            f"`device_budget` {budget}: nothing tells how much memory the device {device.name} has "
            f"(for NVIDIA GPUs, pip install nvidia-ml-py does); give a size such as 4GB"
        )
    return parse_size(budget, available=total or 1)
