"""Recurrences over all tokens at once, against one token after the other."""

from __future__ import annotations

import pytest
import torch

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.trace import recurrences


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_gated_delta_rule():
    """With keys that are much alike, whose updates undo each other."""
    q, v = numbers(2, 21, 2, 4), numbers(2, 21, 2, 6)
    k = torch.nn.functional.normalize(1 + 0.1 * numbers(2, 21, 2, 4), dim=-1)
    g, beta = -numbers(2, 21, 2).abs(), torch.sigmoid(numbers(2, 21, 2))
    found, _ = recurrences._gated_delta(q, k, v, g, beta, levels=5)
    state = torch.zeros(2, 2, 4, 6)
    for t in range(21):
        state = state * g[:, t, :, None, None].exp()
        known = torch.einsum("rnkp,rnk->rnp", state, k[:, t])
        u = beta[:, t, :, None] * (v[:, t] - known)
        state = state + k[:, t, :, :, None] * u[:, :, None]
        expected = torch.einsum("rnkp,rnk->rnp", state, q[:, t]) / 2
        torch.testing.assert_close(found[:, t], expected, atol=1e-5, rtol=1e-4)


def test_a_state_space():
    x, dt, a = numbers(2, 9, 4, 3), numbers(2, 9, 4).abs(), -numbers(4).abs()
    b, c = numbers(2, 9, 2, 5), numbers(2, 9, 2, 7)[..., :5]
    found = recurrences._state_space(x, dt, a, b, c)
    wide = [side.repeat_interleave(2, 2) for side in (b, c)]
    state = torch.zeros(2, 4, 5, 3)
    for t in range(9):
        own = dt[:, t, :, None] * x[:, t]
        decay = (a * dt[:, t]).exp()[..., None, None]
        state = decay * state + wide[0][:, t, :, :, None] * own[:, :, None]
        expected = torch.einsum("rnkp,rnk->rnp", state, wide[1][:, t])
        torch.testing.assert_close(found[:, t], expected, atol=1e-5, rtol=1e-4)


def test_what_computes_something_else_stays():
    assert not recurrences._delta_agrees(lambda q, k, v, **_: (v, None))
    assert not recurrences._state_space_agrees(lambda x, *_, **__: x)


@pytest.mark.parametrize("name", ["z", "initial_states", "seq_idx"])
def test_further_tensors_are_refused(name):
    x, dt, a, b = numbers(1, 3, 2, 3), numbers(1, 3, 2), numbers(2), numbers(1, 3, 2, 5)
    given = {name: numbers(1), "chunk_size": 4, "return_final_states": False}
    with pytest.raises(UnsupportedModelError, match=f"a state space with {name}"):
        recurrences._state_space(x, dt, a, b, b, **given)
    with pytest.raises(UnsupportedModelError, match=f"a gated delta rule with {name}"):
        recurrences._gated_delta(x, x, x, dt, dt, **given)
    given[name] = None
    assert recurrences._state_space(x, dt, a, b, b, **given).shape == x.shape
