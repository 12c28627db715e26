"""An .onnx_adapter on a model that torch exported with adapter inputs, without edgezo's graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers

from edgezo_runtime.adapters.adapter import make_adapter
from edgezo_runtime.adapters.onnx_adapter import onnx_tensors, save_onnx_adapter
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.evaluation.parity import Agreement, Scores, draw_sample, last_logits, own_scores
from tests.conftest import Exported

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


class WithInputs(torch.nn.Module):
    """A language model whose linear layers take factors from the caller: y = W x + (x A) B."""

    def __init__(self, model: Any, modules: list[str]) -> None:
        super().__init__()
        self.model = model
        self.layers = [model.get_submodule(name) for name in modules]

    def forward(self, input_ids: torch.Tensor, *factors: torch.Tensor) -> torch.Tensor:
        """Logits."""
        hooks = [
            layer.register_forward_hook(
                lambda _, given, y, a=factors[2 * index], b=factors[2 * index + 1]: (
                    y + given[0] @ a @ b
                )
            )
            for index, layer in enumerate(self.layers)
        ]
        logits: torch.Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        for hook in hooks:
            hook.remove()
        return logits


def test_scores_of_a_model_with_adapter_inputs(
    exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    made = exported("llama")
    bundle = made.bundle("fp32").bundle
    generator = np.random.default_rng(0)
    tensors = {
        name: value + generator.standard_normal(value.shape).astype(np.float32) / 8
        for name, value in bundle.trainables().items()
    }
    adapter = make_adapter(tmp_path / "a", bundle, tensors, steps=1, created_by="test", scope="all")
    named = onnx_tensors(adapter)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        made.folder, attn_implementation="eager"
    ).eval()
    sample = draw_sample(adapter, bundle.manifest.model.vocab_size)
    ids = torch.tensor(sample.rows[0][None].astype(np.int64))
    zeros = [torch.zeros(value.shape) for value in named.values()]
    torch.onnx.export(
        WithInputs(model, adapter.modules),
        (ids, *zeros),
        str(tmp_path / "model.onnx"),
        input_names=["input_ids", *named],
        output_names=["logits"],
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    # inputs that may be left out, as Olive makes them
    whole = onnx.load(tmp_path / "model.onnx")
    for name, value in named.items():
        whole.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros_like(value), name))
    session = onnxruntime.InferenceSession(whole.SerializeToString())
    assert [given.name for given in session.get_inputs()] == ["input_ids"]
    assert {given.name for given in session.get_overridable_initializers()} == named.keys()

    path = tmp_path / "a.onnx_adapter"
    save_onnx_adapter(adapter, path)
    active = onnxruntime.LoraAdapter()
    active.Load(str(path))
    options = onnxruntime.RunOptions()
    options.add_active_adapter(active)
    feeds = [{"input_ids": row[None].astype(np.int64)} for row in sample.rows]
    tuned = [session.run(None, feed, options)[0][0, -1] for feed in feeds]
    plain = [session.run(None, feed)[0][0, -1] for feed in feeds]
    other = Scores(last_logits(tuned, sample), last_logits(plain, sample))

    own = own_scores(Engine(bundle), adapter.params(bundle), bundle.trainables(), sample)
    found = Agreement.of(own, other)
    assert found.relative < 1e-4
    assert found.difference < 1e-5
