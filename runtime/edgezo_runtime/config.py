"""Settings of a run. Flags, defaults, help and the saved configuration come from these fields.

A help text names other settings by their fields, in backquotes; the command line shows their flags.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

_BATCH, _EPOCHS = 16, 4
"""Examples per step and passes over the data of first-order steps; docs/decisions/0013."""

_FEEDBACK_EPOCHS, _FEEDBACK_ROWS = (6, 12), 6000
"""Fewest and most passes over the data of feedback on label words, and the rows that are enough;
docs/feedback.md."""

_LONGEST_S = 300.0
"""Longest time of a run that is given neither steps nor epochs; docs/decisions/0024."""

_BATCH_OF_ESTIMATES = 128
"""Examples per step where gradients are estimated; docs/decisions/0006."""


def option(default: Any, help: str, *, exact: bool = True) -> Any:
    """A field with its help; `exact` fields are part of a run's identity."""
    return field(default=default, metadata={"help": help, "exact": exact})


OWN_RULE = "own"
"""Name of the rule that comes with the method."""


def _option(help: str) -> Any:
    return field(default=None, metadata={"help": help})


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """Settings of single methods; `edgezo methods NAME` lists them. None leaves the default."""

    num_directions: int | None = _option(
        "directions per step; their limit, where the number grows during the run"
    )
    directions: Literal["private", "shared"] | None = _option(
        "directions of each example (private), or of the whole batch (shared)"
    )
    sign: Literal["elementwise", "scalar"] | None = _option(
        "sign of each element of the gradient, or of the projected gradient (scalar)"
    )
    momentum: float | None = _option("decay of the momentum, without damping")
    b1: float | None = _option("decay of the first moment")
    b2: float | None = _option("decay of the second moment")
    weight_decay: float | None = _option("decoupled weight decay, per unit of learning rate")
    sparsity: float | None = _option("share of the coordinates that a step leaves as they are")
    mask: Literal["small", "large", "random"] | None = _option(
        "coordinates that a step changes: of small or large magnitude, or random"
    )
    subspace_rank: int | None = _option("rank of the directions")
    refresh: int | None = _option("steps between new subspaces")
    smoothing: float | None = _option(
        "weight of a step's curvature in the running estimate of the curvature"
    )
    anchor_every: int | None = _option("steps between anchors")
    anchor_lr: float | None = _option("learning rate at an anchor, in units of `lr`")
    anchor_batches: int | None = _option("further batches that an anchor is estimated on")
    query_scale: float | None = _option("factor a of the a e^b directions in epoch e")
    query_growth: float | None = _option("exponent b of the a e^b directions in epoch e")
    anneal_steps: float | None = _option(
        "steps in which the weight of a new gradient falls from 1 to `b1`"
    )
    hessian_every: int | None = _option("steps between estimates of the curvature")
    pairs: int | None = _option(
        "pairs of passes that feedback is estimated from before the first step"
    )

    def given(self) -> dict[str, Any]:
        """The settings that are not None."""
        fields = dataclasses.fields(self)
        values = {field_.name: getattr(self, field_.name) for field_ in fields}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """How a run generates the answers that it scores; fields as in `TuneConfig`."""

    max_new_tokens: int
    temperature: float
    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TuneConfig:
    """Settings of a run. The defaults are meant to work for a user who sets nothing."""

    method: str = option(
        "auto",
        "method of tuning, see 'edgezo methods'; auto takes exact gradients where bundle and "
        "budget allow, else estimates",
    )
    rule: str = option(
        OWN_RULE, "update rule, which turns a gradient into a step; own is the method's own"
    )
    schedule: str = option(
        "all", "blocks that a step trains: all, last:K, cyclic:K, random:K or random:P%"
    )
    blocks: str = option(
        "auto",
        "blocks to train: all, or ranges such as 8-19,25; auto takes all by first-order steps, and "
        "those in the middle of the model by estimates",
    )
    modules: str = option(
        "auto",
        "layers whose adapters train: all, or names such as down_proj,o_proj; auto takes all by "
        "first-order steps, and by estimates of LoRA those with the widest input, the last ones "
        "of MLPs",
    )
    scope: Literal["auto", "all", "answer"] = option(
        "auto",
        "tokens that adapters act on: all, or answer, those from the first scored token on; auto "
        "takes answer for label words if all prompts end with the same token, else all",
    )
    objective: Literal["loss", "accuracy", "f1", "exact-match", "reward"] = option(
        "loss",
        "quantity to optimize: loss; accuracy or f1 of label words; exact-match or f1 of generated "
        "answers; reward, see `reward`. Only the loss has exact gradients",
    )
    max_new_tokens: int = option(32, "longest generated answer, in tokens")
    temperature: float = option(
        0.0, "temperature of generated answers; 0 takes the likeliest token"
    )
    stop: tuple[str, ...] = option(
        (), "text that ends a generated answer; may be given several times"
    )
    steps: int = option(0, "longest run, in steps; 0 sets no limit", exact=False)
    max_time_s: float | Literal["auto"] = option(
        "auto",
        "longest run, in time spent tuning: 90s, 10m, 1h; 0 sets no limit; auto takes 5m where "
        "neither `steps` nor `epochs` is given, else no limit",
        exact=False,
    )
    epochs: float | Literal["auto"] = option(
        "auto",
        "longest run, in passes over the data; 0 sets no limit; auto takes 4 where all steps are "
        "first-order and `steps` is not given, with feedback on label words 6, or up to 12 where "
        "rows are few; else no limit",
    )
    batch_size: int | Literal["auto"] = option(
        "auto",
        "examples per step; auto takes 16 where all steps are first-order or the objective is f1, "
        "exact-match or reward, else 128",
    )
    lr: float | Literal["auto", "published"] = option(
        "auto",
        "learning rate of estimates; auto measures it before the first step, published takes the "
        "paper's",
    )
    lr_schedule: str = option("linear", "shape of the learning rate over the run")
    horizon: int = option(
        2000,
        "steps beyond which a longer run takes smaller steps: the learning rate is multiplied by "
        "this number over the run's steps; 0 sets no limit",
    )
    eps: float | Literal["auto", "published"] = option(
        "auto",
        "perturbation scale, in units of the trainables; auto measures it before the first step, "
        "published takes the paper's",
    )
    noise: Literal["rademacher", "gaussian"] = option(
        "rademacher", "distribution of the perturbations"
    )
    normalize: bool = option(True, "divide projected gradients by their running root mean square")
    clip: float = option(
        2.5,
        "largest projected gradient, in units of the running root mean square; 0 sets no limit",
    )
    average: float = option(
        0.97,
        "decay of the running average of the trainables, which the adapter holds; 0 takes none",
    )
    first_order: int | Literal["auto"] = option(
        "auto",
        "number of last blocks that take first-order steps, Adam by exact gradients; 0 takes none; "
        "auto takes all where bundle and budget allow, and none where `method`, `rule`, "
        "`schedule`, `objective`, `lr`, `eps`, `noise`, `normalize` or `clip` is not the default",
    )
    first_order_lr: float | Literal["auto"] = option(
        "auto", "learning rate of first-order steps; auto measures it before the first step"
    )
    seed: int = option(0, "seed of the noise and of the order of the data")
    options: MethodOptions = field(
        default_factory=MethodOptions, metadata={"help": "settings of the method's own"}
    )
    keep: Literal["best", "last"] = option(
        "best",
        "adapter that is handed out: best, the one with the lowest loss (the best score, where "
        "`objective` is one) among those evaluated on the rows for validation; or the last one. "
        "Without such rows it is the last one",
        exact=False,
    )
    rollback: bool = option(True, "roll back and halve the learning rate when the loss diverges")
    prefix_cache: bool = option(True, "cache on disk the states that steps do not change")
    save_every: int = option(200, "steps between snapshots", exact=False)

    @property
    def needs_answers(self) -> bool:
        """Does the objective score generated answers, unless the rows have classes?"""
        return self.objective in ("f1", "exact-match", "reward")

    def answers(self, *, classes: bool) -> AnswerSettings | None:
        """How answers are generated; None if the run scores none.

        Args:
            classes: do the rows have classes?
        """
        if classes or not self.needs_answers:
            return None
        return AnswerSettings(self.max_new_tokens, self.temperature, self.stop)

    def identity(self) -> dict[str, object]:
        """The settings that must not change when a run is resumed."""
        fields = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.metadata.get("exact", True)
        }
        return fields | {"options": self.options.given()}

    @property
    def wants_first_order(self) -> bool:
        """Are first-order steps taken where possible? Not where a setting asks for estimates."""
        settings = (self.first_order, self.method, self.lr, self.eps)
        others = ("rule", "schedule", "noise", "normalize", "clip")
        own = all(getattr(self, name) == _DEFAULTS[name] for name in others)
        own = own and self.objective == "loss"
        return own and all(value == "auto" for value in settings)

    def settled(self, rows: int, *, all_first_order: bool, pairs: int = 0) -> TuneConfig:
        """The same with "auto" resolved: batch size, longest time, and `steps` from the epochs.

        Args:
            rows: number of examples.
            all_first_order: does every block take first-order steps?
            pairs: examples that are evaluated before the epochs begin.
        """
        batch, epochs, steps = self.batch_size, self.epochs, self.steps
        longest_s = self.max_time_s
        if longest_s == "auto":
            longest_s = 0.0 if steps or epochs not in ("auto", 0) else _LONGEST_S
        if batch == "auto":
            batch = _BATCH if all_first_order or self.needs_answers else _BATCH_OF_ESTIMATES
        if epochs == "auto":
            epochs = _EPOCHS if not pairs else _feedback_epochs(rows)
            epochs = epochs if all_first_order and not steps else 0
        if epochs:
            limit = math.ceil(epochs * rows / min(batch, rows))
            limit += math.ceil(pairs / min(batch, rows))
            steps = min(steps, limit) if steps else limit
        return dataclasses.replace(
            self, batch_size=batch, epochs=epochs, steps=steps, max_time_s=longest_s
        )


OBJECTIVES = ("loss", "accuracy", "f1", "exact-match", "reward")
"""The quantities that a run can optimize."""


def _feedback_epochs(rows: int) -> float:
    """Passes over so many examples after the pairs of feedback."""
    least, most = _FEEDBACK_EPOCHS
    return max(least, min(most, _FEEDBACK_ROWS / rows))


_DEFAULTS = {f.name: f.default for f in dataclasses.fields(TuneConfig)}
