"""Evaluates the steps of a run that learns feedback: pairs first, then local gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.feedback import FeedbackPasses
from edgezo_runtime.engine.feedback_pass import LocalSite, NodeNoise
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.engine.prefix_cache import AnswerCache, PrefixCache
from edgezo_runtime.errors import DivergedError, UsageError
from edgezo_runtime.methods.estimators import Losses, StepInfo
from edgezo_runtime.training.feedback_estimate import LARGEST, error_signals
from edgezo_runtime.training.feedback_inputs import lessened
from edgezo_runtime.training.feedback_layout import FeedbackLayout
from edgezo_runtime.training.feedback_sites import by_block, contrasts, noise_name
from edgezo_runtime.training.feedback_state import SIDES, FeedbackState

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FeedbackResult:
    """The result of the passes of a step.

    Attributes:
        losses: what the record stores: (2 + C - 1, B) for pairs, (1, B) for a gradient.
        extra: further bytes of the record: means and sizes of inputs, or the packed gradient.
        rows: number of rows that the model evaluated.
        shown: leading rows of `losses` that are losses.
    """

    losses: Losses
    extra: bytes
    rows: int
    shown: int


class FeedbackSteps:
    """Evaluates pairs and local gradients.

    Args:
        engine: runs the bundle.
        layout: sites and pairs.
        examples: training data.
        scope: tokens that the adapters act on.
        cached: does the run cache the states of prompts?

    Raises:
        UsageError: the examples have no label words of one token, the scope is not answer, or
            there is no cache.
    """

    def __init__(
        self,
        engine: Engine,
        layout: FeedbackLayout,
        examples: ExampleSet,
        scope: Scope,
        *,
        cached: bool,
    ) -> None:
        if examples.kind != "labels" or scope != "answer":
            raise UsageError(
                "`method` feedback: needs label words of one token each, and adapters that act on "
                "answers (`scope` answer); choose another method for other rows"
            )
        if not cached:
            raise UsageError(
                "`prefix_cache` off: `method` feedback evaluates last tokens on cached prompts; "
                "set `prefix_cache` on, or choose another method"
            )
        self._layout = layout
        self._passes = FeedbackPasses(engine, layout.first_block, mistakes=layout.mistakes)
        self._hidden_size = engine.bundle.manifest.model.hidden_size
        self._names = {site.block: noise_name(site.block) for site in layout.sites}
        taps = by_block(layout.sites, lambda site: site.outputs)
        self._taps = {block: tuple(chain(*own)) for block, own in taps.items()}

    def evaluate(
        self,
        info: StepInfo,
        batch: Batch,
        theta: Mapping[str, Float32],
        state: FeedbackState,
        eps: float,
        cache: AnswerCache | PrefixCache | None,
    ) -> FeedbackResult:
        """Evaluate a step.

        Args:
            info: the step.
            batch: its examples.
            theta: every trainable by name.
            state: what is known of the feedback before the step.
            eps: perturbation of hidden states.
            cache: cache of the run.
        Raises:
            DivergedError: a number is not finite.
        """
        assert isinstance(cache, AnswerCache)
        if state.learning:
            return self._pairs(info, batch, theta, state, eps, cache)
        found = self._passes.gradient(batch, theta, self._sites(batch), cache)
        for name, gradient in found.gradients.items():
            if not np.isfinite(gradient).all():
                raise DivergedError(f"the gradient of '{name}' is not finite; give a smaller `lr`")
        less = {name: lessened(g, state.units[name]) for name, g in found.gradients.items()}
        packed = self._layout.codec.pack(less)
        return FeedbackResult(found.losses[None], packed, batch.num_rows, 1)

    def _pairs(
        self,
        info: StepInfo,
        batch: Batch,
        theta: Mapping[str, Float32],
        state: FeedbackState,
        eps: float,
        cache: AnswerCache,
    ) -> FeedbackResult:
        last = state.completes(batch.num_rows)
        noise = self._noise(info.seed, eps, self._taps if last else {})
        scores, inputs = self._passes.probe(batch, theta, noise, cache)
        plus, minus = scores.astype(np.float64)
        along = contrasts(scores.shape[2]).astype(np.float64)
        differences = ((plus - minus) @ along / (2 * eps)).T
        losses = np.concatenate([example_losses(batch, scores), differences])
        if not (np.isfinite(losses).all() and np.abs(losses).max() <= LARGEST):
            raise DivergedError(
                f"label logits are not finite where hidden states are perturbed by {eps:g}; begin "
                f"a new run with another `eps`"
            )
        extra = b""
        if last:
            sites = self._layout.sites
            own = {site.name_a: inputs[site.block, site.tap] for site in sites}
            slopes = {s.name_b: inputs[s.block, s.slope] for s in sites if s.slope is not None}
            extra = state.pack_inputs(own, slopes)
            state.check_last(info.seed, differences, extra)
        return FeedbackResult(losses, extra, 2 * batch.num_rows, SIDES)

    def _noise(self, seed: int, eps: float, taps: Mapping[int, Sequence[str]]) -> NodeNoise:
        return NodeNoise(seed, (eps, -eps), self._names, taps, self._hidden_size)

    def _sites(self, batch: Batch) -> dict[int, tuple[LocalSite, ...]]:
        classes = 0 if batch.label_ids is None else len(batch.label_ids)
        along = contrasts(classes)
        signals = error_signals(self._layout.sites, along)
        return by_block(
            self._layout.sites,
            lambda site: LocalSite(site.tap, site.name_a, signals[site.name_a]),
        )

    def rehearse(
        self, batch: Batch, cache: AnswerCache | PrefixCache | None, theta: Mapping[str, Float32]
    ) -> None:
        """Run passes of both kinds; the results are meaningless.

        Args:
            batch: the longest rows.
            cache: a cache that stores nothing.
            theta: every trainable by name.
        """
        if isinstance(cache, AnswerCache):
            self._passes.probe(batch, theta, self._noise(0, 1.0, self._taps), cache)
            self._passes.gradient(batch, theta, self._sites(batch), cache)
