"""A second's test of a GPU: what it makes of a small block, compared with the processor."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.devices.cpu import CPU
from edgezo_runtime.devices.device import Device
from edgezo_runtime.devices.gpu import Gpu
from edgezo_runtime.devices.opening import packaged_graph

GRAPH = "self_test.onnx"
"""x (R, 512), weights in 4 bits, gain -> norm, product, softmax of similarities, product."""

ROWS, WIDTH, GROUP = 64, 512, 32

TOLERANCE = 1e-4
"""Largest difference from the processor, per unit of the largest number: sums of 512 float32
products in another order differ by some 1e-6, and exponentials of a GPU by 1e-5."""

_MOST_S = 0.5
_MOST_RUNS = 50


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What a test found.

    Attributes:
        seconds: of one run on the GPU.
        cpu_seconds: of one run on one core of the processor.
        difference: largest difference, per unit of the largest number.
        problem: why the GPU cannot be used; empty if it can.
    """

    seconds: float
    cpu_seconds: float
    difference: float
    problem: str

    @property
    def is_finite(self) -> bool:
        """Is the difference a number?"""
        return math.isfinite(self.difference)

    def told(self) -> str:
        """In words."""
        return (
            f"{1e3 * self.seconds:.2f} ms a block, a core of the processor "
            f"{1e3 * self.cpu_seconds:.2f} ms, difference {self.difference:.0e}"
        )


def self_test(gpu: Gpu) -> SelfTest:
    """Run a block on a GPU and on the processor; never raises for what the GPU does."""
    try:
        expected, cpu_seconds = _run(CPU)
        found, seconds = _run(gpu)
    except Exception as error:  # a provider without code for the GPU raises what it likes
        return SelfTest(0.0, 0.0, float("inf"), _reason(gpu, error))
    with np.errstate(invalid="ignore"):
        difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    problem = ""
    if not difference <= TOLERANCE:  # NaN too
        problem = f"it computes something else than the processor (off by {difference:.0e})"
    return SelfTest(seconds, cpu_seconds, difference, problem)


def _reason(gpu: Gpu, error: Exception) -> str:
    text = str(error)
    if "no kernel image" in text or "cudaErrorNoKernelImageForDevice" in text:
        return (
            "the installed onnxruntime-gpu has no code for this GPU; its wheels for aarch64 leave "
            "out Orin (sm_87) and Thor (sm_110): take `device` webgpu, or a wheel built for JetPack"
        )
    return f"its self-test failed: {type(error).__name__}: {text[:200]}"


def _run(device: Device) -> tuple[npt.NDArray[np.float32], float]:
    """The result, and the seconds of a run."""
    session = device.open(packaged_graph(GRAPH))
    generator = np.random.default_rng(0)
    feed = {
        "x": generator.normal(size=(ROWS, WIDTH)).astype(np.float32),
        "gain": generator.normal(1, 0.1, size=WIDTH).astype(np.float32),
        "weight": generator.integers(
            0, 256, (WIDTH, WIDTH // GROUP, GROUP // 2), np.uint8, endpoint=False
        ),
        "scale": generator.uniform(0.001, 0.01, (WIDTH, WIDTH // GROUP)).astype(np.float32),
    }
    values = {name: device.put(array) for name, array in feed.items()}

    def once() -> npt.NDArray[np.float32]:
        (value,) = session.run_with_ort_values(["y"], values, None)
        made: npt.NDArray[np.float32] = device.fetch(value)
        return made

    result = once().copy()
    began = time.perf_counter()
    count = 0
    while count < _MOST_RUNS and time.perf_counter() - began < _MOST_S:
        once()
        count += 1
    return result, (time.perf_counter() - began) / count
