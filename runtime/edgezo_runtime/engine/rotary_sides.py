"""Which rows take which rotary frequencies, in models that have two sets of them.

Such models (Phi-3.5, Phi-4-mini) turn a sequence of more than `ModelInfo.rotary_switch` tokens by
other frequencies, all its tokens. The prologue of their bundles chooses by the tokens of a pass. So
rows of both sides never share a pass, and padding never takes a row to the other side: what a row
computes does not depend on the rows beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.manifest import Manifest
from edgezo_runtime.data.batches import Batch


@dataclass(frozen=True, slots=True)
class RotarySides:
    """The two sides of a switch.

    Attributes:
        switch: tokens of the longest row on the first side; None if there is no other side.
    """

    switch: int | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> RotarySides:
        """Make those of a model; the tokens of a prefix are in front of every row."""
        switch = manifest.model.rotary_switch
        return cls(None if switch is None else max(0, switch - manifest.scheme.prefix_tokens))

    def beyond(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """(B,) is a row on the second side? All rows of an example are where its longest one is."""
        if self.switch is None:
            return np.zeros(batch.num_rows, np.bool_)
        longest = np.zeros(int(batch.row_example.max(initial=-1)) + 1, np.int64)
        np.maximum.at(longest, batch.row_example, batch.lengths)
        return longest[batch.row_example] > self.switch

    def within(self, tokens: int, beyond: bool) -> int:
        """Bring the tokens of a pass to the side of its rows."""
        if self.switch is None:
            return tokens
        return max(tokens, self.switch + 1) if beyond else min(tokens, self.switch)


ONE_SIDE = RotarySides()
"""Of a model with one set of frequencies."""
