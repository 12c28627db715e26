"""Passes over last tokens for learned feedback: node perturbation, and the local gradient.

A `NodeProbePass` perturbs the last tokens' states behind blocks, each sequence along signs of its
own. A `LocalGradientPass` is an unperturbed pass that keeps the inputs of the layers whose adapters
train; with the error at the label logits they make the gradient, without a way back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.engine.answer_pass import AnswerPass
from edgezo_runtime.engine.chunks import Chunk
from edgezo_runtime.engine.first_order_pass import OrderedSums, examples_of
from edgezo_runtime.engine.losses import example_losses, score_gradients
from edgezo_runtime.noise import noise_rows

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NodeNoise:
    """Perturbations of hidden states: scale * z(seed, name, row of the batch).

    Attributes:
        seed: of the noise.
        scales: one per group.
        names: names of the noise, by the block that it is added behind.
        taps: outputs of the same blocks whose size is measured.
        hidden_size: H.
    """

    seed: int
    scales: tuple[float, ...]
    names: Mapping[int, str]
    taps: Mapping[int, str]
    hidden_size: int

    def behind(self, block: int, rows: npt.NDArray[np.int64]) -> Float32:
        """Perturbations (G * len(rows), 1, H) of the states behind a block, groups outermost."""
        shape = (self.hidden_size,)
        z = noise_rows(self.seed, self.names[block], rows.tolist(), shape, kind="rademacher")
        scales = np.array(self.scales, np.float32)[:, None, None]
        perturbed: Float32 = (scales * z[None]).reshape(-1, 1, self.hidden_size)
        return perturbed


class NodeProbePass(AnswerPass):
    """Perturbs the states of last tokens behind blocks; the scores are those of every group.

    Args:
        args: as for `AnswerPass`.
        node_noise: the perturbations.
        sizes: by block, (B,): receives the sum of the absolute values of each row's tap, in the
            first group.
    """

    def __init__(
        self, *args: Any, node_noise: NodeNoise, sizes: Mapping[int, npt.NDArray[np.float64]]
    ) -> None:
        super().__init__(*args)
        self._noise = node_noise
        self._sizes = sizes

    def taps(self, index: int) -> Sequence[str]:
        """The input whose size is measured."""
        return (self._noise.taps[index],) if index in self._noise.taps else ()

    def tapped(self, index: int, chunk: Chunk, values: Sequence[Float32]) -> None:
        """Measure the scored rows of the first group."""
        x = values[0][: len(chunk.positions), 0].astype(np.float64)
        self._sizes[index][chunk.index[: len(x)]] = np.abs(x).sum(axis=1)

    def block(self, index: int, chunk: Chunk) -> None:
        """Take a chunk through a block, then perturb it."""
        super().block(index, chunk)
        if index in self._noise.names and not self.skips(index):
            moved = chunk.hidden.numpy() + self._noise.behind(index, chunk.index)
            chunk.hidden = self._model.value(moved)


@dataclass(frozen=True, slots=True)
class LocalSite:
    """A linear layer whose adapter trains by feedback.

    Attributes:
        tap: output of the block that is the layer's input.
        name: the factor (r, in) of the adapter at that input.
        directions: (C, r) what each row of the factor receives of the error at the label logits.
    """

    tap: str
    name: str
    directions: Float32


class LocalGradientPass(AnswerPass):
    """Makes the gradient at every site from the site's input and the error at the label logits.

    Args:
        args: as for `AnswerPass`.
        sites: by block.
        sums: of the gradients over the parts of the batch.
    """

    def __init__(self, *args: Any, sites: Mapping[int, LocalSite], sums: OrderedSums) -> None:
        super().__init__(*args)
        self._sites = sites
        self._sums = sums

    def wave_bytes(self, chunk: Chunk) -> int:
        """Bytes per sequence, with the inputs that are kept."""
        return super().wave_bytes(chunk) + 4 * sum(map(self._width, self._sites))

    def _width(self, index: int) -> int:
        """in, of the site of a block."""
        outputs = self._manifest.graphs.blocks[index].outputs
        tap = self._sites[index].tap
        return next(int(tensor.shape[-1]) for tensor in outputs if tensor.name == tap)

    def start(self, chunk: Chunk) -> None:
        """Start the chunk; no inputs are kept yet."""
        super().start(chunk)
        chunk.kept = {}

    def block(self, index: int, chunk: Chunk) -> None:
        """Take a chunk through a block; one that is skipped keeps as much as it would."""
        super().block(index, chunk)
        if self.skips(index) and index in self._sites:
            shape = len(chunk.positions), self._width(index)
            chunk.kept[index] = np.ones(shape, np.float32)

    def taps(self, index: int) -> Sequence[str]:
        """The input of the block's layer, if it is a site."""
        return (self._sites[index].tap,) if index in self._sites else ()

    def tapped(self, index: int, chunk: Chunk, values: Sequence[Float32]) -> None:
        """Keep the inputs (T', in) of the scored rows."""
        chunk.kept[index] = values[0][: len(chunk.positions), 0].copy()

    def end(self, chunk: Chunk) -> None:
        """Score, and multiply errors and inputs."""
        kept = chunk.kept
        super().end(chunk)
        scores = chunk.scores[0]
        own = chunk.index[: len(scores)]
        part = examples_of(self.batch, chunk, own)
        error = score_gradients(part, scores)  # (T', C)
        for index, x in kept.items():
            site = self._sites[index]
            self._sums.add(chunk, index, {site.name: (error @ site.directions).T @ x})
        chunk.scores = example_losses(part, scores[None])[0]
