"""4-bit codes made block by block, with what the block reads for the calibration rows.

Every block reads what the blocks before it, already quantized, make of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_export.calibration.calibration_graphs import HIDDEN, CalibrationGraphs, TappedBlock
from edgezo_export.calibration.row_states import RowStates
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.quantization.error_compensation import Factor, Moments, compensated_groups
from edgezo_export.quantization.group_codes import GroupCodes, group_size_of
from edgezo_export.quantization.rotation import rotate_rows
from edgezo_export.quantization.tensor_log import TensorLog, states_name
from edgezo_export.quantization.weights_file import read_float32, read_tables
from edgezo_export.quantization.weights_plan import PlannedTensor
from edgezo_export.sources.model_source import TensorReader
from edgezo_runtime.devices.library import keep_quiet
from edgezo_runtime.errors import MissingExtraError
from edgezo_runtime.system.memory import trim_heap

_NUMBERS = 1 << 22
"""Weights of a layer that are rounded at a time, in whole outputs; four copies are in memory."""

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Tell = Callable[[int, int], None]
"""Takes the blocks done and the blocks in all."""


class CalibratedCodes:
    """Makes the codes of a model's layers, in the order of its blocks.

    Args:
        graphs: of the model.
        source: the checkpoint.
        rows: (R, S) int64 token ids.
        group_size: inputs of a group, where the layer allows so many.
        tell: called after every block.
        folder: for the states of the rows.
        log: of the same folder; a killed export goes on at its block with it.
        rotated: the codes are those of rotated weights, as in a bundle.
    Memory:
        The float32 weights of one block; for the inputs of each layer a square float32 matrix per
        part, and three float64 matrices of one part; 64 MB in which weights are rounded. Codes (a
        byte each) take the place of a layer's float32 weights. One row goes through a block at a
        time. Before the first block the 8-bit embedding.
    """

    def __init__(
        self,
        graphs: CalibrationGraphs,
        source: TensorReader,
        rows: npt.NDArray[np.int64],
        group_size: int,
        tell: Tell,
        folder: Path,
        *,
        log: TensorLog | None = None,
        rotated: bool = True,
    ) -> None:
        self._turn: Callable[[Float32], Float32] = rotate_rows if rotated else lambda rows: rows
        self._graphs = graphs
        self._source = source
        self._rows = rows
        self._group_size = group_size
        self._tell = tell
        self._folder = folder
        self._log = log
        self._made: dict[str, dict[tuple[str, ...], GroupCodes]] = {}
        self._running: Iterator[None] | None = None
        self._contents: dict[GraphBuilder, bytes] = {}
        self._sessions: dict[bytes, Any] = {}

    def codes(self, entry: PlannedTensor, size: int) -> Iterator[GroupCodes]:
        """Yield the codes of the layers of a planned linear_int4 in the order of its outputs.

        A layer that runs on two inputs has codes for each: those of the product of the same layers
        are taken, and of the first one where a scheme groups the layers in another way.

        Raises:
            MissingExtraError: onnxruntime is not installed.
            ValueError: a layer is no part of a block, or the groups have another size.
        """
        if self._running is None:
            self._running = self._blocks()
        for source in entry.sources:
            while source not in self._made:
                try:
                    next(self._running)
                except StopIteration:
                    raise ValueError(f"{source}: no block multiplies with it") from None
            products = self._made[source]
            found = products.get(tuple(entry.sources), next(iter(products.values())))
            if found.codes.shape[1] != size * found.multipliers.shape[1]:
                raise ValueError(f"{source}: groups of another size than {size}")
            yield found

    def _blocks(self) -> Iterator[None]:
        blocks = self._graphs.blocks()
        shape = (self._rows.shape[1], self._graphs.hidden_size)
        first = (self._log and self._log.stored_states()) or 0
        context = self._start(None if first else RowStates(self._path(0), shape))
        trim_heap()
        for index in range(first, len(blocks)):
            self._made.clear()
            if self._log is not None and index > first:  # the codes before it are written
                self._log.keep_states(index)
            states, behind = (RowStates(self._path(at), shape) for at in (index, index + 1))
            last = index + 1 == len(blocks)
            self._block(blocks[index], context, states, None if last else behind)
            self._tell(index + 1, len(blocks))
            yield

    def _path(self, block: int) -> Path:
        return self._folder / states_name(block)

    def _block(
        self,
        block: TappedBlock,
        context: list[dict[str, Array]],
        states: RowStates,
        behind: RowStates | None,
    ) -> None:
        """Make the codes of a block, and the states behind it; its weights end with the call."""
        weights = {
            binding.input: read_float32(block.draft.planned[binding.tensor], self._source)
            for binding in block.draft.weights
        }
        factors = self._factors(block, weights, context, states)
        trim_heap()
        self._quantize(block, weights, factors)
        trim_heap()
        if behind is None:
            return
        self._restore(block, weights)
        for row, own in enumerate(context):
            made = self._run(block.draft, weights, states.read(row), own, [HIDDEN])
            behind.write(row, made[0])
            trim_heap()

    def _start(self, states: RowStates | None) -> list[dict[str, Array]]:
        """Run the prologue; return what blocks read besides the states, a row at a time."""
        prologue = self._graphs.prologue()
        tables = read_tables(list(prologue.planned.values()), self._source)
        fixed = {binding.input: tables[binding.tensor] for binding in prologue.weights}
        names = [str(info.name) for info in prologue.info("").outputs]
        context: list[dict[str, Array]] = []
        session = self._session(prologue)
        for row in range(len(self._rows)):
            ids = self._rows[row : row + 1]
            feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)} | fixed
            made = dict(zip(names, _outputs(session, names, feed), strict=True))
            hidden = made.pop("hidden")
            if states is not None:
                states.write(row, hidden)
            context.append(made)
        return context

    def _factors(
        self,
        block: TappedBlock,
        weights: dict[str, Array],
        context: list[dict[str, Array]],
        states: RowStates,
    ) -> dict[tuple[str, ...], list[Factor]]:
        names = list(block.taps)
        moments: dict[tuple[str, ...], Moments] = {}
        for row, own in enumerate(context):
            read = self._run(block.draft, weights, states.read(row), own, names)
            for name, inputs in zip(names, read, strict=True):
                width = inputs.shape[-1]
                own_moments = moments.setdefault(block.taps[name], Moments(width))
                own_moments.add(self._turn(inputs.reshape(-1, width)))
            del read, inputs
            trim_heap()  # which keeps what a pass took, in pieces: 270 MB of 8 billion parameters
        return {sources: moments.pop(sources).factors() for sources in list(moments)}

    def _quantize(
        self,
        block: TappedBlock,
        weights: dict[str, Array],
        factors: dict[tuple[str, ...], list[Factor]],
    ) -> None:
        """Make the codes of a block, which take the place of its weights; `factors` is emptied."""
        inputs = block.inputs
        for sources in list(factors):
            own = factors.pop(sources)
            name = inputs[sources]
            matrix = weights[name]  # (K, N)
            size = group_size_of(len(matrix), self._group_size)
            if size is None:
                continue
            for source, columns in self._columns(sources, len(matrix)):
                parts = []
                for some in _parts(columns, len(matrix)):
                    rotated = self._turn(np.ascontiguousarray(matrix[:, some].T))
                    parts.append(compensated_groups(rotated, size, own))
                self._made.setdefault(source, {})[sources] = _joined(parts)
            del weights[name], matrix

    def _restore(self, block: TappedBlock, weights: dict[str, Array]) -> None:
        """Put what the codes of a block mean in the place of its weights."""
        for sources, name in block.inputs.items():
            if name in weights:
                continue
            made = [self._made[source][sources] for source in sources]
            width = made[0].codes.shape[1]
            weights[name] = np.empty((width, sum(len(own.codes) for own in made)), np.float32)
            columns = (columns for _, columns in self._columns(sources, width))
            for own, place in zip(made, columns, strict=True):
                for some in _parts(place, width):
                    rows = slice(some.start - place.start, some.stop - place.start)
                    weights[name][:, some] = self._turn(own.values(rows)).T

    def _columns(self, sources: tuple[str, ...], width: int) -> Iterator[tuple[str, slice]]:
        """Yield every weight of a product and its columns in the matrix."""
        first = 0
        for source in sources:
            outputs = sum(self._source.shape(source)) - width  # (K, N) or (N, K)
            yield source, slice(first, first + outputs)
            first += outputs

    def _run(
        self,
        draft: GraphBuilder,
        weights: dict[str, Array],
        hidden: Float32,
        context: dict[str, Array],
        names: list[str],
    ) -> list[Array]:
        rows, tokens = hidden.shape[:2]
        one = np.ones((1, 1), np.float32)
        feed = {"hidden": hidden, "code": one, "decode": one} | context | weights
        feed["active"] = np.ones((rows, tokens), np.float32)
        feed["past_lengths"] = np.zeros(rows, np.int32)
        return _outputs(self._session(draft), names, feed)

    def _session(self, draft: GraphBuilder) -> Any:
        if draft not in self._contents:
            self._contents[draft] = draft.serialize()
        content = self._contents[draft]
        if content not in self._sessions:
            self._sessions[content] = _opened(content)
        return self._sessions[content]


def _parts(columns: slice, width: int) -> Iterator[slice]:
    """Divide columns so that a part has at most `_NUMBERS` weights, or one column."""
    step = max(1, _NUMBERS // width)
    for start in range(columns.start, columns.stop, step):
        yield slice(start, min(start + step, columns.stop))


def _joined(parts: list[GroupCodes]) -> GroupCodes:
    return GroupCodes(
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.multipliers for part in parts]),
        np.concatenate([part.scales for part in parts]),
    )


def _outputs(session: Any, names: list[str], feed: dict[str, Array]) -> list[Array]:
    taken = {item.name for item in session.get_inputs()}
    made: list[Array] = session.run(names, {key: feed[key] for key in taken})
    return made


def _opened(content: bytes) -> Any:
    keep_quiet()
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            "codes that are calibrated take onnxruntime; run pip install 'edgezo[cpu,export]', or "
            "export with `calibration_rows=0`"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # An arena keeps what the largest pass took, 1.7 GB of a block of 8 billion parameters.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.disable_prepacking", "1")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
