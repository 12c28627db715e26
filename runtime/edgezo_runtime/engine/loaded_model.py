"""A bundle's graphs opened, with the weights of each at hand.

Blocks that differ in their weights only share a session. Weights are pages of one mapped file: they
are resident once touched, and can be dropped and fetched ahead block by block.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.bundle import WEIGHTS_FILE, Bundle
from edgezo_runtime.bundle.manifest_types import PAST, GraphInfo
from edgezo_runtime.bundle.weights import WeightsFile
from edgezo_runtime.engine.sessions import ENVIRONMENT, check_ends, import_onnxruntime, run_graph
from edgezo_runtime.engine.unfused_graphs import runnable
from edgezo_runtime.system.memory import trim_heap

if TYPE_CHECKING:
    import onnxruntime


@dataclass(frozen=True, slots=True)
class LoadedGraph:
    """A session, and the inputs that belong to one place of the model.

    Attributes:
        session: runs the graph.
        weights: OrtValues by input, views of the mapped file.
        trainables: name of the tensor by input.
        past: heads and width of earlier keys and values, None if the graph takes none.
        inputs: the other inputs, without those for earlier keys and values.
        by_token: those of them that are (R, S, ...), the hidden states among them.
        output: name of the first output.
        pages: where its weights lie in the file, (first byte, end) of each stretch.
        ahead: the same of the weights that every pass reads, whatever is routed where.
    """

    session: onnxruntime.InferenceSession
    weights: dict[str, Any]
    trainables: dict[str, str]
    past: tuple[int, int] | None
    inputs: tuple[str, ...]
    by_token: tuple[str, ...]
    output: str
    pages: tuple[tuple[int, int], ...]
    ahead: tuple[tuple[int, int], ...]


class LoadedModel:
    """Every graph of a bundle.

    Args:
        bundle: opened bundle.

    Attributes:
        weights: the mapped file.

    Raises:
        BundleError: a graph or the weights cannot be loaded.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._ort = import_onnxruntime()
        self.weights = WeightsFile(bundle.path(WEIGHTS_FILE))
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._scorers: dict[str, LoadedGraph] = {}
        self._lock = threading.Lock()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="edgezo-reader")
        graphs = bundle.manifest.graphs
        self.prologue = self._open(graphs.prologue)
        self.blocks = [self._open(runnable(bundle.manifest, graph)) for graph in graphs.blocks]

    def scorer(self, graph: GraphInfo) -> LoadedGraph:
        """One of the two scorers, opened at its first use."""
        with self._lock:
            if graph.file not in self._scorers:
                self._scorers[graph.file] = self._open(graph)
            return self._scorers[graph.file]

    def value(self, array: npt.NDArray[Any]) -> Any:
        """An OrtValue of the array, which is not copied if it is contiguous."""
        return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))

    @property
    def kinds(self) -> frozenset[int]:
        """The last block of every kind; blocks of a kind differ in their weights only."""
        last = {id(graph.session): index for index, graph in enumerate(self.blocks)}
        return frozenset(last.values())

    def block_bytes(self, index: int) -> int:
        """Weights of a block."""
        return sum(end - start for start, end in self.blocks[index].pages)

    def fetch(self, index: int) -> None:
        """Have the system read a block's weights ahead; returns at once.

        Those of experts are read when a token has been routed to them.
        """
        with contextlib.suppress(RuntimeError):  # no thread to be had: the pages come when touched
            for start, end in self.blocks[index].ahead:
                self._reader.submit(self.weights.fetch, start, end)

    def drop(self, index: int) -> None:
        """Let a block's weights go; they come back from the file when they are touched."""
        for start, end in self.blocks[index].pages:
            self.weights.drop(start, end)

    def drop_vocabulary(self) -> None:
        """Let the weights of the prologue and of the scorers go."""
        for graph in (self.prologue, *self._scorers.values()):
            for start, end in graph.pages:
                self.weights.drop(start, end)

    def shrink_arena(self) -> None:
        """Give memory of the arena that is not in use back to the system, as far as it can be.

        A graph has to run for it, which may itself be refused memory.
        """
        with contextlib.suppress(MemoryError):
            self._run_shrinking()
        trim_heap()  # the C library keeps what the arena frees

    def _run_shrinking(self) -> None:
        options = self._ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        feed = {"input_ids": self.value(np.zeros((1, 2), np.int64))} | self.prologue.weights
        if "attention_mask" in self.prologue.inputs:
            feed["attention_mask"] = self.value(np.ones((1, 2), np.int64))
        run_graph(self.prologue.session, ["hidden"], feed, options)

    def _open(self, graph: GraphInfo) -> LoadedGraph:
        session = self._sessions.get(graph.file)
        if session is None:
            session = self._sessions[graph.file] = ENVIRONMENT.open(self.bundle, graph.file)
        check_ends(session, graph.inputs, graph.outputs, str(self.bundle.root / graph.file))
        inputs = {tensor.name: tensor for tensor in graph.inputs}
        weights: dict[str, Any] = {}
        places: list[tuple[int, int]] = []
        ahead: list[tuple[int, int]] = []
        for binding in graph.weights:
            tensor = inputs[binding.input]
            shape = tuple(int(dim) for dim in tensor.shape)
            view = self.weights.view(binding.tensor, tensor.dtype, shape, binding.start)
            weights[binding.input] = self._ort.OrtValue.ortvalue_from_numpy(view)
            places.append(self.weights.span(binding.tensor))
            if binding.input not in graph.routed:
                ahead.append(places[-1])
        trainables = {binding.input: binding.tensor for binding in graph.trainables}
        own = {*weights, *trainables, *PAST}
        return LoadedGraph(
            session=session,
            weights=weights,
            trainables=trainables,
            past=graph.past,
            inputs=tuple(name for name in inputs if name not in own),
            by_token=tuple(n for n, t in inputs.items() if t.shape[:2] == ("rows", "tokens")),
            output=graph.outputs[0].name,
            pages=_merged(places),
            ahead=_merged(ahead),
        )


class SharedModels:
    """The models that are loaded, so that engines of one bundle run on the same blocks.

    A model goes when the last engine that has it does.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._models: weakref.WeakValueDictionary[tuple[str, str], LoadedModel] = (
            weakref.WeakValueDictionary()
        )

    def forget(self) -> None:
        """Forget all models in a forked process: their reader threads run in the parent only."""
        self._lock, self._models = threading.RLock(), weakref.WeakValueDictionary()

    def of(self, bundle: Bundle) -> LoadedModel:
        """The model of a bundle, opened unless it is.

        Raises:
            BundleError: a graph or the weights cannot be loaded.
        """
        manifest = hashlib.sha256(bundle.manifest.to_json().encode()).hexdigest()
        key = str(bundle.root.resolve()), manifest
        with self._lock:
            model = self._models.get(key)
            if model is None:
                model = self._models[key] = LoadedModel(bundle)
            return model


MODELS = SharedModels()
"""The models of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=MODELS.forget)


def _merged(spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Spans in order; those less than a page apart are one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start - merged[-1][1] < mmap.PAGESIZE:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return tuple(merged)
