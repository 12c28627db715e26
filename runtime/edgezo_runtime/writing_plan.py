"""What of a generation is in memory at once: weights, passes, and keys and values of the texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgezo_runtime.chunks import Limits
from edgezo_runtime.engine import Engine
from edgezo_runtime.errors import DoesNotFitError
from edgezo_runtime.formula import VOCABULARY_CHUNK, bytes_kept_of_token, bytes_of_token
from edgezo_runtime.generator import Generator, Writing, least_rows
from edgezo_runtime.key_values import turnover
from edgezo_runtime.ledger import FAULT_BYTES
from edgezo_runtime.manifest import GraphInfo
from edgezo_runtime.memory import peak_rss_bytes, release_freed, resident_bytes
from edgezo_runtime.plan import RESERVE_SHARE, UNMEASURED, budget_for
from edgezo_runtime.sizes import format_size
from edgezo_runtime.writing_pass import LOGIT_ROWS

_FLOAT = 4


@dataclass(frozen=True, slots=True)
class WritingPlan:
    """How a generation keeps below its budget.

    Attributes:
        budget_bytes: the budget.
        limits: workers and sizes of chunks.
        streamed: blocks that are fetched when their turn comes.
        fixed_bytes: everything but keys and values.
        cache_bytes: what is left for keys and values.
    """

    budget_bytes: int
    limits: Limits
    streamed: frozenset[int]
    fixed_bytes: int
    cache_bytes: int

    def apply(self, generator: Generator) -> None:
        """Have a generator run like this."""
        generator.engine.limits, generator.engine.streamed = self.limits, self.streamed
        generator.cache_bytes = self.cache_bytes


def plan_writing(
    generator: Generator, prompts: Sequence[int], writing: Writing, budget_bytes: int
) -> WritingPlan:
    """Plan the first way to run that fits: resident weights before streamed, large chunks first.

    Args:
        generator: what writes, in the process as it will be.
        prompts: tokens of every prompt.
        writing: how.
        budget_bytes: what the process may take.
    Raises:
        DoesNotFitError: keys and values of one text do not fit beside the rest; with the number of
            tokens that would, and the budget that would do.
    """
    return _Planner(generator, max(prompts), len(prompts), writing, budget_bytes).plan()


def room_beside(engine: Engine) -> int | None:
    """Bytes for keys and values of texts that are written while a run is stepped.

    What the process takes now, steps among it, stays as it is; a reserve is left.

    Returns:
        The room, or None where there is no budget.
    """
    guard = engine.guard
    if guard is None:
        return None
    left = guard.budget_bytes - guard.budget_bytes // RESERVE_SHARE - guard.resident()
    return max(0, int(left / turnover(engine.bundle.manifest.graphs)))


class _Planner:
    """Weighs the ways to run."""

    def __init__(
        self, generator: Generator, prompt: int, texts: int, writing: Writing, budget: int
    ) -> None:
        self._generator = generator
        self._engine = generator.engine
        self._prompt = prompt
        self._texts = texts
        self._new = writing.max_new_tokens
        self._budget = budget
        self._bundle = self._engine.bundle
        self._graphs = self._bundle.manifest.graphs
        release_freed()
        self._base = resident_bytes()
        count = self._engine.num_blocks
        self._blocks = [self._engine.model.block_bytes(index) for index in range(count)]

    def plan(self) -> WritingPlan:
        """The first that fits."""
        start = peak_rss_bytes()
        if start > self._budget:
            raise DoesNotFitError(
                f"budget {format_size(self._budget)}: reading libraries, tokenizer and data alone "
                f"took {format_size(start)}; give --budget '{format_size(start, up=True)}' at least"
            )
        planned = self._budget - self._budget // RESERVE_SHARE
        one = least_rows(self._texts) * self._generator.text_bytes(self._prompt, self._new)
        left = 0
        least: int | None = None
        for limits, streamed in self._candidates():
            fixed = self._fixed(limits, streamed)
            room = int((planned - fixed) / turnover(self._graphs))
            if room >= one:
                return WritingPlan(self._budget, limits, streamed, fixed, room)
            left = max(left, room)
            need = budget_for(fixed + int(one * turnover(self._graphs)))
            least = need if least is None else min(least, need)
        most = self._generator.most_tokens(self._prompt, left, self._texts)
        advice = f", or --max-new-tokens {most}" if most else ""
        raise DoesNotFitError(
            f"budget {format_size(self._budget)}: keys and values of {self._prompt} tokens of "
            f"prompt and {self._new} new ones do not fit beside the rest; give --budget "
            f"'{format_size(least or 0, up=True)}'{advice}"
        )

    def _candidates(self) -> Iterator[tuple[Limits, frozenset[int]]]:
        everything = frozenset(range(self._engine.num_blocks))
        for streamed in (frozenset[int](), everything):
            workers = self._engine.limits.workers
            while workers:
                limits: Limits | None = Limits(workers)
                while limits is not None:
                    yield limits, streamed
                    limits = limits.smaller()
                workers //= 2

    def _fixed(self, limits: Limits, streamed: frozenset[int]) -> int:
        """Bytes of everything but keys and values."""
        if streamed:  # the vocabulary is let go before blocks come
            blocks = min(sum(self._blocks), 2 * max(limits.fetch_bytes, max(self._blocks)))
            weights = max(blocks, self._vocabulary())
        else:
            weights = sum(self._blocks) + self._vocabulary()
        return self._base + weights + self._activations(limits)

    def _vocabulary(self) -> int:
        """Pages of the head, and those of the embedding that it does not share."""
        head, embedding = self._graphs.logits, self._graphs.prologue
        assert head is not None
        own = {b.tensor for b in embedding.weights} - {b.tensor for b in head.weights}
        touched = FAULT_BYTES * self._texts * (self._prompt + self._new)
        rows = min(touched, self._bytes(embedding, own)) if own else 0
        return self._bytes(head, {b.tensor for b in head.weights}) + rows

    def _bytes(self, graph: GraphInfo, tensors: set[str]) -> int:
        spans = {b.tensor: self._engine.model.weights.span(b.tensor) for b in graph.weights}
        return sum(spans[name][1] - spans[name][0] for name in tensors)

    def _activations(self, limits: Limits) -> int:
        """Bytes of passes: chunks of prompts with their keys and values, and logits."""
        model = self._bundle.manifest.model
        row = bytes_kept_of_token(self._bundle) * self._prompt
        rows = max(2, min(LOGIT_ROWS, self._texts))
        head = VOCABULARY_CHUNK * (2 * model.hidden_size + 2 * rows) + 3 * rows * model.vocab_size
        chunk = int(UNMEASURED * limits.chunk_tokens * bytes_of_token(self._bundle))
        return limits.workers * (max(chunk, _FLOAT * head) + row)
