"""Linear recurrences over the tokens of a row, in a form that a trace can hold.

transformers computes them chunk by chunk, in loops whose number of turns depends on the length of a
row. The same sums over all tokens at once are matrix products under a triangular mask:

    state space (mamba2)   h_t = e^(a_t) h_(t-1) + b_t x_t';           y_t = c_t' h_t
                           y = (C B' * D) X,  D_ij = e^(a_(j+1) + ... + a_i) for j <= i, else 0
    gated delta rule       h_t = e^(g_t) h_(t-1) + k_t u_t';           y_t = q_t' h_t
                           u_t = beta_t (v_t - e^(g_t) h_(t-1)' k_t)
                           u = (I + A)^-1 (beta v),  A_ij = beta_i k_i' k_j D_ij for j < i

I + A is inverted block by block: where T inverts the diagonal blocks of m tokens, T - T A_m T
inverts those of 2 m, and A_m is the part of A between their halves.

References:
    Dao, Gu 2024, arXiv:2405.21060, section 5 (state space duality); Yang et al. 2024,
    arXiv:2412.06464, section 3 (gated delta rule).
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from edgezo_export.errors import UnsupportedModelError

_FAR = -1e4
"""A logarithm of nothing, whose exponential is 0."""

_EPS = 1e-6
"""Added to the squared length of queries and keys, as transformers does."""


@contextlib.contextmanager
def traceable_recurrences(model: PreTrainedModel, max_seq: int) -> Iterator[None]:
    """Replace recurrences of a model while tracing, those that compute what is said above."""
    source = sys.modules[type(model).__module__]
    delta = functools.partial(_gated_delta, levels=math.ceil(math.log2(max(2, max_seq))))
    with contextlib.ExitStack() as stack:
        for name, ours, agree in (
            ("torch_chunk_gated_delta_rule", delta, _delta_agrees),
            ("mamba2_chunk_scan", _state_space, _state_space_agrees),
        ):
            original = getattr(source, name, None)
            if original is not None and agree(original):
                vars(source)[name] = ours
                stack.callback(setattr, source, name, original)
        yield


def _decays(logs: torch.Tensor) -> torch.Tensor:
    """e^(a_(j+1) + ... + a_i) for j <= i, else 0; (R, n, S) -> (R, n, S, S)."""
    total = logs.cumsum(-1)
    between = total.unsqueeze(-1) - total.unsqueeze(-2)
    place = torch.arange(logs.shape[-1], device=logs.device)
    seen = place.unsqueeze(-1) >= place
    return torch.where(seen, between, torch.full((), _FAR, dtype=logs.dtype)).exp()


def _state_space(
    hidden_states: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    **others: Any,
) -> torch.Tensor:
    """States (R, S, n, P), steps (R, S, n), A (n,), B and C (R, S, g, N) -> (R, S, n, P)."""
    _refuse_tensors("a state space", others)
    if dt_bias is not None:
        dt = dt + dt_bias
    if dt_softplus:
        dt = _softplus(dt)
    if dt_limit[0] > 0 or dt_limit[1] < float("inf"):
        dt = dt.clamp(*dt_limit)
    shared = hidden_states.shape[2] // B.shape[2]
    b, c = (_repeated(side, shared).transpose(1, 2) for side in (B, C))  # (R, n, S, N)
    decays = _decays((A * dt).transpose(1, 2))
    x = (hidden_states * dt.unsqueeze(-1)).transpose(1, 2)
    y = (((c @ b.transpose(-1, -2)) * decays) @ x).transpose(1, 2)
    return y if D is None else y + D.unsqueeze(-1) * hidden_states


def _gated_delta(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    use_qk_l2norm_in_kernel: bool = False,
    levels: int = 1,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Queries and keys (R, S, g, K), values (R, S, n, P), g and beta (R, S, n) -> (R, S, n, P)."""
    _refuse_tensors("a gated delta rule", others)
    shared = value.shape[2] // key.shape[2]
    if use_qk_l2norm_in_kernel:
        query, key = (x * (x.pow(2).sum(-1, keepdim=True) + _EPS).rsqrt() for x in (query, key))
    q, k = (_repeated(side, shared).transpose(1, 2) for side in (query, key))
    v, strength = value.transpose(1, 2), beta.transpose(1, 2).unsqueeze(-1)
    decays = _decays(g.transpose(1, 2))
    transposed = k.transpose(-1, -2)
    a = ((k * strength) @ transposed) * decays
    place = torch.arange(key.shape[1], device=key.device)
    inverse = (place.unsqueeze(-1) == place).to(a.dtype)
    for level in range(levels):
        size = 1 << level
        own, pair = (torch.div(place, n, rounding_mode="floor") for n in (size, 2 * size))
        later = own.unsqueeze(-1) > own
        between = later & (pair.unsqueeze(-1) == pair)
        inverse = inverse - inverse @ (a * between.to(a.dtype)) @ inverse
    u = inverse @ (v * strength)
    scores = (q @ transposed) * (decays * q.shape[-1] ** -0.5)
    return (scores @ u).transpose(1, 2), None


def _refuse_tensors(what: str, others: Mapping[str, Any]) -> None:
    """Refuse further tensors: start states, gates or row borders change the result."""
    for name, argument in others.items():
        if isinstance(argument, torch.Tensor):
            raise UnsupportedModelError(f"{what} with {name}")


def _repeated(side: torch.Tensor, times: int) -> torch.Tensor:
    """Repeat heads (R, S, g, N), each `times` in a row."""
    if times == 1:
        return side
    rows, tokens, groups, width = side.shape
    wide = side.unsqueeze(3).expand(rows, tokens, groups, times, width)
    return wide.reshape(rows, tokens, groups * times, width)


def _softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + e^x), in operators with a derivative."""
    return torch.relu(x) + ((-x.abs()).exp() + 1).log()


def _delta_agrees(original: Callable[..., Any]) -> bool:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 2, 9, 2, 4, generator=generator).unbind(0)
    v = torch.randn(2, 9, 4, 6, generator=generator)
    g, beta = -torch.rand(2, 9, 4, generator=generator), torch.rand(2, 9, 4, generator=generator)
    given: dict[str, Any] = {"g": g, "beta": beta, "use_qk_l2norm_in_kernel": True}
    expected, _ = original(q, k, v, **given)
    found, _ = _gated_delta(q, k, v, **given, levels=4)
    return torch.allclose(found, expected, atol=1e-4)


def _state_space_agrees(original: Callable[..., Any]) -> bool:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 9, 4, 6, generator=generator)
    dt, bias = torch.randn(2, 9, 4, generator=generator), torch.randn(4, generator=generator)
    a, d = -torch.rand(4, generator=generator), torch.randn(4, generator=generator)
    b, c = torch.randn(2, 2, 9, 2, 3, generator=generator).unbind(0)
    given: dict[str, Any] = {"D": d, "dt_bias": bias, "dt_softplus": True}
    expected = original(x, dt, a, b, c, chunk_size=4, **given)
    return torch.allclose(_state_space(x, dt, a, b, c, **given), expected, atol=1e-4)
