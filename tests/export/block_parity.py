"""The states of a model in torch, and how near those of a bundle are.

All is float32 on both sides: what differs is the order of sums, some 1e-7 of the largest value.
"""

from __future__ import annotations

import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

from tests.export.tiny_models import LONGEST, VOCAB

TOLERANCE = 1e-4
LENGTHS = (LONGEST, 13, 20, 2)


def inputs(case) -> tuple[np.ndarray, np.ndarray]:
    """Right padded ids (4, S) and mask, 1 where there is a token."""
    ids = np.random.default_rng(0).integers(4, VOCAB, (len(LENGTHS), LONGEST))
    mask = (np.arange(LONGEST) < np.array(LENGTHS)[:, None]).astype(np.int64)
    ids[mask == 0] = case.model.config.pad_token_id or 0
    return ids, mask


def torch_states(case, ids, mask) -> tuple[list[np.ndarray], np.ndarray]:
    """Input of the first layer, output of every layer; logits."""
    states: list[np.ndarray] = []
    layers = case.model.get_submodule(case.kind.layers)

    def keep(value) -> None:
        states.append((value if isinstance(value, torch.Tensor) else value[0]).numpy().copy())

    def before(_module, args, kwargs) -> None:
        keep(args[0] if args else kwargs["hidden_states"])

    hooks = [layers[0].register_forward_pre_hook(before, with_kwargs=True)]
    hooks += [layer.register_forward_hook(lambda _m, _a, out: keep(out)) for layer in layers]
    try:
        with torch.inference_mode():
            out = case.model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))
    finally:
        for hook in hooks:
            hook.remove()
    return states, out.logits.numpy()


def bundle_mask(case, mask) -> np.ndarray | None:
    return mask if case.kind.encoder else None


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def merged_states(case, ids, mask, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """States of torch's model with W + alpha / rank * B A in place of W."""
    scheme = case.bundle("fp32").manifest.scheme
    modules = {name.rpartition(".")[0] for name in values}
    weights = {module: case.model.get_submodule(module).weight for module in modules}
    original = {module: weight.detach().clone() for module, weight in weights.items()}
    try:
        with torch.no_grad():
            for module, weight in weights.items():
                a, b = (torch.tensor(values[f"{module}.lora_{role}"]) for role in "AB")
                delta = scheme.alpha / scheme.rank * (b @ a)
                is_conv = isinstance(case.model.get_submodule(module), Conv1D)  # (in, out)
                weight += delta.T if is_conv else delta
        return torch_states(case, ids, mask)[0]
    finally:
        with torch.no_grad():
            for module, weight in weights.items():
                weight.copy_(original[module])
