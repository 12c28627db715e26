"""Directions over all coordinates of a tensor."""

from __future__ import annotations

from edgezo_runtime.methods.samplers.frame import Float32Array, Frame, Slot, Stateless


class Dense(Stateless):
    """z is the noise itself: MeZO's directions."""

    def frame(self, name: str, theta: Float32Array, slot: Slot, step: int, seed: int) -> Frame:
        """Return all coordinates; see `Sampler.frame`."""
        return Frame(theta.shape)
