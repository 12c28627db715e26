"""Smaller weights from a float bundle: the bytes of an export of the model itself."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from edgezo_export.export import ExportConfig, export_bundle
from edgezo_export.quantization.stored_weights import StoredWeights
from edgezo_export.quantization.weights_file import write_weights
from edgezo_export.quantization.weights_plan import PlannedTensor
from edgezo_export.requantize import quantize_bundle
from edgezo_export.schemes import SCHEMES, make_scheme, scheme_of
from edgezo_export.schemes.lora import Lora
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import EdgezoError, UsageError

LORA = Lora(rank=3, alpha=6.0)


def quantized(bundle: Bundle, output, config: ExportConfig) -> list[str]:
    told: list[str] = []
    quantize_bundle(bundle, output, config, lambda *_: None, told.append)
    return told


@pytest.fixture(scope="module")
def floats(exported, tmp_path_factory):
    """The model's folder and its bundle in fp32."""
    made = {}
    for name in ("llama", "gpt2", "mixtral", "bert", "bert-classes"):
        output = tmp_path_factory.mktemp("floats") / name
        folder = exported(name).folder
        export_bundle(str(folder), output, ExportConfig(quant="fp32", scheme=LORA))
        made[name] = folder, Bundle.open(output)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "quant", "rows"),
    [
        ("llama", "int8", 0),
        ("llama", "w8", 0),
        ("llama", "w4", 0),
        ("llama", "w4", 2),
        ("llama", "fp16", 0),
        ("gpt2", "w4", 0),
        ("mixtral", "w4", 0),
        ("bert", "w4", 2),
        ("bert-classes", "int8", 0),
    ],
)
def test_the_same_bytes_as_an_export(floats, tmp_path, name, quant, rows):
    folder, bundle = floats[name]
    config = ExportConfig(quant=quant, group_size=16, calibration_rows=rows, scheme=LORA)
    quantized(bundle, tmp_path / "new", config)
    export_bundle(str(folder), tmp_path / "direct", config, warn=lambda text: None)
    found, expected = (Bundle.open(tmp_path / place, verify=True) for place in ("new", "direct"))
    assert found.manifest == expected.manifest


@pytest.mark.slow
def test_from_float16(exported, tmp_path):
    """Weights that float16 holds have the same codes."""
    from safetensors.numpy import load_file, save_file

    model = tmp_path / "model"
    shutil.copytree(exported("llama").folder, model)
    weights = load_file(model / "model.safetensors")
    halves = {name: value.astype(np.float16) for name, value in weights.items()}
    save_file(halves, model / "model.safetensors", {"format": "pt"})
    export_bundle(str(model), tmp_path / "half", ExportConfig(quant="fp16"))
    config = ExportConfig(quant="w4", calibration_rows=0)
    quantized(Bundle.open(tmp_path / "half"), tmp_path / "new", config)
    export_bundle(str(model), tmp_path / "direct", config)
    found, expected = (Bundle.open(tmp_path / place) for place in ("new", "direct"))
    assert found.manifest.files == expected.manifest.files


@pytest.mark.slow
def test_what_it_cannot_do(exported, floats, tmp_path):
    small = exported("llama").bundle("int8").bundle
    with pytest.raises(UsageError, match=r"quantized already \(int8\).*export the model again"):
        quantized(small, tmp_path / "b", ExportConfig(quant="w4"))
    _, bundle = floats["llama"]
    with pytest.raises(UsageError, match="the weights are fp32; choose a smaller form"):
        quantized(bundle, tmp_path / "b", ExportConfig(quant="fp32"))
    model = dataclasses.replace(bundle.manifest.model, task="embedding")
    other = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, model=model))
    with pytest.raises(UsageError, match="does not say how it pools"):
        quantized(other, tmp_path / "b", ExportConfig(quant="w4"))
    config = {**bundle.manifest.base_config, "model_type": "unheard-of"}
    odd = dataclasses.replace(bundle.manifest, base_config=config)
    with pytest.raises(UsageError, match="does not know it"):
        quantized(
            dataclasses.replace(bundle, manifest=odd), tmp_path / "b", ExportConfig(quant="w4")
        )
    for class_name in ("Trainer", "AutoConfig", "__version__", "Unheard"):
        model = dataclasses.replace(bundle.manifest.model, class_name=class_name)
        odd = dataclasses.replace(bundle.manifest, model=model)
        with pytest.raises(UsageError, match="no model class of that name"):
            quantized(
                dataclasses.replace(bundle, manifest=odd), tmp_path / "b", ExportConfig(quant="w4")
            )
    (tmp_path / "taken").mkdir()
    with pytest.raises(UsageError, match="exists; choose another"):
        quantized(bundle, tmp_path / "taken", ExportConfig(quant="w4"))
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "value", "error"),
    [
        ("num_attention_heads", 3, "cannot be traced|does not know it"),
        ("num_attention_heads", "four", "cannot be traced|does not know it"),
        ("num_hidden_layers", 3, "another version of transformers or edgezo made the bundle"),
        ("hidden_act", "unheard", "cannot be traced"),
        ("intermediate_size", 64, "another version of transformers or edgezo made the bundle"),
    ],
)
def test_manifests_that_do_not_fit_the_weights(floats, tmp_path, entry, value, error):
    _, bundle = floats["llama"]
    config = {**bundle.manifest.base_config, entry: value}
    odd = dataclasses.replace(bundle.manifest, base_config=config)
    with pytest.raises(EdgezoError, match=error):
        quantized(
            dataclasses.replace(bundle, manifest=odd), tmp_path / "b", ExportConfig(quant="w4")
        )


OPTIONS = {
    "lora": {"rank": 2, "alpha": 5.0, "targets": ("q",), "lora_train": "ab"},
    "lora-xs": {"rank": 2, "alpha": 3.0, "targets": ("q",)},
    "bitfit": {"biases": "all"},
    "scales": {"targets": ("q",)},
    "tt": {"rank": 3, "bottleneck": 8},
    "last-layers": {"last_layers": 2},
}


@pytest.mark.parametrize("kind", SCHEMES)
def test_a_scheme_from_its_record(kind):
    scheme = make_scheme(kind, OPTIONS.get(kind, {}))
    if kind in ("prompt", "prefix", "ia3"):
        chosen = {"targets": ("k_proj",)} if kind == "ia3" else {"tokens": (5, 6, 7)}
        scheme = dataclasses.replace(scheme, **chosen)
    assert scheme_of(scheme.info()).info() == scheme.info()


PLAN = [
    PlannedTensor("q+v", "F32", (6, 9), ("q", "v"), "concat", True),
    PlannedTensor("c", "F32", (6, 9), ("c1", "c2"), "concat", False),
    PlannedTensor("b", "F32", (9,), ("b1", "b2"), "concat", False),
    PlannedTensor("e", "F16", (7, 6), ("e",), "plain_half", False),
    PlannedTensor("t", "F32", (6, 5), ("t",), "plain", True),
    PlannedTensor("s", "F32", (), ("s",), "plain", False),
    PlannedTensor("conv", "F32", (4, 1, 3), ("conv",), "plain", False),
]
SIZES = {
    "q": (4, 6), "v": (5, 6), "c1": (6, 2), "c2": (6, 7), "b1": (4,), "b2": (5,), "e": (7, 6),
    "t": (5, 6), "s": (), "conv": (4, 1, 3),
}  # fmt: skip


class Arrays:
    """A checkpoint in memory."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.all = {n: random.integers(-99, 99, s).astype(np.float32) for n, s in SIZES.items()}

    def shape(self, name):
        return self.all[name].shape

    def read(self, name):
        return self.all[name]

    def read_rows(self, name, start, stop):
        return self.all[name][start:stop]


def test_every_tensor_is_read_as_the_checkpoint_has_it(tmp_path):
    source = Arrays()
    write_weights(tmp_path / "w", PLAN, source)
    found = StoredWeights(tmp_path / "w", PLAN, SIZES)
    assert set(found.names()) == set(SIZES)
    for name, expected in source.all.items():
        assert found.shape(name) == expected.shape
        np.testing.assert_array_equal(found.read(name), expected)
        if expected.ndim:
            np.testing.assert_array_equal(found.read_rows(name, 1, 2), expected[1:2])


@pytest.mark.slow
def test_info_and_quantize_on_the_command_line(floats, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from edgezo.cli import main

    _, bundle = floats["llama"]
    new = str(tmp_path / "new")
    args = ["bundle", "quantize", str(bundle.root), "--quant", "w8", "-o", new, "--json"]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert (made["quant"], made["group_size"]) == ("w8", 32)
    shown = json.loads(CliRunner().invoke(main, ["bundle", "info", new, "--json"]).stdout)
    assert shown["bytes"] == made["bytes"] == sum(shown["bytes_by_part"].values())
    assert shown["files"]["weights.safetensors"]["sha256"]
    lines = CliRunner().invoke(main, ["bundle", "info", new]).stdout
    assert "w8, groups of 32" in lines
    refused = CliRunner().invoke(main, ["bundle", "quantize", new, "-o", str(tmp_path / "x")])
    assert refused.exit_code == 2
    assert "quantized already (w8)" in refused.stderr
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(main, [*args[:3], "-o", "."])
    assert refused.exit_code == 2
    assert ".: exists; choose another" in refused.stderr


@pytest.mark.slow
def test_in_place_after_a_kill(floats, tmp_path):
    """BUNDLE is also NEW, and the process ended between the two renames."""
    from click.testing import CliRunner

    from edgezo.cli import main

    place = tmp_path / "bundle"
    shutil.copytree(floats["llama"][1].root, tmp_path / ".bundle.export" / "old")
    args = ["bundle", "quantize", str(place), "-o", str(place), "--quant", "fp16", "--force"]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 0, done.output
    assert Bundle.open(place, verify=True).manifest.quant == "fp16"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
