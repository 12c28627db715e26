"""What the linear layers of a torch model read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from transformers.pytorch_utils import Conv1D


def linear_inputs(model: torch.nn.Module, ids: torch.Tensor) -> dict[str, npt.NDArray[np.float32]]:
    """Inputs (tokens, K) of every layer, by module path."""
    found: dict[str, npt.NDArray[np.float32]] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D):

            def keep(_, arguments, name=name):
                read = arguments[0].detach()
                found[name] = read.reshape(-1, read.shape[-1]).numpy()

            hooks.append(module.register_forward_pre_hook(keep))
    with torch.no_grad():
        model(ids)
    for hook in hooks:
        hook.remove()
    return found
