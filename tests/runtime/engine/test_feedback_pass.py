"""The noise of node perturbation: whose rows it belongs to, and how groups differ."""

from __future__ import annotations

import numpy as np

from edgezo_runtime.engine.feedback_pass import NodeNoise
from edgezo_runtime.noise import noise


def test_noise_belongs_to_rows_of_the_batch():
    """Wherever a batch is cut, a row is perturbed along the same signs."""
    nodes = NodeNoise(7, (0.5, -0.5), {2: "a", 3: "b"}, {}, 5)
    whole = nodes.behind(3, np.arange(4)).reshape(2, 4, 5)
    part = nodes.behind(3, np.array([2, 3, 3])).reshape(2, 3, 5)
    np.testing.assert_array_equal(part, whole[:, [2, 3, 3]])
    expected = 0.5 * noise(7, "b", (5,), kind="rademacher", row=2)
    np.testing.assert_array_equal(part[0, 0], expected)
    np.testing.assert_array_equal(part[1], -part[0])


def test_blocks_have_noise_of_their_own():
    nodes = NodeNoise(7, (1.0,), {2: "a", 3: "b"}, {}, 64)
    rows = np.arange(1)
    assert nodes.behind(2, rows).shape == (1, 1, 64)
    assert (nodes.behind(2, rows) != nodes.behind(3, rows)).any()
