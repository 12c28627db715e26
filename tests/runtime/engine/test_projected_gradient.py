"""Projected gradients against forward derivatives of the same model in torch, float64.

"Relative" is of the root mean square over directions: a direction almost across the gradient has a
slope near zero, and no relative error of its own.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.engine.pair_coding import code_matrices
from edgezo_runtime.methods.estimators import ESTIMATORS, StepInfo, Term, record_losses
from edgezo_runtime.noise import noise
from edgezo_runtime.training.probe_evaluator import _firsts
from tests.bundles.smollm2 import smollm2 as smollm2_model
from tests.bundles.smollm2 import smollm2_bundle
from tests.runtime.dense_directions import dense_params, trained_blocks
from tests.runtime.tiny_sets import random_set

EPS = 1e-3
SEEDS = range(8)


def run_estimator(engine, method, eps, seed, theta, active, batch) -> list[Term]:
    """The terms of an estimate, every probe through the engine."""
    info = StepInfo(seed, batch.num_examples, lr=1.0, blocks=tuple(sorted({*active.values()})))
    steps = ESTIMATORS[method](eps)(info)
    probes = next(steps)
    while True:
        params = dense_params(theta, active, probes, batch.row_example)
        code = code_matrices([probe.scale for probe in probes])
        first = _firsts(probes, min(info.blocks))
        scores = engine.score(batch, params, code, first_active=first)
        try:
            probes = steps.send(record_losses(example_losses(batch, scores), probes))
        except StopIteration as end:
            return end.value


class Slopes:
    """Derivatives of a batch's losses along the directions an estimator names."""

    def __init__(self, model, bundle, theta, active, batch):
        from tests.runtime.torch_lora import TorchLora

        self._torch = TorchLora(model, bundle)
        self._theta, self._active, self._batch = theta, active, batch

    def along(self, active) -> Slopes:
        """The same where these tensors alone move."""
        other = copy.copy(self)
        other._active = active
        return other

    def of(self, seed: int, row: int) -> np.ndarray:
        """(E,): every example's loss along z(seed, row)."""
        z = {
            name: noise(seed, name, value.shape, kind="rademacher", row=row)
            * (name in self._active)
            for name, value in self._theta.items()
        }
        theta, directions = self._torch.tensors(self._theta), self._torch.tensors(z)
        return self._torch.slopes(theta, directions, self._batch)

    def shared(self, seed: int) -> float:
        """Of the mean loss."""
        return float(self.of(seed, 0).mean())

    def private(self, seed: int) -> np.ndarray:
        """(E,): of each example's loss along its own direction."""
        return np.array([self.of(seed, b)[b] for b in range(self._batch.num_examples)])


def relative_error(found, exact) -> float:
    return float(np.sqrt(np.mean(np.square(np.subtract(found, exact))) / np.mean(np.square(exact))))


@pytest.fixture
def case(exported):
    """(engine, theta, active, batch, slopes) of a tiny model with adapters that do something."""
    runner = exported("llama").bundle("fp32")
    bundle, generator = runner.bundle, np.random.default_rng(1)
    theta = {
        name: (value + generator.normal(0, 0.1, value.shape)).astype(np.float32)
        for name, value in bundle.trainables().items()
    }
    active = trained_blocks(bundle)
    examples = random_set("labels", (5, 9, 14, 3), bundle.manifest.tokenizer.pad_id)
    batch = make_batch(examples, range(4))
    slopes = Slopes(exported("llama").model, bundle, theta, active, batch)
    return Engine(bundle), theta, active, batch, slopes


def test_two_point_is_the_slope_of_the_mean_loss(case):
    engine, theta, active, batch, slopes = case
    found = []
    for seed in SEEDS:
        (term,) = run_estimator(engine, "two_point", EPS, seed, theta, active, batch)
        found.append(term.coeff[0])
    assert relative_error(found, [slopes.shared(seed) for seed in SEEDS]) < 1e-3


@pytest.mark.slow
def test_per_example_is_the_slope_of_each_loss(case):
    engine, theta, active, batch, slopes = case
    found = []
    for seed in SEEDS:
        (term,) = run_estimator(engine, "per_example", EPS, seed, theta, active, batch)
        found.append(np.multiply(term.coeff, batch.num_examples))
    assert relative_error(found, [slopes.private(seed) for seed in SEEDS]) < 1e-3


@pytest.mark.slow
def test_leave_one_out_is_the_slope_less_the_mean_slope(case):
    """One-sided: what is left over is eps / 2 times the curvature along the direction."""
    engine, theta, active, batch, slopes = case
    errors = []
    for eps in (EPS, EPS / 4):
        terms = run_estimator(engine, "leave_one_out", eps, 0, theta, active, batch)
        found = np.array([term.coeff for term in terms]) * batch.num_examples * (len(terms) - 1)
        exact = np.array([slopes.private(term.seed) for term in terms])  # (N, E)
        errors.append(relative_error(found, exact - exact.mean(axis=0)))
    assert errors[0] < 0.03
    assert errors[1] < errors[0] / 2


def test_int8_pairs_follow_the_slope(exported, case):
    """Of the int8 model, not of its float32 original: weights of 8 bits move the loss itself."""
    _, theta, active, batch, slopes = case
    engine = Engine(exported("llama").bundle("int8").bundle)
    found = [
        run_estimator(engine, "two_point", EPS, seed, theta, active, batch)[0].coeff[0]
        for seed in SEEDS
    ]
    exact = [slopes.shared(seed) for seed in SEEDS]
    assert np.corrcoef(found, exact)[0, 1] > 0.98


def test_one_sided_is_the_slope_and_half_the_curvature(case):
    engine, theta, active, batch, slopes = case
    exact = [slopes.shared(seed) for seed in SEEDS]
    errors = []
    for eps in (EPS, EPS / 4):
        found = [
            run_estimator(engine, "one_sided", eps, seed, theta, active, batch)[0].coeff[0]
            for seed in SEEDS
        ]
        errors.append(relative_error(found, exact))
    assert errors[0] < 0.03
    assert errors[1] < errors[0] / 2


def test_forward_grad_is_the_derivative(case):
    """At a distance where a pair is off by its term in eps^2, the four probes are not."""
    engine, theta, active, batch, slopes = case
    exact = [slopes.shared(seed) for seed in SEEDS]
    errors = {
        (method, eps): relative_error(
            [
                run_estimator(engine, method, eps, seed, theta, active, batch)[0].coeff[0]
                for seed in SEEDS
            ],
            exact,
        )
        for method in ("forward_grad", "two_point")
        for eps in (EPS, 6 * EPS)
    }
    assert errors["forward_grad", EPS] < 1e-3
    assert errors["forward_grad", 6 * EPS] < 5e-4
    assert errors["forward_grad", 6 * EPS] < errors["two_point", 6 * EPS] / 10


def test_int8_forward_grad_follows_the_derivative(exported, case):
    _, theta, active, batch, slopes = case
    engine = Engine(exported("llama").bundle("int8").bundle)
    found = [
        run_estimator(engine, "forward_grad", EPS, seed, theta, active, batch)[0].coeff[0]
        for seed in SEEDS
    ]
    assert np.corrcoef(found, [slopes.shared(seed) for seed in SEEDS])[0, 1] > 0.98


@pytest.mark.slow
def test_block_wise_has_the_slope_of_every_block(case):
    """Along directions of one block: the derivative with the others at rest."""
    engine, theta, active, batch, slopes = case
    found, exact = [], []
    for seed in SEEDS:
        for term in run_estimator(engine, "block_wise", EPS, seed, theta, active, batch):
            own = {name for name, block in active.items() if term.concerns(block)}
            found.append(term.coeff[0])
            exact.append(slopes.along(own).shared(term.seed))
    assert len(found) == 2 * len(SEEDS)
    assert relative_error(found, exact) < 1e-3


# --- a real model ---

SST2 = Path(__file__).parents[4] / "shared" / "data" / "sst2"
TEMPLATE, LABELS = "{sentence} It was", (" terrible", " great")


@pytest.fixture(scope="module")
def smollm2():
    """Bundles of SmolLM2-135M by quantization, rows of SST-2, and the model's file."""
    model = smollm2_model()
    if not SST2.is_dir():
        pytest.skip(f"needs the data set in {SST2}")
    bundles = {quant: Bundle.open(smollm2_bundle(quant)) for quant in ("fp32", "int8")}
    info = bundles["fp32"].manifest.tokenizer
    tokenizer = TextTokenizer.open(bundles["fp32"].root, info)
    examples = load_examples(
        SST2 / "train.jsonl", tokenizer, template=TEMPLATE, labels=LABELS, max_seq=64
    )
    return bundles, examples, model


def load_torch(model):
    """torch's model with the tensors that the export reads."""
    import torch
    from transformers import LlamaForCausalLM

    from edgezo_export.sources.model_source import open_source

    source = open_source(str(model))
    loaded = LlamaForCausalLM(source.config)
    with torch.no_grad():
        for name, parameter in loaded.named_parameters():
            parameter.copy_(torch.from_numpy(source.read(name)))
    return loaded


def parameters(bundle):
    """(theta, active) as a run starts."""
    return bundle.trainables(), trained_blocks(bundle)


@pytest.mark.slow
def test_two_point_is_the_slope_on_smollm2(smollm2):
    """At eps 1e-3 what is left is float32: half of it is gone at twice the eps."""
    bundles, examples, model = smollm2
    batch = make_batch(examples, range(4))  # float64 and all logits: torch takes some 4 GB
    theta, active = parameters(bundles["fp32"])
    slopes = Slopes(load_torch(model), bundles["fp32"], theta, active, batch)
    seeds = SEEDS[:2]
    exact = [slopes.shared(seed) for seed in seeds]
    engine = Engine(bundles["fp32"])
    for eps, bound in ((1e-3, 2e-3), (2e-3, 1e-3)):
        found = [
            run_estimator(engine, "two_point", eps, seed, theta, active, batch)[0].coeff[0]
            for seed in seeds
        ]
        assert relative_error(found, exact) < bound


@pytest.mark.slow
@pytest.mark.parametrize("eps", [1e-2, 1e-3])
def test_int8_correlates_with_float_on_smollm2(smollm2, eps):
    bundles, examples, _ = smollm2
    batch, found = make_batch(examples, range(8)), {}
    for quant, bundle in bundles.items():
        engine, (theta, active) = Engine(bundle), parameters(bundle)
        found[quant] = [
            run_estimator(engine, "two_point", eps, seed, theta, active, batch)[0].coeff[0]
            for seed in range(10)
        ]
    correlation = np.corrcoef(found["fp32"], found["int8"])[0, 1]
    assert correlation > 0.95, correlation
