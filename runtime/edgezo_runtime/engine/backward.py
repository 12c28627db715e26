"""The graphs that carry gradients back, run on the inputs of the forward graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.manifest_types import GRAD, BackwardInfo, grad_name
from edgezo_runtime.devices.device import Device, Session
from edgezo_runtime.engine.loaded_model import LoadedGraph, LoadedModel
from edgezo_runtime.engine.sessions import ENVIRONMENT, check_ends, run_graph
from edgezo_runtime.errors import BundleError, UsageError

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BackwardGraph:
    """A session that carries a gradient back through another graph.

    Attributes:
        session: runs the graph.
        inputs: what it takes.
        outputs: what it gives, the gradient of the hidden states first.
        device: what runs it.
    """

    session: Session
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    device: Device

    def run(self, graph: LoadedGraph, feed: Mapping[str, Any], grad: Any) -> dict[str, Float32]:
        """Carry a gradient back.

        Args:
            graph: the forward graph, with its weights.
            feed: the other inputs by name, OrtValues; unused ones do no harm.
            grad: the gradient at the result of the forward graph, an OrtValue.
        Returns:
            Gradients by the name of the input, arrays; of a trainable with its leading axis.
        Raises:
            ShortOfMemoryError: the graph was refused memory.
            BundleError: an input of the graph is missing.
        """
        known = {**graph.weights, **feed, GRAD: grad}
        if lost := [name for name in self.inputs if name not in known]:
            raise BundleError(
                f"the graph back through {graph.output!r} takes {min(lost)[:80]!r}, which is "
                f"missing; run 'edgezo export --force'"
            )
        own = {name: known[name] for name in self.inputs}
        values = run_graph(self.session, list(self.outputs), own)
        suffix = len(grad_name(""))
        return {
            name[:-suffix]: self.device.fetch(value)
            for name, value in zip(self.outputs, values, strict=True)
        }


class BackwardGraphs:
    """The backward graphs of a bundle, all opened at once.

    Later in a run memory may be short, and onnxruntime does not survive that when it opens a graph.

    Args:
        model: the graphs they go back through.
        scorers_only: leave out those of the blocks.
    Raises:
        UsageError: the bundle has none.
        BundleError: one cannot be loaded.
    """

    def __init__(self, model: LoadedModel, *, scorers_only: bool = False) -> None:
        manifest = model.bundle.manifest
        if isinstance(manifest.backward, str):
            raise UsageError(
                f"the bundle has no backward graphs ({manifest.model.architecture}): "
                f"{manifest.backward}; set `first_order` to 0, or run "
                f"'edgezo export --force' with an edgezo that can derive it"
            )
        graphs = manifest.graphs
        scorers = {graphs.score_labels.file, graphs.score_tokens.file}
        self._opened = {
            info.of: _open(model, info)
            for info in manifest.backward
            if info.of in scorers or not scorers_only
        }

    def through(self, file: str) -> BackwardGraph:
        """The graph that goes back through the forward graph in `file`."""
        return self._opened[file]


def _open(model: LoadedModel, info: BackwardInfo) -> BackwardGraph:
    session = ENVIRONMENT.open(model.bundle, info.file, in_order=True, device=model.device)
    check_ends(session, info.inputs, info.outputs, str(model.bundle.root / info.file))
    inputs = tuple(tensor.name for tensor in info.inputs)
    outputs = tuple(tensor.name for tensor in info.outputs)
    return BackwardGraph(session, inputs, outputs, model.device)
