"""The catalogue of methods: each is an estimator, a rule and a sampler with published settings.

To add a method, write its estimator, rule or sampler in a file of its own, and add an entry here
and a row in `tests/contract/methods_table.py`.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from edgezo_runtime.config import OWN_RULE, MethodOptions, TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.estimators import (
    Estimator,
    block_wise,
    conservative,
    curved_pair,
    forward_grad,
    growing_pairs,
    leave_one_out,
    n_spsa,
    one_sided,
    per_example,
    scalar_sign,
    scaled_one_sided,
    scaled_per_example,
    two_point,
    variance_reduced,
)
from edgezo_runtime.methods.method import (
    FULL_EPS,
    FULL_LR,
    LORA_EPS,
    LORA_LR,
    Method,
    Parts,
    Published,
)
from edgezo_runtime.methods.rules import (
    RULES,
    Adam,
    FactorMomentum,
    Helene,
    Momentum,
    Rule,
    Sgd,
    Sign,
    Svrg,
)
from edgezo_runtime.methods.samplers import (
    Curvature,
    Flipout,
    LowRank,
    Sparse,
    Subspace,
)


def assemble(config: TuneConfig, eps: float) -> Parts:
    """Make the estimator, rule and sampler of a method.

    Args:
        config: names the method, its options and the rule.
        eps: perturbation scale.

    Raises:
        UsageError: the method does not take an option or another rule, or a value is out of range.
    """
    name, options = config.method, config.options.given()
    rule = None if config.rule == OWN_RULE else config.rule
    method = METHODS[name]
    if rule and not method.any_rule:
        raise UsageError(f"`rule` {rule}: {name} has a rule of its own; remove `rule`")
    rule_factory = RULES[rule] if rule else method.rule
    factories = (method.estimator, rule_factory, method.sampler)
    known = {option for factory in factories for option in inspect.signature(factory).parameters}
    for option in options:
        if option not in known:
            others = [other for other, made in METHODS.items() if option in made.options()]
            raise UsageError(
                f"`{option}`: {name} does not take it; methods that do: {', '.join(others)}"
            )

    def made(factory: Callable[..., Any]) -> Any:
        values = {"batch_size": config.batch_size, **options}
        parameters = inspect.signature(factory).parameters
        return factory(**{key: value for key, value in values.items() if key in parameters})

    estimator = made(partial(method.estimator, eps))
    return Parts(estimator, made(rule_factory), made(method.sampler))


def _sign_rule(
    sign: Literal["elementwise", "scalar"] = "elementwise", weight_decay: float = 0.0
) -> Rule:
    """Return `Sign` for elementwise signs; the estimator takes the sign of a scalar."""
    if sign not in ("elementwise", "scalar"):
        raise UsageError(f"`sign` {sign}: expected elementwise or scalar")
    return Sign(weight_decay) if sign == "elementwise" else Sgd(weight_decay)


def _sign_estimator(
    eps: float, sign: Literal["elementwise", "scalar"] = "elementwise"
) -> Estimator:
    return two_point(eps) if sign == "elementwise" else scalar_sign(eps)


def _feedback(eps: float, pairs: int = 960) -> Estimator:
    """Return an estimator that is not used; the options are those of the feedback."""
    return two_point(eps)


def _plain_adam() -> Rule:
    """Return the rule of first-order steps, which feedback takes."""
    return Adam()


def _refuse_what_feedback_lacks(config: TuneConfig) -> str | None:
    for name, own in (("schedule", "all"), ("modules", "auto")):
        if getattr(config, name) != own:
            return f"`{name}` {getattr(config, name)}: feedback takes {own} only"
    if config.objective not in ("loss", "accuracy"):
        return (
            f"`objective` {config.objective}: has no derivative by the label logits, which "
            f"feedback carries back; take accuracy or loss, or another method"
        )
    if config.first_order not in ("auto", 0):
        return f"`first_order` {config.first_order}: feedback trains all its blocks itself"
    return None


def _refuse_shaping(config: TuneConfig) -> str | None:
    if not (config.normalize or config.clip):
        return None
    return (
        f"{config.method} evaluates the steps it may take, so they cannot be shaped afterwards; "
        f"leave out `normalize` and `clip`"
    )


def _refuse_inactive_blocks(config: TuneConfig) -> str | None:
    if config.schedule == "all":
        return None
    return (
        f"`schedule` {config.schedule}: {config.method} has all blocks active in every step; "
        f"set `schedule` to all"
    )


_PLAIN: Mapping[str, object] = {
    "noise": "gaussian",
    "normalize": False,
    "clip": 0.0,
    "lr_schedule": "constant",
    "horizon": 0,
    "average": 0.0,
    "batch_size": 16,
}
"""MeZO's loop: no shaping, no averaging, a constant learning rate."""

_MEZO = Published(LORA_LR, LORA_EPS)
_MEZO_LENGTH = Published(LORA_LR, LORA_EPS, lengths=True)
_MEZO_FULL = Published(FULL_LR, FULL_EPS, "all weights")
_LOZO = Published(FULL_LR, FULL_EPS, "all weights", rank=2)

METHODS: dict[str, Method] = {
    "auto": Method(
        summary="the default: first-order steps where bundle and budget allow, else one antithetic "
        "pair of random signs per example, normalized, averaged, annealed",
        paper="docs/decisions/0006, 0011, 0013",
        evaluations="1 and its gradient, else 2",
        state="2, else 0",
        estimator=per_example,
    ),
    "feedback": Method(
        summary="forward passes that learn the Jacobian of the label logits, then steps of Adam by "
        "the error that it carries back; on texts, along the residual stream",
        paper="docs/decisions/0028",
        evaluations="1; 2 first",
        state="2",
        estimator=_feedback,
        rule=_plain_adam,
        settings={"normalize": False, "clip": 0.0},
        any_rule=False,
        feedback=True,
        problem=_refuse_what_feedback_lacks,
    ),
    "zo-sgd": Method(
        summary="MeZO: one antithetic pair along one direction",
        paper="arXiv:2305.17333",
        evaluations="2",
        estimator=two_point,
        settings=_PLAIN,
        published=_MEZO,
    ),
    "zo-sgd-one-sided": Method(
        summary="forward difference along one direction",
        paper="arXiv:2402.11592",
        evaluations="2",
        estimator=one_sided,
        settings=_PLAIN,
        published=_MEZO,
    ),
    "n-spsa": Method(
        summary="the mean of several pairs",
        paper="arXiv:2305.17333",
        evaluations="2 q",
        estimator=n_spsa,
        settings=_PLAIN,
        published=_MEZO,
    ),
    "zo-sgd-sign": Method(
        summary="steps along the sign of the estimate",
        paper="arXiv:2402.11592",
        evaluations="2",
        estimator=_sign_estimator,
        rule=_sign_rule,
        settings=_PLAIN,
        published=_MEZO_LENGTH,
        any_rule=False,
    ),
    "zo-sgd-mmt": Method(
        summary="MeZO with heavy-ball momentum",
        paper="arXiv:2402.11592",
        evaluations="2",
        state="1",
        estimator=two_point,
        rule=Momentum,
        settings=_PLAIN,
        published=Published(1e-5, LORA_EPS),
        any_rule=False,
    ),
    "zo-sgd-cons": Method(
        summary="the step, the opposite step or none, whichever gives the least loss",
        paper="arXiv:2402.11592",
        evaluations="5",
        estimator=conservative,
        settings=_PLAIN,
        published=_MEZO,
        any_rule=False,
        problem=_refuse_shaping,
    ),
    "zo-adam": Method(
        summary="MeZO with Adam",
        paper="arXiv:2402.11592",
        evaluations="2",
        state="2",
        estimator=two_point,
        rule=Adam,
        settings=_PLAIN,
        published=_MEZO_LENGTH,
        any_rule=False,
    ),
    "forward-grad": Method(
        summary="the directional derivative from four probes",
        paper="arXiv:2202.08587",
        evaluations="4",
        estimator=forward_grad,
        settings=_PLAIN,
        published=Published(1e-5, LORA_EPS),
    ),
    "block-wise": Method(
        summary="one antithetic pair per block on the same batch",
        paper="arXiv:2402.11592",
        evaluations="2 per block, without the blocks before it",
        estimator=block_wise,
        settings=_PLAIN,
        published=_MEZO,
    ),
    "sparse": Method(
        summary="Sparse-MeZO: perturbs small (or large, or random) coordinates only",
        paper="arXiv:2402.15751",
        evaluations="2",
        estimator=two_point,
        sampler=Sparse,
        settings=_PLAIN,
        published=_MEZO_FULL,
    ),
    "subzero": Method(
        summary="directions in a random subspace of each matrix",
        paper="arXiv:2410.08989",
        evaluations="2",
        estimator=two_point,
        sampler=Subspace,
        settings=_PLAIN,
        published=_MEZO,
    ),
    "lozo": Method(
        summary="directions of low rank with one factor fixed for several steps",
        paper="arXiv:2410.07698",
        evaluations="2",
        estimator=two_point,
        sampler=LowRank,
        settings=_PLAIN,
        published=_LOZO,
    ),
    "lozo-m": Method(
        summary="LOZO with momentum in the free factor",
        paper="arXiv:2410.07698",
        evaluations="2",
        state="r (m + n) per matrix",
        estimator=two_point,
        rule=FactorMomentum,
        sampler=LowRank,
        settings=_PLAIN,
        published=_LOZO,
        any_rule=False,
    ),
    "lezo": Method(
        summary="a random quarter of the blocks per step",
        paper="arXiv:2410.09823",
        evaluations="2",
        estimator=two_point,
        settings={**_PLAIN, "schedule": "random:25%"},
        published=_MEZO_FULL,
    ),
    "helene": Method(
        summary="annealed momentum over a clipped diagonal Hessian",
        paper="arXiv:2411.10696",
        evaluations="2",
        state="2",
        estimator=two_point,
        rule=Helene,
        settings=_PLAIN,
        any_rule=False,
    ),
    "adazeta": Method(
        summary="tensor-train adapters, more directions in later epochs, AdamW",
        paper="arXiv:2406.18060",
        evaluations="2 Q, Q from 1 to 20",
        state="2",
        estimator=growing_pairs,
        rule=partial(Adam, weight_decay=0.01),
        settings=_PLAIN,
        published=Published(1e-4, 1e-3, "tensor trains", lengths=True),
        scheme="tt",
        any_rule=False,
    ),
    "mezo-svrg": Method(
        summary="estimates corrected by the gradient at an anchor point",
        paper="arXiv:2404.08080",
        evaluations="4; 16 at an anchor",
        state="2",
        estimator=variance_reduced,
        rule=Svrg,
        settings=_PLAIN,
        published=_MEZO_FULL,
        any_rule=False,
        problem=_refuse_inactive_blocks,
    ),
    "hizoo": Method(
        summary="directions scaled by a diagonal Hessian",
        paper="arXiv:2402.15173",
        evaluations="3",
        state="1",
        estimator=curved_pair,
        sampler=Curvature,
        settings=_PLAIN,
        published=_MEZO_FULL,
    ),
    "fzoo": Method(
        summary="several one-sided differences divided by their standard deviation",
        paper="arXiv:2506.09034",
        evaluations="N + 1",
        estimator=scaled_one_sided,
        settings={**_PLAIN, "noise": "rademacher"},
        published=Published(5e-5, 1e-4, "all weights", lengths=True),
    ),
    "grzo": Method(
        summary="per-example pairs by flipout, divided by their standard deviation",
        paper="arXiv:2606.02857",
        evaluations="2",
        estimator=scaled_per_example,
        sampler=Flipout,
        settings=_PLAIN,
    ),
    "rloo": Method(
        summary="several directions per example, each compared with the mean of the others",
        paper="Kool et al. 2019",
        evaluations="N",
        estimator=leave_one_out,
        settings={**_PLAIN, "noise": "rademacher"},
    ),
    "qzo": Method(
        summary="tunes quantization scales of the frozen weights, clips projected gradients",
        paper="arXiv:2505.13430",
        evaluations="2",
        estimator=two_point,
        settings={**_PLAIN, "clip": 2.5},
        scheme="scales",
    ),
}


def method_config(method: str, **given: Any) -> TuneConfig:
    """Return the configuration of a method with its published settings.

    Args:
        method: name of the method.
        given: fields of `TuneConfig` and `MethodOptions` that replace the method's settings.
    Raises:
        UsageError: the method is unknown.
    """
    if method not in METHODS:
        raise UsageError(f"`method` {method}: expected one of {', '.join(METHODS)}")
    own = {f.name for f in dataclasses.fields(MethodOptions)}
    options = {name: value for name, value in given.items() if name in own}
    rest = {name: value for name, value in given.items() if name not in own}
    if options:
        rest["options"] = dataclasses.replace(rest.get("options", MethodOptions()), **options)
    settings: dict[str, Any] = {**METHODS[method].settings, **rest}
    return TuneConfig(method=method, **settings)
