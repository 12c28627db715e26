"""Scores of transformers, with an adapter loaded by PEFT or with merged weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.manifest_types import ModelTask
from edgezo_runtime.errors import EdgezoError, MissingExtraError
from edgezo_runtime.evaluation.parity import Sample, Scores, last_logits

Float32 = npt.NDArray[np.float32]


def peft_scores(model: Path, adapter: Path, task: ModelTask, sample: Sample) -> Scores:
    """Score a model in float32 with an adapter loaded by PEFT, and without it.

    Args:
        model: folder or .gguf file of the base model.
        adapter: folder of the adapter.
        task: the head of the model.
        sample: the rows.
    Raises:
        MissingExtraError: torch, transformers or peft is not installed.
        EdgezoError: transformers or PEFT refuses the files.
    """
    tuned = peft_logits(model, adapter, task, sample)
    return Scores(tuned, torch_logits(model, task, sample))


def merged_scores(model: Path, merged: Path, task: ModelTask, sample: Sample) -> Scores:
    """Score merged weights in float32, and the weights of the base model.

    Args:
        model: folder of the base model.
        merged: folder of the merged model.
        task: the head of the models.
        sample: the rows.
    Raises:
        MissingExtraError: torch or transformers is not installed.
        EdgezoError: transformers refuses the files.
    """
    return Scores(torch_logits(merged, task, sample), torch_logits(model, task, sample))


def torch_logits(model: Path, task: ModelTask, sample: Sample) -> Float32:
    """Score a model in float32 with transformers, (rows, labels).

    Raises:
        MissingExtraError: torch or transformers is not installed.
        EdgezoError: transformers refuses the model.
    """
    return _logits(_load(model, task), sample)


def peft_logits(weights: Path, adapter: Path, task: ModelTask, sample: Sample) -> Float32:
    """Score a model with an adapter loaded by PEFT, (rows, labels).

    Raises:
        MissingExtraError: torch, transformers or peft is not installed.
        EdgezoError: transformers or PEFT refuses the files.
    """
    peft = _imported("peft")
    base = _load(weights, task)
    with _refusals("PEFT", adapter):
        model = peft.PeftModel.from_pretrained(base, adapter)
    return _logits(model.eval(), sample)


def _load(weights: Path, task: ModelTask) -> Any:
    torch, transformers = _imported("torch"), _imported("transformers")
    auto = transformers.AutoModelForCausalLM
    if task == "masked-lm":
        auto = transformers.AutoModelForMaskedLM
    folder = weights
    more: dict[str, Any] = {"use_safetensors": True}
    if weights.is_file():
        folder, more = weights.parent, {"gguf_file": weights.name}
    with _refusals("transformers", weights):
        model = auto.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, **more
        )
    return model.eval()


def _logits(model: Any, sample: Sample) -> Float32:
    torch = _imported("torch")
    found: list[Float32] = []
    with torch.inference_mode():
        for row in sample.rows:
            ids = torch.tensor(row[None].astype(np.int64))
            mask = torch.ones_like(ids)
            found.append(model(input_ids=ids, attention_mask=mask).logits[0, -1].float().numpy())
    return last_logits(found, sample)


@contextlib.contextmanager
def _refusals(program: str, path: Path) -> Iterator[None]:
    """Turn errors of a program into one that names the program and the file."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise EdgezoError(f"{path}: {program} does not load it: {error!s:.300}") from error


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"`verify` needs {name}, which is not installed; run pip install {name}"
        ) from error
