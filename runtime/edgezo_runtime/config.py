"""What a run does. Flags, defaults, help and the saved configuration come from these fields."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

_BATCH, _EPOCHS = 16, 4
"""Examples a step, and passes over the data, where gradients are exact; docs/decisions/0013."""

_BATCH_OF_ESTIMATES = 128
"""Examples a step where gradients are estimated; docs/decisions/0006."""


def option(default: Any, help: str, *, exact: bool = True) -> Any:
    """A field with its help; `exact` fields are part of a run's identity."""
    return field(default=default, metadata={"help": help, "exact": exact})


OWN_RULE = "own"
"""The word for the rule that is a method's own."""


def _option(help: str) -> Any:
    return field(default=None, metadata={"help": help})


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """Settings of single methods; `edgezo methods NAME` lists them. None leaves the default."""

    num_directions: int | None = _option("directions a step (the most, where they grow)")
    directions: Literal["private", "shared"] | None = _option(
        "does every example have its own directions"
    )
    sign: Literal["elementwise", "scalar"] | None = _option(
        "sign of every element of the gradient, or of the projected gradient alone"
    )
    momentum: float | None = _option("decay of the momentum, not damped")
    b1: float | None = _option("decay of the first moment")
    b2: float | None = _option("decay of the second moment")
    weight_decay: float | None = _option("decoupled weight decay, per unit of lr")
    sparsity: float | None = _option("share of the coordinates that rest")
    mask: Literal["small", "large", "random"] | None = _option("which coordinates move")
    subspace_rank: int | None = _option("rank of the directions")
    refresh: int | None = _option("steps between new subspaces")
    smoothing: float | None = _option("weight of a step's curvature in the running one")
    anchor_every: int | None = _option("steps between anchors")
    anchor_lr: float | None = _option("learning rate at an anchor, in units of lr")
    anchor_batches: int | None = _option("batches that stand for all data at an anchor")
    query_scale: float | None = _option("a of a e^b directions in epoch e")
    query_growth: float | None = _option("b of a e^b directions in epoch e")
    anneal_steps: float | None = _option("steps in which the weight of a new gradient falls to b1")
    hessian_every: int | None = _option("steps between estimates of the curvature")

    def given(self) -> dict[str, Any]:
        """Those that are set."""
        fields = dataclasses.fields(self)
        values = {field_.name: getattr(self, field_.name) for field_ in fields}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class TuneConfig:
    """How to tune. The defaults are meant to work for a user who sets nothing."""

    method: str = option("auto", "what descends; 'edgezo methods' explains them")
    rule: str = option(
        OWN_RULE, "what a tensor does with the gradient, in place of the method's own"
    )
    schedule: str = option(
        "all", "blocks active in a step: all, last:K, cyclic:K, random:K, random:P%"
    )
    blocks: str = option(
        "auto", "blocks that train at all: auto (the middle), all, or ranges such as 8-19,25"
    )
    modules: str = option(
        "auto",
        "layers whose adapters train: auto (by first-order steps all, by estimates of LoRA those "
        "with the widest input, which MLPs end with), all, or names such as down_proj,o_proj",
    )
    scope: Literal["auto", "all", "answer"] = option(
        "auto",
        "tokens the adapters act on: all, answer (from the first scored one on; one token a row "
        "where label words are single tokens), auto (answer where that is so and prompts end "
        "alike)",
    )
    objective: Literal["loss", "accuracy", "f1", "exact-match", "reward"] = option(
        "loss",
        "what is descended, by losses alone unless it is the loss: accuracy or f1 of label words, "
        "exact-match or f1 of answers that are written, reward (see --reward)",
    )
    max_new_tokens: int = option(32, "tokens of an answer that is written, at most")
    temperature: float = option(
        0.0, "of answers that are written: 0 takes the likeliest token, else tokens are drawn"
    )
    stop: tuple[str, ...] = option((), "text that ends an answer; may be given several times")
    steps: int = option(0, "stop after so many steps; 0 leaves it to --max-time", exact=False)
    max_time_s: float = option(
        300.0, "stop after so many seconds of tuning; 0 for no limit", exact=False
    )
    epochs: float | Literal["auto"] = option(
        "auto",
        "stop after so many passes over the data; 0: no limit; auto: 4 where all steps are "
        "first-order and --steps is not given, else no limit",
    )
    batch_size: int | Literal["auto"] = option(
        "auto", "examples a step; auto: 16 where all steps are first-order, else 128"
    )
    lr: float | Literal["auto", "published"] = option(
        "auto",
        "learning rate: a number, auto (measured before the first step), published (the paper's)",
    )
    lr_schedule: str = option(
        "linear", "learning rate over the run: constant, linear, cosine, trapezoid"
    )
    horizon: int = option(
        2000, "longer runs take smaller steps: lr times this over the steps to come; 0: never"
    )
    eps: float | Literal["auto", "published"] = option(
        "auto", "perturbation scale, in units of the trainables, or as for --lr"
    )
    noise: Literal["rademacher", "gaussian"] = option(
        "rademacher", "distribution of the perturbations"
    )
    normalize: bool = option(True, "divide projected gradients by their running rms")
    clip: float = option(2.5, "clip projected gradients at so many rms; 0: never")
    average: float = option(0.97, "decay of the running average that becomes the adapter; 0: none")
    first_order: int | Literal["auto"] = option(
        "auto",
        "tune the last so many blocks by exact gradients, first-order steps of Adam; 0: none; "
        "auto: of --method auto all that train, where bundle and budget allow and no rule, "
        "schedule, lr or eps is given; else none",
    )
    first_order_lr: float | Literal["auto"] = option(
        "auto", "learning rate of the blocks that --first-order names: a number, auto (measured)"
    )
    seed: int = option(0, "of the noise and the data order")
    options: MethodOptions = field(
        default_factory=MethodOptions, metadata={"help": "settings of the method's own"}
    )
    rollback: bool = option(True, "go back and halve the learning rate when the loss diverges")
    prefix_cache: bool = option(True, "keep what does not change between steps on disk")
    save_every: int = option(200, "steps between snapshots", exact=False)

    @property
    def writes(self) -> bool:
        """May the objective need texts, one token after the other?"""
        return self.objective in ("f1", "exact-match", "reward")

    def identity(self) -> dict[str, object]:
        """What must not change when a run is continued."""
        fields = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.metadata.get("exact", True)
        }
        return fields | {"options": self.options.given()}

    @property
    def wants_first_order(self) -> bool:
        """Are first-order steps taken wherever they can be? Not where estimates were asked for."""
        settings = (self.first_order, self.method, self.lr, self.eps)
        others = ("rule", "schedule", "noise", "normalize", "clip")
        own = all(getattr(self, name) == _DEFAULTS[name] for name in others)
        own = own and self.objective == "loss"
        return own and all(value == "auto" for value in settings)

    def settled(self, rows: int, *, all_first_order: bool) -> TuneConfig:
        """The same with "auto" filled in: the batch size, and as `steps` the end of the epochs.

        Args:
            rows: examples there are.
            all_first_order: are there no estimates in a step?
        """
        batch, epochs, steps = self.batch_size, self.epochs, self.steps
        if batch == "auto":
            batch = _BATCH if all_first_order or self.writes else _BATCH_OF_ESTIMATES
        if epochs == "auto":
            epochs = _EPOCHS if all_first_order and not steps else 0
        if epochs:
            limit = math.ceil(epochs * rows / min(batch, rows))
            steps = min(steps, limit) if steps else limit
        return dataclasses.replace(self, batch_size=batch, epochs=epochs, steps=steps)


OBJECTIVES = ("loss", "accuracy", "f1", "exact-match", "reward")
"""What a run can descend."""

_DEFAULTS = {f.name: f.default for f in dataclasses.fields(TuneConfig)}
