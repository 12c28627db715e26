"""What of each architecture runs on a GPU: its graphs are opened there, and their numbers compared.

Numbers come from the graphs for GPUs on the processor, which takes less time than a driver does to
compile kernels; that both compute the same is tested elsewhere.
"""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.devices.device import Device
from edgezo_runtime.engine.backward import BackwardGraphs
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.first_order import FirstOrderGradient
from edgezo_runtime.engine.loaded_model import LoadedModel
from edgezo_runtime.errors import NoBackwardGraphsError, UnplacedNodeError
from tests.runtime.devices.conftest import tiny
from tests.runtime.devices.test_gpu_passes import GpuForms
from tests.runtime.engine.test_engine import batch_of
from tests.runtime.written_texts import moved

BOTH, FORWARD, NEITHER = "forward and back", "forward", "no"

RUNS = {
    "gemma4_text": BOTH,
    "bloom": FORWARD,
    "lfm2": NEITHER,
    "granitemoehybrid": NEITHER,
    "qwen3_moe": NEITHER,
}
"""What runs on GPUs; docs/devices.md has the same."""

DERIVED = ("gemma4_text", "lfm2", "granitemoehybrid", "qwen3_moe")
"""Those with backward graphs, whether or not WebGPU has all their nodes."""

CLOSE = 5e-5
"""Largest difference of gradients per unit of the largest number: float32, in other operators."""

pytestmark = pytest.mark.slow


def found_on(gpu: Device, bundle: Bundle) -> str:
    """What the GPU runs of a bundle."""
    if isinstance(bundle.manifest.gpu, str):
        return NEITHER
    try:
        model = LoadedModel(bundle, gpu)
    except UnplacedNodeError as error:
        return f"{NEITHER}: {error}"
    try:
        BackwardGraphs(model)
    except (UnplacedNodeError, NoBackwardGraphsError) as error:
        return f"{FORWARD}: {error}"
    return BOTH


@pytest.mark.parametrize("name", RUNS)
def test_graphs_are_placed_as_the_page_says(free_gpu: Device, name: str) -> None:
    found = found_on(free_gpu, tiny("fp32", name))
    assert found.split(": ")[0] == RUNS[name], found


@pytest.mark.parametrize("name", DERIVED)
def test_gradients_of_graphs_for_gpus_are_those_of_the_processor(name: str) -> None:
    bundle = tiny("fp32", name)
    batch, theta = batch_of(bundle, "labels", (5, 9, 1, 13)), moved(bundle)
    found, expected = (
        FirstOrderGradient(engine, 0).gradient(batch, theta)
        for engine in (Engine(bundle, device=GpuForms()), Engine(bundle))
    )
    np.testing.assert_allclose(found.losses, expected.losses, rtol=0, atol=1e-4)
    for tensor, grad in expected.gradients.items():
        difference = np.abs(found.gradients[tensor] - grad).max()
        assert difference <= CLOSE * np.abs(grad).max(), tensor
