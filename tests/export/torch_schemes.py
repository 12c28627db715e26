"""What each scheme makes of a torch model, in closed form or by PEFT."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.pytorch_utils import Conv1D

from edgezo_runtime.adapters.adapter import make_adapter
from edgezo_runtime.adapters.peft_writer import save_peft
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import Batch

Values = Mapping[str, np.ndarray]


def chosen_scores(logits: torch.Tensor, batch: Batch) -> np.ndarray:
    """Label logits (B, C), or log-probabilities of the targets (T,)."""
    chosen = logits[batch.positions[:, 0], batch.positions[:, 1]]
    if batch.label_ids is not None:
        return chosen[:, torch.tensor(batch.label_ids)].numpy()
    targets = torch.tensor(batch.targets)[:, None]
    return torch.log_softmax(chosen, -1).gather(1, targets)[:, 0].numpy()


def run(model: torch.nn.Module, batch: Batch, front: tuple[int, ...] = ()) -> torch.Tensor:
    """Logits (B, S, V), of rows that follow the tokens `front`."""
    ids = torch.tensor(batch.input_ids)
    mask = (torch.arange(batch.seq) < torch.tensor(batch.lengths)[:, None]).long()
    if front:
        ids = torch.cat([torch.tensor([front]).expand(len(ids), -1), ids], 1)
        mask = torch.cat([torch.ones(len(ids), len(front), dtype=mask.dtype), mask], 1)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logits: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
    return logits[:, len(front) :]


def peft_scores(folder: Path, model: Path, bundle: Bundle, values: Values, batch: Batch):
    """Scores of the torch model with the adapter as PEFT loads it."""
    from peft import PeftModel

    path = folder / "adapter"
    adapter = make_adapter(path, bundle, values, steps=1, created_by="test", scope="all")
    save_peft(adapter, folder / "peft")
    base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, folder / "peft").eval()
    virtual = bundle.manifest.scheme.prompt_tokens
    return chosen_scores(run(tuned, batch)[:, virtual:], batch)


def closed_scores(model: torch.nn.Module, bundle: Bundle, values: Values, batch: Batch):
    """Scores of the torch model changed as the manifest says."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        tensors = {name: torch.tensor(value) for name, value in values.items()}
        for module in {info.module for info in bundle.manifest.trainables}:
            own = {
                name.removeprefix(f"{module}."): value
                for name, value in tensors.items()
                if name.startswith(f"{module}.")
            }
            stack.enter_context(_changed(model.get_submodule(module), own))
        return chosen_scores(run(model, batch), batch)


@contextlib.contextmanager
def _changed(layer: torch.nn.Module, own: dict[str, torch.Tensor]) -> Iterator[None]:
    original = {name: value.clone() for name, value in layer.named_parameters()}
    hook = layer.register_forward_hook(lambda _m, _x, y: _output(own, y))
    try:
        _change(layer, own)
        yield
    finally:
        hook.remove()
        for name, value in layer.named_parameters():
            value.copy_(original[name])


def _change(layer: torch.nn.Module, own: dict[str, torch.Tensor]) -> None:
    """Change weights in place."""
    conv = isinstance(layer, Conv1D)
    if "channel_scale" in own:
        layer.weight.mul_(own["channel_scale"] if conv else own["channel_scale"][:, None])
    if "weight" in own:
        layer.weight.copy_(own["weight"] if conv else own["weight"].T)
    if "norm_weight" in own:
        layer.weight.add_(own["norm_weight"])
    if "norm_bias" in own:
        layer.bias.add_(own["norm_bias"])


def _output(own: dict[str, torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    if "added_bias" in own:
        return y + own["added_bias"]
    if not any(name.startswith("tt_") for name in own):
        return y
    down, up = (_matrix([v for k, v in own.items() if k.startswith(r)]) for r in ("tt_d", "tt_u"))
    width = y.shape[-1]
    return y + torch.tanh(y @ down.reshape(width, -1)) @ up.reshape(-1, width)


def _matrix(cores: list[torch.Tensor]) -> torch.Tensor:
    """All numbers of a tensor train, by every index of every core at once."""
    result = cores[0]
    for core in cores[1:]:
        result = torch.tensordot(result, core, dims=1)
    return result.reshape(-1)
