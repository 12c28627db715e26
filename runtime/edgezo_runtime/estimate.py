"""First estimate of a run's peak memory, from the manifest, the weights' shapes and the data.

    peak = process + block weights + vocabulary pages + activations + trainables

It serves to refuse budgets that are plainly too small; what a run really took is on its receipt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgezo_runtime.bundle import WEIGHTS_FILE, Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.engine import CHUNK_TOKENS, PAST_BYTES, SCORED_POSITIONS
from edgezo_runtime.errors import DoesNotFitError
from edgezo_runtime.estimators import ESTIMATORS
from edgezo_runtime.example_set import ExampleSet
from edgezo_runtime.memory import rss_bytes
from edgezo_runtime.scope import choose_scope
from edgezo_runtime.sessions import available_cores, import_onnxruntime
from edgezo_runtime.sizes import format_size
from edgezo_runtime.weights import StoredTensor, read_header

TOLERANCE = 0.2
"""An estimate may be wrong by this share; only a budget below it by more is refused."""

FAULT_BYTES = 64 * 1024
"""A row that is touched brings the file pages around it (Linux's fault-around)."""

SESSION_BYTES = 500_000
"""Heap of an opened graph."""

VOCABULARY_CHUNK = 4096
"""Vocabulary entries that an exported token scorer takes at a time."""

WORKER_SHARE = 1 / 3
"""What a second worker adds to the activations of the first: their peaks rarely coincide."""

_FLOAT = 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes of a run, by what they are for.

    Attributes:
        process: interpreter, libraries, data set and tokenizer.
        weights: frozen weights of the blocks, mapped from the file.
        vocabulary: pages of the embedding and of the head that are touched.
        activations: of the workers' chunks, in a block or in the scorer.
        trainables: parameters, their averages and rule state, and a block's perturbed copies.
        block: weights of the largest block; two of them are resident where blocks are streamed.
    """

    process: int
    weights: int
    vocabulary: int
    activations: int
    trainables: int
    block: int

    @property
    def total(self) -> int:
        """All of them, every block resident."""
        return self._rest + self.weights

    @property
    def streamed(self) -> int:
        """All of them, with two blocks resident at a time."""
        return self._rest + min(self.weights, 2 * self.block)

    def peak(self, budget_bytes: int) -> int:
        """What a run with this budget is estimated to take."""
        return self.streamed if self.must_stream(budget_bytes) else self.total

    @property
    def _rest(self) -> int:
        return self.process + self.vocabulary + self.activations + self.trainables

    def must_stream(self, budget_bytes: int) -> bool:
        """Is the budget too small for all blocks at once?"""
        return budget_bytes < self.total

    def check(self, budget_bytes: int) -> str | None:
        """Compare with a budget.

        Returns:
            A warning where blocks have to be streamed, or where the budget is below the estimate,
            but not by much; else None.
        Raises:
            DoesNotFitError: the budget is plainly too small.
        """
        if not self.must_stream(budget_bytes):
            return None
        needed, given = format_size(self.streamed, up=True), format_size(budget_bytes)
        if budget_bytes >= self.streamed:
            return (
                f"the model is streamed from its file, block by block: with all blocks resident "
                f"the run is estimated to take {format_size(self.total)}"
            )
        if budget_bytes >= self.streamed * (1 - TOLERANCE):
            return f"the run is estimated to take {needed}, more than the budget of {given}"
        raise DoesNotFitError(
            f"budget {given}: the run is estimated to take {needed} with its blocks streamed "
            f"({format_size(self.process)} of it before the model is loaded); give --budget "
            f"'{needed}' or more, {_advice(self)}"
        )


def estimate_run(
    bundle: Bundle,
    examples: ExampleSet,
    config: TuneConfig,
    others: Iterable[ExampleSet] = (),
    threads: int | None = None,
    process_bytes: int | None = None,
) -> Estimate:
    """Estimate the peak of a run.

    Args:
        bundle: the model.
        examples: what it is tuned on.
        config: how.
        others: sets it is evaluated on.
        threads: workers; None is one a core.
        process_bytes: memory of the process with its libraries and data; None measures it now.
    Raises:
        BundleError: the weights' header cannot be read.
    """
    import_onnxruntime()
    process = rss_bytes() if process_bytes is None else process_bytes
    sets = [examples, *others]
    model, graphs = bundle.manifest.model, bundle.manifest.graphs
    tensors = read_header(bundle.path(WEIGHTS_FILE))
    vocabulary = {name for name, t in tensors.items() if model.vocab_size in t.shape}
    matrices = [t.shape for name, t in tensors.items() if name not in vocabulary]
    widest = max((max(s) for s in matrices if len(s) == 2), default=model.hidden_size)
    groups = len(next(ESTIMATORS[config.method](config.eps)(0, config.batch_size)))
    longest = max(int(part.lengths().max()) for part in sets)
    rows = config.batch_size * max(part.sequences_per_example for part in sets)
    tokens = CHUNK_TOKENS if graphs.continues else max(CHUNK_TOKENS, groups * longest)
    chunk = _block(bundle, tokens, longest, widest) + _long_row(bundle, groups * longest)
    if any(part.kind != "labels" for part in sets):
        chunk += _token_scores(groups * min(SCORED_POSITIONS, longest), model.hidden_size)
    chunk += _past(bundle, config, examples, groups)
    workers = threads or available_cores()
    files = {graph.file for _, graph in graphs.named()}
    return Estimate(
        process=process + SESSION_BYTES * len(files),
        weights=sum(t.length for name, t in tensors.items() if name not in vocabulary),
        vocabulary=_touched(sets, [tensors[name] for name in vocabulary], model.vocab_size),
        activations=int(chunk * (1 + WORKER_SHARE * (workers - 1))),
        trainables=_trainables(bundle, config, groups * rows),
        block=_largest_block(bundle, tensors),
    )


def _largest_block(bundle: Bundle, tensors: Mapping[str, StoredTensor]) -> int:
    sizes = [
        sum(
            tensors[binding.tensor].length for binding in graph.weights if binding.tensor in tensors
        )
        for graph in bundle.manifest.graphs.blocks
    ]
    return max(sizes)


def _block(bundle: Bundle, tokens: int, longest: int, widest: int) -> int:
    """Tensors that live at once in a block: the residual stream and its normalized and coded
    copies, and the widest layer's integer result, its float32 form and the gated one."""
    model = bundle.manifest.model
    copies = 4 if bundle.manifest.quant == "int8" else 3
    linear = tokens * (6 * model.hidden_size + copies * widest) * _FLOAT
    heads = bundle.manifest.base_config.get("num_attention_heads")
    attention = tokens * longest * (heads if isinstance(heads, int) else 1) * _FLOAT
    return linear + attention


def _long_row(bundle: Bundle, tokens: int) -> int:
    """What is kept of all tokens while pieces of them go through a block: their states and, before
    and after the attention added its own, keys and values."""
    model, blocks = bundle.manifest.model, bundle.manifest.graphs.blocks
    if tokens <= CHUNK_TOKENS:
        return 0
    sizes = [2 * heads * width for heads, width in filter(None, (graph.past for graph in blocks))]
    return tokens * (model.hidden_size + 2 * max(sizes, default=0)) * _FLOAT


def _past(bundle: Bundle, config: TuneConfig, examples: ExampleSet, groups: int) -> int:
    """Earlier keys and values that a chunk of last tokens holds: of all blocks as float16, and of
    one block in float32, before and after the attention added its own."""
    graphs = bundle.manifest.graphs
    scope = choose_scope(config.scope, examples, graphs.continues)
    if scope == "all" or not config.prefix_cache:
        return 0
    shapes = [graph.past for graph in graphs.blocks if graph.past is not None]
    sizes = [2 * heads * width for heads, width in shapes]
    if examples.kind != "labels" or not sizes:
        return 0
    tokens = config.batch_size * int(examples.lengths().max())
    return (
        min(PAST_BYTES, 2 * tokens * sum(sizes))
        * (sum(sizes) + 4 * groups * max(sizes))
        // sum(sizes)
    )


def _token_scores(positions: int, hidden_size: int) -> int:
    """The token scorer: some ten pieces of logits and three of the float32 head at once, and the
    logits twice, because their size differs from pass to pass and the arena keeps what it took."""
    return VOCABULARY_CHUNK * (20 * positions + 3 * hidden_size) * _FLOAT


def _trainables(bundle: Bundle, config: TuneConfig, copies: int) -> int:
    infos = bundle.manifest.trainables
    sizes = [(info.block, int(np.prod(info.shape)) * _FLOAT) for info in infos]
    total = sum(size for _, size in sizes)
    by_block = {block: sum(s for b, s in sizes if b == block) for block, _ in sizes}
    state = {"adam": 2, "momentum": 1}.get(config.rule, 0)
    kept = (3 + state) * total  # initial values, parameters, running average
    return kept + 2 * copies * max(by_block.values(), default=0)


def _touched(sets: list[ExampleSet], matrices: list[StoredTensor], vocab_size: int) -> int:
    """Pages of the vocabulary's matrices: around every token that occurs, or all of them where
    the head scores tokens."""
    whole = sum(matrix.length for matrix in matrices)
    if any(part.kind != "labels" for part in sets):
        return whole
    seen = np.zeros(vocab_size, bool)
    for part in sets:
        for example in part:
            seen[example.tokens] = True
    return min(whole, int(seen.sum()) * FAULT_BYTES * len(matrices))


def _advice(estimate: Estimate) -> str:
    if estimate.activations > estimate.weights + estimate.vocabulary:
        return "or lower --max-seq or --threads"
    return "or take a smaller model or an int8 bundle"
