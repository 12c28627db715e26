"""What mlx-lm scores with an adapter folder."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.agreement import Sample, Scores, last_logits
from edgezo_runtime.errors import EdgezoError, MissingExtraError

Float32 = npt.NDArray[np.float32]


def mlx_scores(weights: Path, adapter: Path, sample: Sample) -> Scores:
    """Scores of a model with an adapter, and without it.

    Args:
        weights: folder of the base model, Hugging Face's or mlx's.
        adapter: folder of the adapter.
        sample: the rows.
    Raises:
        MissingExtraError: mlx-lm is not installed.
        EdgezoError: mlx-lm refuses what it is given.
    """
    utils, tuner = require_mlx()
    try:
        model = utils.load_model(weights)[0]
        plain = _logits(model, sample)
        tuner.load_adapters(model, str(adapter))
        model.eval()
        return Scores(_logits(model, sample), plain)
    except Exception as error:  # whatever the code of a model raises
        raise EdgezoError(f"{adapter}: mlx-lm does not run it: {error!r:.300}") from error


def require_mlx() -> tuple[Any, Any]:
    """The modules of mlx-lm that load models and adapters.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module("mlx_lm.utils"), import_module("mlx_lm.tuner.utils")
    except ImportError as error:
        raise MissingExtraError(
            "mlx-lm is not installed; run pip install mlx-lm (on Linux: 'mlx-lm[cpu]')"
        ) from error


def _logits(model: Any, sample: Sample) -> Float32:
    core = import_module("mlx.core")
    found: list[Float32] = []
    for row in sample.rows:
        logits = model(core.array(row[None]))[0, -1].astype(core.float32)
        found.append(np.array(logits))
    return last_logits(found, sample)
