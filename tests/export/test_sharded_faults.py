"""Sharded checkpoints with a fault: the export names the tensor, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgezo_export.export import ExportConfig, export_bundle
from edgezo_runtime.errors import EdgezoError

NAME = "model.layers.1.mlp.down_proj.weight"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def sharded(exported, tmp_path_factory):
    """A tiny llama in three shards."""
    folder = tmp_path_factory.mktemp("sharded") / "model"
    shutil.copytree(exported("llama").folder, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {}
    for number in range(3):
        file = f"model-{number + 1:05d}-of-00003.safetensors"
        own = {name: tensors[name] for name in sorted(tensors)[number::3]}
        save_file(own, folder / file, {"format": "pt"})
        places |= dict.fromkeys(own, file)
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    return folder


def shard_of(folder, name: str):
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][name]


def change(folder, fault: str) -> None:
    """Give the tensor `NAME` a fault."""
    path = shard_of(folder, NAME)
    tensors = load_file(path)
    values = tensors[NAME]
    if fault == "missing":
        del tensors[NAME]
    elif fault == "misshapen":
        tensors[NAME] = values[:-2].copy()
    elif fault == "nan":
        values[1, 1] = np.nan
    elif fault == "infinite":
        values[2, :3] = -np.inf
    elif fault == "doubled":
        other = next(file for file in sorted(folder.glob("*.safetensors")) if file != path)
        save_file({**load_file(other), NAME: values}, other, {"format": "pt"})
    save_file(tensors, path, {"format": "pt"})
    if fault == "twice in a header":
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = content[8 : 8 + length].rstrip()
        entry = json.dumps(json.loads(header)[NAME])
        header = header[:-1] + f', "{NAME}": {entry}}}'.encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", rf"no tensor '{NAME}' in the checkpoint"),
        ("misshapen", r"and the checkpoint has .*down_proj.*not of the same model"),
        ("nan", rf"tensor '{NAME}' of the model: 1 of its"),
        ("infinite", rf"tensor '{NAME}' of the model: 3 of its"),
        ("doubled", rf"tensor '{NAME}' is in .*shards are of several models"),
        ("twice in a header", rf"damaged header: .*{NAME}' twice"),
    ],
)
def test_the_tensor_is_named(sharded, tmp_path, fault, message):
    folder = tmp_path / "model"
    shutil.copytree(sharded, folder)
    change(folder, fault)
    with pytest.raises(EdgezoError, match=message):
        export_bundle(str(folder), tmp_path / "b", ExportConfig(quant="w4", calibration_rows=0))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
