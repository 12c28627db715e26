"""Rules: the same ten steps as torch.optim, and what their slots promise."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.rules import RULES
from edgezo_runtime.methods.rules.adam import Adam
from edgezo_runtime.methods.rules.momentum import Momentum
from edgezo_runtime.methods.rules.rule import Rule, decay_weights, require_slot
from edgezo_runtime.methods.rules.sgd import Sgd

SHAPE = (7, 5)


def gradients(count: int) -> list[npt.NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=SHAPE).astype(np.float32) for _ in range(count)]


def start() -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)


def run(rule: Rule, steps: int, lrs: Callable[[int], float]) -> npt.NDArray[np.float32]:
    theta = start()
    slot = rule.init(theta)
    for step, g in enumerate(gradients(steps)):
        slot = rule.apply(theta, g, slot, step, lrs(step))
    return theta


REFERENCES: list[tuple[Rule, str, dict[str, Any]]] = [
    (Sgd(), "SGD", {}),
    (Momentum(), "SGD", {"momentum": 0.9}),
    (Momentum(momentum=0.5), "SGD", {"momentum": 0.5}),
    (Adam(), "Adam", {}),
    (Adam(b1=0.5, b2=0.95, eps=1e-4), "Adam", {"betas": (0.5, 0.95), "eps": 1e-4}),
    (Adam(weight_decay=0.1), "AdamW", {"weight_decay": 0.1}),
]


@pytest.mark.parametrize(("rule", "optimizer", "settings"), REFERENCES)
def test_ten_steps_match_torch(rule: Rule, optimizer: str, settings: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.from_numpy(start()))
    reference = getattr(torch.optim, optimizer)([weight], lr=0.1, **settings)
    for step, g in enumerate(gradients(10)):
        reference.param_groups[0]["lr"] = 0.1 / (1 + step)
        weight.grad = torch.from_numpy(g)
        reference.step()
    # the same operations in another order: a few float32 roundings of values around 1
    np.testing.assert_allclose(
        run(rule, 10, lambda step: 0.1 / (1 + step)), weight.detach().numpy(), atol=2e-6
    )


def test_weight_decay_is_decoupled() -> None:
    for rule in (Sgd(weight_decay=0.5), Momentum(weight_decay=0.5), Adam(weight_decay=0.5)):
        theta = np.ones(SHAPE, np.float32)
        slot = rule.init(theta)
        rule.apply(theta, np.zeros(SHAPE, np.float32), slot, 0, 0.125)
        np.testing.assert_array_equal(theta, np.float32(1 - 0.125 * 0.5))


def test_adam_corrects_for_the_updates_of_the_tensor_not_the_steps_of_the_run() -> None:
    theta, late = start(), start()
    g = gradients(1)[0]
    Adam().apply(theta, g, Adam().init(theta), 0, 0.1)
    Adam().apply(late, g, Adam().init(late), 5000, 0.1)  # a block that rested for 5,000 steps
    np.testing.assert_array_equal(theta, late)
    np.testing.assert_allclose(np.abs(theta - start()), 0.1, rtol=1e-4)


@pytest.mark.parametrize("name", RULES)
def test_apply_writes_theta_only_and_keeps_types(name: str) -> None:
    rule = RULES[name]()
    theta, g = start(), gradients(1)[0]
    kept = g.copy()
    slot = rule.init(theta)
    np.testing.assert_array_equal(theta, start())
    slot = rule.apply(theta, g, slot, 0, 0.1)
    np.testing.assert_array_equal(g, kept)
    assert theta.dtype == np.float32
    assert theta.shape == SHAPE
    assert (theta != start()).all()
    assert {k: v.dtype for k, v in (slot or {}).items()} == {
        k: v.dtype for k, v in (rule.init(theta) or {}).items()
    }


@pytest.mark.parametrize("name", RULES)
def test_going_on_from_a_copied_slot_gives_the_same_bits(name: str) -> None:
    rule = RULES[name](weight_decay=0.01)
    whole = run(rule, 10, lambda step: 0.1)
    theta = start()
    slot = rule.init(theta)
    for step, g in enumerate(gradients(10)):
        if step == 6:
            theta = theta.copy()
            slot = None if slot is None else {k: v.copy() for k, v in slot.items()}
        slot = rule.apply(theta, g, slot, step, 0.1)
    np.testing.assert_array_equal(theta, whole)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Momentum(momentum=1.0), "`momentum` must be at least 0 and below 1, not 1.0"),
        (lambda: Adam(b1=-0.1), "`b1` must be"),
        (lambda: Adam(b2=1.5), "`b2` must be"),
        (lambda: Adam(eps=0.0), "eps must be a finite number above zero"),
        (lambda: Sgd(weight_decay=-1.0), "`weight_decay` must be"),
        (lambda: Adam(weight_decay=float("nan")), "`weight_decay` must be"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Rule], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_the_slot_of_another_rule_is_refused() -> None:
    theta, g = start(), gradients(1)[0]
    with pytest.raises(UsageError, match="keeps m, v, powers, the slot holds m"):
        Adam().apply(theta, g, Momentum().init(theta), 0, 0.1)
    with pytest.raises(UsageError, match="the slot holds nothing"):
        Momentum().apply(theta, g, None, 0, 0.1)


def test_a_slot_is_returned_if_its_names_are_right() -> None:
    slot = {"m": np.zeros(2), "v": np.ones(2)}
    assert require_slot(slot, "v", "m") is slot
    for keys in (("m",), ("m", "v", "n")):
        with pytest.raises(UsageError, match="the slot holds m, v"):
            require_slot(slot, *keys)


def test_decay_without_a_rate_keeps_the_bits() -> None:
    theta = start()
    decay_weights(theta, 0.1, 0.0)
    np.testing.assert_array_equal(theta, start())
    decay_weights(theta, 0.5, 0.5)
    np.testing.assert_array_equal(theta, start() * np.float32(0.75))
