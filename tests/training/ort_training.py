"""First-order steps of the last blocks by onnxruntime-training, from artifacts made beforehand.

The gradients are onnxruntime's own, of the model in `training_model.onnx`; they are added over the
parts of a batch, and AdamW takes a step. See `tests.training.training_artifacts`.

No command comes here: `edgezo tune --first-order` goes back through the bundle's backward graphs,
on onnxruntime-training as on any other onnxruntime. This is the reference that the gradients of
those graphs are checked against (tests/training), and for programs that have onnxruntime-training
anyway and want its optimizer and checkpoints. docs/decisions/0013-first-order.md says why.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.chunks import Chunk
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.first_order_pass import PART_TOKENS, ExampleCutter
from edgezo_runtime.engine.forward import WholePass, Work
from edgezo_runtime.engine.params import SharedParams
from edgezo_runtime.errors import MissingExtraError, RunFileError, UsageError

Float32 = npt.NDArray[np.float32]
_PACKAGE = "onnxruntime.training"
_FILES = ("training_model.onnx", "eval_model.onnx", "optimizer_model.onnx", "checkpoint")


def package() -> None:
    """Make the parts of onnxruntime-training importable that do without torch.

    Its package imports torch for optimizers of torch models, which devices do not have; what trains
    on devices needs nothing of it. So the package is entered without running its `__init__`, unless
    it has been imported already.

    Raises:
        MissingExtraError: it is not installed.
    """
    if _PACKAGE in sys.modules:
        return
    found = importlib.util.find_spec("onnxruntime")
    places = [] if found is None else list(found.submodule_search_locations or [])
    folders = [Path(place) / "training" for place in places]
    if not any((folder / "api").is_dir() for folder in folders):
        raise MissingExtraError(
            "onnxruntime-training is not installed; in an environment of its own run "
            "pip install 'edgezo[training]'"
        )
    module = types.ModuleType(_PACKAGE)
    module.__path__ = [str(folder) for folder in folders]
    sys.modules[_PACKAGE] = module


@dataclass(frozen=True, slots=True)
class TrainingFiles:
    """Artifacts in a folder: training, eval and optimizer model, and checkpoint."""

    folder: Path

    @classmethod
    def of(cls, folder: Path) -> TrainingFiles:
        """Check that all are there.

        Raises:
            RunFileError: one is not.
        """
        for name in _FILES:
            if not (folder / name).exists():
                raise RunFileError(f"{folder}: {name} is missing; make the artifacts again")
        return cls(folder)

    def paths(self) -> tuple[str, ...]:
        """Training model, eval model, optimizer model, checkpoint."""
        return tuple(str(self.folder / name) for name in _FILES)


class TrainingTail:
    """The tail of a model that onnxruntime-training tunes, on batches of label words.

    Args:
        engine: runs the blocks before the tail.
        first_block: the tail's first block, as the artifacts were made for.
        files: the artifacts.
        part_tokens: tokens whose gradients are computed together; one example may have more.
    Raises:
        MissingExtraError: onnxruntime-training is not installed.

    Memory:
        The tail's weights in float32, and its activations of one part.
    """

    def __init__(
        self,
        engine: Engine,
        first_block: int,
        files: TrainingFiles,
        part_tokens: int = PART_TOKENS,
    ) -> None:
        package()
        api: Any = importlib.import_module(f"{_PACKAGE}.api")
        training, evaluation, optimizer, checkpoint = files.paths()
        self._state = api.CheckpointState.load_checkpoint(checkpoint)
        self._module = api.Module(training, self._state, evaluation, device="cpu")
        self._optimizer = api.Optimizer(optimizer, self._module)
        self._inputs = tuple(self._module.input_names())
        self._engine = engine
        self._first = first_block
        self._cutter = ExampleCutter.of(engine.bundle.manifest, part_tokens)

    def gradient(
        self, batch: Batch, params: Mapping[str, Float32], scope: Scope = "all"
    ) -> tuple[float, dict[str, Float32]]:
        """Compute the gradient of a batch, and take no step.

        Args:
            batch: examples whose classes are known.
            params: every trainable tensor by name; of the tail's, the result uses its own.
            scope: tokens the adapters act on.
        Returns:
            The mean loss, nats, and its gradient by every tensor that trains, in its own shape.
        Raises:
            UsageError: the batch has no label words.
        """
        loss = self._accumulate(batch, params, scope)
        found = {
            name: parameter.grad[0] / np.float32(batch.num_examples)
            for name, parameter in self._state.parameters
        }
        self._module.lazy_reset_grad()
        return loss, found

    def step(
        self, batch: Batch, params: Mapping[str, Float32], lr: float, scope: Scope = "all"
    ) -> float:
        """Take a step of AdamW by the gradient of the sum of a batch's losses.

        Args:
            batch: examples whose classes are known.
            params: every trainable tensor by name; of the tail's, the step uses its own.
            lr: learning rate.
            scope: tokens the adapters act on.
        Returns:
            The mean loss before the step, nats.
        Raises:
            UsageError: the batch has no label words.
        """
        loss = self._accumulate(batch, params, scope)
        self._optimizer.set_learning_rate(lr)
        self._optimizer.step()
        self._module.lazy_reset_grad()
        return loss

    def values(self) -> dict[str, Float32]:
        """The tensors that train, in their own shapes."""
        return {name: parameter.data[0].copy() for name, parameter in self._state.parameters}

    def _accumulate(self, batch: Batch, params: Mapping[str, Float32], scope: Scope) -> float:
        """Add a batch's gradients up in the module; returns the mean loss."""
        if batch.label_ids is None or (batch.labels < 0).any():
            raise UsageError("training artifacts score label words; give --template and --label")
        self._module.train()
        before = frozenset(range(self._first))
        make = partial(_EntryPass, first_block=self._first, names=self._inputs, scope=scope)
        with self._engine.sampling(before):
            chunks = self._engine.run(batch, SharedParams(params), make, self._cutter.cut)
        total = 0.0
        for chunk in chunks:
            feed = chunk.scores | {
                "label_ids": batch.label_ids,
                "labels": batch.labels[chunk.index],
            }
            total += float(self._module(*(feed[name] for name in self._inputs)))
        return total / batch.num_examples


class _EntryPass(WholePass):
    """Ends with what the tail takes, by name; the blocks of the tail are passed by."""

    def __init__(self, work: Work, *, first_block: int, names: Sequence[str], scope: Scope) -> None:
        super().__init__(work, None, 0, None, 0, scope)
        self._first = first_block
        self._names = names

    def end(self, chunk: Chunk) -> None:
        """Keep copies: a chunk's inputs go when it is through."""
        # Whole sequences follow no earlier tokens; blocks of a tail take pasts of one shape.
        past = self._past(self._first, chunk)
        values = {**chunk.inputs, **past, "hidden": chunk.hidden}
        feed = {name: values[name].numpy().copy() for name in self._names if name in values}
        feed["positions"] = chunk.positions
        chunk.release()
        chunk.scores = feed
