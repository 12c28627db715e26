"""Tiny quantized checkpoints, packed as the published formats say, and the weights they mean.

Written from the packing code of AutoGPTQ, AutoAWQ and bitsandbytes, loop by loop; nothing here is
shared with the reader.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

from tests.export.gguf_model import interleave, write_gguf
from tests.export.tiny_model import GROUPED, randomize, save

Arrays = dict[str, np.ndarray]
Made = tuple[Arrays, np.ndarray]
"""The tensors of a layer by their suffixes, and the (N, K) weights that they mean."""

SIZE = 32
_NF4 = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    np.float32,
)


def tiny_llama(**changes: Any) -> transformers.LlamaForCausalLM:
    """A llama whose layers have 64 or 128 inputs, if nothing else is said."""
    torch.manual_seed(0)
    sizes = GROUPED | {"intermediate_size": 128, "tie_word_embeddings": False} | changes
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()
    randomize(model)
    return model


@dataclass(frozen=True, slots=True)
class Packing:
    """A way to quantize a folder.

    Attributes:
        pack: makes a layer from its shape (N, K) and a generator.
        config: `quantization_config`.
    """

    pack: Callable[[tuple[int, int], np.random.Generator], Made]
    config: dict[str, Any]


def _words(columns: np.ndarray, bits: int) -> np.ndarray:
    """Pack neighbours along the last axis into int32, the first in the lowest bits."""
    found = np.zeros((len(columns), columns.shape[1] * bits // 32), np.uint32)
    for word in range(found.shape[1]):
        for part in range(32 // bits):
            own = columns[:, word * 32 // bits + part].astype(np.uint32)
            found[:, word] |= own << np.uint32(bits * part)
    return found.view(np.int32)


def gptq(bits: int, *, order: bool = False, symmetric: bool = True, v2: bool = False) -> Packing:
    """GPTQ: qweight packs inputs, qzeros outputs; zeros are stored less one, 0 as the largest."""

    def pack(shape: tuple[int, int], random: np.random.Generator) -> Made:
        outputs, width = shape
        groups = width // SIZE
        codes = random.integers(0, 1 << bits, (width, outputs))
        scales = random.uniform(0.01, 0.03, (groups, outputs)).astype(np.float16)
        scales /= np.float16(1 << (bits - 4))
        middle = 1 << (bits - 1)
        zeros = np.full((groups, outputs), middle)
        if not symmetric:
            zeros = random.integers(middle - 3, middle + 4, (groups, outputs))
            zeros[0, :2] = 0, (1 << bits) - 1
        g_idx = np.arange(width) // SIZE
        if order:
            g_idx = random.permutation(g_idx)
        tensors = {
            "qweight": np.ascontiguousarray(_words(codes.T, bits).T),
            "qzeros": _words((zeros - (0 if v2 else 1)) % (1 << bits), bits),
            "scales": scales,
            "g_idx": g_idx.astype(np.int32),
        }
        weights = scales.astype(np.float32)[g_idx] * (codes - zeros[g_idx])
        return tensors, weights.T.astype(np.float32)

    config = {"quant_method": "gptq", "bits": bits, "group_size": SIZE, "desc_act": order}
    config |= {"sym": symmetric} | ({"checkpoint_format": "gptq_v2"} if v2 else {})
    return Packing(pack, config)


def awq() -> Packing:
    """AWQ, gemm: both pack outputs, columns in the order 0 2 4 6 1 3 5 7."""

    def packed(columns: np.ndarray) -> np.ndarray:
        found = np.zeros((len(columns), columns.shape[1] // 8), np.uint32)
        for word in range(found.shape[1]):
            for part, column in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
                own = columns[:, word * 8 + column].astype(np.uint32)
                found[:, word] |= own << np.uint32(4 * part)
        return found.view(np.int32)

    def pack(shape: tuple[int, int], random: np.random.Generator) -> Made:
        outputs, width = shape
        codes = random.integers(0, 16, (width, outputs))
        zeros = random.integers(5, 11, (width // SIZE, outputs))
        scales = random.uniform(0.01, 0.03, zeros.shape).astype(np.float16)
        tensors = {"qweight": packed(codes), "qzeros": packed(zeros), "scales": scales}
        group = np.arange(width) // SIZE
        weights = scales.astype(np.float32)[group] * (codes - zeros[group])
        return tensors, weights.T.astype(np.float32)

    config = {"quant_method": "awq", "bits": 4, "group_size": SIZE, "zero_point": True}
    return Packing(pack, config | {"version": "gemm"})


def nf4(*, nested: bool) -> Packing:
    """bitsandbytes: two neighbours in a byte, the first one in the high half."""

    def pack(shape: tuple[int, int], random: np.random.Generator) -> Made:
        count, block = shape[0] * shape[1], 64
        codes = random.integers(0, 16, count)
        state: dict[str, Any] = {"quant_type": "nf4", "blocksize": block, "dtype": "float32"}
        state["shape"] = list(shape)
        tensors = {"": ((codes[0::2] << 4) | codes[1::2]).astype(np.uint8)[:, None]}
        absmax = random.uniform(0.05, 0.3, count // block).astype(np.float32)
        if nested:
            table = np.sort(random.uniform(-1, 1, 256)).astype(np.float32)
            index = random.integers(0, 256, len(absmax)).astype(np.uint8)
            outer = random.uniform(0.02, 0.1, -(-len(absmax) // 256)).astype(np.float32)
            state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.17}
            absmax = table[index] * outer[np.arange(len(index)) // 256] + np.float32(0.17)
            tensors |= {".absmax": index, ".nested_absmax": outer, ".nested_quant_map": table}
        else:
            tensors[".absmax"] = absmax
        tensors[".quant_map"] = _NF4
        text = json.dumps(state).encode()
        tensors[".quant_state.bitsandbytes__nf4"] = np.frombuffer(text, np.uint8)
        weights = _NF4[codes] * np.repeat(absmax, block)
        return tensors, weights.reshape(shape).astype(np.float32)

    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False}
    config |= {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": nested}
    return Packing(pack, config | {"bnb_4bit_quant_storage": "uint8"})


PACKINGS: dict[str, Packing] = {
    "gptq": gptq(4),
    "gptq-asymmetric": gptq(4, symmetric=False),
    "gptq-act-order": gptq(4, order=True, symmetric=False),
    "gptq-8": gptq(8, symmetric=False),
    "gptq-8-v2": gptq(8, symmetric=False, v2=True),
    "awq": awq(),
    "nf4": nf4(nested=False),
    "nf4-double": nf4(nested=True),
}


def tiny_mixtral() -> transformers.MixtralForCausalLM:
    """A mixtral of three experts, two of which a token is routed to."""
    torch.manual_seed(0)
    sizes = GROUPED | {"intermediate_size": 128, "tie_word_embeddings": False}
    sizes |= {"num_local_experts": 3, "num_experts_per_tok": 2}
    model = transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes)).eval()
    randomize(model)
    return model


_LAYER = re.compile(r"(.*_proj|.*\.experts\.\d+\.w\d)\.weight")
_EXPERT = re.compile(r"(.*)\.block_sparse_moe\.experts\.(\d+)\.(w\d)\.weight")


def _of_model(state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """Return the weights of a tensor of the checkpoint in the model."""
    found = _EXPERT.fullmatch(name)
    if found is None:
        return state[name]
    layer, expert, matrix = found[1], int(found[2]), found[3]
    if matrix == "w2":
        return state[f"{layer}.mlp.experts.down_proj"][expert]
    gate, up = state[f"{layer}.mlp.experts.gate_up_proj"][expert].chunk(2)
    return gate if matrix == "w1" else up


def write_folder(
    folder: Path, packing: Packing, model: transformers.PreTrainedModel | None = None
) -> Any:
    """Save a model whose layers are quantized, a llama if None.

    Returns:
        The float32 model that it means.
    """
    model = tiny_llama() if model is None else model
    save(model, folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    random = np.random.default_rng(0)
    state = model.state_dict()
    for name in [name for name in tensors if _LAYER.fullmatch(name)]:
        made, weights = packing.pack(tensors.pop(name).shape, random)
        stem = name if "" in made else f"{name.removesuffix('weight')}"
        tensors |= {f"{stem}{suffix}": values for suffix, values in made.items()}
        _of_model(state, name).copy_(torch.tensor(weights))
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    content = json.dumps(config | {"quantization_config": packing.config})
    (folder / "config.json").write_text(content)
    return model


def random_blocks(kind: Any, shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Blocks of a GGUF type with any codes, whose weights have the size of those of a model."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (shape[0] * shape[1] // block, size), dtype=np.uint8)
    name = kind.name
    share = {"Q4_0": 8, "Q4_1": 8, "Q5_0": 16, "Q5_1": 16, "Q8_0": 128}.get(name, 500)
    share = 30 * share if name == "Q6_K" else share
    places = (
        [208] if name == "Q6_K" else [0, 2] if name in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else [0]
    )
    for place in places:
        largest = 0.2 / (share if place != 2 or name.endswith("K") else 1)
        halves = random.uniform(0.3 * largest, largest, (len(blocks), 1)).astype("<f2")
        blocks[:, place : place + 2] = (-halves if place == 2 and share < 500 else halves).view(
            "u1"
        )
    return blocks.reshape(shape[0], -1)


KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F16", "BF16")


def write_mixed_gguf(path: Path, first: int = 0, **changes: Any) -> transformers.LlamaForCausalLM:
    """Save a llama whose matrices have all types in turn; returns the model that it means."""
    sizes = {"hidden_size": 256, "intermediate_size": 256, "tie_word_embeddings": True}
    model = tiny_llama(**sizes | changes)
    random, raw = np.random.default_rng(first), {}
    matrices = [
        name
        for name, values in model.state_dict().items()
        if values.ndim == 2 and not (name == "lm_head.weight" and model.config.tie_word_embeddings)
    ]
    for index, name in enumerate(matrices):
        kind = gguf.GGMLQuantizationType[KINDS[(first + index) % len(KINDS)]]
        values = model.state_dict()[name]
        if kind.name in ("F16", "BF16"):
            blocks = gguf.quants.quantize(values.numpy(), kind)
        else:
            blocks = random_blocks(kind, tuple(values.shape), random)
        raw[name] = blocks, kind
        meant = gguf.quants.dequantize(blocks, kind).astype(np.float32)
        for projection, heads in (
            ("q_proj", model.config.num_attention_heads),
            ("k_proj", model.config.num_key_value_heads),
        ):
            if projection in name:  # the file has its rows in another order
                order = interleave(np.arange(len(meant), dtype=np.float32), heads).astype(int)
                plain = np.empty_like(meant)
                plain[order] = meant
                meant = plain
        values.copy_(torch.tensor(meant))
    write_gguf(path, model, "llama", raw=raw)
    return model
