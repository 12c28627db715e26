"""Command line and output of the training loops in torch."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import models
from tests.benchmarks.curves import Point
from tests.benchmarks.targets import DATA, parser
from tests.benchmarks.tasks import TASKS


@dataclass(frozen=True, slots=True)
class Choice:
    """Inputs of a training run, of any algorithm."""

    model: Path
    bundle: Path
    task: str
    data: Path
    seed: int
    threads: int
    limits: dict[str, Any]

    @classmethod
    def of(cls, options: argparse.Namespace, made: models.Prepared) -> Choice:
        """From the options of `training_parser`."""
        limits = {
            "max_s": 60 * options.minutes,
            "eval_every_s": options.eval_every,
            "batch_size": options.batch_size,
            "max_steps": options.max_steps,
        }
        return cls(
            made.torch, made.int8, options.task, options.data, options.seed, options.threads, limits
        )

    def arguments(self) -> dict[str, Any]:
        """As JSON values."""
        found = {name: str(getattr(self, name)) for name in ("model", "bundle", "task", "data")}
        return {**found, "seed": self.seed, "threads": self.threads, "limits": self.limits}


def training_parser(
    doc: str | None, *, minutes: float, lr: str, eval_every: float = 60
) -> argparse.ArgumentParser:
    """Options of a training loop, with its defaults."""
    found = parser(doc)
    models.add_options(found)
    found.add_argument("--task", default="sst2", choices=list(TASKS))
    found.add_argument("--data", type=Path, default=DATA, metavar="FOLDER")
    found.add_argument("--minutes", type=float, default=minutes)
    found.add_argument("--lr", default=lr, metavar="X,...")
    found.add_argument("--batch-size", type=int, default=16)
    found.add_argument("--eval-every", type=float, default=eval_every, metavar="SECONDS")
    found.add_argument("--max-steps", type=int, default=0, help="a second end; 0 for none")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--threads", type=int, default=2)
    return found


def print_point(point: Point, **more: float) -> None:
    """One evaluation on stdout."""
    print(json.dumps({**more, **asdict(point)}), flush=True)
