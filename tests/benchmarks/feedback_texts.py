"""Texts by learned feedback: validation loss against forwards and seconds, with other methods.

    python -m tests.benchmarks.feedback_texts --int8 BUNDLE [--data FOLDER] [--task dolly_hhrlhf]
        [--methods feedback,auto,zo-adam] [--steps 60] [--max-seq 128] [--rows 64]
        [--evaluate-at 15,30,60]

Every method begins with the same bundle and rows, and takes the settings that `edgezo tune` gives
it; `auto` is first-order steps. A forward is one row through the model, a backward pass counts as
two. Those that measure rates and mean derivatives before the first step count in the seconds, those
of evaluations do not. With `--cosines`, no training: the cosine of the gradients of feedback with
the exact ones, block by block, for adapters that have moved a little.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.batches import SequentialBatches, make_batch
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.carried_error import CarriedError
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.first_order import FirstOrderGradient
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.training.carried_layout import carried_sites
from tests.benchmarks import models
from tests.benchmarks.targets import DATA, missing_data, parser

Float32 = npt.NDArray[np.float32]

EVALUATED = 8
"""Rows of a pass of an evaluation."""

CALIBRATION = 6
"""Batches that mean derivatives are learned from for the cosines."""


def read_rows(bundle: Bundle, file: Path, max_seq: int, limit: int | None) -> ExampleSet:
    """The rows of a file."""
    manifest = bundle.manifest
    tokenizer = TextTokenizer.open(bundle.root, manifest.tokenizer, task=manifest.model.task)
    return load_examples(file, tokenizer, max_seq=max_seq, limit=limit)


def mean_loss(engine: Engine, theta: dict[str, Float32], rows: ExampleSet) -> float:
    """Mean loss of rows, nats."""
    losses: list[float] = []
    for batch in SequentialBatches(rows, EVALUATED):
        scores = engine.score(batch, SharedParams(theta))
        losses.extend(example_losses(batch, scores)[0].tolist())
    return float(np.mean(losses))


def settings(method: str, steps: int, batch: int, lr: str) -> TuneConfig:
    """The configuration of a method."""
    given: dict[str, object] = {"steps": steps, "batch_size": batch, "scope": "all"}
    if method.startswith("zo:"):
        given |= {"first_order": 0, "modules": "down_proj"}  # else `auto` learns feedback itself
    if lr != "auto":
        given["lr" if method == "feedback" else "first_order_lr"] = float(lr)
    return method_config(method.removeprefix("zo:"), **given)


def learn(
    bundle: Bundle, method: str, sets: tuple[ExampleSet, ExampleSet], options: argparse.Namespace
) -> Iterator[str]:
    """Tune by a method; yields a line for every evaluation."""
    told = {int(step) for step in options.evaluate_at.split(",")} | {options.steps}
    config = settings(method, options.steps, options.batch, options.lr)
    train, valid = sets
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        tuner = Tuner.open(bundle, train, config, Path(folder, "run"), threads=1)
        with tuner:
            seconds, forwards = time.monotonic() - began, 0
            yield f"{method}, lr {tuner.run.rates.first_order_lr:.3g}: {seconds:.0f} s to begin"
            while not tuner.done:
                began = time.monotonic()
                report = tuner.step()
                seconds += time.monotonic() - began
                exact = tuner.run.first_order_blocks and tuner.run.trajectory.layout.carried is None
                forwards += report.rows * (3 if exact else 1)
                if tuner.step_number in told:
                    loss = mean_loss(tuner.run.engine, tuner.run.state.adapter(), valid)
                    yield (
                        f"{method:10} {tuner.step_number:4} steps {forwards:6,} forwards "
                        f"{seconds:6.0f} s: loss {loss:.4f} (step {report.loss:.3f})"
                    )


def cosine(found: Float32, exact: Float32) -> float:
    """Of two gradients."""
    product = float((found.astype(np.float64) * exact).sum())
    return product / float(np.linalg.norm(found) * np.linalg.norm(exact))


def cosines(bundle: Bundle, rows: ExampleSet, batch: int) -> Iterator[str]:
    """The cosine of both gradients at every site, a line each."""
    engine = Engine(bundle, threads=1)
    sites = carried_sites(bundle.manifest, TuneConfig(method="feedback"))
    generator = np.random.default_rng(0)
    theta = bundle.trainables()
    every = [site for own in sites.values() for site in own]
    for site in every:
        moved = 1e-3 * generator.standard_normal(theta[site.name_b].shape)
        theta[site.name_b] = moved.astype(np.float32)
    names = [site.name_b for site in every]
    own = make_batch(rows, range(CALIBRATION * batch, (CALIBRATION + 1) * batch))
    exact = FirstOrderGradient(engine, min(sites), tensors=names).gradient(own, theta).gradients
    carried = CarriedError(engine, sites)
    plain = carried.gradient(own, theta).gradients
    starts = range(0, CALIBRATION * batch, batch)
    carried.learn([make_batch(rows, range(start, start + batch)) for start in starts], 1)
    learned = carried.gradient(own, theta).gradients
    for name in names[::-1]:
        yield (
            f"{name}: {cosine(learned[name], exact[name]):.3f}, without the learned "
            f"derivatives {cosine(plain[name], exact[name]):.3f}"
        )


def main() -> int:
    """Compare."""
    found = parser(__doc__)
    models.add_options(found)
    found.add_argument("--data", type=Path, default=DATA, metavar="FOLDER")
    found.add_argument("--task", default="dolly_hhrlhf")
    found.add_argument("--methods", default="feedback,auto,zo:auto")
    found.add_argument("--steps", type=int, default=60)
    found.add_argument("--batch", type=int, default=16)
    found.add_argument("--max-seq", type=int, default=128)
    found.add_argument("--rows", type=int, default=64, help="validation rows")
    found.add_argument("--evaluate-at", default="15,30,60")
    found.add_argument("--lr", default="auto")
    found.add_argument("--cosines", action="store_true")
    options = found.parse_args()
    files = [options.data / options.task / f"{part}.jsonl" for part in ("train", "validation")]
    if missing_data(files):
        return 0
    with models.prepared(options, "int8") as made:
        bundle = Bundle.open(made.int8)
        train = read_rows(bundle, files[0], options.max_seq, None)
        if options.cosines:
            for line in cosines(bundle, train, options.batch):
                print(line, flush=True)
            return 0
        valid = read_rows(bundle, files[1], options.max_seq, options.rows)
        engine = Engine(bundle, threads=1)
        print(f"untuned: loss {mean_loss(engine, bundle.trainables(), valid):.4f}", flush=True)
        engine.close()
        for method in options.methods.split(","):
            for line in learn(bundle, method, (train, valid), options):
                print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
