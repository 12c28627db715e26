"""What a run has learned of its feedback: a function of the records of its pairs alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import DivergedError, RunFileError
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.methods.rules.rule import Slot
from edgezo_runtime.training.feedback_estimate import LARGEST, FeedbackEstimate
from edgezo_runtime.training.feedback_inputs import input_size, mean_inputs, unit_vectors
from edgezo_runtime.training.feedback_layout import FeedbackLayout
from edgezo_runtime.training.feedback_sites import FeedbackSite

Float32 = npt.NDArray[np.float32]

SIDES = 2
"""Rows of a record of pairs that are losses; those below are differences of logits."""

_PREFIX = "#feedback."


class FeedbackState:
    """The estimate of a run.

    Args:
        layout: sites and pairs.
        scale: alpha / rank of the bundle.

    Attributes:
        layout: the same layout.
        estimate: sums over the pairs so far; None before the first one.
        units: by the name of A, the direction (in,) of its mean input; zero before the last pairs.
    """

    def __init__(self, layout: FeedbackLayout, scale: float) -> None:
        self.layout = layout
        self._scale = scale
        self.estimate: FeedbackEstimate | None = None
        self.units = {site.name_a: _zeros(site) for site in layout.sites}

    @property
    def pairs(self) -> int:
        """Pairs so far."""
        return 0 if self.estimate is None else self.estimate.pairs

    @property
    def learning(self) -> bool:
        """Does the next step evaluate pairs?"""
        return self.pairs < self.layout.pairs

    def completes(self, pairs: int) -> bool:
        """Are the next pairs the last ones?"""
        return self.pairs + pairs >= self.layout.pairs

    def extra_bytes(self, record: StepRecord) -> int:
        """Bytes that a record has besides losses: a packed gradient, or means and sizes.

        The last pairs have the means and the sizes of the sites' inputs, and the slopes of norms
        where some lie behind their layers; the others have nothing. It shows in the length of a
        record, so records may be read without those before them.
        """
        if not record.losses.size:
            return 0
        if not self.has_pairs(record):
            return self.layout.codec.nbytes
        own = self.layout.means.nbytes + 4 * len(self.layout.sites) + self.layout.slopes.nbytes
        return own if len(record.extra) > own else 0

    def has_pairs(self, record: StepRecord) -> bool:
        """Is a record one of pairs, not of a gradient?"""
        return len(record.losses) > SIDES

    def pack_inputs(
        self, inputs: Mapping[str, Float32], slopes: Mapping[str, Float32] | None = None
    ) -> bytes:
        """Means, sizes and slopes, as the last pairs have them.

        Args:
            inputs: (B, in), by the name of A.
            slopes: (B, H), by the name of B, of sites with a norm behind their layer.
        """
        packed = self.layout.means.pack(mean_inputs(inputs))
        units = unit_vectors(self.layout.means.unpack(packed))
        sizes = [input_size(inputs[site.name_a], units[site.name_a]) for site in self.layout.sites]
        return packed + np.array(sizes, "<f4").tobytes() + self.layout.slopes.pack(slopes or {})

    def check_last(self, seed: int, differences: npt.NDArray[np.float64], extra: bytes) -> None:
        """Refuse last pairs that no directions follow from, before a record has them.

        Args:
            seed: of the step.
            differences: (C - 1, B) of logits.
            extra: means, sizes and slopes.
        Raises:
            DivergedError: the logits do not answer, or out of all proportion.
        Memory:
            A copy of the estimate.
        """
        count = len(differences)
        known = copy.deepcopy(self.estimate) or FeedbackEstimate(self.layout.sites, count)
        known.add(seed, differences.astype(np.float32).T)
        _, sizes, slopes = self._parts(extra)
        values = np.frombuffer(sizes, "<f4").astype(np.float64).tolist()
        names = [site.name_a for site in self.layout.sites]
        try:
            own = dict(zip(names, values, strict=True))
            known.directions(self._scale, own, self.layout.slopes.unpack(slopes))
        except DivergedError as error:
            raise DivergedError(f"{error}; begin a new run with another `eps`") from error

    def observe(self, record: StepRecord, extra: bytes) -> dict[str, Float32]:
        """Add the pairs of a step.

        Args:
            record: its losses are (2 + C - 1, B): of both sides, then the differences.
            extra: means, sizes and slopes, with the last pairs.
        Returns:
            B of every site, by name, after the last pairs; else nothing.
        Raises:
            RunFileError: the record does not fit the run.
        """
        count = record.losses.shape[0] - SIDES
        known = self.estimate
        if count < 1 or (known is not None and known.squares.size != count):
            raise RunFileError(f"step {record.step} has pairs of {count + 1} classes")
        if np.abs(record.losses[SIDES:]).max() > LARGEST:
            raise RunFileError(f"step {record.step} has impossible differences of logits")
        if known is None:
            known = self.estimate = FeedbackEstimate(self.layout.sites, count)
        known.add(record.seed, record.losses[SIDES:].T)
        if self.learning and not extra:
            return {}
        if self.learning:
            raise RunFileError(f"step {record.step} has means of inputs before the last pairs")
        means, packed, slopes = self._parts(extra)
        sizes = self._sizes(record, packed)
        self.units = unit_vectors(self.layout.means.unpack(means))
        try:
            return known.directions(self._scale, sizes, self.layout.slopes.unpack(slopes))
        except DivergedError as error:
            raise RunFileError(f"step {record.step}: {error}") from error

    def _parts(self, extra: bytes) -> tuple[bytes, bytes, bytes]:
        """Packed means, sizes and slopes."""
        first, last = self.layout.means.nbytes, len(extra) - self.layout.slopes.nbytes
        return extra[:first], extra[first:last], extra[last:]

    def _sizes(self, record: StepRecord, extra: bytes) -> dict[str, float]:
        sizes = np.frombuffer(extra, "<f4").astype(np.float64)
        if len(sizes) != len(self.layout.sites) or not (np.isfinite(sizes) & (sizes >= 0)).all():
            raise RunFileError(f"step {record.step} has impossible sizes of inputs")
        names = [site.name_a for site in self.layout.sites]
        return dict(zip(names, sizes.tolist(), strict=True))

    # --- snapshots ---

    def arrays(self) -> tuple[dict[str, Float32], dict[str, Slot]]:
        """What a snapshot stores: sums, with counts and squares as their slots, and units."""
        theta: dict[str, Float32] = {}
        slots: dict[str, Slot] = {}
        known = self.estimate
        for index, site in enumerate(self.layout.sites):
            name = f"{_PREFIX}{site.name_b}"
            squares = np.zeros(site.rank, np.float64)
            if known is None:
                theta[name] = np.zeros(site.shape_b[::-1], np.float32)
                tally = (0, 0)
            else:
                theta[name] = known.sums[site.name_b]
                for row, column in enumerate(known.shares[index]):
                    squares[row] = known.squares[column]
                tally = (known.pairs, known.squares.size)
            slots[name] = {"squares": squares, "tally": np.array(tally, np.int64)}
            theta[f"{_PREFIX}{site.name_a}"] = self.units[site.name_a]
        return theta, slots

    def restore(self, theta: Mapping[str, Float32], slots: Mapping[str, Slot]) -> None:
        """Take over what `arrays` gave to a snapshot.

        Raises:
            RunFileError: a count is impossible.
        """
        tallies = {
            tuple((slots[f"{_PREFIX}{s.name_b}"] or {})["tally"].tolist())
            for s in self.layout.sites
        }
        pairs, count = tallies.pop()
        if (
            tallies
            or not 0 <= pairs < 2**40
            or not 0 <= count < 2**20
            or (not pairs) != (not count)
        ):
            raise RunFileError(
                "snapshot: counts of pairs are impossible; remove the snapshot, the journal is "
                "enough to resume"
            )
        self.units = {s.name_a: np.array(theta[f"{_PREFIX}{s.name_a}"]) for s in self.layout.sites}
        self.estimate = None
        if not pairs:
            return
        known = self.estimate = FeedbackEstimate(self.layout.sites, count)
        known.pairs = pairs
        for index, site in enumerate(self.layout.sites):
            name = f"{_PREFIX}{site.name_b}"
            known.sums[site.name_b][...] = theta[name]
            slot = slots[name] or {}
            for row, column in enumerate(known.shares[index]):
                known.squares[column] = slot["squares"][row]


def _zeros(site: FeedbackSite) -> Float32:
    return np.zeros(site.shape_a[1:], np.float32)
