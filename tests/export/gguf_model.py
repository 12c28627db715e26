"""GGUF files of small models, written as llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]

VOCAB = 97


def interleave(weight: Array, heads: int) -> Array:
    """What llama.cpp's converter does to the rows of q and k: (2, pairs) to (pairs, 2)."""
    shape = weight.shape
    return weight.reshape(heads, 2, -1, *shape[1:]).swapaxes(1, 2).reshape(shape)


def write_gguf(
    path: Path,
    model: Any,
    arch: str,
    quantize: bool = False,
    changes: Mapping[str, Array] | None = None,
    more_tokens: int = 0,
    ends: Mapping[str, int] | None = None,
    raw: Mapping[str, tuple[np.ndarray[Any, Any], Any]] | None = None,
    split: int = 0,
) -> None:
    """A GGUF file as llama.cpp's converter would write it (float32, or Q8_0 matrices).

    Args:
        path: of the file.
        model: of torch.
        arch: its architecture, as llama.cpp calls it.
        quantize: matrices to Q8_0.
        changes: added to tensors, by their names in the file.
        more_tokens: tokens without a row in the embedding.
        ends: end tokens, by "eos", "eot" and "eom".
        raw: blocks and type of tensors that are quantized already, by their names in the model.
        split: most tensors of a file, PATH-00001-of-...; 0 for one file.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, arch, split_max_tensors=split)
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None) or 8
    writer.add_rope_dimension_count(head_dim)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_freq_base(config.rope_parameters.get("rope_theta", 10000.0))
    if arch.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    tokens = [f"<{index}>" for index in range(3)] + [chr(33 + i) for i in range(VOCAB - 3)]
    tokens += [f"more{index}" for index in range(more_tokens)]
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges([])
    writer.add_bos_token_id(1)
    for name, token in (ends or {"eos": 2}).items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)
    writer.add_pad_token_id(0)
    enum = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    table = gguf.get_tensor_name_map(enum, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if config.tie_word_embeddings and name == "lm_head.weight":
            continue
        base, suffix = name.rsplit(".", 1)
        own = f"{table.get_name(base)}.{suffix}"
        values = tensor.numpy()
        if arch == "llama" and ".q_proj" in name:
            values = interleave(values, config.num_attention_heads)
        if arch == "llama" and ".k_proj" in name:
            values = interleave(values, config.num_key_value_heads)
        if arch.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        values = np.ascontiguousarray(values + (changes or {}).get(own, np.float32(0)))
        raw_dtype = None
        if raw is not None and name in raw:
            values, raw_dtype = raw[name]
        elif quantize and values.ndim == 2:
            raw_dtype = gguf.GGMLQuantizationType.Q8_0
            values = gguf.quants.quantize(values, raw_dtype)
        writer.add_tensor(own, values, raw_dtype=raw_dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def float_gguf(source: Path, target: Path, changes: Mapping[str, Array] | None = None) -> Path:
    """A copy of a GGUF model in float32.

    Args:
        source: the model, quantized or not.
        target: the copy.
        changes: added to tensors, by their names in the file.
    """
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        inner = field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(name, field.contents(), field.types[0], inner)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        values = values.reshape(tensor.shape[::-1])
        writer.add_tensor(tensor.name, values + (changes or {}).get(tensor.name, np.float32(0)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def folded(adapter: Path) -> dict[str, Array]:
    """What llama.cpp adds to the tensors of a model for a LoRA file: alpha / rank * B A."""
    reader = gguf.GGUFReader(adapter)
    alpha = float(reader.fields["adapter.lora.alpha"].contents())
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    return {
        name.removesuffix(".lora_a"): np.float32(alpha / len(a)) * tensors[f"{name[:-1]}b"] @ a
        for name, a in tensors.items()
        if name.endswith(".lora_a")
    }
