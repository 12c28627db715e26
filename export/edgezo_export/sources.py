"""Where weights come from: a Hugging Face id, a local folder or a .gguf file.

    with open_source("HuggingFaceTB/SmolLM2-135M-Instruct") as source: ...

Tensors are read one at a time as float32; peak memory does not grow with the model.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class TensorReader(Protocol):
    """Read access to the tensors of a checkpoint."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """The whole tensor as float32."""

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows start..stop of the first axis as float32."""
