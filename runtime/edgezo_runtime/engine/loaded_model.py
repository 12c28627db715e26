"""A bundle's graphs opened, with the weights of each at hand.

Blocks that differ in their weights only share a session. Weights are pages of one mapped file: they
are resident once touched, and can be dropped and fetched ahead block by block.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.bundle import WEIGHTS_FILE, Bundle
from edgezo_runtime.bundle.manifest_types import NEW, PAST, GraphInfo
from edgezo_runtime.bundle.weights import WeightsFile
from edgezo_runtime.devices.cpu import CPU
from edgezo_runtime.devices.device import Device, HeldWeights, Session
from edgezo_runtime.devices.opening import packaged_graph
from edgezo_runtime.engine.block_forms import StateGraphs, runnable
from edgezo_runtime.engine.file_pages import FilePages
from edgezo_runtime.engine.sessions import ENVIRONMENT, check_ends, run_graph
from edgezo_runtime.system.memory import trim_heap


@dataclass(frozen=True, slots=True)
class LoadedGraph:
    """A session, and the inputs that belong to one place of the model.

    Attributes:
        session: runs the graph.
        held: its weights.
        trainables: name of the tensor by input.
        past: heads and width of earlier keys and values, None if the graph takes none.
        inputs: the other inputs, without those for earlier keys and values.
        by_token: those of them that are (R, S, ...), the hidden states among them.
        output: name of the first output.
        new_only: does a block give keys and values of the new tokens alone, and not of all?
    """

    session: Session
    held: HeldWeights
    trainables: dict[str, str]
    past: tuple[int, int] | None
    inputs: tuple[str, ...]
    by_token: tuple[str, ...]
    output: str
    new_only: bool

    @property
    def weights(self) -> Mapping[str, Any]:
        """Values of the device by input: on the processor views of the mapped file.

        Raises:
            ShortOfMemoryError: the device has no room for them.
        """
        return self.held.values


class LoadedModel:
    """Every graph of a bundle.

    Args:
        bundle: opened bundle.
        device: what runs them, but for the prologue.

    Attributes:
        weights: the mapped file.

    Raises:
        BundleError: a graph or the weights cannot be loaded, or the device cannot run a graph.
        UsageError: the bundle has no graphs for the device.
    """

    def __init__(self, bundle: Bundle, device: Device = CPU) -> None:
        self.bundle = bundle
        self.device = device
        self.weights = WeightsFile(bundle.path(WEIGHTS_FILE))
        self._sessions: dict[str, Session] = {}
        self._scorers: dict[str, LoadedGraph] = {}
        self._lock = threading.Lock()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="edgezo-reader")
        graphs = bundle.manifest.graphs
        # Tables of positions need the precision of the processor, and a GPU need not hold the
        # embedding: the states that it makes of a chunk are smaller.
        self.prologue = self._open(graphs.prologue, CPU)
        self.blocks = [self._open(graph) for graph in runnable(bundle.manifest, device)]
        states = StateGraphs.of(bundle.manifest, device)
        self._rows, self._sum = (
            None if graph is None else self._open(graph) for graph in (states.rows, states.sum)
        )

    def scorer(self, graph: GraphInfo) -> LoadedGraph:
        """One of the two scorers, opened at its first use."""
        with self._lock:
            if graph.file not in self._scorers:
                self._scorers[graph.file] = self._open(graph)
            return self._scorers[graph.file]

    def value(self, array: npt.NDArray[Any]) -> Any:
        """Make a value of the device, on the processor without a copy if it is contiguous.

        Raises:
            ShortOfMemoryError: the device has no room for it.
        """
        return self.device.put(array)

    def held(self, given: Any) -> Any:
        """Make a value of the device of an array; a value stays what it is."""
        return self.value(given) if isinstance(given, np.ndarray) else given

    def array(self, value: Any) -> npt.NDArray[Any]:
        """Make an array of a value of the device, on the processor a view of it."""
        return self.device.fetch(value)

    def packaged(self, name: str) -> Session:
        """A graph that comes with the runtime, opened at its first use.

        Raises:
            UnplacedNodeError: the device cannot run it.
        """
        with self._lock:
            if name not in self._sessions:
                self._sessions[name] = self.device.open(packaged_graph(name))
            return self._sessions[name]

    def rows(self, states: Any, index: npt.NDArray[np.int64]) -> Any:
        """Some rows (M, S, H) of states (R, S, H), which stay on the device."""
        if self._rows is None:
            return self.value(self.array(states)[index])
        feed = {"states": states, "index": self.value(index)}
        return run_graph(self._rows.session, [self._rows.output], feed)[0]

    def sum(self, left: Any, right: Any) -> Any:
        """left + right of values (R, S, H), which stay on the device."""
        if self._sum is None:
            return self.value(self.array(left) + self.array(right))
        return run_graph(self._sum.session, [self._sum.output], {"left": left, "right": right})[0]

    @property
    def kinds(self) -> frozenset[int]:
        """The last block of every kind; blocks of a kind differ in their weights only."""
        last = {id(graph.session): index for index, graph in enumerate(self.blocks)}
        return frozenset(last.values())

    def block_bytes(self, index: int) -> int:
        """Weights of a block."""
        return self.blocks[index].held.size_bytes

    @property
    def vocabulary_bytes(self) -> int:
        """Weights of the scorers that were used so far."""
        return sum(graph.held.size_bytes for graph in self._scorers.values())

    def fetch(self, index: int) -> None:
        """Have a block's weights come while the current ones are used; returns at once.

        On the processor those of experts come when a token has been routed to them.
        """
        self.blocks[index].held.fetch()

    def drop(self, index: int) -> None:
        """Let a block's weights go; they come back when they are touched."""
        self.blocks[index].held.drop()

    def drop_vocabulary(self) -> None:
        """Let the weights of the prologue and of the scorers go."""
        for graph in (self.prologue, *self._scorers.values()):
            graph.held.drop()

    def shrink_arena(self) -> None:
        """Give memory of the arena that is not in use back to the system, as far as it can be.

        A graph has to run for it, which may itself be refused memory.
        """
        with contextlib.suppress(MemoryError):
            self._run_shrinking()
        trim_heap()  # the C library keeps what the arena frees

    def _run_shrinking(self) -> None:
        options = CPU.shrink_options()
        feed = {"input_ids": CPU.put(np.zeros((1, 2), np.int64)), **self.prologue.weights}
        if "attention_mask" in self.prologue.inputs:
            feed["attention_mask"] = CPU.put(np.ones((1, 2), np.int64))
        run_graph(self.prologue.session, ["hidden"], feed, options)

    def _open(self, graph: GraphInfo, device: Device | None = None) -> LoadedGraph:
        device = device or self.device
        session = self._sessions.get(graph.file)
        if session is None:
            session = ENVIRONMENT.open(self.bundle, graph.file, device=device)
            self._sessions[graph.file] = session
        check_ends(session, graph.inputs, graph.outputs, str(self.bundle.root / graph.file))
        inputs = {tensor.name: tensor for tensor in graph.inputs}
        views: dict[str, npt.NDArray[Any]] = {}
        places: list[tuple[int, int]] = []
        ahead: list[tuple[int, int]] = []
        for binding in graph.weights:
            tensor = inputs[binding.input]
            shape = tuple(int(dim) for dim in tensor.shape)
            view = self.weights.view(binding.tensor, tensor.dtype, shape, binding.start)
            views[binding.input] = view
            places.append(self.weights.span(binding.tensor))
            if binding.input not in graph.routed:
                ahead.append(places[-1])
        trainables = {binding.input: binding.tensor for binding in graph.trainables}
        own = {*views, *trainables, *PAST}
        return LoadedGraph(
            session=session,
            held=device.weights(views, FilePages(self.weights, places, ahead, self._reader)),
            trainables=trainables,
            past=graph.past,
            inputs=tuple(name for name in inputs if name not in own),
            by_token=tuple(n for n, t in inputs.items() if t.shape[:2] == ("rows", "tokens")),
            output=graph.outputs[0].name,
            new_only=any(NEW in tensor.shape for tensor in graph.outputs),
        )


class SharedModels:
    """The models that are loaded, so that engines of one bundle run on the same blocks.

    A model goes when the last engine that has it does.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._models: weakref.WeakValueDictionary[tuple[str, str, str], LoadedModel] = (
            weakref.WeakValueDictionary()
        )

    def forget(self) -> None:
        """Forget all models in a forked process: their reader threads run in the parent only."""
        self._lock, self._models = threading.RLock(), weakref.WeakValueDictionary()

    def of(self, bundle: Bundle, device: Device = CPU) -> LoadedModel:
        """The model of a bundle on a device, opened unless it is.

        Raises:
            BundleError: a graph or the weights cannot be loaded, or the device cannot run a graph.
            UsageError: the bundle has no graphs for the device.
        """
        manifest = hashlib.sha256(bundle.manifest.to_json().encode()).hexdigest()
        key = str(bundle.root.resolve()), manifest, device.name
        with self._lock:
            model = self._models.get(key)
            if model is None:
                model = self._models[key] = LoadedModel(bundle, device)
            return model


MODELS = SharedModels()
"""The models of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=MODELS.forget)
