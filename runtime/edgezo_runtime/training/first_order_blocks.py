"""First-order steps of the last blocks: their exact gradients.

The blocks before them take zeroth-order steps on the same batch, at the same parameters.

References:
    Zhang et al. 2024, Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning,
    arXiv:2402.11592: hybrid ZO-FO, first-order steps in the last blocks alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.carried_error import CarriedError
from edgezo_runtime.engine.carried_error_pass import CarriedSite
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.first_order import FirstOrderGradient, FirstOrderResult
from edgezo_runtime.engine.prefix_cache import AnswerCache, PrefixCache
from edgezo_runtime.errors import DivergedError
from edgezo_runtime.noise import derive_seed
from edgezo_runtime.training.first_order_layout import FirstOrderLayout

Float32 = npt.NDArray[np.float32]

TOKENS_PER_UNKNOWN = 16
"""Tokens that mean derivatives are learned from, for every unknown of a row of them."""

MOST_BATCHES = 64
"""Most batches that they come from."""


class FirstOrderBlocks:
    """Gradients of the last blocks: exact ones, or those of the carried error.

    Args:
        engine: runs the bundle.
        layout: the tensors that take first-order steps.
        carried: sites of the carried error, by block; None for exact gradients.
        batches: batches of the examples that the run began with, by number, which mean derivatives
            are learned from; they stay the same when examples are added, and in a resumed run.
        seed: of the run.

    Attributes:
        layout: the same layout.

    Raises:
        UsageError: the bundle has no backward graphs.
    """

    def __init__(
        self,
        engine: Engine,
        layout: FirstOrderLayout,
        carried: Mapping[int, Sequence[CarriedSite]] | None = None,
        batches: Callable[[int], Batch] | None = None,
        seed: int = 0,
    ) -> None:
        self.layout = layout
        self._engine = engine
        self._batches = batches
        self._seed = seed
        self._carried = None if carried is None else CarriedError(engine, carried)
        self._exact = (
            FirstOrderGradient(engine, layout.first_block, tensors=layout.names)
            if carried is None
            else None
        )

    def gradient(
        self,
        batch: Batch,
        params: Mapping[str, Float32],
        scope: Scope,
        cache: PrefixCache | AnswerCache | None,
        cache_block: int,
    ) -> FirstOrderResult:
        """Losses of a batch, and the gradient of their mean.

        Args:
            batch: the step's examples.
            params: every trainable by name.
            scope: tokens the adapters act on.
            cache: cache of the run; None for none.
            cache_block: the block that cached states enter, not after the first of these blocks.
        Raises:
            DivergedError: a number of the gradient is not finite.
            BudgetStopError: memory is short, and the engine cannot do with less.
        """
        if self._carried is not None:
            if self._engine.sampled is not None:
                self._carried.rehearse(batch, params)
            elif self._carried.probed and not self._carried.carries:
                self._learn(self._carried)
            found = self._carried.gradient(batch, params, scope, cache, cache_block)
        else:
            assert self._exact is not None
            found = self._exact.gradient(batch, params, scope, cache, cache_block)
        setting = "lr" if self._carried is not None else "first_order_lr"
        for name, grad in found.gradients.items():
            if not np.isfinite(grad).all():
                raise DivergedError(
                    f"the gradient of '{name}' is not finite; give a smaller `{setting}`"
                )
        return found

    def _learn(self, carried: CarriedError) -> None:
        """Learn mean derivatives from the first batches, until there are enough tokens."""
        assert self._batches is not None
        taken: list[Batch] = []
        tokens, enough = 0, TOKENS_PER_UNKNOWN * self._engine.bundle.manifest.model.hidden_size
        while tokens < enough and len(taken) < MOST_BATCHES:
            taken.append(self._batches(len(taken)))
            tokens += int(taken[-1].lengths.sum())
        carried.learn(taken, derive_seed(self._seed, "carried"))
