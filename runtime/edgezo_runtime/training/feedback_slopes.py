"""Norms between the layers of sites and the residual: what they do to a change of a layer's output.

With o the output of the layer and g the gain of an RMS norm behind it, a change a of o changes the
residual by N a, N = diag(d) (I - o o' / (H rms^2)), d = g / rms(o). Here N is its diagonal part d,
the norm's slope, in the mean of rows: what is left out is 1 / H of a change that does not know o.

A change v of the residual asks for a = v / d. Where d is small, a would be so large that it changes
rms(o). So a = v d / (d^2 + c^2), c the median of |d|: the residual changes by w v, every number
of w from 0 to 1. The steepest change a = d v would not do: gains of one norm differ by a factor of
a hundred, and d^2 v has most of its length in a few numbers, where noise of v does not cancel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import DivergedError, RunFileError
from edgezo_runtime.training.feedback_sites import FeedbackSite

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_NUMBER = "<f4"


class SlopeCodec:
    """Packs the mean slopes of sites as float32: to most, 8 bits would leave a few levels.

    Args:
        sites: of which those with a slope are packed, in their order.
    """

    def __init__(self, sites: Sequence[FeedbackSite]) -> None:
        self._sizes = {site.name_b: site.shape_b[0] for site in sites if site.slope is not None}

    @property
    def nbytes(self) -> int:
        """Bytes of packed slopes; 0 if no site has one."""
        return np.dtype(_NUMBER).itemsize * sum(self._sizes.values())

    def pack(self, slopes: Mapping[str, Float32]) -> bytes:
        """The means over rows of slopes (B, H), by the name of B."""
        means = (slopes[name].mean(axis=0, dtype=np.float64) for name in self._sizes)
        return b"".join(mean.astype(_NUMBER).tobytes() for mean in means)

    def unpack(self, data: bytes) -> dict[str, Float32]:
        """The mean slopes (H,), by the name of B.

        Raises:
            RunFileError: the data have another length, or a number that is not finite.
        """
        if len(data) != self.nbytes:
            raise RunFileError(f"slopes of norms have {len(data)} bytes, expected {self.nbytes}")
        numbers = np.frombuffer(data, _NUMBER).astype(np.float32)
        if not np.isfinite(numbers).all():
            raise RunFileError("slopes of norms are not finite")
        ends = np.cumsum(list(self._sizes.values()))[:-1]
        return dict(zip(self._sizes, np.split(numbers, ends), strict=True)) if self._sizes else {}


def undone(slope: Float32) -> tuple[Float64, Float64]:
    """What a change of the residual is multiplied with to get one of the layer's output.

    Args:
        slope: d (H,).
    Returns:
        d / (d^2 + c^2), and its product with d, the share w of the change that is reached.
    Raises:
        DivergedError: half of the slopes or more are zero.
    """
    d = slope.astype(np.float64)
    middle = float(np.median(np.abs(d)))
    if not middle > 0:
        raise DivergedError("the norms behind the layers that train let no change through")
    factors = d / (d * d + middle * middle)
    return factors, factors * d


def reached(values: Float32, share: Float64) -> float:
    """The share of the energy of values (H,) that is reached where of each number `share` is."""
    squares = values.astype(np.float64) ** 2
    return math.fsum((squares * share).tolist()) / math.fsum(squares.tolist())
