"""Learned feedback: score against forwards, for settings of the method.

    python -m tests.benchmarks.feedback [--int8 BUNDLE] [--task sst2] [--seeds 0] [--pairs 1024]
                                        [--eps 0.3] [--first-block 12] [--lr 3,...] [--steps 250]
                                        [--sites all|last] [--share 0.1] [--cosines] [--exact]

Pairs of passes with perturbed hidden states first, which estimate how the label logits answer to
the states behind every block from `--first-block` on. Then steps of Adam on A of the adapter
y + B A x beside the layers that every block adds to the residual (all, or the last of a block),
with B the estimate: one unperturbed pass of 16 rows each, learning rate falling to zero. `--share`
is what a gradient keeps along the mean input. `--cosines` compares the gradients of a batch with
the exact ones at every evaluation, and with differences of losses of which they are a control
variate. `--exact` steps by exact gradients of the same A, behind the same B: what better estimates
could bring at most. Both take a bundle that was exported with `--lora-train ab`. Every line is an
evaluation on the validation rows. A forward is one row through the model; the rows of evaluations
do not count.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import Batches, SequentialBatches
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.engine.answer_states import KeyValueLayout
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.feedback import FeedbackPasses
from edgezo_runtime.engine.feedback_pass import LocalSite, NodeNoise
from edgezo_runtime.engine.first_order import FirstOrderGradient
from edgezo_runtime.engine.losses import example_losses, predictions
from edgezo_runtime.engine.prefix_cache import AnswerCache
from edgezo_runtime.methods.rules.adam import Adam
from edgezo_runtime.noise import derive_seed
from edgezo_runtime.training.feedback_estimate import FeedbackEstimate, error_signals
from edgezo_runtime.training.feedback_inputs import (
    SHARE,
    input_size,
    lessened,
    mean_inputs,
    unit_vectors,
)
from edgezo_runtime.training.feedback_sites import (
    FeedbackSite,
    by_block,
    contrasts,
    feedback_sites,
    noise_name,
)
from tests.benchmarks import models
from tests.benchmarks.feedback_texts import cosine
from tests.benchmarks.targets import missing_data, parser
from tests.benchmarks.tasks import find_rows
from tests.benchmarks.torch_training import load_rows

Float32 = npt.NDArray[np.float32]

BATCH = 16
PAIRS = 1, 16, 256
"""Numbers of pairs that the gradient is a control variate of."""

EVALUATED = 100
"""Rows of a pass of an evaluation."""


@dataclass(frozen=True, slots=True)
class Point:
    """An evaluation: forwards and steps so far, seconds without evaluations, and the score."""

    forwards: int
    steps: int
    seconds: float
    accuracy: float
    loss: float

    def line(self) -> str:
        """For people."""
        return (
            f"{self.forwards:7,} forwards, {self.steps:4} steps, {self.seconds:6.1f} s: accuracy "
            f"{self.accuracy:.3f}, loss {self.loss:.3f}"
        )


class Learner:
    """A model that learns by feedback.

    Args:
        engine: runs the bundle.
        train: rows to learn from.
        valid: rows to evaluate on.
        first_block: sites before it are left out.
        folder: for the cached prompts.
        seed: of the noise and the order of the data.
        last: train beside the last layer of each block only.
        share: what a gradient keeps along the mean input.
        exact: take the exact gradients of the same A, behind the same B.
    """

    def __init__(
        self,
        engine: Engine,
        train: ExampleSet,
        valid: ExampleSet,
        first_block: int,
        folder: Path,
        seed: int,
        *,
        last: bool = False,
        share: float = SHARE,
        exact: bool = False,
    ) -> None:
        self._engine, self._valid, self._seed, self._share = engine, valid, seed, share
        self._exact = exact
        self._manifest = engine.bundle.manifest
        self._entry = first_block
        self._batches = Batches(train, BATCH, seed)
        self._caches = [self._cache(s, folder / n) for s, n in ((train, "train"), (valid, "valid"))]
        self._passes = FeedbackPasses(engine, first_block)
        self.sites: list[FeedbackSite] = [
            site
            for site in feedback_sites(self._manifest)
            if site.block >= first_block and (site.last or not last)
        ]
        self.theta = engine.bundle.trainables()
        for site in self.sites:
            for name in (site.name_a, site.name_b):
                self.theta[name] = np.zeros_like(self.theta[name])
        self._number = 0
        self.forwards = 0
        self.seconds = 0.0

    def _cache(self, examples: ExampleSet, path: Path) -> AnswerCache:
        width = self._manifest.model.hidden_size
        layout = KeyValueLayout.of(self._manifest.graphs, self._entry)
        return AnswerCache(path, examples.sequence_lengths(), width, layout)

    def state(self) -> tuple[dict[str, Float32], int, int, float]:
        """What steps change."""
        theta = {name: value.copy() for name, value in self.theta.items()}
        return theta, self._number, self.forwards, self.seconds

    def restore(self, state: tuple[dict[str, Float32], int, int, float]) -> None:
        """Return to a state."""
        self.theta, self._number, self.forwards, self.seconds = state

    def close(self) -> None:
        """Close the caches."""
        for cache in self._caches:
            cache.close()

    def probe(self, pairs: int, eps: float) -> FeedbackEstimate:
        """Estimate the directions from pairs, each of another row, and set B."""
        started = time.monotonic()
        names = {site.block: noise_name(site.block) for site in self.sites}
        outputs = by_block(self.sites, lambda site: site.outputs)
        taps = {block: tuple(chain(*own)) for block, own in outputs.items()}
        batch = self._batches.batch(0)
        along = contrasts(len(batch.label_ids if batch.label_ids is not None else ()))
        estimate = FeedbackEstimate(self.sites, along.shape[1])
        while estimate.pairs < pairs:
            batch = self._batches.batch(self._number)
            seed = derive_seed(self._seed, "pairs", self._number)
            noise = NodeNoise(seed, (eps, -eps), names, taps, self._manifest.model.hidden_size)
            scores, inputs = self._passes.probe(batch, self.theta, noise, self._caches[0])
            differences = (scores[0] - scores[1]) @ along / (2 * eps)
            estimate.add(seed, differences.astype(np.float32))
            self._number += 1
            self.forwards += 2 * BATCH
        signals = error_signals(self.sites, along)
        self._local = by_block(
            self.sites, lambda site: LocalSite(site.tap, site.name_a, signals[site.name_a])
        )
        own = {site.name_a: inputs[site.block, site.tap] for site in self.sites}
        self._units = unit_vectors(mean_inputs(own))
        sizes = {name: input_size(x, self._units[name], self._share) for name, x in own.items()}
        slopes = {
            site.name_b: inputs[site.block, site.slope].mean(axis=0)
            for site in self.sites
            if site.slope is not None
        }
        self.theta |= estimate.directions(self._manifest.scheme.scale, sizes, slopes)
        self.seconds += time.monotonic() - started
        return estimate

    def steps(self, count: int, lr: float) -> Iterator[int]:
        """Take steps; yields the number of those taken."""
        rule = Adam()
        slots = {site.name_a: rule.init(self.theta[site.name_a]) for site in self.sites}
        for step in range(count):
            started = time.monotonic()
            for name, g in self._gradient().items():
                rate = lr * (1 - step / count)
                slots[name] = rule.apply(self.theta[name], g, slots[name], step, rate)
            self._number += 1
            self.forwards += BATCH
            self.seconds += time.monotonic() - started
            yield step + 1

    def _gradient(self) -> dict[str, Float32]:
        if self._exact:
            _, found = self.compare()
        else:
            batch = self._batches.batch(self._number)
            found = self._passes.gradient(batch, self.theta, self._local, self._caches[0]).gradients
        return {name: lessened(g, self._units[name], self._share) for name, g in found.items()}

    def compare(self) -> tuple[dict[str, Float32], dict[str, Float32]]:
        """The gradient of the next batch, by the name of A, and the exact one.

        Raises:
            SystemExit: the backward graphs of the bundle give no gradient of A.
        """
        if not all(i.trains for i in self._manifest.trainables if i.role == "lora_A"):
            raise SystemExit("exact gradients of A: export the bundle with --lora-train ab")
        batch = self._batches.batch(self._number)
        found = self._passes.gradient(batch, self.theta, self._local, self._caches[0]).gradients
        exact = FirstOrderGradient(self._engine, self._entry, tensors=list(found)).gradient(
            batch, self.theta, "answer", self._caches[0], self._entry
        )
        return found, exact.gradients

    def evaluate(self, steps: int = 0) -> Point:
        """Evaluate on the validation rows."""
        losses, right = [], 0
        for batch in SequentialBatches(self._valid, EVALUATED):
            params, cache = SharedParams(self.theta), self._caches[1]
            scores = self._engine.score(
                batch, params, cache=cache, cache_block=self._entry, scope="answer"
            )
            losses.extend(example_losses(batch, scores)[0].tolist())
            right += int((predictions(batch, scores)[0] == batch.labels).sum())
        accuracy = right / len(losses)
        return Point(self.forwards, steps, self.seconds, accuracy, float(np.mean(losses)))


def errors(found: Float32, exact: Float32, pairs: int, seed: int = 0) -> tuple[float, float]:
    """Mean squared errors of a gradient and of what it makes as a control variate.

    The differences of `pairs` pairs of passes along random signs z, less those that the gradient
    predicts, are estimates of the rest: g + z z' (exact - g), which have no bias. Both errors are
    shares of the exact gradient's square; the gradient has the length that makes its own least.

    Args:
        found: the gradient, as a vector (d,).
        exact: the exact one.
        pairs: whose mean is taken.
        seed: of the signs.
    Returns:
        The error of the gradient, and that of the estimate.
    """
    exact = exact.astype(np.float64)
    scaled = found * (found @ exact) / (found.astype(np.float64) @ found)
    rest, size = exact - scaled, exact @ exact
    made = np.zeros_like(rest)
    generator = np.random.default_rng(seed)
    for _ in range(pairs):
        z = generator.choice((-1.0, 1.0), len(rest))
        made += z * (z @ rest) / pairs
    return float(rest @ rest / size), float((made - rest) @ (made - rest) / size)


def cosine_lines(learner: Learner) -> Iterator[str]:
    """The cosines of every block's sites, and of the whole; errors as a control variate."""
    found, exact = learner.compare()
    own = by_block(learner.sites, lambda s: f"{cosine(found[s.name_a], exact[s.name_a]):.2f}")
    yield f"  cosines {', '.join(f'{block}: {chr(47).join(v)}' for block, v in own.items())}"
    whole, true = (np.concatenate([g[n].ravel() for n in found]) for g in (found, exact))
    alone, _ = errors(whole, true, 1)
    made = [f"{pairs}: {errors(whole, true, pairs)[1]:.3g}" for pairs in PAIRS]
    yield (
        f"  of all {len(whole)} numbers {cosine(whole, true):.3f}, error {alone:.3f}; as a control "
        f"variate of pairs {', '.join(made)}"
    )


def main() -> int:
    """Learn with every rate and seed."""
    found = parser(__doc__)
    models.add_options(found)
    found.add_argument("--data", type=Path, default=None, metavar="FOLDER")
    found.add_argument("--task", default="sst2")
    found.add_argument("--seeds", default="0")
    found.add_argument("--pairs", type=int, default=1024)
    found.add_argument("--eps", type=float, default=0.3)
    found.add_argument("--first-block", type=int, default=12)
    found.add_argument("--lr", default="3")
    found.add_argument("--sites", choices=("all", "last"), default="all")
    found.add_argument("--share", type=float, default=SHARE)
    found.add_argument("--cosines", action="store_true")
    found.add_argument("--exact", action="store_true")
    found.add_argument("--steps", type=int, default=250)
    found.add_argument("--evaluate-at", default="10,25,60,125,250")
    options = found.parse_args()
    rows = find_rows(options.task, options.data) if options.data else find_rows(options.task)
    if missing_data([rows.train, rows.valid]):
        return 0
    told = {int(step) for step in options.evaluate_at.split(",")} | {options.steps}
    with models.prepared(options, "int8") as made, tempfile.TemporaryDirectory() as folder:
        train, valid = load_rows(str(made.int8), rows)
        engine = Engine(Bundle.open(made.int8), threads=1)
        for seed in map(int, options.seeds.split(",")):
            learner = Learner(
                engine,
                train,
                valid,
                options.first_block,
                Path(folder),
                seed,
                last=options.sites == "last",
                share=options.share,
                exact=options.exact,
            )
            print(f"seed {seed}, untuned: {learner.evaluate().line()}", flush=True)
            learner.probe(options.pairs, options.eps)
            for lr in map(float, options.lr.split(",")):
                print(f"lr {lr:g}")
                before = learner.state()
                if options.cosines:
                    print(*cosine_lines(learner), sep="\n", flush=True)
                for step in learner.steps(options.steps, lr):
                    if step in told:
                        print(learner.evaluate(step).line(), flush=True)
                        if options.cosines:
                            print(*cosine_lines(learner), sep="\n", flush=True)
                learner.restore(before)
            learner.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
