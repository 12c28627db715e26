"""What each format can hold, and the layouts of mlx-lm and onnxruntime in torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from edgezo_runtime.adapters.adapter import Adapter, make_adapter
from edgezo_runtime.adapters.adapter_info import AdapterInfo
from edgezo_runtime.adapters.formats import FORMATS, check_format
from edgezo_runtime.adapters.lora_factors import as_trainables, lora_factors
from edgezo_runtime.adapters.mlx import mlx_content, read_mlx, save_mlx
from edgezo_runtime.adapters.onnx_adapter import save_onnx_adapter
from edgezo_runtime.adapters.peft_writer import save_peft
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.bundle.trainables import SCHEME_KINDS, SchemeInfo
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import (
    DivergedError,
    EdgezoError,
    MissingExtraError,
    RunFileError,
    UsageError,
)
from edgezo_runtime.evaluation.parity import Agreement, Scores, draw_sample, own_scores
from tests.conftest import Exported
from tests.small_files import small_files

Array = np.ndarray[Any, np.dtype[np.float32]]


def bare(
    kind: str, scope: Scope = "all", task: str = "causal-lm", token: int | None = 7
) -> Adapter:
    """An adapter without tensors."""
    scheme = SchemeInfo(kind, ("q",), 2, 4.0)  # type: ignore[arg-type]
    tokens = () if token is None else (token,)
    info = AdapterInfo(
        2, "test", "org/m", "llama", task, "", scheme, True, 1, scope, tokens  # type: ignore[arg-type]
    )  # fmt: skip
    return Adapter(info, {}, Path("a"))


def fitting(adapter: Adapter) -> set[str]:
    """Formats that take it; the errors of the others name these, and no other."""
    found: set[str] = set()
    errors: list[str] = []
    for name in FORMATS:
        try:
            check_format(adapter, name)
            found.add(name)
        except UsageError as error:
            errors.append(str(error))
    for text in errors:
        assert set(text.rpartition("`format` to ")[2].split(" or ")) == found
    return found


def test_every_kind_goes_somewhere() -> None:
    takes = {kind: fitting(bare(kind)) for kind in SCHEME_KINDS}
    everywhere = {"peft", "gguf", "mlx", "onnx", "safetensors", "merged"}
    assert takes["lora"] == takes["lora-xs"] == everywhere
    assert takes["ia3"] == {"peft", "safetensors", "merged"}
    assert takes["bitfit"] == takes["scales"] == {"safetensors", "merged"}
    assert takes["last-layers"] == {"mlx", "safetensors", "merged"}
    assert takes["prompt"] == takes["prefix"] == {"peft", "safetensors"}
    assert takes["tt"] == {"safetensors"}


def test_what_acts_on_answers_goes_where_that_can_be_said() -> None:
    assert fitting(bare("lora", "answer")) == {"peft", "gguf", "safetensors"}
    for adapter in (
        bare("lora", "answer", token=None),
        bare("lora", "answer", task="masked-lm"),
        bare("ia3", "answer"),
    ):
        assert fitting(adapter) == {"safetensors"}


@pytest.fixture
def adapter(bundle: Bundle, tmp_path: Path) -> Adapter:
    """Random factors for the tiny llama."""
    generator = np.random.default_rng(0)
    tensors = {
        name: value + generator.standard_normal(value.shape).astype(np.float32) / 8
        for name, value in bundle.trainables().items()
    }
    path = tmp_path / "a.safetensors"
    return make_adapter(path, bundle, tensors, steps=1, created_by="test", scope="all")


def torch_scores(
    made: Exported, adapter: Adapter, products: dict[str, Array], vocab: int
) -> Scores:
    """Scores of the torch model whose weights W (out, in) become W + product."""
    torch = pytest.importorskip("torch", reason="compares with torch")
    transformers = pytest.importorskip("transformers")
    from edgezo_runtime.evaluation.parity import last_logits

    sample = draw_sample(adapter, vocab)
    found = []
    for changes in (products, {}):
        model = transformers.AutoModelForCausalLM.from_pretrained(made.folder).eval()
        with torch.inference_mode():
            for module, change in changes.items():
                model.get_submodule(module).weight += torch.tensor(change)
            rows = [model(torch.tensor(row[None].astype(int))).logits[0, -1] for row in sample.rows]
        found.append(last_logits([row.numpy() for row in rows], sample))
    return Scores(*found)


def agrees(made: Exported, adapter: Adapter, other: Scores) -> Agreement:
    bundle = made.bundle("fp32").bundle
    sample = draw_sample(adapter, bundle.manifest.model.vocab_size)
    own = own_scores(Engine(bundle), adapter.params(bundle), bundle.trainables(), sample)
    found = Agreement.of(own, other)
    assert found.relative < 1e-4
    assert found.difference < 1e-5
    return found


def test_mlx_layout(exported: Callable[[str], Exported], adapter: Adapter, tmp_path: Path) -> None:
    """y = W x + scale * (x lora_a) lora_b, from the file alone."""
    made = exported("llama")
    save_mlx(adapter, tmp_path / "mlx")
    config = json.loads((tmp_path / "mlx" / "adapter_config.json").read_text())
    assert (config["fine_tune_type"], config["num_layers"]) == ("lora", -1)
    parameters = config["lora_parameters"]
    keys = {".".join(module.split(".")[3:]) for module in adapter.modules}
    assert set(parameters["keys"]) == keys
    assert parameters["rank"] == 3
    tensors = safetensors.numpy.load_file(tmp_path / "mlx" / "adapters.safetensors")
    products = {
        name.removesuffix(".lora_a"): parameters["scale"] * (a @ tensors[f"{name[:-1]}b"]).T
        for name, a in tensors.items()
        if name.endswith(".lora_a")
    }
    assert products.keys() == set(adapter.modules)
    agrees(made, adapter, torch_scores(made, adapter, products, 97))


def test_mlx_lm_loads_it(
    exported: Callable[[str], Exported], adapter: Adapter, tmp_path: Path
) -> None:
    pytest.importorskip("mlx_lm")
    from edgezo_export.proofs.mlx import mlx_scores

    made = exported("llama")
    save_mlx(adapter, tmp_path / "mlx")
    agrees(made, adapter, mlx_scores(made.folder, tmp_path / "mlx", draw_sample(adapter, 97)))


def test_mlx_lm_runs_no_code_of_a_model(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It imports what config.json names as `model_file`."""
    from edgezo_export.proofs import mlx

    monkeypatch.setattr(mlx, "require_mlx", lambda: (None, None))
    for text, message in (('{"model_file": "x.py"}', "names code"), ("[]", "cannot be read")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(EdgezoError, match=message):
            mlx.mlx_scores(tmp_path, tmp_path / "a", draw_sample(adapter, 97))


def test_mlx_refuses_models_it_names_otherwise(adapter: Adapter) -> None:
    odd = replace(adapter, info=replace(adapter.info, architecture="gpt2"))
    with pytest.raises(UsageError, match="layers of gpt2 models is not known here"):
        mlx_content(odd)


def test_mlx_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="not a LoRA of mlx-lm"):
        read_mlx(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(RunFileError, match="not a LoRA of mlx-lm"):
        read_mlx(tmp_path)


def test_onnx_layout(exported: Callable[[str], Exported], adapter: Adapter, tmp_path: Path) -> None:
    """y = W x + (x A) B, from what onnxruntime reads."""
    import onnxruntime

    made = exported("llama")
    path = tmp_path / "a.onnx_adapter"
    save_onnx_adapter(adapter, path)
    values = onnxruntime.AdapterFormat.read_adapter(str(path)).get_parameters()
    tensors = {name: value.numpy() for name, value in values.items()}
    products = {
        name.removesuffix(".lora_A.weight"): (a @ tensors[name.replace("lora_A", "lora_B")]).T
        for name, a in tensors.items()
        if name.endswith(".lora_A.weight")
    }
    assert products.keys() == set(adapter.modules)
    agrees(made, adapter, torch_scores(made, adapter, products, 97))


def test_an_onnxruntime_without_adapters(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.delattr(onnxruntime, "LoraAdapter")
    with pytest.raises(MissingExtraError, match=r"has no adapters; .*>=1\.20"):
        save_onnx_adapter(adapter, tmp_path / "a")


@pytest.mark.parametrize("save", [save_peft, save_mlx, save_onnx_adapter])
def test_a_full_disk_is_told(
    adapter: Adapter, tmp_path: Path, save: Callable[[Adapter, Path], None]
) -> None:
    """Whatever the library that writes makes of it; and nothing is left."""
    with small_files(2000), pytest.raises(RunFileError, match=r"out: cannot be written: .+"):
        save(adapter, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_factors_fit_a_bundle_of_another_scale(
    exported: Callable[[str], Exported], adapter: Adapter
) -> None:
    bundle = exported("llama").bundle("fp32").bundle
    factors = [replace(one, b=one.b / 4, scale=one.scale * 4) for one in lora_factors(adapter)]
    for name, value in as_trainables(bundle, factors).items():
        np.testing.assert_allclose(value, adapter.params(bundle)[name], rtol=1e-6)
    with pytest.raises(UsageError, match="is no product of two factors"):
        lora_factors(bare("ia3"))


def test_scores_that_prove_nothing() -> None:
    one, two = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)
    with pytest.raises(DivergedError, match="changes no score"):
        Agreement.of(Scores(one, one), Scores(two, one))
    with pytest.raises(DivergedError, match="not finite"):
        Agreement.of(Scores(two, one), Scores(two * np.float32(np.nan), one))
    found = Agreement.of(Scores(two, one), Scores(one * 5, one * 3))
    assert (found.relative, found.difference, found.effect) == (1, 3, 1)
