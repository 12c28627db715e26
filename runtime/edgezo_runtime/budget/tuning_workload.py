"""A tuning run as the planner's workload: what its steps take, and a rehearsal of one.

What graphs, data and libraries take is measured in the process as it stands. What a pass takes is
measured by a rehearsal on the heaviest batches that the run will make, in one block of each kind; a
formula carries that over to other sizes of chunks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edgezo_runtime.budget.candidates import Choice, enumerate_choices
from edgezo_runtime.budget.generation_plan import answer_bytes
from edgezo_runtime.budget.growth import Growth
from edgezo_runtime.budget.ledger import Ledger, budget_for, vocabulary_pages
from edgezo_runtime.budget.memory_model import BackwardMemoryModel, MemoryModel
from edgezo_runtime.budget.planner import UNMEASURED, Planner, Policy, Rehearsal
from edgezo_runtime.data.batches import Int64Array, heaviest, make_batch
from edgezo_runtime.data.heavy_batches import heaviest_batches, sums_of_largest
from edgezo_runtime.engine.chunks import Limits
from edgezo_runtime.engine.first_order_pass import PART_TOKENS, ExampleCutter
from edgezo_runtime.engine.memory_relief import Reservation
from edgezo_runtime.errors import DoesNotFitError
from edgezo_runtime.system.sizes import format_size

if TYPE_CHECKING:
    from edgezo_runtime.data.example_set import ExampleSet
    from edgezo_runtime.training.run import Run

_CARRIED = 1.1
"""Bytes expected of passes of other sizes, per byte that a rehearsal implies."""

_POLICY = Policy(expected=UNMEASURED, carried=_CARRIED, hope=0.6)

_HOLES = 1 / 12
"""Of what workers take on the way back, for the holes that parts of other lengths leave in the
arena. Within a step on 16 rows of 322 to 512 tokens passes took 243 and 251 MB, 227 without it. In
whole epochs the largest moments of two workers seldom coincide: there an eighth was too much.
Where blocks are streamed, the parts of a wave go block by block, and are about equally long."""

_SHARE = 7 / 8
"""Of the largest computed need of a batch: batches below it are not rehearsed."""

_LEVELS = 8
"""Numbers of streamed blocks that are considered."""


class TuningWorkload:
    """Steps of a tuning run and its evaluations.

    Args:
        run: the run.
        budget_bytes: what the process may take.
        others: sets it is evaluated on.
        eval_batch_size: examples per pass of an evaluation.
        before: bytes of the process before data were read, of the data, and of the peak so far;
            each 0 if unknown.
        answer_tokens: prompt and answer of the longest text that is generated between steps; 0 if
            none are.
    """

    policy = _POLICY

    def __init__(
        self,
        run: Run,
        budget_bytes: int,
        others: Sequence[ExampleSet],
        eval_batch_size: int,
        before: tuple[int, int, int],
        answer_tokens: int = 0,
    ) -> None:
        self.engine = run.engine
        self.budget_bytes = budget_bytes
        self._process, self._data, self.start_bytes = before
        self._run = run
        self._others = others
        self._eval_batch_size = eval_batch_size
        model = self.engine.model
        self.blocks = [model.block_bytes(index) for index in range(self.engine.num_blocks)]
        sets = [run.examples, *others]
        size = max(run.batch_size, eval_batch_size if others else 1)
        self.pages = vocabulary_pages(self.engine.bundle, sets, size)
        self.heavy = run.evaluator.heavy_batches(run.examples)
        self.formula = MemoryModel.of(run, others, self.heavy.sizes)
        longest = max(int(part.lengths().max()) for part in sets)
        theta = run.state.theta.values()
        self._copy_bytes = sum(value.nbytes for value in theta) if others else 0
        self._virtual = self.engine.bundle.manifest.scheme.prompt_tokens
        self._texts = run.evaluator.grant(budget_bytes, longest)
        if answer_tokens:  # at another time than those of a step
            answers = answer_bytes(self.engine.bundle, answer_tokens)
            self._texts = max(self._texts, answers)

    @property
    def sampled_bytes(self) -> int:
        """Weights of one block of each kind, and pages of the vocabulary."""
        sampled = sum(self.blocks[index] for index in self.engine.model.kinds)
        return sampled + self.pages.prologue_batch + self.pages.epilogue_whole

    def choices(self) -> list[Choice]:
        """The ways to run, the fastest first."""
        found = enumerate_choices(
            self.engine.most_workers, len(self.blocks), levels=_LEVELS, fetches=self.formula.fetches
        )
        return sorted(found, key=lambda choice: choice.cost)

    def widened(self, choice: Choice, spare: int) -> tuple[Choice, int]:
        """Let more parts of a first-order step go through streamed blocks together.

        Args:
            choice: how the run goes.
            spare: bytes that its plan leaves.
        Returns:
            The choice with larger waves, so that blocks are read less often, and the bytes that
            they take; the same choice and 0 if there is nothing to gain.
        """
        back = self.formula.back
        if back is None or not choice.streamed or spare <= 0:
            return choice, 0
        limits = back.widened(choice.limits, spare)
        more = back.held(limits, streams=True) - back.held(choice.limits, streams=True)
        return dataclasses.replace(choice, limits=limits), more

    def computed(self, choice: Choice) -> int:
        """Bytes of passes by the formula."""
        return max(1, self.formula.activations(choice.limits, streams=bool(choice.streamed)))

    def total(self, choice: Choice, passes: int, base: int) -> int:
        """The predicted peak of the run, whatever the peak before it was."""
        return self.ledger(choice, passes, base).steady

    def rehearsal(self, choice: Choice, base: int) -> Rehearsal:
        """Evaluations on the heaviest rows, then steps on the heaviest batches of the run.

        One worker at a time computes them, unless texts are generated: those are there once.
        """
        limits, streams = choice.limits, bool(choice.streamed)
        formula, rehearse = self.formula, self._run.evaluator.rehearse
        rows = formula.telling_rows(limits, streams=streams)
        trials: list[Rehearsal] = []
        if self._others:
            waiting = formula.waiting(limits, rows * formula.longest) if streams else 0
            run = partial(
                rehearse,
                self._others,
                self._eval_batch_size,
                max_rows=rows,
                alone=self._alone,
                part="evaluations",
            )
            trials.append(Rehearsal(run, 0, formula.busy_workers(limits), waiting))
        for batch in self.telling_batches(limits, streams=streams):
            trials += self._steps(choice, batch, afresh=len(trials) > bool(self._others))
        return replace(trials[0], others=tuple(trials[1:]))

    @property
    def _alone(self) -> bool:
        return not self._run.probes.objective.has_answers

    def telling_batches(self, limits: Limits, *, streams: bool) -> list[int]:
        """Choose the batches that are rehearsed: no other one of the run takes more.

        Where blocks are streamed, all rows of a batch may wait together; else those count that the
        workers take at once.
        """
        formula, heavy = self.formula, self.heavy
        each = self._run.examples.sequences_per_example
        if streams:
            count: int | Int64Array = heavy.sizes.batch
        else:
            rows = formula.rows_at_once(limits, self._virtual + heavy.longest)
            count = np.maximum(1, rows // each)
        tokens = formula.groups * (self._virtual + heavy.lengths)
        needs = tokens * formula.bytes_per_token + heavy.scored * formula.scored_bytes
        measures = [sums_of_largest(part, count) for part in (heavy.lengths, heavy.scored)]
        total = sums_of_largest(needs, count)
        if formula.back is not None and formula.back.token_bytes and not streams:
            parts = formula.back.part_tokens(self._virtual + heavy.lengths)
            total = sums_of_largest(parts, formula.back_workers(limits))
        return heaviest_batches(total, measures, _SHARE)

    def _steps(self, choice: Choice, batch: int, *, afresh: bool) -> Iterator[Rehearsal]:
        """Steps on a batch: the losses, then the gradient of a first-order step."""
        limits, streams = choice.limits, bool(choice.streamed)
        formula = self.formula.for_rows(self._virtual + int(self.heavy.longest[batch]))
        rows = formula.telling_rows(limits, streams=streams)
        examples = self._run.examples.chosen(self.heavy.indices(batch))
        if formula.back is None or not formula.back.token_bytes:
            count = -(-rows // examples.sequences_per_example)
            examples = examples.chosen(heaviest(examples, count))
        run = partial(self._run.evaluator.rehearse, rows=examples, alone=self._alone)
        extra = formula.unsampled(limits, streams=streams)
        if not self._alone:
            yield Rehearsal(partial(run, part="all"), extra, afresh=afresh)
            return
        tokens = int(examples.sequence_lengths().sum())
        waiting = formula.waiting(limits, tokens) if streams else 0
        yield Rehearsal(
            partial(run, part="losses"),
            0,
            workers=formula.busy_workers(limits),
            shared_bytes=waiting,
            afresh=afresh,
        )
        if formula.back is None:
            return
        parts = self._parts(formula.back, batch)
        workers = min(limits.workers, len(parts))
        waiting = formula.back.rehearsed(limits) if streams else 0
        yield Rehearsal(
            partial(run, part="gradient"),
            extra - waiting,
            workers=workers if streams else formula.unequal(parts, workers),
            shared_bytes=waiting,
            holes=0.0 if streams or len(parts) <= limits.workers else _HOLES,
            afresh=not self._run.probes.layout.blocks,  # else the losses leave theirs
        )

    def _parts(self, back: BackwardMemoryModel, batch: int) -> list[int]:
        """Tokens of the parts in which a batch goes back."""
        if back.token_bytes:
            (tokens,) = back.part_tokens(self._virtual + self.heavy.lengths[batch : batch + 1])
            return [int(count) for count in tokens if count]
        made = make_batch(self._run.examples, self.heavy.indices(batch))
        cutter = ExampleCutter.of(self.engine.bundle.manifest, PART_TOKENS)
        return [part.rows * part.tokens for part in cutter.cut(made)]

    def ledger(self, choice: Choice, passes: int, base: int) -> Ledger:
        """Where the bytes go, at the predicted peak.

        Args:
            choice: how the run goes.
            passes: bytes of passes.
            base: resident bytes of the process besides.
        """
        state = self._run.state.nbytes
        streamed = max(
            sum(self.blocks[index] for index in choice.streamed.intersection(stretch))
            for stretch in choice.limits.stretches(self.blocks, choice.streamed)
        )
        resident = sum(self.blocks) - sum(self.blocks[index] for index in choice.streamed)
        pages = self.pages
        prologue, epilogue = pages.prologue, pages.epilogue
        if choice.streamed:  # the vocabulary is dropped before blocks are fetched
            prologue = max(0, min(prologue, pages.prologue_batch) - streamed)
            epilogue = max(0, pages.epilogue_whole - streamed - prologue)
        known = min(base, self._process + self._data + state)
        return Ledger(
            process=self._process or base - self._data - state,
            data=self._data,
            graphs=base - known if self._process else 0,
            adapter=state + self._copy_bytes,
            prologue=prologue,
            epilogue=epilogue,
            blocks=resident + streamed,
            activations=passes,
            texts=self._texts,
            start=self.start_bytes,
        )

    def growth(self, planner: Planner) -> Growth:
        """What passes take in every way to run, for rows like these and for heavier ones."""
        choices = {(choice.limits, choice.streamed): choice for choice in self.choices()}
        peaks = {way: planner.total(choice) for way, choice in choices.items()}
        return Growth(
            run=self._run,
            others=self._others,
            sizes=self.heavy.sizes,
            carried=_CARRIED,
            passes={way: planner.passes(choice) for way, choice in choices.items()},
            planned=self.formula,
            peaks=peaks,
            reservation=Reservation(planner.anonymous, peaks, self._texts),
        )

    def cache_bytes(self) -> int:
        """Size of the cache on disk."""
        if not self._run.config.prefix_cache:
            return 0
        cache = self._run.probes.make_cache(None, self._run.cache_limit)
        return 0 if cache is None else cache.size_bytes

    def refusal(self, planner: Planner, smallest: Choice) -> DoesNotFitError:
        """Name the smallest budget that is enough, and what would lower it."""
        ledger = self.ledger(smallest, planner.passes(smallest), planner.base)
        least = budget_for(ledger.steady)
        needed = format_size(max(self.start_bytes, least), up=True)
        budget = f"budget {format_size(self.budget_bytes)}"
        if self.start_bytes > least:
            return DoesNotFitError(
                f"{budget}: reading libraries and data alone took "
                f"{format_size(self.start_bytes)}; give `budget='{needed}'`, or fewer rows"
            )
        parts = sorted(ledger.parts().items(), key=lambda part: -part[1])
        largest = ", ".join(f"{name} {format_size(size)}" for name, size in parts[:3])
        return DoesNotFitError(
            f"{budget}: the smallest that is enough is '{needed}', with every block streamed, one "
            f"worker and the smallest chunks ({largest}); give `budget='{needed}'`, or "
            f"{', '.join(self._advice(parts))}"
        )

    def _advice(self, parts: list[tuple[str, int]]) -> Iterator[str]:
        """What would lower the smallest budget, for the largest parts first."""
        quant = self.engine.bundle.manifest.quant
        smaller = {"w4": "a smaller model", "int8": "a w4 bundle or a smaller model"}.get(
            quant, "an int8 or w4 bundle"
        )
        advice = {
            "data": "fewer rows",
            "adapter": "fewer trainables at export (a lower `rank`, another `trainable`)",
            "epilogue": "label words of one token, whose scores need no whole vocabulary",
            "blocks": smaller,
            "activations": "a smaller `max_seq`",
        }
        shown = [advice[name] for name, size in parts if name in advice and size * 20 > parts[0][1]]
        yield from shown or [advice["activations"]]
