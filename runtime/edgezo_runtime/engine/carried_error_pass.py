"""Passes over whole sequences whose error is carried back along the residual stream.

A `BlockProbePass` perturbs what enters the last blocks and measures what comes out: that is how the
mean derivative of a block is learned. A `CarriedErrorPass` scores, makes the exact error at the
last hidden states from the scorer, and multiplies it with the inputs of layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.engine.chunks import Chunk
from edgezo_runtime.engine.first_order_pass import OrderedSums, WayBack, WholeFirstOrderPass
from edgezo_runtime.engine.forward import BlockInputs, WholePass
from edgezo_runtime.engine.loaded_model import LoadedGraph
from edgezo_runtime.noise import noise_rows

Float32 = npt.NDArray[np.float32]

IN_IN, IN_OUT = "in-in", "in-out"
"""Sums over tokens: of a change at the entry with itself, and with the change that a block adds."""


@dataclass(frozen=True, slots=True)
class EntryNoise:
    """Perturbations of what enters blocks: +-share * rms of the token's state * z.

    Attributes:
        seed: of the noise; every token of every row has signs of its own.
        share: of the size of a state, above zero.
        blocks: whose entries are perturbed.
        tokens: tokens of the longest row.
        hidden_size: H.
    """

    seed: int
    share: float
    blocks: tuple[int, ...]
    tokens: int
    hidden_size: int

    def signs(self, block: int, rows: npt.NDArray[np.int64], tokens: int) -> Float32:
        """Signs (len(rows), tokens, H); none where a row is filled beyond the longest one."""
        found = np.zeros((len(rows), tokens, self.hidden_size), np.float32)
        shape = self.tokens, self.hidden_size
        made = noise_rows(self.seed, f"entry.{block}", rows.tolist(), shape, kind="rademacher")
        count = min(tokens, self.tokens)
        found[:, :count] = made[:, :count]
        return found


class BlockProbePass(WholePass):
    """Perturbs the entries of blocks in two groups, and sums how the blocks answer.

    Args:
        args: as for `WholePass`; two groups, the first active block is the first perturbed one.
        entries: the perturbations.
        sums: receives, by block, the sums `in-in` and `in-out`, (H, H), over the tokens.
    """

    def __init__(self, *args: Any, entries: EntryNoise, sums: OrderedSums) -> None:
        super().__init__(*args)
        self._entries = entries
        self._sums = sums

    def start(self, chunk: Chunk) -> None:
        """Start the chunk; nothing is measured yet."""
        super().start(chunk)
        chunk.kept = None

    def enter(self, index: int, chunk: Chunk) -> BlockInputs:
        """Perturb what enters a block, and keep half the difference of the two groups."""
        inputs = super().enter(index, chunk)
        if index in self._entries.blocks and not self.skips(index):
            states = self._model.array(chunk.hidden).copy()
            plus, minus = states[: chunk.rows], states[chunk.rows :]
            size = np.sqrt(np.mean(np.square(plus, dtype=np.float64), axis=2, keepdims=True))
            unit = np.maximum(self._entries.share * size, 1e-30).astype(np.float32)
            moved = unit * self._entries.signs(index, chunk.index, chunk.tokens)
            plus += moved
            minus -= moved
            chunk.hidden = self._model.value(states)
            chunk.kept = unit, (plus - minus) / (2 * unit)
        return inputs

    def block(self, index: int, chunk: Chunk) -> None:
        """Take a chunk through a block, and add up its answer."""
        super().block(index, chunk)
        if chunk.kept is None:
            return
        (unit, entered), chunk.kept = chunk.kept, None
        states = self._model.array(chunk.hidden)
        left = (states[: chunk.rows] - states[chunk.rows :]) / (2 * unit)
        real = np.arange(chunk.tokens) < self.batch.lengths[chunk.index, None]
        if self._work.sample is not None:  # of a rehearsal; the plan counts the sums
            return
        x = entered[real]
        own = {f"{index}.{IN_IN}": x.T @ x, f"{index}.{IN_OUT}": x.T @ (left[real] - x)}
        self._sums.add(chunk, index, own)

    def end(self, chunk: Chunk) -> None:
        """Score nothing."""
        chunk.release()


@dataclass(frozen=True, slots=True)
class CarriedSite:
    """A linear layer that adds to the residual; an adapter y + scale B A x trains beside it.

    Attributes:
        tap: output of the block that is x.
        name_a: A (r, in).
        name_b: B (H, r).
        scale: alpha / r.
        trains: which of the two train.
        last: does nothing change the states between the layer and the end of the block? Else the
            layer takes the error at the entry of the block.
        slope: output of the block that is the slope of the norm between the layer and the residual,
            None if there is none: the layer then takes the error times the slope, the diagonal part
            of the norm's derivative.
    """

    tap: str
    name_a: str
    name_b: str
    scale: float
    trains: frozenset[str]
    last: bool = True
    slope: str | None = None


class CarriedErrorPass(WholeFirstOrderPass):
    """Makes the gradients at sites from their inputs and the error at the last hidden states.

    Args:
        args: as for `WholePass`, one group.
        way: the backward graphs, of which those of the scorers are used, and the sums.
        sites: by block, in its order.
        carries: by block, (H, H) the derivative D of what it adds: the error at its entry is
            e + e D for the error e at its result, both rows; of the others it is e.
        factors: trainables by name.
    """

    def __init__(
        self,
        *args: Any,
        way: WayBack,
        sites: Mapping[int, Sequence[CarriedSite]],
        carries: Mapping[int, Float32],
        factors: Mapping[str, Float32],
    ) -> None:
        super().__init__(*args, way=way)
        self.back_to = None
        self._sites = sites
        self._carries = carries
        self._factors = factors

    def wave_bytes(self, chunk: Chunk) -> int:
        """Bytes per sequence, with the inputs that are kept."""
        return super().wave_bytes(chunk) + 4 * chunk.tokens * self._kept_numbers()

    def _kept_numbers(self) -> int:
        """Numbers that are kept of a token: inputs where A trains, products with A, slopes."""
        total = 0
        for site in (site for own in self._sites.values() for site in own):
            rank, width = self._factors[site.name_a].shape
            total += rank + (width if site.name_a in site.trains else 0)
            total += 0 if site.slope is None else self._factors[site.name_b].shape[0]
        return total

    def start(self, chunk: Chunk) -> None:
        """Start the chunk; no inputs are kept yet."""
        super().start(chunk)
        chunk.kept = {}

    def enter(self, index: int, chunk: Chunk) -> BlockInputs:
        """Keep no states: nothing goes back through blocks."""
        return WholePass.enter(self, index, chunk)

    def _segments(self, graph: LoadedGraph, chunk: Chunk) -> list[slice]:
        """Whole rows: inputs of layers are not to be had from segments."""
        return [slice(0, chunk.tokens)]

    def taps(self, index: int) -> Sequence[str]:
        """The inputs of the block's layers that are sites, and the slopes of norms behind them."""
        own = self._sites.get(index, ())
        slopes = [site.slope for site in own if site.slope is not None]
        return [*(site.tap for site in own), *slopes]

    def tapped(self, index: int, chunk: Chunk, values: Sequence[Float32]) -> None:
        """Keep the inputs of scored tokens, or what A makes of them."""
        chunk.kept[index] = []
        rows, tokens = chunk.positions.T
        named = dict(zip(self.taps(index), values, strict=True))
        for site in self._sites[index]:
            x = named[site.tap][rows, tokens]  # (T', in)
            products = x @ self._factors[site.name_a].T
            slope = None if site.slope is None else named[site.slope][rows, tokens]  # (T', H)
            chunk.kept[index].append((products, x if site.name_a in site.trains else None, slope))

    def end(self, chunk: Chunk) -> None:
        """Score, and carry the error from site to site."""
        kept = chunk.kept
        super().end(chunk)
        rows, tokens = chunk.positions.T
        error = self._model.array(chunk.grad)[rows, tokens]  # (T', H)
        for index in reversed(range(min(kept, default=0), len(self._model.blocks))):
            before = error
            if index in self._carries:
                before = error + error @ self._carries[index]
            found: dict[str, Float32] = {}
            sites = self._sites[index] if index in kept else ()  # none where blocks are skipped
            for site, own in zip(sites, kept.get(index, ()), strict=True):
                found |= self._gradients(site, error if site.last else before, *own)
            if found:
                self._way.sums.add(chunk, index, found)
            error = before
        scores = chunk.scores
        chunk.release()
        chunk.scores = scores

    def _gradients(
        self,
        site: CarriedSite,
        error: Float32,
        products: Float32,
        x: Float32 | None,
        slope: Float32 | None,
    ) -> dict[str, Float32]:
        if slope is not None:
            error = slope * error
        scale = np.float32(site.scale)
        found: dict[str, Float32] = {}
        if site.name_b in site.trains:
            found[site.name_b] = (scale * (error.T @ products)).astype(np.float32)
        if x is not None:
            signal = error @ self._factors[site.name_b]
            found[site.name_a] = (scale * (signal.T @ x)).astype(np.float32)
        return found
