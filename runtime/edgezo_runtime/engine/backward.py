"""The graphs that carry gradients back, run on the inputs of the forward graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgezo_runtime.bundle.manifest_types import GRAD, BackwardInfo, grad_name
from edgezo_runtime.devices.device import Session
from edgezo_runtime.engine.block_forms import BackwardForms
from edgezo_runtime.engine.loaded_model import LoadedGraph, LoadedModel
from edgezo_runtime.engine.sessions import ENVIRONMENT, check_ends, run_graph
from edgezo_runtime.errors import BundleError, NoBackwardGraphsError


@dataclass(frozen=True, slots=True)
class BackwardGraph:
    """A session that carries a gradient back through another graph.

    Attributes:
        session: runs the graph.
        inputs: what it takes.
        outputs: what it gives, the gradient of the hidden states first.
    """

    session: Session
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(self, graph: LoadedGraph, feed: Mapping[str, Any], grad: Any) -> dict[str, Any]:
        """Carry a gradient back.

        Args:
            graph: the forward graph, with its weights.
            feed: the other inputs by name, OrtValues; unused ones do no harm.
            grad: the gradient at the result of the forward graph, an OrtValue.
        Returns:
            Gradients by the name of the input, OrtValues; of a trainable with its leading axis.
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
        return {name[:-suffix]: value for name, value in zip(self.outputs, values, strict=True)}


class BackwardGraphs:
    """The backward graphs of a bundle, all opened at once.

    Later in a run memory may be short, and onnxruntime does not survive that when it opens a graph.

    Args:
        model: the graphs they go back through.
        scorers_only: leave out those of the blocks.
    Raises:
        NoBackwardGraphsError: the bundle has none.
        UnplacedNodeError: the device cannot run one.
        BundleError: one cannot be loaded.
    """

    def __init__(self, model: LoadedModel, *, scorers_only: bool = False) -> None:
        manifest, device = model.bundle.manifest, model.device
        forms = BackwardForms.of(manifest, device.form)
        if forms.reason is not None:
            raise NoBackwardGraphsError(
                f"the bundle has no backward graphs ({manifest.model.architecture}) for the device "
                f"{device.name}: {forms.reason}; set `first_order` to 0, or run "
                f"'edgezo export --force' with an edgezo that can derive it"
            )
        self._blocks = forms.blocks
        self._opened = {
            info.of: _open(model, info)
            for info in forms.infos
            if info.of not in forms.blocks or not scorers_only
        }

    def through_block(self, index: int) -> BackwardGraph:
        """The graph that goes back through a block."""
        return self._opened[self._blocks[index]]

    def through(self, file: str) -> BackwardGraph:
        """The graph that goes back through the scorer in `file`."""
        return self._opened[file]


def _open(model: LoadedModel, info: BackwardInfo) -> BackwardGraph:
    session = ENVIRONMENT.open(model.bundle, info.file, in_order=True, device=model.device)
    check_ends(session, info.inputs, info.outputs, str(model.bundle.root / info.file))
    inputs = tuple(tensor.name for tensor in info.inputs)
    outputs = tuple(tensor.name for tensor in info.outputs)
    return BackwardGraph(session, inputs, outputs)
