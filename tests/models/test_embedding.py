"""Embeddings of texts: those of torch, their gradients, and tuning on pairs."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.data.sources import open_reader
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.first_order import FirstOrderGradient
from edgezo_runtime.engine.pair_losses import TEMPERATURE
from edgezo_runtime.errors import UsageError
from edgezo_runtime.evaluation.evaluate import evaluate
from tests.bundles.cache import cached
from tests.runtime.written_texts import moved

torch = pytest.importorskip("torch", reason="compares with torch")

ROWS = [
    {"query": f"w{10 + n} w{11 + n} w5", "passage": f"w{40 + 3 * n % 50} w{20 + n}"}
    for n in range(12)
]


def tiny_encoder():
    import transformers

    from tests.export.tiny_model import SIZES, randomize

    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(**SIZES)).eval()
    randomize(model)
    return model


@pytest.fixture(scope="module", params=["mean", "cls"])
def case(request) -> tuple[Bundle, str]:
    """A tiny encoder and how it pools."""
    pooling = request.param

    def make(folder) -> None:
        from edgezo_export.export import ExportConfig, export_bundle
        from edgezo_export.schemes.lora import Lora
        from tests.bundles.traces import use_cached_traces
        from tests.export.tiny_model import save

        model = save(tiny_encoder(), folder / "model")
        (model / "1_Pooling").mkdir()
        modes = {f"pooling_mode_{name}": name.startswith(pooling) for name in MODES}
        (model / "1_Pooling" / "config.json").write_text(json.dumps(modes))
        use_cached_traces()
        config = ExportConfig(quant="fp32", scheme=Lora(rank=3, alpha=6.0), task="embedding")
        export_bundle(str(model), folder / "bundle", config)

    return Bundle.open(cached(f"embedding/{pooling}", make) / "bundle"), pooling


MODES = ("mean_tokens", "cls_token", "max_tokens")


def torch_embeddings(model, batch, pooling: str):
    mask = torch.arange(batch.seq) < torch.tensor(batch.lengths)[:, None]
    ids = torch.tensor(batch.input_ids)
    states = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    weights = mask[..., None].double()
    pooled = (states * weights).sum(1) / weights.sum(1) if pooling == "mean" else states[:, 0]
    return torch.nn.functional.normalize(pooled, dim=-1)


@pytest.mark.slow
def test_embeddings_and_gradients_are_those_of_torch(case):
    bundle, pooling = case
    examples = open_reader(bundle, None, (), None).take(ROWS)
    batch = make_batch(examples, range(len(ROWS)))
    engine, theta = Engine(bundle, threads=1), moved(bundle)
    model = tiny_encoder().double()
    scale = bundle.manifest.scheme.alpha / bundle.manifest.scheme.rank
    params = {n: torch.tensor(v).double().requires_grad_() for n, v in theta.items()}
    weights = {}
    for module in {name.rpartition(".")[0] for name in theta}:
        delta = scale * params[f"{module}.lora_B"] @ params[f"{module}.lora_A"]
        weights[f"{module}.weight"] = model.get_submodule(module).weight + delta
    vectors = torch.func.functional_call(Pooled(model, batch, pooling), weights, ())
    found = engine.score(batch, SharedParams(theta))[0]
    np.testing.assert_allclose(found, vectors.detach(), atol=1e-5)
    z = vectors[0::2] @ vectors[1::2].T / TEMPERATURE
    loss = torch.nn.functional.cross_entropy(z, torch.arange(len(ROWS)))
    loss.backward()
    ours = FirstOrderGradient(engine, 0, part_tokens=8).gradient(batch, theta)
    assert ours.losses.mean() == pytest.approx(loss.item(), abs=1e-4)
    for name, grad in ours.gradients.items():
        expected = params[name].grad.numpy()
        assert np.abs(grad - expected).max() <= 1e-4 * np.abs(expected).max(), name


class Pooled(torch.nn.Module):
    """Embeddings as a function of the encoder's weights."""

    def __init__(self, model, batch, pooling: str) -> None:
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        self._own = [model, batch, pooling]

    def forward(self):
        return torch_embeddings(*self._own)


@pytest.mark.slow
def test_pairs_are_learned(case, tmp_path):
    bundle, _ = case
    config = TuneConfig(
        steps=12, max_time_s=0, batch_size=12, lr=0.01, eps=0.01, blocks="all", first_order=1,
        first_order_lr=0.05,
    )  # fmt: skip
    with Tuner.open(bundle, ROWS, config, tmp_path / "run") as tuner:
        examples = open_reader(bundle, None, (), None).take(ROWS)
        before = tuner.evaluate(examples)
        list(tuner)
        after = tuner.evaluate(examples)
    assert after.loss < before.loss - 0.1
    assert after.f1 is None
    assert after.accuracy >= before.accuracy
    few = evaluate(Engine(bundle), bundle.trainables(), examples, 5, scope="all")
    assert few.loss == pytest.approx(before.loss, abs=1e-5)  # whatever shares a pass
    with pytest.raises(UsageError, match="pairs of texts have no answers"):
        Tuner.open(bundle, ROWS, dataclasses.replace(config, scope="answer"), tmp_path / "other")
