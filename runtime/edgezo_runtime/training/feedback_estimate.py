"""The running estimate of how the label logits answer to hidden states, from pairs of passes.

A pair perturbs the states behind all sites at once by eps z and -eps z, z of random signs, and
measures d = (difference of the logits) / (2 eps) = sum_l J_l z_l + terms of third order. Since
E z_l z_l' = I and E z_l z_m' = 0, the mean of z_l d' over pairs is J_l' without bias (node
perturbation), with a variance of E |d|^2 / pairs in every element.

All sums are made in a fixed order, so that a replay has the same bits on every machine.

References:
    Fiete & Seung 2006, Gradient learning in spiking neural networks by dynamic perturbation of
    conductances: node perturbation.
    Akrout et al. 2019, Deep learning without weight transport, arXiv:1904.05391: weight mirrors,
    which learn feedback from noise in the same way, layer by layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import DivergedError
from edgezo_runtime.noise import add_weighted_noise
from edgezo_runtime.training.feedback_sites import FeedbackSite, heard, noise_name, shares
from edgezo_runtime.training.feedback_slopes import reached, undone

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


LARGEST = 1e9
"""No difference of logits per unit of a hidden state is larger."""

_RANGE = 1e-30, 1e30
"""The factors between an estimate and B that float32 can hold."""


class FeedbackEstimate:
    """Sums over pairs, and the directions B that follow from them.

    Args:
        sites: where states are perturbed.
        count: directions of the error, C - 1.

    Attributes:
        pairs: number of pairs so far.
        sums: by the name of B: (r, H) float32, sum of d z' over pairs and over the blocks that
            tell of the site; rows that are not used are zero.
        squares: (C - 1,) float64, sums of d^2.
        shares: the directions that the rows of each site carry.
    """

    def __init__(self, sites: Sequence[FeedbackSite], count: int) -> None:
        self._sites = tuple(sites)
        self.shares = shares(sites, count)
        self._heard = heard(sites)
        self._places = len({site.block for site in sites})
        self.pairs = 0
        self.sums = {site.name_b: np.zeros(site.shape_b[::-1], np.float32) for site in sites}
        self.squares = np.zeros(count, np.float64)

    def add(self, seed: int, differences: Float32) -> None:
        """Add the pairs of a batch.

        Args:
            seed: of the noise z(seed, name of the block's noise, row of the batch).
            differences: (B, C - 1) d of each row, along the contrasts of the label logits.
        """
        coeffs = [differences[:, column].tolist() for column in range(self.squares.size)]
        behind: dict[tuple[int, int], Float32] = {}
        for site, columns, blocks in zip(self._sites, self.shares, self._heard, strict=True):
            for row, column in enumerate(columns):
                own = self.sums[site.name_b][row]
                for block in blocks:
                    if (block, column) not in behind:
                        part = behind[block, column] = np.zeros_like(own)
                        name = noise_name(block)
                        add_weighted_noise(part, seed, name, coeffs[column], kind="rademacher")
                    own += behind[block, column]
        for column in range(self.squares.size):
            self.squares[column] += math.fsum(value * value for value in coeffs[column])
        self.pairs += len(differences)

    def directions(
        self,
        scale: float,
        sizes: Mapping[str, float],
        slopes: Mapping[str, Float32] | None = None,
    ) -> dict[str, Float32]:
        """B of every site, (H, r).

        Column j is the estimated answer of a direction of the logits, with a length such that a
        step of Adam on A is in units of logits: by a step that changes every element of every A by
        lr, in the sign of its input, the logits change by about lr along each direction. With u the
        unit vector of the estimate v, the logits answer to B a = k u a by k |J_l|^2 / |v| a. The
        sum of |J_l|^2 over the N perturbed blocks is E d^2, which is known; n sites carry the
        direction. So k = mean |v| / (E d^2 n / N) / size. Where sites take turns, fewer of them
        make the step, and each a larger one; k times the root of their share keeps that in bounds.

        Where a norm lies behind the layer, k u is what the residual is to change by. B is k u / d
        with d the slope of the norm, less where d is small, so the residual changes by w k u (see
        `feedback_slopes`). Therefore k is divided by v' diag(w) v / |v|^2.

        Args:
            scale: alpha / rank, which the bundle multiplies the product with.
            sizes: by the name of A: the sum of the absolute values of its input, in the mean of
                rows.
            slopes: by the name of B: d (H,), of sites with a norm behind their layer.
        Raises:
            DivergedError: the logits do not answer at all, or out of all proportion.
        """
        lengths = {
            (site.name_b, row): _length(self.sums[site.name_b][row])
            / (max(self.pairs, 1) * len(blocks))
            for site, columns, blocks in zip(self._sites, self.shares, self._heard, strict=True)
            for row in range(len(columns))
        }
        found: dict[str, Float32] = {}
        for site, columns, blocks in zip(self._sites, self.shares, self._heard, strict=True):
            directions = np.zeros(site.shape_b, np.float32)
            for row, column in enumerate(columns):
                length, answer = lengths[site.name_b, row], self.squares[column]
                size = sizes[site.name_a]
                if not (length > 0 and answer > 0 and size > 0):
                    raise DivergedError(
                        f"the label logits do not change where the states behind block "
                        f"{site.block} do; check that the adapters act on the scored tokens"
                    )
                mean = self._mean_length(lengths, column)
                carriers = self._carriers(column)
                answer *= carriers / self._places
                k = mean * self.pairs / answer / size / scale
                k *= math.sqrt(carriers / len(self._sites))
                factor = k / (length * self.pairs * len(blocks))
                if site.slope is not None:
                    inverse, share = undone((slopes or {})[site.name_b])
                    factor /= reached(self.sums[site.name_b][row], share)
                if not _RANGE[0] <= factor <= _RANGE[1]:
                    raise DivergedError(
                        f"the label logits answer to the states behind block {site.block} out of "
                        f"all proportion; give another `eps`"
                    )
                if site.slope is None:
                    directions[:, row] = self.sums[site.name_b][row] * np.float32(factor)
                else:
                    directions[:, row] = self.sums[site.name_b][row] * (factor * inverse)
            found[site.name_b] = directions
        return found

    def _carriers(self, column: int) -> int:
        return sum(column in columns for columns in self.shares)

    def _mean_length(self, lengths: Mapping[tuple[str, int], float], column: int) -> float:
        own = [
            lengths[site.name_b, row]
            for site, columns in zip(self._sites, self.shares, strict=True)
            for row, carried in enumerate(columns)
            if carried == column
        ]
        return math.fsum(own) / len(own)


def _length(values: Float32) -> float:
    """Euclidean length, rounded once."""
    return math.sqrt(math.fsum(value * value for value in values.tolist()))


def error_signals(sites: Sequence[FeedbackSite], contrasts: Float32) -> dict[str, Float32]:
    """What the rows of A receive of the error at the label logits, (C, r), by the name of A."""
    found: dict[str, Float32] = {}
    for site, columns in zip(sites, shares(sites, contrasts.shape[1]), strict=True):
        signal = np.zeros((len(contrasts), site.rank), np.float32)
        for row, column in enumerate(columns):
            signal[:, row] = contrasts[:, column]
        found[site.name_a] = signal
    return found
