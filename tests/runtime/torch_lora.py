"""A torch model with the adapters of a bundle, as a function of their values."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping

import numpy as np
import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import Batch

torch = pytest.importorskip("torch", reason="compares with torch")
PreTrainedModel = pytest.importorskip("transformers").PreTrainedModel
Conv1D = pytest.importorskip("transformers.pytorch_utils").Conv1D

Tensors = dict[str, torch.Tensor]


class TorchLora:
    """W + alpha / rank * B A in float64.

    Args:
        model: the model.
        bundle: its bundle.
        attention: "eager" has a derivative forward as well; "sdpa" has none that is not a number
            where a row of padding sees nothing.
    """

    def __init__(self, model: PreTrainedModel, bundle: Bundle, attention: str = "eager") -> None:
        self._model = copy.deepcopy(model).double().eval()
        self._model.set_attn_implementation(attention)
        self._model.set_experts_implementation("eager")  # others have no float64
        scheme = bundle.manifest.scheme
        self._scale = scheme.alpha / scheme.rank
        self._masked = bundle.manifest.model.task != "causal-lm"
        self._modules = sorted({info.module for info in bundle.manifest.trainables})

    @staticmethod
    def tensors(values: Mapping[str, np.ndarray]) -> Tensors:
        """The same values in float64."""
        return {name: torch.tensor(value).double() for name, value in values.items()}

    def scores(self, params: Tensors, batch: Batch) -> torch.Tensor:
        """Label logits (B, C), or log-probabilities of the targets (T,)."""
        weights = {}
        for module in self._modules:
            layer = self._model.get_submodule(module)
            delta = self._scale * params[f"{module}.lora_B"] @ params[f"{module}.lora_A"]
            weights[f"{module}.weight"] = layer.weight + (
                delta.T if isinstance(layer, Conv1D) else delta  # Conv1D keeps (in, out)
            )
        inputs = {"input_ids": torch.tensor(batch.input_ids)}
        if self._masked:  # padding on the right is behind every token that a causal model sees
            lengths = torch.tensor(batch.lengths)[:, None]
            inputs["attention_mask"] = (torch.arange(batch.seq) < lengths).long()
        logits = torch.func.functional_call(self._model, weights, (), inputs).logits
        chosen = logits[batch.positions[:, 0]]  # of a classification head
        if logits.ndim == 3:
            chosen = chosen[torch.arange(len(chosen)), batch.positions[:, 1]]
        if batch.label_ids is not None:
            return chosen[:, torch.tensor(batch.label_ids)]
        targets = torch.tensor(batch.targets)[:, None]
        return torch.log_softmax(chosen, -1).gather(1, targets)[:, 0]

    def answer_scores(self, params: Tensors, batch: Batch) -> torch.Tensor:
        """The same with adapters that act from the first scored token of each row on."""
        first = torch.tensor(batch.first_scored)[:, None]
        active = (torch.arange(batch.seq) >= first).double()[..., None]

        def add(module: str):  # type: ignore[no-untyped-def]
            product = self._scale * params[f"{module}.lora_A"].T @ params[f"{module}.lora_B"].T
            return lambda layer, inputs, output: (
                output + active * (inputs[0].reshape(*active.shape[:2], -1) @ product)
            )

        zeros = {name: torch.zeros_like(value) for name, value in params.items()}
        hooks = [
            self._model.get_submodule(module).register_forward_hook(add(module))
            for module in self._modules
        ]
        try:
            return self.scores(zeros, batch)
        finally:
            for hook in hooks:
                hook.remove()

    def losses(self, params: Tensors, batch: Batch, *, answer: bool = False) -> torch.Tensor:
        """Loss of each example, (E,), of adapters that act on all tokens or on answers."""
        scores = self.answer_scores(params, batch) if answer else self.scores(params, batch)
        labels = torch.tensor(batch.labels)
        if batch.kind != "labels":
            rows = torch.tensor(batch.positions[:, 0])
            sums = torch.zeros(batch.num_rows).double().index_add(0, rows, scores)
            means = sums / torch.bincount(rows, minlength=batch.num_rows)
            if batch.kind == "completion":
                return -means
            scores = means.reshape(batch.num_examples, -1)
        return torch.nn.functional.cross_entropy(scores, labels, reduction="none")

    def gradient(self, values: Mapping[str, np.ndarray], batch: Batch, *, answer: bool = False):
        """Mean loss of a batch, and its derivative by every tensor."""
        params = {name: value.requires_grad_() for name, value in self.tensors(values).items()}
        loss = self.losses(params, batch, answer=answer).mean()
        loss.backward()
        return loss.item(), {name: value.grad.numpy() for name, value in params.items()}

    def slopes(self, theta: Tensors, directions: Tensors, batch: Batch) -> np.ndarray:
        """Derivative of every example's loss along a direction, (E,)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch warns of its own parts
            _, slopes = torch.func.jvp(
                lambda params: self.losses(params, batch), (theta,), (directions,)
            )
        return np.asarray(slopes.detach())
