"""Scores of mlx-lm with an adapter folder."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import EdgezoError, MissingExtraError
from edgezo_runtime.evaluation.parity import Sample, Scores, last_logits
from edgezo_runtime.system.files import read_regular
from edgezo_runtime.system.typed_json import LONGEST_TEXT, parse_object

Float32 = npt.NDArray[np.float32]


def mlx_scores(weights: Path, adapter: Path, sample: Sample) -> Scores:
    """Score a model with an adapter, and without it.

    Args:
        weights: folder of the base model, in the format of Hugging Face or mlx.
        adapter: folder of the adapter.
        sample: the rows.
    Raises:
        MissingExtraError: mlx-lm is not installed.
        EdgezoError: mlx-lm refuses the files.
    """
    utils, tuner = require_mlx()
    _refuse_code(weights / "config.json")
    try:
        model = utils.load_model(weights)[0]
        plain = _logits(model, sample)
        tuner.load_adapters(model, str(adapter))
        model.eval()
        return Scores(_logits(model, sample), plain)
    except Exception as error:  # the code of a model may raise anything
        raise EdgezoError(f"{adapter}: mlx-lm does not run it: {error!r:.300}") from error


def require_mlx() -> tuple[Any, Any]:
    """Import the modules of mlx-lm that load models and adapters.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module("mlx_lm.utils"), import_module("mlx_lm.tuner.utils")
    except ImportError as error:
        raise MissingExtraError(
            "mlx-lm is not installed; run pip install mlx-lm (on Linux: 'mlx-lm[cpu]')"
        ) from error


def _refuse_code(config: Path) -> None:
    """Refuse a config that names code: some versions of mlx-lm run it without asking.

    Raises:
        EdgezoError: the config names code, or cannot be read.
    """
    try:
        content = parse_object(read_regular(config, LONGEST_TEXT).decode("utf-8"))
    except (OSError, ValueError) as error:
        raise EdgezoError(f"{config}: cannot be read: {error}") from error
    if content.get("model_file") is not None:
        raise EdgezoError(f"{config}: model_file names code, which is not run")


def _logits(model: Any, sample: Sample) -> Float32:
    core = import_module("mlx.core")
    found: list[Float32] = []
    for row in sample.rows:
        logits = model(core.array(row[None]))[0, -1].astype(core.float32)
        found.append(np.array(logits))
    return last_logits(found, sample)
