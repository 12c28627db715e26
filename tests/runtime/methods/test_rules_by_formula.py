"""Rules against their equations in float64, written down here a second time, over twelve steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.rules import RULES
from edgezo_runtime.methods.rules.factor_momentum import FactorMomentum
from edgezo_runtime.methods.rules.helene import Helene
from edgezo_runtime.methods.rules.momentum import Momentum
from edgezo_runtime.methods.rules.rule import FrameRule, Rule
from edgezo_runtime.methods.rules.sgd import Sgd
from edgezo_runtime.methods.rules.sign import Sign
from edgezo_runtime.methods.rules.svrg import Svrg
from edgezo_runtime.methods.samplers.frame import Frame
from edgezo_runtime.methods.samplers.low_rank import LazyFactor, LowRank

SHAPE, STEPS = (7, 5), 12
Float64 = npt.NDArray[np.float64]


def gradients(shape: tuple[int, ...] = SHAPE) -> list[npt.NDArray[np.float32]]:
    random = np.random.default_rng(0)
    return [random.normal(size=shape).astype(np.float32) for _ in range(STEPS)]


def start(shape: tuple[int, ...] = SHAPE) -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def lr_of(step: int) -> float:
    return float(np.float32(0.1 / (1 + step)))


def trajectory(rule: Rule) -> Iterator[npt.NDArray[np.float32]]:
    theta = start()
    slot = rule.init(theta)
    for step, g in enumerate(gradients()):
        slot = rule.apply(theta, g, slot, step, lr_of(step))
        yield theta


@dataclass
class SignReference:
    """theta - lr (sign(g) + wd theta)."""

    weight_decay: float = 0.0

    def __call__(self, theta: Float64, g: Float64, step: int, lr: float) -> Float64:
        return theta - lr * np.sign(g) - lr * self.weight_decay * theta


class HeleneReference:
    """m, h and a floor under h, as the paper has them; the constants come from the rule."""

    def __init__(self, rule: Helene) -> None:
        self.rule, self.m, self.h, self.seen = rule, np.zeros(SHAPE), np.zeros(SHAPE), 0

    def __call__(self, theta: Float64, g: Float64, step: int, lr: float) -> Float64:
        rule = self.rule
        annealed = rule.b1 + (1 - rule.b1) * math.exp(-step / rule.anneal_steps)
        self.m = rule.b1 * self.m + annealed * g
        if step % rule.hessian_every == 0:
            fresh = rule.batch_size * g * g
            self.h = fresh if self.seen == 0 else rule.b2 * self.h + (1 - rule.b2) * fresh
            self.seen += 1
        clipped = np.maximum(self.h, rule.floor * self.h.mean())
        step_ = self.m / (rule.gamma * clipped + rule.eps)
        return theta - lr * rule.weight_decay * theta - lr * step_


class SvrgReference:
    """Algorithm 1 of MeZO-SVRG with estimates that are given."""

    def __init__(self, rule: Svrg) -> None:
        self.rule, self.kept = rule, np.zeros(SHAPE)

    def __call__(self, theta: Float64, g: Float64, step: int, lr: float) -> Float64:
        if step % self.rule.anchor_every == 0:
            self.kept = g
            return theta - lr * self.rule.anchor_lr * g
        return theta - lr * (g + self.kept)


_HELENE = Helene(
    b1=0.8, b2=0.7, batch_size=3, anneal_steps=4.0, hessian_every=3, floor=0.5, gamma=2.0
)
Reference = Callable[[Float64, Float64, int, float], Float64]
CASES: list[tuple[Rule, Reference]] = [
    (Sign(), SignReference()),
    (Sign(weight_decay=0.5), SignReference(0.5)),
    (Helene(), HeleneReference(Helene())),
    (_HELENE, HeleneReference(_HELENE)),
    (Helene(weight_decay=0.5), HeleneReference(Helene(weight_decay=0.5))),
    (Svrg(), SvrgReference(Svrg())),
    (Svrg(anchor_every=5, anchor_lr=0.5), SvrgReference(Svrg(anchor_every=5, anchor_lr=0.5))),
]


@pytest.mark.parametrize(("rule", "reference"), CASES)
def test_twelve_steps_follow_the_equations(rule: Rule, reference: Reference) -> None:
    expected = start().astype(np.float64)
    for step, (theta, g) in enumerate(zip(trajectory(rule), gradients(), strict=True)):
        expected = reference(expected, g.astype(np.float64), step, lr_of(step))
        np.testing.assert_allclose(theta, expected, rtol=2e-5, atol=2e-6)


def test_sign_is_that_of_torch() -> None:
    """Signum without momentum: torch has no such optimizer, but the sign."""
    torch = pytest.importorskip("torch")
    expected = torch.from_numpy(start()).double()
    for step, g in enumerate(gradients()):
        expected = expected - lr_of(step) * torch.sign(torch.from_numpy(g)).double()
    *_, found = trajectory(Sign())
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)


def test_an_element_without_gradient_keeps_its_bits() -> None:
    theta = start()
    Sign().apply(theta, np.zeros(SHAPE, np.float32), None, 0, 0.1)
    np.testing.assert_array_equal(theta, start())


def test_svrg_keeps_the_anchor_of_the_last_round() -> None:
    rule, theta = Svrg(anchor_every=3), start()
    slot = rule.init(theta)
    for step, g in enumerate(gradients()):
        before = theta.copy()
        slot = rule.apply(theta, g, slot, step, 0.01)
        assert slot is not None
        if step % 3 == 0:
            anchor, kept = before, g
        np.testing.assert_array_equal(slot["anchor"], anchor)
        np.testing.assert_array_equal(slot["gradient"], kept)


# --- momentum in factors ---


def frames(count: int, refresh: int, shape: tuple[int, ...]) -> list[Frame]:
    """Of a run's steps."""
    sampler = LowRank(2, refresh)
    return [sampler.frame("w", start(shape), None, step, 0) for step in range(count)]


@pytest.mark.parametrize("refresh", [1, 4, 100])
def test_factor_momentum_follows_the_equations(refresh: int) -> None:
    """N is carried over by N V_old' V_new / n where V changes."""
    rule, theta = FactorMomentum(b1=0.8), start()
    expected, n, right = start().astype(np.float64), np.zeros((7, 2)), None
    own = frames(STEPS, refresh, SHAPE)
    slot = rule.init_in(own[0])
    for step, g in enumerate(gradients((7, 2))):
        frame = own[step]
        assert isinstance(frame, LazyFactor)
        v = frame.right.astype(np.float64)  # (5, 2)
        if right is not None and (right != v).any():
            n = n @ right.T @ v / 5
        right = v
        n = 0.8 * n + 0.2 * g
        expected = expected - lr_of(step) * n @ v.T / math.sqrt(2)
        slot = rule.apply_in(frame, theta, g, slot, step, lr_of(step))
        np.testing.assert_allclose(theta, expected, rtol=2e-5, atol=5e-6)
        np.testing.assert_allclose((slot or {})["n"], n, rtol=2e-4, atol=1e-5)


def test_what_is_carried_stands_for_the_same_matrix_in_mean() -> None:
    """E over V_new of N V_old' V_new V_new' / n / sqrt(r) is N V_old' / sqrt(r) * r-independent."""
    n = np.random.default_rng(3).normal(size=(7, 2)).astype(np.float32)
    old, found = frames(1, 1, SHAPE)[0], []
    assert isinstance(old, LazyFactor)
    zero = np.zeros((7, 2), np.float32)
    for seed in range(3000):
        new = LowRank(2, 1).frame("w", start(), None, 1, seed)
        slot = {"n": n.copy(), "right": old.right.copy()}
        after = FactorMomentum(b1=0.0 + 0.5).apply_in(new, start(), zero, slot, 1, 0.0)
        found.append(new.lift((after or {})["n"][None])[0] / 0.5)
    values = np.array(found, np.float64)
    error = values.std(axis=0) / np.sqrt(len(values))
    # V_new V_new' has the mean r I: of n = 5 dimensions r = 2 are kept
    expected = old.lift(n[None])[0] * 2 / 5
    assert (np.abs(values.mean(axis=0) - expected) < 5 * error).all()


def test_vectors_have_ordinary_momentum() -> None:
    rule, theta, frame = FactorMomentum(), start((5,)), frames(1, 1, (5,))[0]
    assert not isinstance(frame, LazyFactor)
    slot = rule.init_in(frame)
    expected, m = start((5,)).astype(np.float64), np.zeros(5)
    for step, g in enumerate(gradients((5,))):
        m = 0.9 * m + 0.1 * g
        expected = expected - lr_of(step) * m
        slot = rule.apply_in(frame, theta, g, slot, step, lr_of(step))
        np.testing.assert_allclose(theta, expected, rtol=2e-5, atol=2e-6)


def test_only_factor_momentum_works_in_frames() -> None:
    assert isinstance(FactorMomentum(), FrameRule)
    assert not any(isinstance(make(), FrameRule) for make in RULES.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sign(weight_decay=-1.0), "`weight_decay` must be"),
        (lambda: Helene(b1=1.0), "`b1` must be"),
        (lambda: Helene(b2=-0.5), "`b2` must be"),
        (lambda: Helene(floor=0.0), "`floor` 0.0: must be a number above zero"),
        (lambda: Helene(hessian_every=0), "`hessian_every` 0: must be 1 or more"),
        (lambda: Svrg(anchor_every=0), "`anchor_every` 0: must be 1 or more"),
        (lambda: Svrg(anchor_lr=math.nan), "`anchor_lr` nan: must be a number above zero"),
        (lambda: FactorMomentum(1.0), "`b1` must be"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_the_slot_of_another_rule_is_refused() -> None:
    theta, g = start(), gradients()[0]
    frame = frames(1, 1, SHAPE)[0]
    for call in (
        lambda: Helene().apply(theta, g, Momentum().init(theta), 0, 0.1),
        lambda: Svrg().apply(theta, g, Sgd().init(theta), 0, 0.1),
        lambda: FactorMomentum().apply_in(frame, theta, g[:, :2], None, 0, 0.1),
    ):
        with pytest.raises(UsageError, match="the rule keeps"):
            call()
