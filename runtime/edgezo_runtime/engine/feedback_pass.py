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
from edgezo_runtime.engine.losses import example_losses, expected_mistakes, score_gradients
from edgezo_runtime.noise import noise_rows

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NodeNoise:
    """Perturbations of hidden states: scale * z(seed, name, row of the batch).

    Attributes:
        seed: of the noise.
        scales: one per group.
        names: names of the noise, by the block that it is added behind.
        taps: outputs of the same blocks that are kept.
        hidden_size: H.
    """

    seed: int
    scales: tuple[float, ...]
    names: Mapping[int, str]
    taps: Mapping[int, Sequence[str]]
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
        kept: by block and tap, (B, in): receives each row's tap, in the first group.
    """

    def __init__(
        self, *args: Any, node_noise: NodeNoise, kept: Mapping[tuple[int, str], Float32]
    ) -> None:
        super().__init__(*args)
        self._noise = node_noise
        self._kept = kept

    def taps(self, index: int) -> Sequence[str]:
        """The inputs that are kept."""
        return self._noise.taps.get(index, ())

    def tapped(self, index: int, chunk: Chunk, values: Sequence[Float32]) -> None:
        """Keep the scored rows of the first group."""
        for tap, value in zip(self._noise.taps[index], values, strict=True):
            x = value[: len(chunk.positions), 0]
            self._kept[index, tap][chunk.index[: len(x)]] = x

    def block(self, index: int, chunk: Chunk) -> None:
        """Take a chunk through a block, then perturb it."""
        super().block(index, chunk)
        if index in self._noise.names and not self.skips(index):
            moved = self._model.array(chunk.hidden) + self._noise.behind(index, chunk.index)
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
        sites: by block, in its order.
        sums: of the gradients over the parts of the batch.
        mistakes: take the expected share of wrong answers as the loss.
    """

    def __init__(
        self,
        *args: Any,
        sites: Mapping[int, Sequence[LocalSite]],
        sums: OrderedSums,
        mistakes: bool = False,
    ) -> None:
        super().__init__(*args)
        self._mistakes = mistakes
        self._sites = sites
        self._sums = sums

    def wave_bytes(self, chunk: Chunk) -> int:
        """Bytes per sequence, with the inputs that are kept."""
        return super().wave_bytes(chunk) + 4 * sum(sum(self._widths(own)) for own in self._sites)

    def _widths(self, index: int) -> list[int]:
        """in, of the sites of a block."""
        outputs = self._manifest.graphs.blocks[index].outputs
        widths = {tensor.name: int(tensor.shape[-1]) for tensor in outputs}
        return [widths[site.tap] for site in self._sites[index]]

    def start(self, chunk: Chunk) -> None:
        """Start the chunk; no inputs are kept yet."""
        super().start(chunk)
        chunk.kept = {}

    def block(self, index: int, chunk: Chunk) -> None:
        """Take a chunk through a block; one that is skipped keeps as much as it would."""
        super().block(index, chunk)
        if self.skips(index) and index in self._sites:
            rows = len(chunk.positions)
            chunk.kept[index] = [np.ones((rows, own), np.float32) for own in self._widths(index)]

    def taps(self, index: int) -> Sequence[str]:
        """The inputs of the block's layers that are sites."""
        return [site.tap for site in self._sites.get(index, ())]

    def tapped(self, index: int, chunk: Chunk, values: Sequence[Float32]) -> None:
        """Keep the inputs (T', in) of the scored rows."""
        chunk.kept[index] = [value[: len(chunk.positions), 0].copy() for value in values]

    def end(self, chunk: Chunk) -> None:
        """Score, and multiply errors and inputs."""
        kept = chunk.kept
        super().end(chunk)
        scores = chunk.scores[0]
        own = chunk.index[: len(scores)]
        part = examples_of(self.batch, chunk, own)
        losses, error = example_losses(part, scores[None])[0], score_gradients(part, scores)
        if self._mistakes:
            losses, error = expected_mistakes(losses, error)
        for index, inputs in kept.items():
            sites = self._sites[index]
            made = {
                site.name: (error @ site.directions).T @ x
                for site, x in zip(sites, inputs, strict=True)
            }
            self._sums.add(chunk, index, made)
        chunk.scores = losses
