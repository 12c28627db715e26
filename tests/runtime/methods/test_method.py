"""Methods: their options, and published rates for other trainables than the paper's."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.config import MethodOptions
from edgezo_runtime.methods.catalogue import METHODS
from edgezo_runtime.methods.estimators import two_point
from edgezo_runtime.methods.method import Method, Published
from edgezo_runtime.methods.rules import Sgd
from edgezo_runtime.methods.samplers import Dense


def test_options_come_with_the_method_s_own_defaults() -> None:
    assert METHODS["adazeta"].options()["weight_decay"] == 0.01
    assert METHODS["subzero"].options() == {
        "weight_decay": 0.0,
        "subspace_rank": 8,
        "refresh": 2000,
    }


def test_a_method_without_parts_of_its_own_is_dense_sgd() -> None:
    plain = Method(summary="", paper="", evaluations="2", estimator=two_point)
    assert (plain.rule, plain.sampler, plain.state) == (Sgd, Dense, "0")
    assert plain.options() == {"weight_decay": 0.0}
    assert plain.options().keys() <= MethodOptions.__dataclass_fields__.keys()


@pytest.mark.parametrize(
    ("trainables", "kind", "fits"),
    [
        ("LoRA", "lora", True),
        ("all weights", "lora", True),
        ("LoRA", "tt", False),
        ("tensor trains", "tt", True),
        ("tensor trains", "lora", False),
        ("all weights", "ia3", False),
    ],
)
def test_which_trainables_rates_fit(trainables: str, kind: str, fits: bool) -> None:
    assert Published(1e-4, 1e-3, trainables).fits(kind) is fits  # type: ignore[arg-type]


def test_rates_of_tensor_trains_are_not_converted() -> None:
    assert Published(1e-4, 1e-3, "tensor trains", lengths=True).converted(4.0) == (1e-4, 1e-3)


def test_published_rates_for_lora_are_those_of_the_paper_at_its_scale() -> None:
    assert Published(1e-4, 1e-2).converted(2.0) == pytest.approx((1e-4, 1e-2))
    # a product that counts half as much moves twice as far, along a gradient half as large
    assert Published(1e-4, 1e-2).converted(1.0) == pytest.approx((4e-4, 2e-2))
    assert Published(1e-4, 1e-2).converted(4.0) == pytest.approx((2.5e-5, 5e-3))


def test_published_rates_for_all_weights_are_taken_over_by_mezo_s_ratio() -> None:
    """1e-6 and 1e-3 for all weights became 1e-4 and 1e-2 for LoRA."""
    assert Published(1e-6, 1e-3, "all weights").converted(2.0) == pytest.approx((1e-4, 1e-2))
    assert Published(5e-5, 1e-4, "all weights").converted(2.0) == pytest.approx((5e-3, 1e-3))


def test_lengths_go_like_the_perturbation_scale() -> None:
    """lr / eps of FZOO is 0.5 whatever it is converted for."""
    for scale in (1.0, 2.0, 4.0):
        lr, eps = METHODS["fzoo"].published.converted(scale)
        assert lr == pytest.approx(0.5 * eps)
    assert METHODS["fzoo"].published.converted(2.0) == pytest.approx((5e-4, 1e-3))


def test_longer_directions_take_smaller_steps() -> None:
    """z' = 2^.5 z: eps' z' = eps z and lr' g'(z') z' = lr g(z) z."""
    plain = Published(1e-6, 1e-3, "all weights").converted(2.0)
    assert METHODS["lozo"].published.converted(2.0) == pytest.approx(
        (2 * plain[0], 2**0.5 * plain[1])
    )


def test_a_converted_step_changes_the_model_as_much() -> None:
    """Of scale * B A: a MeZO step with B at another scale, on a loss linear in the product."""
    for scale in (0.5, 1.0, 4.0):
        changes = []
        for own in (2.0, scale):
            lr, eps = Published(1e-4, 1e-2).converted(own)
            slope = own * 3.0  # of the loss along one element of B
            changes.append((own * lr * slope, own * eps))  # of the product: a step, a probe
        np.testing.assert_allclose(changes[0], changes[1])
