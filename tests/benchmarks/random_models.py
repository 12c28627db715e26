"""Models of the shapes that the field compares on, with random weights made when they are read.

No checkpoint lies on the disk: a tensor is made from its name and a seed, a few rows at a time, so
the same seed gives the same bytes. Such a model goes through the same export as `edgezo export`.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgezo_export.operators.layers import Quant
from edgezo_runtime.bundle.bundle import Manifest

if TYPE_CHECKING:
    from transformers import PretrainedConfig

STD = 0.02
"""Of every matrix. In 4,096 channels the residual stream grows with the root of the depth, to about
10 after 32 blocks."""

STRIPE_ROWS = 16
"""Rows made by one generator: few enough that a piece which cuts them wastes little."""

Float32 = npt.NDArray[np.float32]
Content = dict[str, Any]


def llama(
    blocks: int, hidden: int, mlp: int, heads: int, kv_heads: int, vocab: int, **others: Any
) -> Content:
    """Content of config.json of a Llama."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "dtype": "float32",
        "bos_token_id": 1,
        "eos_token_id": 2,
        **others,
    }


def _mistral() -> Content:
    content = llama(32, 4096, 14336, 32, 8, 32000, sliding_window=4096)
    return content | {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}


def _opt(blocks: int, hidden: int, heads: int) -> Content:
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "hidden_size": hidden,
        "word_embed_proj_dim": hidden,
        "ffn_dim": 4 * hidden,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "vocab_size": 50272,
        "max_position_embeddings": 2048,
        "dtype": "float32",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


def _roberta() -> Content:
    return {
        "architectures": ["RobertaForMaskedLM"],
        "model_type": "roberta",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "vocab_size": 50265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "dtype": "float32",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


SHAPES: dict[str, Content] = {
    "llama-3-8b": llama(32, 4096, 14336, 32, 8, 128256),
    "llama-3.2-1b": llama(16, 2048, 8192, 32, 8, 128256, tie_word_embeddings=True),
    "llama-2-7b": llama(32, 4096, 11008, 32, 32, 32000),
    "mistral-7b": _mistral(),
    "opt-1.3b": _opt(24, 2048, 32),
    "opt-13b": _opt(40, 5120, 40),
    "roberta-large": _roberta(),
    "smollm2-135m": llama(30, 576, 1536, 9, 3, 49152, tie_word_embeddings=True),
    "tiny": llama(2, 64, 128, 4, 2, 512),
}
"""Configurations by the name of the model whose sizes they are; tiny is for tests."""


class RandomCheckpoint:
    """Tensors that are made when read, with the methods of a `SafetensorsFolder`.

    Matrices are normal with standard deviation `STD`, biases zeros, other vectors (norms) ones.

    Args:
        shapes: of every tensor, by name.
        seed: 0 or more.
    Memory:
        The requested tensor, and one stripe.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int) -> None:
        self._shapes = dict(shapes)
        self._seed = seed

    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._shapes[name]

    def read(self, name: str) -> Float32:
        """A whole tensor."""
        return self.read_rows(name, 0, self._shapes[name][0])

    def read_rows(self, name: str, start: int, stop: int) -> Float32:
        """Rows start..stop, independent of how a tensor is divided."""
        fill = 0 if name.endswith("bias") else 1
        rows = np.full((stop - start, *self._shapes[name][1:]), fill, np.float32)
        if rows.ndim == 1:
            return rows
        for first in range(start - start % STRIPE_ROWS, stop, STRIPE_ROWS):
            low, high = max(start, first), min(stop, first + STRIPE_ROWS)
            stripe = self._stripe(name, first // STRIPE_ROWS)
            np.multiply(
                stripe[low - first : high - first],
                np.float32(STD),
                out=rows[low - start : high - start],
            )
        return rows

    def _stripe(self, name: str, number: int) -> Float32:
        key = [self._seed, zlib.crc32(name.encode()), number]
        generator = np.random.Generator(np.random.SFC64(key))
        return generator.standard_normal((STRIPE_ROWS, self._shapes[name][1]), np.float32)


def config_of(content: Content) -> PretrainedConfig:
    """The configuration as transformers reads it."""
    from transformers import AutoConfig

    others = {name: value for name, value in content.items() if name != "model_type"}
    config: PretrainedConfig = AutoConfig.for_model(content["model_type"], **others)
    return config


def shapes_of(config: PretrainedConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter; one that is tied to another has no place of its own."""
    import torch
    import transformers

    cls = getattr(transformers, (config.architectures or [""])[0])
    with torch.device("meta"):
        model = cls(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def build(
    output: Path,
    content: Content,
    seed: int = 0,
    quant: Quant = "int8",
    calibration_rows: int = 0,
) -> Manifest:
    """Export a random model.

    Args:
        output: folder to make.
        content: of config.json.
        seed: of the weights.
        quant: their form.
        calibration_rows: rows that w4 is calibrated with, for the memory and the time of it: random
            weights gain nothing.
    Returns:
        The manifest of the new bundle.
    Raises:
        UsageError: `output` exists.
    """
    from edgezo_export.export import ExportConfig, export_bundle
    from edgezo_export.sources.model_source import Source
    from edgezo_export.sources.parameter_names import NameResolver

    config = config_of(content)
    checkpoint = RandomCheckpoint(shapes_of(config), seed)
    names = NameResolver(config, frozenset(checkpoint.names()))
    model_id = f"random-{content['model_type']}-seed-{seed}"
    with tempfile.TemporaryDirectory(prefix="edgezo-benchmark-") as temporary:
        folder = Path(temporary)
        (folder / "config.json").write_text(json.dumps(content))
        write_tokenizer(folder, content["vocab_size"], mask=content["model_type"] == "roberta")
        source = Source(model_id, config, content, checkpoint, names, folder, None)
        settings = ExportConfig(quant=quant)
        if quant == "w4":
            settings = replace(settings, calibration_rows=calibration_rows)
        return export_bundle(source, output, settings)


def write_tokenizer(folder: Path, vocab_size: int, *, mask: bool = False) -> None:
    """A tokenizer of `vocab_size` words with spaces between them: w3, w4, ..."""
    import tokenizers
    import transformers

    special = ["<unk>", "<s>", "</s>", *(["<mask>"] if mask else [])]
    words = [*special, *(f"w{number}" for number in range(len(special), vocab_size))]
    vocabulary = {word: number for number, word in enumerate(words)}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    known = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, **known, **({"mask_token": "<mask>"} if mask else {})
    )
    tokenizer.save_pretrained(folder)
