"""What a run does. Flags, defaults, help and the saved configuration come from these fields."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from edgezo_runtime.errors import UsageError
from edgezo_runtime.method_options import OWN_RULE, MethodOptions
from edgezo_runtime.trainables import TrainableInfo

_BATCH, _EPOCHS = 16, 4
"""Examples a step, and passes over the data, where gradients are exact; docs/decisions/0013."""

_BATCH_OF_ESTIMATES = 128
"""Examples a step where gradients are estimated; docs/decisions/0006."""


def option(default: Any, help: str, *, exact: bool = True) -> Any:
    """A field with its help; `exact` fields are part of a run's identity."""
    return field(default=default, metadata={"help": help, "exact": exact})


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
    hybrid: int | Literal["auto"] = option(
        "auto",
        "tune the last so many blocks by exact gradients, first-order steps of Adam; 0: none; "
        "auto: of --method auto all that train, where bundle and budget allow and no rule, "
        "schedule, lr or eps is given; else none",
    )
    hybrid_lr: float | Literal["auto"] = option(
        "auto", "learning rate of the blocks that --hybrid names: a number, auto (measured)"
    )
    seed: int = option(0, "of the noise and the data order")
    options: MethodOptions = field(
        default_factory=MethodOptions, metadata={"help": "settings of the method's own"}
    )
    guard: bool = option(True, "go back and halve the learning rate when the loss diverges")
    prefix_cache: bool = option(True, "keep what does not change between steps on disk")
    save_every: int = option(200, "steps between snapshots", exact=False)

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises:
            UsageError: naming the flag, the value and what is expected.
        """
        from edgezo_runtime.lr_schedules import LR_SCHEDULES
        from edgezo_runtime.methods import METHODS, assemble
        from edgezo_runtime.rules import RULES
        from edgezo_runtime.schedules import parse_schedule

        for name, known in (
            ("method", list(METHODS)),
            ("rule", [OWN_RULE, *RULES]),
            ("lr_schedule", list(LR_SCHEDULES)),
        ):
            value = getattr(self, name)
            if value not in known:
                raise UsageError(f"{_flag(name)} {value}: expected one of {', '.join(known)}")
        if self.scope not in ("auto", "all", "answer"):
            raise UsageError(f"--scope {self.scope}: expected auto, all or answer")
        self._check_objective()
        if self.noise not in ("rademacher", "gaussian"):
            raise UsageError(f"--noise {self.noise}: expected rademacher or gaussian")
        parse_schedule(self.schedule)
        for name in ("lr", "eps"):
            value = getattr(self, name)
            if value in ("auto", "published"):
                if value == "published" and METHODS[self.method].published is None:
                    raise UsageError(
                        f"{_flag(name)} published: nothing that fits was published for "
                        f"{self.method}; give a number, or auto"
                    )
            elif isinstance(value, str) or not math.isfinite(value) or value <= 0:
                raise UsageError(
                    f"{_flag(name)} {value}: must be a number above zero, auto or published"
                )
        for name, low in (("hybrid_lr", 5e-324), ("epochs", 0.0)):
            value = getattr(self, name)
            if value != "auto" and not (low <= value < math.inf):
                raise UsageError(
                    f"{_flag(name)} {value}: must be auto or a number "
                    f"{'above zero' if low else 'of 0 or more'}"
                )
        if not (math.isfinite(self.clip) and self.clip >= 0):
            raise UsageError(f"--clip {self.clip}: must be a number, 0 or more")
        for name, low in (
            ("save_every", 1),
            ("steps", 0),
            ("horizon", 0),
            ("seed", 0),
            *([] if self.hybrid == "auto" else [("hybrid", 0)]),
            *([] if self.batch_size == "auto" else [("batch_size", 1)]),
        ):
            if getattr(self, name) < low:
                raise UsageError(f"{_flag(name)} {getattr(self, name)}: must be {low} or more")
        for name in ("steps", "horizon", "save_every", "batch_size", "epochs", "max_time_s"):
            value = getattr(self, name)
            if value != "auto" and value > _LARGEST:
                raise UsageError(f"{_flag(name)} {value}: must be {_LARGEST} or less")
        for option, value in self.options.given().items():
            if not isinstance(value, str) and not -_LARGEST_OPTION <= value <= _LARGEST_OPTION:
                raise UsageError(
                    f"{_flag(option)} {value}: must be {_LARGEST_OPTION} or less, and a number"
                )
        if self.seed >= 2**64:
            raise UsageError(f"--seed {self.seed}: must be below 2^64")
        if not math.isfinite(self.max_time_s) or self.max_time_s < 0:
            raise UsageError(f"--max-time {self.max_time_s}: must be 0 seconds or more")
        if not self.steps and not self.max_time_s and self.epochs in ("auto", 0):
            raise UsageError(
                "--steps 0 and --max-time 0: a run needs an end; give one of them, or --epochs"
            )
        none = not self.wants_tail if self.hybrid == "auto" else not self.hybrid
        if none and self.hybrid_lr != "auto":
            raise UsageError(
                f"--hybrid-lr {self.hybrid_lr}: no block takes first-order steps; give --hybrid K"
            )
        if not 0 <= self.average < 1:
            raise UsageError(f"--average {self.average}: must be in [0, 1)")
        assemble(self.settled(1, first_order=False), 1.0)
        problem = METHODS[self.method].problem(self)
        if problem:
            raise UsageError(problem)

    def _check_objective(self) -> None:
        """Refuse an objective that is none, and gradients of one that has none."""
        if self.objective not in OBJECTIVES:
            raise UsageError(
                f"--objective {self.objective}: expected one of {', '.join(OBJECTIVES)}"
            )
        if self.objective != "loss" and self.hybrid not in ("auto", 0):
            raise UsageError(
                f"--hybrid {self.hybrid}: {self.objective} has no gradient; leave it out, or "
                f"descend the loss"
            )
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(f"--temperature {self.temperature}: must be 0 or more")
        if self.max_new_tokens < 1 or self.max_new_tokens > _LARGEST:
            raise UsageError(f"--max-new-tokens {self.max_new_tokens}: must be 1 or more")
        if "" in self.stop:
            raise UsageError("--stop: a stop text is empty")

    @property
    def writes(self) -> bool:
        """May the objective need texts, one token after the other?"""
        return self.objective in ("f1", "exact-match", "reward")

    @classmethod
    def of(cls, method: str, **given: Any) -> TuneConfig:
        """A method with its published settings.

        Args:
            method: its name.
            given: fields in place of the method's; those of `MethodOptions` among them.
        Raises:
            UsageError: the method is unknown.
        """
        from edgezo_runtime.methods import METHODS

        if method not in METHODS:
            raise UsageError(f"--method {method}: expected one of {', '.join(METHODS)}")
        own = {f.name for f in dataclasses.fields(MethodOptions)}
        options = {name: value for name, value in given.items() if name in own}
        rest = {name: value for name, value in given.items() if name not in own}
        if options:
            rest["options"] = dataclasses.replace(rest.get("options", MethodOptions()), **options)
        settings: dict[str, Any] = {**METHODS[method].settings, **rest}
        return cls(method=method, **settings)

    def identity(self) -> dict[str, object]:
        """What must not change when a run is continued."""
        fields = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.metadata.get("exact", True)
        }
        return fields | {"options": self.options.given()}

    @property
    def wants_tail(self) -> bool:
        """Are first-order steps taken wherever they can be? Not where estimates were asked for."""
        settings = (self.hybrid, self.method, self.lr, self.eps)
        others = ("rule", "schedule", "noise", "normalize", "clip")
        own = all(getattr(self, name) == _DEFAULTS[name] for name in others)
        own = own and self.objective == "loss"
        return own and all(value == "auto" for value in settings)

    def settled(self, rows: int, *, first_order: bool) -> TuneConfig:
        """The same with "auto" filled in: the batch size, and as `steps` the end of the epochs.

        Args:
            rows: examples there are.
            first_order: are there no estimates in a step?
        """
        batch, epochs, steps = self.batch_size, self.epochs, self.steps
        if batch == "auto":
            batch = _BATCH if first_order or self.writes else _BATCH_OF_ESTIMATES
        if epochs == "auto":
            epochs = _EPOCHS if first_order and not steps else 0
        if epochs:
            limit = math.ceil(epochs * rows / min(batch, rows))
            steps = min(steps, limit) if steps else limit
        return dataclasses.replace(self, batch_size=batch, epochs=epochs, steps=steps)

    def select_blocks(self, blocks: Sequence[int]) -> list[int]:
        """The blocks that train, of those that have trainables.

        Raises:
            UsageError: `blocks` is not understood or leaves nothing.
        """
        if not blocks:
            raise UsageError("the bundle has no trainables; export it with other --targets")
        if self.blocks == "all" or (self.blocks == "auto" and self.schedule != "all"):
            chosen = list(blocks)
        elif self.blocks == "auto":
            # Measured on SmolLM2-135M and SST-2 with exact gradients; docs/decisions/0006.
            first, last = _MIDDLE
            total = blocks[-1] + 1
            chosen = [b for b in blocks if first <= (b + 0.5) / total <= last] or list(blocks)
        else:
            wanted = _parse_ranges(self.blocks)
            chosen = [b for b in blocks if any(first <= b <= last for first, last in wanted)]
        if not chosen:
            raise UsageError(
                f"--blocks {self.blocks}: none of them has trainables; the bundle has them in "
                f"{blocks[0]} to {blocks[-1]}"
            )
        return chosen

    def select_tensors(self, infos: Sequence[TrainableInfo]) -> list[TrainableInfo]:
        """The trainables that estimates are for.

        Args:
            infos: those of the bundle.
        Raises:
            UsageError: `modules` leaves nothing.
        """
        able = [info for info in infos if info.trains]
        if self.modules == "all":
            return able
        if self.modules == "auto":
            widths = {
                (info.block, info.module): info.shape[1] for info in infos if info.role == "lora_A"
            }
            widest = max(widths.values(), default=0)
            names = {module for (_, module), width in widths.items() if width == widest}
            return [info for info in able if not names or info.module in names]
        ends = [f".{name.strip()}" for name in self.modules.split(",")]
        for end in ends:
            if not any(f".{info.module}".endswith(end) for info in able):
                known = sorted({info.module.rpartition(".")[2] for info in able})
                raise UsageError(
                    f"--modules {self.modules}: '{end[1:]}' has no trainables; the bundle has them "
                    f"in {', '.join(known)}"
                )
        return [info for info in able if f".{info.module}".endswith(tuple(ends))]


OBJECTIVES = ("loss", "accuracy", "f1", "exact-match", "reward")
"""What a run can descend."""

_LARGEST, _LARGEST_OPTION = 10**12, 10**6
"""No count is larger, nor any setting of a method's own."""

_MIDDLE = (0.27, 0.7)
"""Share of the depth where `--blocks auto` begins and ends."""


def _parse_ranges(text: str) -> list[tuple[int, int]]:
    """First and last block of every range."""
    found: list[tuple[int, int]] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,20})(?:-([0-9]{1,20}))?", part.strip())
        if match is None:
            raise UsageError(f"--blocks {text}: expected auto, all, or ranges such as 8-19,25")
        first, last = match.groups()
        found.append((int(first), int(last or first)))
    return found


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


_DEFAULTS = {f.name: f.default for f in dataclasses.fields(TuneConfig)}
