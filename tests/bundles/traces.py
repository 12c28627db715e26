"""Traces of models, kept on disk: tracing is nine tenths of an export of a tiny model.

A trace depends on the model's configuration alone, not on quantization or trainables, so one serves
all exports of a model. `tests/export/trace` traces afresh.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import pickle
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bundles.cache import cached

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from edgezo_export.trace.trace import Separate, Trace

_NO_DATA = "no data"
_MODEL, _REST, _TIES = "model.onnx", "rest.pickle", "ties.json"


def traced(
    config: PretrainedConfig,
    model_class: type[PreTrainedModel],
    *,
    causal: bool,
    max_seq: int,
    separate: Separate | None = None,
) -> Trace:
    """What `trace_model` returns, from the cache."""
    from edgezo_export.trace.trace import trace_model

    key = [model_class.__name__, causal, max_seq, config.to_dict()]
    trace = functools.partial(trace_model, config, model_class, causal=causal, max_seq=max_seq)
    # Whether tied parameters have values of their own is a question to the weights.
    ties = () if separate is None else separate(_ties(trace, _digest(key)))

    def make(folder: Path) -> None:
        folder.mkdir()
        _save(trace(separate=lambda _: ties), folder)

    return _load(cached(_digest([*key, sorted(ties)]), make, "traces"))


def _ties(trace: Callable[..., Trace], digest: str) -> dict[str, str]:
    """The tied parameters of a model, and what each is tied to."""

    class Seen(Exception):
        pass

    def make(folder: Path) -> None:
        def see(ties: Mapping[str, str]) -> Collection[str]:
            folder.mkdir()
            (folder / _TIES).write_text(json.dumps(dict(ties)))
            raise Seen

        with contextlib.suppress(Seen):
            trace(separate=see)

    return json.loads((cached(digest, make, "traces") / _TIES).read_text())


def _digest(key: list[object]) -> str:
    text = json.dumps(key, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def use_cached_traces() -> None:
    """Let `export_bundle` take traces from the cache, once it is imported."""
    export = sys.modules.get("edgezo_export.export")
    if export is not None and export.trace_model.__module__ != __name__:
        export.trace_model = traced  # type: ignore[attr-defined]


def _save(trace: Trace, folder: Path) -> None:
    import onnx_ir as ir

    for value in trace.model.graph.initializers.values():
        if _is_fake(value.const_value):
            value.const_value = ir.ExternalTensor(
                _NO_DATA, 0, 0, value.dtype, shape=value.shape, name=value.name
            )
    (folder / _MODEL).write_bytes(ir.to_proto(trace.model).SerializeToString())
    _, *rest = (getattr(trace, field.name) for field in dataclasses.fields(trace))
    (folder / _REST).write_bytes(pickle.dumps(rest))


def _load(folder: Path) -> Trace:
    import onnx
    import onnx_ir as ir

    from edgezo_export.trace.trace import Trace

    model, rest = _read(folder)
    return Trace(ir.from_proto(onnx.ModelProto.FromString(model)), *pickle.loads(rest))


@functools.lru_cache(maxsize=64)
def _read(folder: Path) -> tuple[bytes, bytes]:
    return (folder / _MODEL).read_bytes(), (folder / _REST).read_bytes()


def _is_fake(tensor: object) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(getattr(tensor, "raw", None), FakeTensor)
