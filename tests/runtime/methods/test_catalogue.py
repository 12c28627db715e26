"""The catalogue: settings and parts of methods, and which options go with which."""

from __future__ import annotations

import dataclasses

import pytest

from edgezo_runtime.config import MethodOptions, TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.catalogue import METHODS, assemble, method_config
from edgezo_runtime.methods.config_check import check_config
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
    for method in (name for name, made in METHODS.items() if not made.feedback):
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
    with pytest.raises(UsageError, match="`method` mezo: expected one of auto, feedback, zo-sgd"):
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
