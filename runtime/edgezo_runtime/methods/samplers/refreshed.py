"""Base of samplers that redraw their frames every `refresh` steps."""

from __future__ import annotations

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.samplers.frame import Float32Array, Frame, Slot, Stateless
from edgezo_runtime.noise import derive_seed


class Refreshed(Stateless):
    """Frames of rank r that stay for `refresh` steps.

    The number of the refresh seeds a frame, so a resumed run needs no stored state.

    Args:
        subspace_rank: r, at least 1.
        refresh: number of steps between new frames, at least 1.

    Raises:
        UsageError: a setting is below 1.
    """

    def __init__(self, subspace_rank: int, refresh: int) -> None:
        for name, value in (("subspace_rank", subspace_rank), ("refresh", refresh)):
            if value < 1:
                raise UsageError(f"`{name}` {value}: must be 1 or more")
        self._rank = subspace_rank
        self._refresh = refresh
        self._made: dict[str, tuple[tuple[int, int], Frame]] = {}

    def frame(self, name: str, theta: Float32Array, slot: Slot, step: int, seed: int) -> Frame:
        """Return the frame of the step's refresh; see `Sampler.frame`."""
        epoch = step // self._refresh
        key = seed, epoch
        made = self._made.get(name)
        if made is None or made[0] != key:
            made = key, self._make(name, theta, derive_seed(seed, "frame", epoch))
            self._made[name] = made
        return made[1]

    def _make(self, name: str, theta: Float32Array, seed: int) -> Frame:
        raise NotImplementedError
