"""The plain form of a block stands for it where onnxruntime cannot run the fused one."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from edgezo_runtime.bundle.bundle import Manifest
from edgezo_runtime.bundle.manifest_types import GRAD, BackwardInfo, GpuGraphs, TensorInfo
from edgezo_runtime.devices.cpu import CPU
from edgezo_runtime.engine import block_forms
from edgezo_runtime.engine.block_forms import StateGraphs, runnable
from edgezo_runtime.errors import MissingExtraError, UsageError
from tests.runtime.tiny_bundle import make_manifest


def with_plain(plain: str | None) -> Manifest:
    """A manifest whose blocks have backward graphs, and maybe a plain form."""
    manifest = make_manifest({})
    grad = TensorInfo(GRAD, "float32", ("R", "S", 8))
    infos = [
        # it uses one of the two trainables
        BackwardInfo("graphs/back.onnx", of.file, (*of.inputs[:2], of.inputs[-1], grad), (), plain)
        for of in manifest.graphs.blocks
    ]
    return dataclasses.replace(manifest, backward=tuple(infos))


def test_a_block_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_forms, "runs_fused_attention", lambda: True)
    manifest = with_plain("graphs/plain.onnx")
    block = manifest.graphs.blocks[0]
    assert runnable(manifest, CPU)[0] is block


def test_the_plain_form_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_forms, "runs_fused_attention", lambda: False)
    manifest = with_plain("graphs/plain.onnx")
    block = manifest.graphs.blocks[0]
    found = runnable(manifest, CPU)[0]
    assert found.file == "graphs/plain.onnx"
    assert found.outputs == block.outputs
    names = [tensor.name for tensor in found.inputs]
    assert names == ["hidden", "layers.0.q.lora_A", "w"]  # no gradient
    assert [binding.input for binding in found.trainables] == ["layers.0.q.lora_A"]
    assert found.weights == block.weights


@pytest.mark.parametrize("manifest", [with_plain(None), make_manifest({})], ids=["none", "no way"])
def test_without_a_plain_form_onnxruntime_has_to_change(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_forms, "runs_fused_attention", lambda: False)
    with pytest.raises(MissingExtraError, match=r"onnxruntime>=1\.20"):
        runnable(manifest, CPU)


def test_gpus_have_a_form_of_their_own() -> None:
    manifest = make_manifest({})
    gpu: Any = SimpleNamespace(name="webgpu", form="gpu")
    assert StateGraphs.of(manifest, CPU) == StateGraphs(None, None)
    with pytest.raises(UsageError, match=r"does not run on the device webgpu: .*--quant w8"):
        runnable(manifest, gpu)
    rows, blocks = manifest.graphs.prologue, manifest.graphs.blocks[::-1]
    total = manifest.graphs.score_tokens
    able = dataclasses.replace(manifest, gpu=GpuGraphs(blocks, rows, total, "no way back"))
    assert runnable(able, gpu) == blocks
    assert StateGraphs.of(able, gpu) == StateGraphs(rows, total)
