"""Where the bytes of a run go: the ledger of its parts, and how to measure and count them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from edgezo_runtime.bundle.bundle import WEIGHTS_FILE
from edgezo_runtime.bundle.weights import StoredTensor, read_header
from edgezo_runtime.errors import BundleError
from edgezo_runtime.system.memory import anonymous_bytes

if TYPE_CHECKING:
    from edgezo_runtime.bundle.bundle import Bundle
    from edgezo_runtime.bundle.manifest_types import GraphInfo
    from edgezo_runtime.data.example_set import ExampleSet

FAULT_BYTES = 64 * 1024
"""Reading one row maps the file pages around it as well (Linux's fault-around)."""

SAMPLE_EVERY_S = 0.0005

RESERVE_SHARE = 25
"""The reserve is the budget divided by this number. It covers allocations between two checks of the
memory, and needs that a rehearsal cannot foresee."""


def planned_bytes(budget_bytes: int) -> int:
    """The budget without its reserve."""
    return budget_bytes - budget_bytes // RESERVE_SHARE


def budget_for(total: int) -> int:
    """The budget that a predicted peak just fits."""
    budget = total * RESERVE_SHARE // (RESERVE_SHARE - 1)
    while total > planned_bytes(budget):
        budget += 1
    return budget


@dataclass(frozen=True, slots=True)
class Ledger:
    """Bytes of a run at its peak.

    Attributes:
        process: interpreter and libraries.
        data: tokenizer and rows.
        graphs: opened graphs.
        adapter: trainables, their average, the state of the rule, and a copy to evaluate and keep.
        prologue: pages of the embedding that are read.
        epilogue: pages of the head that are read, without those shared with the embedding.
        blocks: weights of the resident blocks, and of the streamed ones that are there at once.
        activations: what the workers' chunks take in blocks and scorers, and what waits between
            streamed blocks.
        texts: keys and values of generated texts.
        start: peak of the process before it tuned; 0 where that does not matter.
    """

    process: int
    data: int
    graphs: int
    adapter: int
    prologue: int
    epilogue: int
    blocks: int
    activations: int
    texts: int = 0
    start: int = 0

    @property
    def steady(self) -> int:
        """Predicted peak of the run itself."""
        return sum(self.parts().values())

    @property
    def total(self) -> int:
        """Predicted peak of the process."""
        return max(self.start, self.steady)

    def parts(self) -> dict[str, int]:
        """The bytes by name, without `start`."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "start"}


MEANING = {
    "process": "interpreter and libraries",
    "data": "tokenizer and rows",
    "graphs": "opened graphs",
    "adapter": "trainables, average, rule state, the copy that is evaluated",
    "prologue": "embedding, pages of the tokens that occur",
    "epilogue": "head, pages that scoring reads",
    "blocks": "weights of blocks",
    "texts": "keys and values of generated texts",
    "activations": "arena of the passes, measured on this bundle",
}
"""The parts of a ledger, described for people."""


class PeakSampler:
    """Samples the anonymous memory of this process at short intervals; a context manager.

    Args:
        look: reads the memory.
        every_s: time between two samples.

    Attributes:
        peak: the largest sample.
    """

    def __init__(
        self, look: Callable[[], int] = anonymous_bytes, every_s: float = SAMPLE_EVERY_S
    ) -> None:
        self._look = look
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgezo-sampler", daemon=True)
        self.peak = 0

    def __enter__(self) -> Self:
        """Start sampling."""
        self.peak = self._look()
        try:
            self._thread.start()
        except RuntimeError as error:
            raise MemoryError(str(error)) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop sampling."""
        self._over.set()
        self._thread.join()
        self.peak = max(self.peak, self._look())

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self.peak = max(self.peak, self._look())


@dataclass(frozen=True, slots=True)
class VocabularyPages:
    """Bytes of the pages of the embedding and of the head that a run reads.

    Attributes:
        prologue: of the embedding, for all rows.
        prologue_batch: of the embedding, for the rows of one batch.
        epilogue: of the head, without those it shares with the embedding.
        epilogue_whole: of the head.
    """

    prologue: int
    prologue_batch: int
    epilogue: int
    epilogue_whole: int


def vocabulary_pages(
    bundle: Bundle, sets: Sequence[ExampleSet], batch_size: int
) -> VocabularyPages:
    """Count the pages of the embedding and of the head that a run reads.

    Args:
        bundle: the model.
        sets: every set of rows that is evaluated.
        batch_size: examples per batch.
    Raises:
        BundleError: the weights' header cannot be read.
    """
    tensors = read_header(bundle.path(WEIGHTS_FILE))
    vocab_size = bundle.manifest.model.vocab_size
    graphs = bundle.manifest.graphs
    seen = np.unique(np.concatenate([e.tokens for part in sets for e in part]))
    largest = [e.tokens for part in sets for e in sorted(part, key=_size)[-batch_size:]]
    labels = np.array([t for part in sets for word in part.label_tokens for t in word], np.int64)
    by_label = all(part.kind in ("labels", "pairs") for part in sets)

    def touched(graph: GraphInfo, tokens: np.ndarray | None) -> set[int]:
        for binding in graph.weights:
            if binding.tensor not in tensors:
                raise BundleError(
                    f"{bundle.root}: weight {binding.tensor[:80]!r} is not in {WEIGHTS_FILE}; "
                    f"run 'edgezo export --force'"
                )
        return _windows([tensors[b.tensor] for b in graph.weights], vocab_size, tokens)

    head = touched(graphs.score_labels, labels) if by_label else touched(graphs.score_tokens, None)
    embedding = touched(graphs.prologue, seen)
    batch = touched(graphs.prologue, np.unique(np.concatenate(largest)))
    return VocabularyPages(
        prologue=FAULT_BYTES * len(embedding),
        prologue_batch=FAULT_BYTES * len(batch),
        epilogue=FAULT_BYTES * len(head - embedding),
        epilogue_whole=FAULT_BYTES * len(head),
    )


def _size(example: object) -> int:
    return int(example.tokens.size)  # type: ignore[attr-defined]


def _windows(
    tensors: Iterable[StoredTensor], vocab_size: int, tokens: np.ndarray | None
) -> set[int]:
    """Numbers of the windows of the file that are read; `tokens` None reads everything."""
    found: set[int] = set()
    for tensor in tensors:
        by_token = bool(tensor.shape) and tensor.shape[0] == vocab_size
        if tokens is None or not by_token:
            starts = np.array([tensor.offset])
            row = tensor.length
        else:
            row = tensor.length // vocab_size
            starts = tensor.offset + tokens.astype(np.int64) * row
        for start in range(0, row, FAULT_BYTES):
            found.update(((starts + start) // FAULT_BYTES).tolist())
        found.update(((starts + row - 1) // FAULT_BYTES).tolist())
    return found
