"""A formula for the memory of passes, from the shapes of a bundle and of its rows."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgezo_runtime.budget.candidates import BACK_COST, STREAM_TOKENS
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.bundle.manifest import copy_bytes
from edgezo_runtime.data.batches import Int64Array
from edgezo_runtime.data.heavy_batches import RowSizes
from edgezo_runtime.engine.carried_error import learning_bytes, probed_blocks
from edgezo_runtime.engine.chunks import COPY_BYTES, Limits
from edgezo_runtime.engine.first_order_pass import PART_ANSWERS, PART_TOKENS, answers_of_part
from edgezo_runtime.engine.forward import SCORED_POSITIONS
from edgezo_runtime.engine.prefix_cache import NO_CACHE

if TYPE_CHECKING:
    from edgezo_runtime.data.example_set import ExampleSet
    from edgezo_runtime.training.run import Run

VOCABULARY_CHUNK = 4096
"""Vocabulary entries that an exported token scorer computes at a time."""

TILE_NUMBERS = 2 << 20
"""Numbers of a layer's weights that an exported graph makes ready for a product at a time."""

_FLOAT = 4

_SCORED_BYTES = VOCABULARY_CHUNK * 20 * _FLOAT
"""Bytes of the token scorer for one scored token."""

_CODED = ("int8", "w4")
"""Weights that are multiplied with coded activations."""

_MADE_BYTES = {"w4": 2, "w8": 5, "fp16": 4}
"""Bytes per weight of a layer while its product takes them."""

_KEPT = {"codes8": (1, 4), "codes4": (2, 6), "nf4": (2, 10)}
"""Last part of the name of kept codes -> weights per byte, and bytes per weight made ready: opened
and float32, and for nf4 places in its table and numbers without their scale."""


@dataclass(frozen=True, slots=True)
class BackwardMemoryModel:
    """The memory that the backward pass of a first-order step adds.

    Attributes:
        tokens: tokens of a part of the batch that goes back through a block.
        telling_rows: sequences of two such parts.
        weights: bytes of float32 weights, twice those of the largest tile, and of what they are
            made of.
        kept: bytes of a part's hidden states at the entries of blocks.
        sums: bytes of the gradients, those of a part that waits, and their sums; and of mean
            derivatives.
        parts: most parts of a batch.
        past: bytes of a part's keys and values of earlier tokens, all blocks, float16.
        waiting: bytes that a part holds while it waits: states at the entries of blocks and between
            two blocks, and keys and values of earlier tokens.
        token_bytes: bytes of one earlier token's keys and values, all blocks; 0 where whole rows go
            back.
        learning: bytes of the sums that mean derivatives are learned from, before the first step;
            0 for exact gradients.
    """

    tokens: int
    telling_rows: int
    weights: int
    kept: int
    sums: int
    parts: int
    past: int
    waiting: int
    token_bytes: int = 0
    learning: int = 0

    @classmethod
    def of(cls, run: Run, rows: int, longest: int, *, answers: bool) -> BackwardMemoryModel | None:
        """Read the sizes off a run.

        Args:
            run: the run.
            rows: sequences of a batch.
            longest: tokens of the longest row.
            answers: does the run compute the last token of a row only?
        Returns:
            The sizes, or None where no step is first-order.
        """
        first_order = run.trajectory.layout.first_order
        if first_order is None:
            return None
        engine = run.engine
        of_token = _half_bytes(engine.bundle)
        last = answers_of_part(longest, of_token, rows)
        tokens = last if answers else max(PART_TOKENS, longest)
        numbers = sum(run.state.theta[name].size for name in first_order.names)
        blocks = engine.num_blocks - first_order.first_block
        state = _FLOAT * tokens * engine.bundle.manifest.model.hidden_size
        past = last * longest * of_token if answers else 0
        rows_of_part = last if answers else max(1, PART_TOKENS // longest)
        carried = run.trajectory.layout.carried
        carries = learning = 0
        if carried is not None:
            hidden = engine.bundle.manifest.model.hidden_size
            probed = len(probed_blocks(carried, engine.num_blocks))
            carries, learning = _FLOAT * hidden**2 * probed, learning_bytes(hidden, probed)
        return cls(
            tokens=tokens,
            telling_rows=2 * last if answers else max(2, -(-2 * tokens // longest)),
            weights=2 * _FLOAT * _largest_tile(engine.bundle) + bytes_of_weights(engine.bundle),
            kept=blocks * state,
            sums=numbers * (3 * _FLOAT + 8) + carries,
            parts=-(-rows // rows_of_part),
            past=past,
            waiting=(blocks + 1) * state + past,
            token_bytes=of_token if answers else 0,
            learning=learning,
        )

    def for_rows(self, longest: int) -> BackwardMemoryModel:
        """The same for a batch whose longest row has so many tokens."""
        if self.token_bytes:
            telling = 2 * answers_of_part(longest, self.token_bytes, PART_ANSWERS)
            return dataclasses.replace(self, telling_rows=telling)
        tokens = max(PART_TOKENS, longest)
        return dataclasses.replace(
            self,
            tokens=tokens,
            telling_rows=max(2, -(-2 * tokens // longest)),
            kept=self.kept * tokens // self.tokens,
            waiting=self.waiting * tokens // self.tokens,
        )

    def part_tokens(self, lengths: Int64Array) -> Int64Array:
        """Count the earlier tokens, padded, that parts of last tokens hold.

        Args:
            lengths: (batches, B) tokens of every row.
        Returns:
            (batches, B): a number for each part, and zeros.
        """
        found = np.zeros_like(lengths)
        longest = lengths.max(axis=1)
        rows = lengths.shape[1]
        sizes = np.array([answers_of_part(int(most), self.token_bytes, rows) for most in longest])
        for size in np.unique(sizes):
            own = sizes == size
            for number, start in enumerate(range(0, lengths.shape[1], int(size))):
                part = lengths[own, start : start + int(size)]
                found[own, number] = part.shape[1] * part.max(axis=1)
        return found

    def waves(self, limits: Limits) -> int:
        """Count the waves in which a batch goes through streamed blocks and back."""
        return -(-self.parts // self._together(limits))

    def held(self, limits: Limits, *, streams: bool) -> int:
        """Count the bytes of states that parts hold until they have gone back.

        A worker has one part at a time; where blocks are streamed, all parts of a wave wait.
        """
        if streams:
            return min(self.parts, self._together(limits)) * self.waiting
        return min(limits.workers, self.parts) * self.kept

    def held_states(self, limits: Limits, *, streams: bool) -> int:
        """Count those bytes of `held` that are states: keys and values wait on the host."""
        if streams:
            return min(self.parts, self._together(limits)) * (self.waiting - self.past)
        return min(limits.workers, self.parts) * self.kept

    def rehearsed(self, limits: Limits) -> int:
        """Count the bytes of `held` that a rehearsal in one block of each kind takes at least.

        Parts wait in it as well, each with the states between two blocks.
        """
        return min(self.parts, self._together(limits)) * (self.waiting - self.kept)

    def widened(self, limits: Limits, spare: int) -> Limits:
        """Let as many parts go together as make the fewest waves.

        Args:
            limits: what is in memory at once.
            spare: bytes that the states of more parts may take.
        """
        now = self._together(limits)
        most = min(self.parts, now + spare // self.waiting)
        if most <= now:
            return limits
        waves = -(-self.parts // most)
        together = -(-self.parts // waves)
        if together <= now:
            return limits
        return dataclasses.replace(limits, wave_bytes=together * self.waiting)

    def _together(self, limits: Limits) -> int:
        """Count the parts of a wave, as `Cutter.waves` collects them."""
        return max(limits.workers, limits.wave_bytes // self.waiting)


@dataclass(frozen=True, slots=True)
class MemoryModel:
    """A computed estimate of the memory of passes; a rehearsal measures its error.

    Attributes:
        bytes_per_token: bytes of one token in a block.
        kept_bytes_per_token: bytes that stay in memory for each token of a long row while its other
            segments go through a block: the state, and keys and values before and after the
            attention appended its own; 0 where rows go through blocks as a whole.
        scorer: bytes of the token scorer.
        rows: sequences of a batch.
        longest: tokens of the longest row.
        groups: perturbed copies.
        past: bytes of a chunk's keys and values, over those of its float16 copy.
        past_bytes_per_token: bytes of one token in the float16 copy.
        state_bytes_per_token: bytes of one token between two blocks.
        hidden: bytes of a batch's hidden states.
        copies: bytes of a chunk's copies of a block's trainables, at most.
        weights: bytes of a tile of weights while it is made ready for its product.
        back: the backward pass; None where no step is first-order.
        scored_bytes: bytes of the token scorer for one scored token.
    """

    bytes_per_token: int
    kept_bytes_per_token: int
    scorer: int
    rows: int
    longest: int
    groups: int
    past: float
    past_bytes_per_token: int
    state_bytes_per_token: int
    hidden: int
    copies: int
    weights: int
    back: BackwardMemoryModel | None
    scored_bytes: int = 0

    @classmethod
    def of(cls, run: Run, others: Sequence[ExampleSet], sizes: RowSizes) -> MemoryModel:
        """Read the sizes off a run.

        Args:
            run: the run.
            others: every set of rows that is evaluated.
            sizes: of the rows that steps take.
        """
        bundle = run.engine.bundle
        model = bundle.manifest.model
        groups = run.groups
        virtual = bundle.manifest.scheme.prompt_tokens
        sets = [run.examples, *others]
        evaluated = functools.reduce(
            RowSizes.joined, (RowSizes.of(part, sizes.batch) for part in others), sizes
        )
        longest = virtual + evaluated.longest
        rows = sizes.batch * max(part.sequences_per_example for part in sets)
        scores_tokens = any(part.kind not in ("labels", "pairs") for part in sets)
        cache = run.probes.make_cache(None) if run.config.prefix_cache else None
        answers = (cache or NO_CACHE).last_tokens
        copy = groups * copy_bytes(bundle.manifest)
        return cls(
            bytes_per_token=bytes_of_token(bundle),
            kept_bytes_per_token=bytes_kept_of_token(bundle),
            scorer=(
                _token_scores(groups, evaluated.scored, model.hidden_size) if scores_tokens else 0
            ),
            rows=rows,
            longest=longest,
            groups=groups,
            past=_past_share(bundle, groups) if answers else 0.0,
            past_bytes_per_token=_half_bytes(bundle) if answers else 0,
            state_bytes_per_token=_FLOAT * model.hidden_size,
            hidden=_FLOAT * rows * groups * (1 if answers else longest) * model.hidden_size,
            copies=max(copy, min(COPY_BYTES, rows * copy)),
            weights=bytes_of_weights(bundle),
            back=BackwardMemoryModel.of(run, rows, virtual + sizes.longest, answers=answers),
            scored_bytes=groups * _SCORED_BYTES if scores_tokens else 0,
        )

    def fetches(self, limits: Limits) -> float:
        """Count how often a step fetches each streamed block: once per wave and direction.

        A first-order step takes longer than the pass that `STREAM_COST` is a share of; there a
        fetch counts less in proportion.
        """
        if self.back is None:
            return max(1, -(-self.hidden // limits.wave_bytes))
        work = BACK_COST * self.back.parts * self.back.tokens
        return 2 * self.back.waves(limits) * min(1.0, STREAM_TOKENS / work)

    def for_rows(self, longest: int) -> MemoryModel:
        """The same for a batch whose longest row has so many tokens."""
        back = self.back
        if back is not None:
            back = back.for_rows(longest)
        return dataclasses.replace(self, longest=longest, back=back)

    def rows_at_once(self, limits: Limits, longest: Int64Array) -> Int64Array:
        """Count the rows that the workers take at once where no blocks are streamed.

        Args:
            limits: what is in memory at once.
            longest: (batches,) tokens of the longest row of every batch.
        """
        row = self.groups * longest
        rows = limits.workers * (limits.chunk_tokens // row)
        if self.past_bytes_per_token:
            row = self.past_bytes_per_token * longest
            rows = np.maximum(rows, limits.workers * (limits.past_bytes // row))
        if self.back is not None:
            rows = np.maximum(rows, self.back_workers(limits) * (PART_TOKENS // longest))
        found: Int64Array = np.maximum(rows, limits.workers)
        return found

    def unequal(self, parts: Sequence[int], workers: int) -> float:
        """Count how many times workers take what the one with the largest part takes.

        Args:
            parts: tokens of the parts of a batch that goes back; the earlier ones that they hold,
                where last tokens go back.
            workers: how many go back at once.
        """
        back = self.back
        assert back is not None
        fixed, each = float(back.weights), float(self.bytes_per_token)
        if back.token_bytes:
            fixed, each = fixed + each * back.tokens, self.past * back.token_bytes
        needs = sorted((fixed + each * tokens for tokens in parts), reverse=True)
        return sum(needs[:workers]) / needs[0]

    def telling_rows(self, limits: Limits, *, streams: bool) -> int:
        """Count the rows that take as much as any number of rows.

        With so many, chunks are as full as they get; where blocks are streamed, as many chunks
        wait as may. Short rows are cut so that every worker has two chunks, so more of them tell
        more; long rows are chunks of their own.
        """
        workers = limits.workers if self.longest * self.groups < limits.chunk_tokens else 1
        tokens = 2 * workers * limits.chunk_tokens
        if streams:
            tokens += limits.wave_bytes // self.state_bytes_per_token
        rows = -(-tokens // self.longest)
        if self.past_bytes_per_token:
            row = self.past_bytes_per_token * self.longest
            rows = max(rows, limits.workers * (1 + limits.past_bytes // row))
        return max(rows, workers * (2 if self.back is None else self.back.telling_rows))

    def busy_workers(self, limits: Limits) -> int:
        """Count the workers that have a chunk."""
        return max(1, min(limits.workers, self.rows))

    def back_workers(self, limits: Limits) -> int:
        """Count the workers that have a part of the batch to go back through blocks with."""
        if self.back is None:
            return 0
        return min(limits.workers, self.back.parts)

    def waiting(self, limits: Limits, tokens: int) -> int:
        """Count the bytes of states that wait between streamed blocks, of so many tokens."""
        states = tokens * self.groups * self.state_bytes_per_token
        return min(limits.wave_bytes, self.hidden, states)

    def unsampled(self, limits: Limits, *, streams: bool) -> int:
        """Count the bytes of a step that a rehearsal in one block of each kind does not take."""
        if self.back is None:
            return 0
        held = self.back.held(limits, streams=streams) + self.back.sums
        return max(held, self.back.learning)

    def activations(self, limits: Limits, *, streams: bool) -> int:
        """Count the bytes of all workers' passes."""
        row = self.groups * self.longest
        chunks = -(-self.rows // max(1, limits.chunk_tokens // row))
        workers = min(limits.workers, chunks)
        tokens = limits.chunk_tokens if self.kept_bytes_per_token else max(limits.chunk_tokens, row)
        worker = tokens * self.bytes_per_token + self.scorer + int(self.past * limits.past_bytes)
        worker += self.copies + self.weights
        long = row * self.kept_bytes_per_token if row > limits.chunk_tokens else 0
        waiting = min(limits.wave_bytes, self.hidden) if streams else 0
        if self.back is None:
            return (worker + long) * workers + waiting
        back = max(worker, self.back.tokens * self.bytes_per_token) + self.back.weights + long
        # While parts wait, what they hold of all blocks is counted with them.
        back += int((self.past - streams) * self.back.past)
        back = back * self.back_workers(limits) + self.unsampled(limits, streams=streams)
        return max((worker + long) * workers + waiting, back)


def bytes_of_token(bundle: Bundle) -> int:
    """Count the bytes of a token in a block.

    They are those of the tensors that live at once: the residual stream, its normalized and coded
    copies, and the widest layer's integer result, its float32 form and the gated one.
    """
    model = bundle.manifest.model
    shapes = [t.shape for graph in bundle.manifest.graphs.blocks for t in graph.inputs]
    wide = [
        max(shape) for shape in shapes if len(shape) == 2 and all(isinstance(d, int) for d in shape)
    ]
    widest = max((int(dim) for dim in wide), default=model.hidden_size)
    copies = 4 if bundle.manifest.quant in _CODED else 3
    return (6 * model.hidden_size + copies * widest) * _FLOAT


def bytes_of_weights(bundle: Bundle) -> int:
    """Count the bytes of the largest tile of weights while it is made ready for a product.

    4-bit codes are int8 twice: by halves, and joined. Other weights become float32, those of w8
    from a transposed copy. int8 and float32 weights are multiplied as they lie in the file.
    """
    if bundle.manifest.quant == "keep":
        return max(min(count, TILE_NUMBERS) * made for count, made in _kept_weights(bundle))
    return _MADE_BYTES.get(bundle.manifest.quant, 0) * _largest_tile(bundle)


def _kept_weights(bundle: Bundle) -> Iterator[tuple[int, int]]:
    """Yield the numbers of every matrix of a block, and the bytes that one takes made ready."""
    for graph in bundle.manifest.graphs.blocks:
        weights = {binding.input for binding in graph.weights}
        for tensor in graph.inputs:
            if tensor.name in weights:
                stored = math.prod(dim for dim in tensor.shape if isinstance(dim, int))
                halves = 4 if tensor.dtype == "float16" else 0
                per_byte, made = _KEPT.get(tensor.name.rpartition(".")[2], (1, halves))
                yield stored * per_byte, made


def _largest_tile(bundle: Bundle) -> int:
    """Count the numbers of the largest tile of a block's weights.

    Copies of a weight that trains count once.
    """
    if bundle.manifest.quant == "keep":
        return min(TILE_NUMBERS, max(count for count, _ in _kept_weights(bundle)))
    per_item = 2 if bundle.manifest.quant == "w4" else 1
    graphs = bundle.manifest.graphs.blocks
    weights = {binding.input for graph in graphs for binding in graph.weights}
    largest = max(
        math.prod(dim for dim in t.shape if isinstance(dim, int))
        * (per_item if t.dtype == "uint8" else 1)
        for graph in graphs
        for t in graph.inputs
        if t.name in weights
    )
    return min(largest, TILE_NUMBERS)


def bytes_kept_of_token(bundle: Bundle) -> int:
    """Count the bytes of a token that stay while other segments of its row go through a block.

    They are those of its state, and of keys and values before and after the attention appended its
    own; 0 where rows go through blocks as a whole.
    """
    graphs = bundle.manifest.graphs
    if not graphs.continues:
        return 0
    sizes = [2 * heads * width for heads, width in _past_shapes(bundle)]
    return (bundle.manifest.model.hidden_size + 2 * max(sizes)) * _FLOAT


def _past_shapes(bundle: Bundle) -> list[tuple[int, int]]:
    """Heads and width of the keys and values of every block that takes earlier tokens."""
    return [graph.past for graph in bundle.manifest.graphs.blocks if graph.past is not None]


def _past_share(bundle: Bundle, groups: int) -> float:
    """Bytes of a chunk's keys and values over those of its float16 copy.

    The chunk holds the copy for all blocks, and for one block the float32 form before and after
    the attention appended its own.
    """
    sizes = [2 * heads * width for heads, width in _past_shapes(bundle)]
    return 1 + 4 * groups * max(sizes) / sum(sizes)


def _half_bytes(bundle: Bundle) -> int:
    """Count the bytes of a token's keys and values in all blocks as float16."""
    return 2 * sum(2 * heads * width for heads, width in _past_shapes(bundle))


def _token_scores(groups: int, scored: int, hidden_size: int) -> int:
    """Count the bytes of the token scorer, for rows of so many scored tokens.

    It holds ten chunks of logits and three of the float32 head at once. Logits count twice,
    because their size differs from pass to pass and the arena keeps what it took.
    """
    positions = groups * min(SCORED_POSITIONS, scored)
    return positions * _SCORED_BYTES + VOCABULARY_CHUNK * 3 * hidden_size * _FLOAT
