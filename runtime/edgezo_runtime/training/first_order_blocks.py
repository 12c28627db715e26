"""First-order steps of the last blocks: their exact gradients.

The blocks before them take zeroth-order steps on the same batch, at the same parameters.

References:
    Zhang et al. 2024, Revisiting Zeroth-Order Optimization for Memory-Efficient LLM Fine-Tuning,
    arXiv:2402.11592: hybrid ZO-FO, first-order steps in the last blocks alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.first_order import FirstOrderGradient, FirstOrderResult
from edgezo_runtime.engine.prefix_cache import AnswerCache, PrefixCache
from edgezo_runtime.errors import DivergedError
from edgezo_runtime.training.first_order_layout import FirstOrderLayout

Float32 = npt.NDArray[np.float32]


class FirstOrderBlocks:
    """Exact gradients of the last blocks.

    Args:
        engine: runs the bundle.
        layout: the tensors that take first-order steps.

    Attributes:
        layout: the same layout.

    Raises:
        UsageError: the bundle has no backward graphs.
    """

    def __init__(self, engine: Engine, layout: FirstOrderLayout) -> None:
        self.layout = layout
        self._gradient = FirstOrderGradient(engine, layout.first_block, tensors=layout.names)

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
        found = self._gradient.gradient(batch, params, scope, cache, cache_block)
        for name, grad in found.gradients.items():
            if not np.isfinite(grad).all():
                raise DivergedError(
                    f"the gradient of '{name}' is not finite; give a smaller `first_order_lr`"
                )
        return found
