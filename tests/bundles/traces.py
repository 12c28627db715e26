"""Traces of models, kept on disk: tracing is nine tenths of an export of a tiny model.

A trace depends on the model's configuration alone, not on quantization or trainables, so one serves
all exports of a model. `tests/export/trace` traces afresh.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bundles.cache import cached

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from edgezo_export.trace.trace import Trace

_NO_DATA = "no data"
_MODEL, _REST = "model.onnx", "rest.pickle"


def traced(
    config: PretrainedConfig, model_class: type[PreTrainedModel], *, causal: bool, max_seq: int
) -> Trace:
    """What `trace_model` returns, from the cache."""
    from edgezo_export.trace.trace import trace_model

    key = [model_class.__name__, causal, max_seq, config.to_dict()]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()

    def make(folder: Path) -> None:
        folder.mkdir()
        _save(trace_model(config, model_class, causal=causal, max_seq=max_seq), folder)

    return _load(cached(digest[:16], make, "traces"))


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
    rest = (trace.layers, trace.buffers, trace.tied, trace.embedding)
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
