"""Methods: published settings and rates, and which options go with which."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.bundle.trainables import SchemeInfo
from edgezo_runtime.config import MethodOptions, TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.block_schedules import parse_schedule
from edgezo_runtime.methods.catalogue import METHODS, assemble, method_config
from edgezo_runtime.methods.config_check import check_config
from edgezo_runtime.methods.method import Published
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.methods.rules import Adam, FactorMomentum, Helene, Momentum, Sgd, Sign, Svrg
from edgezo_runtime.methods.samplers import Curvature, Dense, Flipout, LowRank, Sparse, Subspace

# --- settings ---


@pytest.mark.parametrize("method", METHODS)
def test_a_method_fills_its_settings(method: str) -> None:
    config = method_config(method, steps=1)
    check_config(config)
    assert config.method == method
    for name, value in METHODS[method].settings.items():
        assert getattr(config, name) == value
    other = method_config(method, average=0.5, batch_size=3, noise="gaussian")
    assert (other.average, other.batch_size, other.noise) == (0.5, 3, "gaussian")


def test_auto_is_the_default_configuration() -> None:
    assert method_config("auto") == TuneConfig()


def test_only_auto_shapes_and_averages() -> None:
    for method in METHODS:
        config = method_config(method)
        plain = not config.normalize and not config.average and config.lr_schedule == "constant"
        assert plain == (method != "auto")
        assert (config.clip == 0) == (method not in ("auto", "qzo"))


def test_options_go_to_their_place() -> None:
    config = method_config("subzero", subspace_rank=3, seed=5)
    assert config.options == MethodOptions(subspace_rank=3)
    assert config.seed == 5
    both = method_config("subzero", options=MethodOptions(refresh=7), subspace_rank=3)
    assert both.options.given() == {"subspace_rank": 3, "refresh": 7}
    assert both.identity()["options"] == {"subspace_rank": 3, "refresh": 7}


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="`method` mezo: expected one of auto, zo-sgd"):
        method_config("mezo")


# --- parts ---


@pytest.mark.parametrize(
    ("method", "rule", "sampler"),
    [
        ("auto", Sgd(), Dense),
        ("zo-sgd-sign", Sign(), Dense),
        ("zo-sgd-mmt", Momentum(), Dense),
        ("zo-adam", Adam(), Dense),
        ("adazeta", Adam(weight_decay=0.01), Dense),
        ("sparse", Sgd(), Sparse),
        ("subzero", Sgd(), Subspace),
        ("lozo", Sgd(), LowRank),
        ("lozo-m", FactorMomentum(), LowRank),
        ("helene", Helene(batch_size=16), Dense),
        ("mezo-svrg", Svrg(), Dense),
        ("hizoo", Sgd(), Curvature),
        ("grzo", Sgd(), Flipout),
    ],
)
def test_a_method_is_made_of_its_parts(method: str, rule: object, sampler: type) -> None:
    parts = assemble(method_config(method), 1e-3)
    assert parts.rule == rule
    assert type(parts.sampler) is sampler


def test_options_and_the_batch_size_reach_the_parts() -> None:
    config = method_config("helene", b1=0.5, hessian_every=3, batch_size=7)
    assert assemble(config, 1e-3).rule == Helene(b1=0.5, hessian_every=3, batch_size=7)
    assert assemble(method_config("adazeta", weight_decay=0.5), 1.0).rule == Adam(weight_decay=0.5)
    scalar = method_config("zo-sgd-sign", sign="scalar", weight_decay=0.5)
    assert assemble(scalar, 1.0).rule == Sgd(0.5)
    assert assemble(method_config("auto", rule="adam", b2=0.5), 1.0).rule == Adam(b2=0.5)


def test_every_option_is_taken_by_a_method_or_a_rule() -> None:
    taken = {name for made in METHODS.values() for name in made.options()}
    assert taken == {field.name for field in dataclasses.fields(MethodOptions)}


def test_options_come_with_the_method_s_own_defaults() -> None:
    assert METHODS["adazeta"].options()["weight_decay"] == 0.01
    assert METHODS["subzero"].options() == {
        "weight_decay": 0.0,
        "subspace_rank": 8,
        "refresh": 2000,
    }


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("auto", {"refresh": 3}, "`refresh`: auto does not take it; methods that do: subzero, "),
        ("auto", {"subspace_rank": 3}, "`subspace_rank`: auto .* do: subzero, lozo, lozo-m$"),
        ("zo-sgd", {"mask": "random"}, "`mask`: zo-sgd does not take it; methods that do: sparse$"),
        ("sparse", {"smoothing": 0.1}, "methods that do: hizoo$"),
        ("zo-sgd", {"num_directions": 2}, "do: n-spsa, adazeta, fzoo, rloo$"),
        ("lozo-m", {"weight_decay": 0.1}, "`weight_decay`: lozo-m does not take it"),
        ("zo-adam", {"rule": "sgd"}, "`rule` sgd: zo-adam has a rule of its own"),
        ("lozo-m", {"rule": "momentum"}, "`rule` momentum: lozo-m has a rule of its own"),
        ("sparse", {"sparsity": 1.0}, "`sparsity` 1.0: must be"),
        ("rloo", {"num_directions": 1}, "a baseline needs 2 or more"),
        ("fzoo", {"num_directions": 1}, "num_directions"),
        ("mezo-svrg", {"schedule": "last:2"}, "mezo-svrg has all blocks active in every step"),
        ("zo-sgd-sign", {"sign": "some"}, "`sign` some: expected elementwise or scalar"),
    ],
)
def test_what_does_not_go_together_is_refused(
    method: str, given: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_config(method_config(method, **given))


# --- published rates ---

LORA = SchemeInfo("lora", ("q_proj",), 8, 16.0, "b")


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


def test_rates_of_tensor_trains_are_for_them_alone() -> None:
    config = method_config("adazeta", lr="published", eps="published")
    rates = Rates.of(config, SchemeInfo("tt", rank=5))
    assert (rates.lr, rates.eps) == (1e-4, 1e-3)
    with pytest.raises(UsageError, match="are for tensor trains, in this bundle lora trains"):
        Rates.of(config, LORA)
    with pytest.raises(UsageError, match="are for LoRA, in this bundle ia3 trains"):
        Rates.of(method_config("zo-sgd", lr="published"), SchemeInfo("ia3"))


def test_a_converted_step_changes_the_model_as_much() -> None:
    """Of scale * B A: a MeZO step with B at another scale, on a loss linear in the product."""
    for scale in (0.5, 1.0, 4.0):
        changes = []
        for own in (2.0, scale):
            lr, eps = Published(1e-4, 1e-2).converted(own)
            slope = own * 3.0  # of the loss along one element of B
            changes.append((own * lr * slope, own * eps))  # of the product: a step, a probe
        np.testing.assert_allclose(changes[0], changes[1])


@pytest.mark.parametrize("field", ["lr", "eps"])
def test_published_is_refused_where_nothing_was(field: str) -> None:
    for method, made in METHODS.items():
        config = method_config(method, **{field: "published"})
        scheme = SchemeInfo("tt", rank=5) if method == "adazeta" else LORA
        if made.published is not None:
            check_config(config)
            assert getattr(Rates.of(config, scheme), field) > 0
            continue
        with pytest.raises(UsageError, match=f"`{field}` published: nothing that fits was publ"):
            check_config(config)


def test_rates_of_a_run() -> None:
    given = Rates.of(method_config("zo-sgd", lr=0.5, eps=0.25), LORA)
    assert (given.lr, given.eps, given.words) == (0.5, 0.25, "")
    mixed = Rates.of(method_config("zo-sgd-mmt", lr="published", eps=0.25), LORA)
    assert (mixed.lr, mixed.eps) == pytest.approx((1e-5, 0.25))
    assert "published" in mixed.words


# --- a share of the blocks ---


@pytest.mark.parametrize(
    ("text", "blocks", "count"),
    [
        ("random:25%", 8, 2),
        ("random:25%", 30, 8),  # 7.5, rounded up
        ("random:25%", 2, 1),
        ("random:1%", 8, 1),
        ("random:100%", 8, 8),
        ("random:50%", 5, 3),
    ],
)
def test_a_share_of_the_blocks(text: str, blocks: int, count: int) -> None:
    schedule, own = parse_schedule(text), range(10, 10 + blocks)
    chosen = [schedule(step, 0, own) for step in range(300)]
    assert {len(set(active)) for active in chosen} == {count}
    assert all(list(active) == sorted(active) for active in chosen)
    seen = np.bincount(np.concatenate(chosen) - 10, minlength=blocks)
    expected = 300 * count / blocks
    assert (np.abs(seen - expected) < 5 * np.sqrt(expected) + 1e-9).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("random:0%", "0% is not 1% to 100%"),
        ("random:101%", "101% is not 1% to 100%"),
        ("random:%", "expected a whole number after 'random:'"),
        ("random:²%", "expected a whole number"),
        ("cyclic:25%", "expected a whole number after 'cyclic:'"),
        ("last:25%", "expected a whole number after 'last:'"),
    ],
)
def test_shares_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_schedule(text)
