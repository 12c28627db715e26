"""The device of a command, and what may lie on it: settings that several commands have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgezo.cli.settings.options import setting
from edgezo_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgezo_runtime.budget.placement import Placement
    from edgezo_runtime.bundle.manifest import Manifest
    from edgezo_runtime.engine.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """What computes."""

    device: Literal["auto", "cpu", "gpu", "webgpu", "cuda"] = setting(
        "cpu",
        "what computes: the processor, or a GPU by WebGPU or CUDA; gpu takes the faster of these "
        "two, auto the fastest of all that passes its self-test; 'edgezo doctor' lists them",
    )
    device_budget: str | None = setting(
        None,
        "memory of the GPU that weights, states and results may take: 4GB, or a share of what it "
        "has, such as 50%; auto takes 80%; there is no limit if not given",
        metavar="SIZE",
    )

    def place(self, manifest: Manifest) -> Placement:
        """Choose the device for a bundle; says which and why, where that was left open.

        Raises:
            UsageError: there is no such device, or it cannot be used.
        """
        if self.device == "cpu" and self.device_budget is not None:
            raise UsageError(
                f"--device-budget {self.device_budget}: --device cpu computes on the processor, "
                f"whose memory --budget limits; give --device gpu, or leave it out"
            )
        from edgezo.cli.terminal.output import note
        from edgezo_runtime.budget.placement import place

        found = place(manifest, self.device, self.device_budget)
        if self.device in ("auto", "gpu"):
            note(f"device {found.device.name}: {found.reason}")
        return found


def device_use(engine: Engine) -> dict[str, Any]:
    """The device that computed, and what lay on it, by its own ledger."""
    device = engine.model.device
    if device.form != "gpu":
        return {"device": device.name}
    ledger = device.ledger
    return {
        "device": device.name,
        "device_peak_bytes": ledger.peak_bytes,
        "device_budget_bytes": ledger.limit_bytes,
        "device_sent_bytes": ledger.sent_bytes,
        "device_fetched_bytes": ledger.fetched_bytes,
    }
