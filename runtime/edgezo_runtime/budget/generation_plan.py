"""The plan of a generation: weights and passes, and what is left for keys and values of texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.budget.candidates import Choice, enumerate_choices
from edgezo_runtime.budget.ledger import FAULT_BYTES, budget_for, planned_bytes
from edgezo_runtime.budget.memory_model import VOCABULARY_CHUNK, bytes_kept_of_token, bytes_of_token
from edgezo_runtime.budget.planner import UNMEASURED, Planner, Policy, Rehearsal
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.bundle.manifest_types import GraphInfo
from edgezo_runtime.engine.chunks import Limits
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import DoesNotFitError
from edgezo_runtime.generation.decode_pass import LOGIT_ROWS
from edgezo_runtime.generation.generator import MOST_ROWS, GenerationConfig, Generator, least_rows
from edgezo_runtime.generation.kv_cache import bytes_per_token, past_shapes, room_for, turnover
from edgezo_runtime.system.memory import peak_rss_bytes, release_freed
from edgezo_runtime.system.sizes import format_size

Params = Mapping[str, npt.NDArray[np.float32]]

_FLOAT = 4

_POLICY = Policy(expected=1.0, carried=None, hope=1.0)

_CAREFUL = 1.5
"""Passes over measured ones, where a budget is named: the arena of the next process may be
fragmented in other ways."""


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """How a generation keeps below its budget.

    Attributes:
        budget_bytes: the budget.
        limits: workers and sizes of chunks.
        streamed: blocks that are fetched for each pass and dropped after it.
        fixed_bytes: everything but keys and values.
        cache_bytes: what is left for keys and values.
    """

    budget_bytes: int
    limits: Limits
    streamed: frozenset[int]
    fixed_bytes: int
    cache_bytes: int

    def apply(self, generator: Generator) -> None:
        """Have a generator run as planned."""
        generator.engine.limits, generator.engine.streamed = self.limits, self.streamed
        generator.cache_bytes = self.cache_bytes


def plan_generation(
    generator: Generator,
    prompts: Sequence[int],
    params: Params,
    config: GenerationConfig,
    budget_bytes: int,
    tell: Callable[[int, int], None] = lambda done, most: None,
) -> GenerationPlan:
    """Plan a generation: resident blocks before streamed ones, many workers and large chunks first.

    What passes over prompts take is computed, and then measured on the longest prompts in one block
    of each kind: attention over long prompts takes more than the formula knows of.

    Args:
        generator: generates the texts, in the process as it will be.
        prompts: tokens of every prompt.
        params: every trainable input by name, without the leading axis.
        config: how texts are generated.
        budget_bytes: what the process may take.
        tell: given the rehearsals that are done, and how many there are at most.
    Raises:
        DoesNotFitError: keys and values of one text do not fit; the message names the number of
            tokens that fit, and the budget that is enough.
    """
    workload = GenerationWorkload(generator, prompts, params, config, budget_bytes)
    planner = Planner(workload, tell)
    choice = planner.choose()
    passes = planner.passes(choice)
    return GenerationPlan(
        budget_bytes=budget_bytes,
        limits=choice.limits,
        streamed=choice.streamed,
        fixed_bytes=workload.fixed(choice, passes, planner.base),
        cache_bytes=workload.room(choice, passes, planner.base),
    )


def room_beside(engine: Engine) -> int | None:
    """Bytes for keys and values of texts that are generated between the steps of a run.

    What the process takes now, steps included, stays as it is; the reserve is left.

    Returns:
        The room, or None where there is no budget.
    """
    guard = engine.guard
    if guard is None:
        return None
    left = planned_bytes(guard.budget_bytes) - guard.resident()
    return max(0, int(left / turnover(engine.bundle.manifest.graphs)))


def answer_bytes(bundle: Bundle, tokens: int) -> int:
    """Bytes that a text takes which is generated between the steps of a run.

    They are its keys and values at its longest, the same again of one block at a time, and logits.
    Passes over its prompt take turns with those of steps; what they hold is no more than those do,
    but for the prompt's own states.

    Args:
        bundle: the model.
        tokens: of the prompt and the answer.
    """
    graphs, model = bundle.manifest.graphs, bundle.manifest.model
    states = room_for(tokens, model.max_seq) * bytes_per_token(graphs)
    head = VOCABULARY_CHUNK * (2 * model.hidden_size + 4) + 6 * model.vocab_size
    kept = bytes_kept_of_token(bundle) * tokens
    return math.ceil(states * turnover(graphs)) + _FLOAT * head + kept


class GenerationWorkload:
    """Generation of texts: at least one at a time must fit, or two of several.

    Args:
        generator: generates them.
        prompts: tokens of every prompt.
        params: every trainable input by name, without the leading axis.
        config: how texts are generated.
        budget_bytes: what the process may take.

    Attributes:
        sampled_bytes: None, so that the memory guard stays on in rehearsals.

    Raises:
        DoesNotFitError: the process took more than the budget already.
    """

    policy = _POLICY
    sampled_bytes = None

    def __init__(
        self,
        generator: Generator,
        prompts: Sequence[int],
        params: Params,
        config: GenerationConfig,
        budget_bytes: int,
    ) -> None:
        self.engine = generator.engine
        self.budget_bytes = budget_bytes
        self._generator = generator
        self._params = params
        self._prompt = max(prompts)
        self._texts = len(prompts)
        self._new = config.max_new_tokens
        self._bundle = self.engine.bundle
        self._graphs = self._bundle.manifest.graphs
        self._workers = self.engine.limits.workers
        count = self.engine.num_blocks
        self._blocks = [self.engine.model.block_bytes(index) for index in range(count)]
        release_freed()
        self.start_bytes = peak_rss_bytes()
        if self.start_bytes > budget_bytes:
            raise DoesNotFitError(
                f"budget {format_size(budget_bytes)}: reading libraries, tokenizer and data alone "
                f"took {format_size(self.start_bytes)}; give "
                f"`budget='{format_size(self.start_bytes, up=True)}'` at least"
            )

    # --- predict ---

    def choices(self) -> list[Choice]:
        """The ways to run: resident blocks first, then many workers and large chunks."""
        found = enumerate_choices(self._workers, len(self._blocks), levels=1)
        return sorted(found, key=lambda choice: bool(choice.streamed))

    def computed(self, choice: Choice) -> int:
        """Bytes of passes: chunks of prompts with their keys and values, and logits."""
        model, limits = self._bundle.manifest.model, choice.limits
        row = bytes_kept_of_token(self._bundle) * self._prompt
        rows = max(2, min(LOGIT_ROWS, self._texts))
        head = VOCABULARY_CHUNK * (2 * model.hidden_size + 2 * rows) + 3 * rows * model.vocab_size
        chunk = int(UNMEASURED * limits.chunk_tokens * bytes_of_token(self._bundle))
        return limits.workers * (max(chunk, _FLOAT * head) + row)

    def total(self, choice: Choice, passes: int, base: int) -> int:
        """The predicted peak, with keys and values of as few texts as can be generated at once."""
        states = math.ceil(self.least_bytes * turnover(self._graphs))
        return self.fixed(choice, passes, base) + states

    @property
    def least_bytes(self) -> int:
        """Keys and values of as few texts as can be generated at once."""
        return least_rows(self._texts) * self._generator.text_bytes(self._prompt, self._new)

    def fixed(self, choice: Choice, passes: int, base: int) -> int:
        """Bytes of everything but keys and values; see `Workload.total`."""
        return base + self.weights(choice) + passes

    def room(self, choice: Choice, passes: int, base: int) -> int:
        """Bytes that are left for keys and values; see `Workload.total`."""
        left = planned_bytes(self.budget_bytes) - self.fixed(choice, passes, base)
        return int(left / turnover(self._graphs))

    def weights(self, choice: Choice) -> int:
        """Bytes of blocks and vocabulary that are in memory at once."""
        if choice.streamed:  # the vocabulary is dropped before blocks are fetched
            largest = max(choice.limits.fetch_bytes, max(self._blocks))
            return max(min(sum(self._blocks), 2 * largest), self._vocabulary())
        return sum(self._blocks) + self._vocabulary()

    def _vocabulary(self) -> int:
        """Pages of the head, and those of the embedding that it does not share."""
        head, embedding = self._graphs.logits, self._graphs.prologue
        assert head is not None
        own = {b.tensor for b in embedding.weights} - {b.tensor for b in head.weights}
        touched = FAULT_BYTES * self._texts * (self._prompt + self._new)
        rows = min(touched, self._bytes(embedding, own)) if own else 0
        return self._bytes(head, {b.tensor for b in head.weights}) + rows

    def _bytes(self, graph: GraphInfo, tensors: set[str]) -> int:
        spans = {b.tensor: self.engine.model.weights.span(b.tensor) for b in graph.weights}
        return sum(spans[name][1] - spans[name][0] for name in tensors)

    # --- measure ---

    def rehearsal(self, choice: Choice, base: int) -> Rehearsal:
        """A pass over the longest prompts, as many as fit; their keys and values are not passes."""
        least = least_rows(self._texts)
        each = self._generator.text_bytes(self._prompt, self._new)
        fits = self.room(choice, self.computed(choice), base) // max(1, each)
        rows = max(least, min(MOST_ROWS, self._texts, fits) // least * least)

        def run() -> None:
            self._generator.rehearse(self._prompt, rows, self._params)

        if not self._graphs.continues:
            return Rehearsal(run, 0)
        shapes = past_shapes(self._graphs)
        kept = sum(2 * _FLOAT * shapes[i][0] * shapes[i][1] for i in self.engine.model.kinds)
        return Rehearsal(run, -rows * self._prompt * kept)

    # --- refuse ---

    def refusal(self, planner: Planner, smallest: Choice) -> DoesNotFitError:
        """Name the budget that is enough, and the number of new tokens that fits this one."""
        choices = [choice for choice in self.choices() if not planner.has_failed(choice)]
        rooms = [self.room(choice, planner.passes(choice), planner.base) for choice in choices]
        most = self._generator.most_tokens(self._prompt, max([0, *rooms]), self._texts)
        advice = f", or `max_new_tokens={most}`" if most else ""
        least = max(self._least(planner, smallest), self.budget_bytes + 1)
        return DoesNotFitError(
            f"budget {format_size(self.budget_bytes)}: keys and values of {self._prompt} "
            f"prompt tokens and {self._new} new tokens do not fit; give "
            f"`budget='{format_size(least, up=True)}'`{advice}"
        )

    def _least(self, planner: Planner, smallest: Choice) -> int:
        """The smallest budget that is enough: of the choices that were rehearsed, or of the
        smallest one, which is rehearsed for it without the memory guard."""
        choices = {choice.shape: choice for choice in self.choices()}
        measured = {key: took for key, took in planner.measured.items() if not took.failed}
        if not measured:
            planner.measure(smallest, guarded=False)
            measured = {smallest.shape: planner.measured[smallest.shape]}
        needs = []
        for key, took in measured.items():
            computed = self.computed(choices[key])
            passes = int(UNMEASURED * computed) if took.failed else max(took.passes, computed)
            needs.append(self.total(choices[key], int(_CAREFUL * passes), took.base))
        return budget_for(min(needs))
