"""Adapter files, and what PEFT makes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from edgezo_runtime.adapters.adapter import Adapter, load_adapter, make_adapter
from edgezo_runtime.adapters.peft_writer import peft_content, save_peft
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.bundle.trainables import SchemeInfo
from edgezo_runtime.errors import DivergedError, RunFileError, UsageError
from edgezo_runtime.journal.run_folder import find_adapter
from tests.conftest import Exported

Float32 = np.ndarray[Any, np.dtype[np.float32]]
Trained = Callable[[str], tuple[Path, Bundle]]


@pytest.fixture
def trained(exported: Callable[[str], Exported]) -> Trained:
    """Name of a tiny model -> its folder and its float32 bundle."""

    def get(name: str) -> tuple[Path, Bundle]:
        made = exported(name)
        return made.folder, made.bundle("fp32").bundle

    return get


def random_adapter(bundle: Bundle, path: Path, blocks: tuple[int, ...] | None = None) -> Adapter:
    """An adapter whose B is not zero, in some blocks."""
    generator = np.random.default_rng(0)
    tensors = bundle.trainables()
    for info in bundle.manifest.trainables:
        if info.role == "lora_B" and (blocks is None or info.block in blocks):
            tensors[info.name] += generator.standard_normal(info.shape).astype(np.float32) * 0.1
    return make_adapter(path, bundle, tensors, steps=5, created_by="edgezo test", scope="all")


def test_what_is_saved_is_loaded(trained: Trained, tmp_path: Path) -> None:
    _, bundle = trained("llama")
    adapter = random_adapter(bundle, tmp_path / "a.safetensors")
    digest = adapter.save(adapter.path)
    assert digest == adapter.save(tmp_path / "again.safetensors")
    found = load_adapter(adapter.path)
    assert found.info == adapter.info
    assert found.info.complete
    assert found.tensors.keys() == bundle.trainables().keys()
    params = found.params(bundle)
    assert list(params) == [info.name for info in bundle.manifest.trainables]
    assert all((params[name] == value).all() for name, value in adapter.tensors.items())
    assert found.differences(bundle) == []
    model = bundle.manifest.model.id
    assert found.renamed("org/x").differences(bundle) == [f"the model was org/x, is {model}"]
    other = replace(found, info=replace(found.info, bundle_sha256="0" * 64))
    assert "another one of this model (manifest 00000000, is" in other.differences(bundle)[0]


def test_blocks_that_did_not_train_are_left_out(trained: Trained, tmp_path: Path) -> None:
    _, bundle = trained("llama")
    adapter = random_adapter(bundle, tmp_path / "a", blocks=(1,))
    assert {name.split(".")[2] for name in adapter.modules} == {"1"}
    assert len(adapter.tensors) == len(bundle.manifest.trainables) // 2
    assert not adapter.info.complete
    params = adapter.params(bundle)
    zero = [i.name for i in bundle.manifest.trainables if i.block == 0 and i.role == "lora_B"]
    assert not any(params[name].any() for name in zero)


def test_an_untrained_adapter_has_everything(trained: Trained, tmp_path: Path) -> None:
    _, bundle = trained("llama")
    adapter = random_adapter(bundle, tmp_path / "a", blocks=())
    assert len(adapter.tensors) == len(bundle.manifest.trainables)


def test_numbers_that_are_not_finite_are_refused(trained: Trained, tmp_path: Path) -> None:
    _, bundle = trained("llama")
    tensors = bundle.trainables()
    next(iter(tensors.values()))[0] = np.inf
    with pytest.raises(DivergedError, match="not finite"):
        make_adapter(tmp_path / "a", bundle, tensors, steps=1, created_by="x", scope="all")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "gpt2"}, "adapter of a gpt2 model"),
        ({"scheme": SchemeInfo("lora", (), 3, 3.0)}, "`alpha` 3"),
        ({"scheme": SchemeInfo("lora", (), 6, 6.0)}, "`rank` 6"),
        ({"scheme": SchemeInfo("ia3")}, "`trainable` ia3, bundle"),
    ],
)
def test_another_model_is_refused(
    trained: Trained, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    _, bundle = trained("llama")
    adapter = random_adapter(bundle, tmp_path / "a")
    wrong = replace(adapter, info=replace(adapter.info, **change))
    with pytest.raises(RunFileError, match=message):
        wrong.params(bundle)


def test_other_names_and_shapes_are_refused(trained: Trained, tmp_path: Path) -> None:
    _, bundle = trained("llama")
    adapter = random_adapter(bundle, tmp_path / "a")
    name = adapter.modules[0] + ".lora_A"
    extra = {**adapter.tensors, "model.layers.9.x.lora_A": adapter.tensors[name]}
    with pytest.raises(RunFileError, match=r"no trainable 'model.layers.9.x.lora_A'"):
        replace(adapter, tensors=extra).params(bundle)
    short = {**adapter.tensors, name: adapter.tensors[name][:, 1:]}
    with pytest.raises(RunFileError, match="use a bundle exported with `trainable` lora `rank` 3"):
        replace(adapter, tensors=short).params(bundle)


def test_damaged_files_are_refused(trained: Trained, tmp_path: Path) -> None:
    _, bundle = trained("llama")
    adapter = random_adapter(bundle, tmp_path / "a.safetensors")
    adapter.save(adapter.path)
    content = adapter.path.read_bytes()
    tensors = safetensors.numpy.load_file(adapter.path)
    info = json.loads(
        json.loads(content[8:].split(b"}}", 1)[0] + b"}}")["__metadata__"]["edgezo_adapter"]
    )

    def refused(match: str) -> None:
        with pytest.raises(RunFileError, match=match):
            load_adapter(adapter.path)

    def rewrite(tensors: dict[str, Float32], **changes: object) -> None:
        text = json.dumps({**info, **changes})
        safetensors.numpy.save_file(tensors, adapter.path, {"edgezo_adapter": text})

    adapter.path.write_bytes(content[:-4])
    refused("not an adapter that can be read")
    adapter.path.write_bytes(b"")
    refused("not an adapter that can be read")
    safetensors.numpy.save_file(tensors, adapter.path)
    refused("no adapter of edgezo's")
    rewrite(tensors, version=4)
    refused("adapter of version 4")
    rewrite(tensors, reading={"template": "no field", "labels": [], "max_seq": 9})
    refused("damaged header: template 'no field' names no field")
    rewrite(tensors, scheme={**info["scheme"], "rank": "3"})
    refused("damaged header")
    rewrite(tensors, scheme={**info["scheme"], "rank": 0})
    refused("rank: 0 is not above zero")
    one = next(iter(tensors))
    rewrite({one: tensors[one]})
    refused("without")
    rewrite({"x": tensors[one]})
    refused("unexpected tensor")
    rewrite({**tensors, one: tensors[one].astype(np.float16)})
    refused("expected float32 with 2 axes")
    rewrite({})
    refused("no tensors")


def test_files_of_version_1_are_read(trained: Trained, tmp_path: Path) -> None:
    _, bundle = trained("llama")
    adapter = random_adapter(bundle, tmp_path / "a.safetensors")
    adapter.save(adapter.path)
    tensors = safetensors.numpy.load_file(adapter.path)
    with safetensors.safe_open(adapter.path, "np") as file:
        info = json.loads(file.metadata()["edgezo_adapter"])
    scheme = info.pop("scheme")
    old = {**info, "version": 1, **{key: scheme[key] for key in ("rank", "alpha", "targets")}}
    safetensors.numpy.save_file(tensors, adapter.path, {"edgezo_adapter": json.dumps(old)})
    found = load_adapter(adapter.path)
    assert found.info.scheme == replace(adapter.info.scheme, train=None)
    assert found.params(bundle).keys() == adapter.params(bundle).keys()


def test_finding_the_adapter_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="no such run"):
        find_adapter(tmp_path / "none")
    with pytest.raises(RunFileError, match="neither a run folder"):
        find_adapter(tmp_path)
    (tmp_path / "journal.bin").touch()
    with pytest.raises(RunFileError, match="--resume"):
        find_adapter(tmp_path)
    (tmp_path / "adapter.safetensors").touch()
    assert find_adapter(tmp_path) == tmp_path / "adapter.safetensors"


# --- PEFT ---


def torch_logits(model: Path, adapter: Path, ids: Any, mask: Any, task: str) -> Float32:
    """Logits of the torch model with the adapter that PEFT loads, (R, S, V)."""
    import torch
    import transformers
    from peft import PeftModel

    auto = transformers.AutoModelForCausalLM
    if task == "masked-lm":
        auto = transformers.AutoModelForMaskedLM
    base = auto.from_pretrained(model, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, adapter).eval()
    with torch.inference_mode():
        result: Float32 = tuned(
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)
        ).logits.numpy()
    return result


# PEFT asks transformers 5 for a property under its old name; other warnings of PEFT's, such as that
# of keys it misses, are errors.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("blocks", [None, (1,)])
def test_peft_gives_the_scores_of_the_bundle(
    trained: Trained, tmp_path: Path, name: str, blocks: tuple[int, ...] | None
) -> None:
    pytest.importorskip("peft")
    from tests.export.bundle_runner import BundleRunner

    model, bundle = trained(name)
    adapter = random_adapter(bundle, tmp_path / "a", blocks)
    save_peft(adapter, tmp_path / "peft")
    task = bundle.manifest.model.task
    ids = np.random.default_rng(1).integers(4, 90, (2, 9))
    mask = np.ones_like(ids)
    expected = torch_logits(model, tmp_path / "peft", ids, mask, task)

    runner = BundleRunner(bundle.root)
    params = {key: value[None] for key, value in adapter.params(bundle).items()}
    takes_mask = any(t.name == "attention_mask" for t in bundle.manifest.graphs.prologue.inputs)
    *_, plain = runner.hidden_states(ids, mask if takes_mask else None)
    *_, hidden = runner.hidden_states(ids, mask if takes_mask else None, params)
    positions = np.array([[0, 3], [0, 8], [1, 0], [1, 7]])
    labels = np.arange(4, 90)
    scores = runner.label_logits(hidden, positions, labels)
    untuned = runner.label_logits(plain, positions, labels)
    wanted = expected[positions[:, 0], positions[:, 1]][:, labels]
    np.testing.assert_allclose(scores, wanted, atol=1e-4)
    assert np.abs(scores - untuned).max() > 1e-2  # the adapter does something


def acts_on_answers(adapter: Adapter, *invocation: int) -> Adapter:
    return replace(adapter, info=replace(adapter.info, scope="answer", invocation=invocation))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_peft_gives_the_scores_of_an_adapter_for_answers(
    trained: Trained, tmp_path: Path, name: str
) -> None:
    """PEFT begins at the last place of the token that the adapter says it begins at."""
    pytest.importorskip("peft")
    from edgezo_runtime.data.batches import make_batch
    from edgezo_runtime.engine.engine import Engine, SharedParams
    from tests.runtime.tiny_sets import random_set

    model, bundle = trained(name)
    adapter = acts_on_answers(random_adapter(bundle, tmp_path / "a"), 95)
    adapter.save(adapter.path)
    assert load_adapter(adapter.path).info == adapter.info
    save_peft(adapter, tmp_path / "peft")
    examples = random_set("labels", (9,), bundle.manifest.tokenizer.pad_id)
    tokens = examples.examples[0].tokens
    tokens[-1] = 95
    expected = torch_logits(
        model, tmp_path / "peft", tokens[None], np.ones((1, 9), int), "causal-lm"
    )
    engine, batch = Engine(bundle), make_batch(examples, [0])
    params = SharedParams(adapter.params(bundle))
    found = engine.score(batch, params, scope="answer")[0, 0]
    np.testing.assert_allclose(found, expected[0, -1][batch.label_ids], atol=1e-4)
    assert np.abs(engine.score(batch, params)[0, 0] - found).max() > 1e-3


def test_what_peft_cannot_express_is_refused(trained: Trained, tmp_path: Path) -> None:
    adapter = acts_on_answers(random_adapter(trained("llama")[1], tmp_path / "a"))
    with pytest.raises(UsageError, match=r"different tokens.*`scope` all"):
        peft_content(adapter)
    assert peft_content(acts_on_answers(adapter, 7))[0]["alora_invocation_tokens"] == [7]
    encoder = acts_on_answers(random_adapter(trained("bert")[1], tmp_path / "b"), 7)
    with pytest.raises(UsageError, match="not a causal model"):
        peft_content(encoder)


def test_peft_config_names_paths_where_some_blocks_train(trained: Trained, tmp_path: Path) -> None:
    _, bundle = trained("llama")
    whole = peft_content(random_adapter(bundle, tmp_path / "a"))[0]
    assert whole["target_modules"] == ["down_proj", "o_proj", "q_proj", "v_proj"]
    assert (whole["r"], whole["lora_alpha"], whole["task_type"]) == (3, 6, "CAUSAL_LM")
    part = peft_content(random_adapter(bundle, tmp_path / "a", blocks=(0,)))[0]
    assert all(name.startswith("model.layers.0.") for name in part["target_modules"])


def test_peft_folder_is_replaced_only_on_demand(trained: Trained, tmp_path: Path) -> None:
    _, bundle = trained("llama")
    adapter = random_adapter(bundle, tmp_path / "a")
    folder = tmp_path / "deep" / "peft"
    save_peft(adapter, folder)
    with pytest.raises(UsageError, match="`force`"):
        save_peft(adapter, folder)
    save_peft(adapter.renamed("org/new"), folder, force=True)
    assert "org/new" in (folder / "adapter_config.json").read_text()
    assert [path.name for path in folder.parent.iterdir()] == ["peft"]
    shutil.rmtree(folder)
    folder.touch()
    with pytest.raises(UsageError, match="a folder"):
        save_peft(adapter, folder, force=True)
