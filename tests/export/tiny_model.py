"""A tiny model with random weights: how it is made, and saved as a folder that can be exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tokenizers
import torch
import transformers
from transformers import PreTrainedModel

VOCAB = 97
HIDDEN = 64
MAX_SEQ = 64
LONGEST = 21
"""Tokens of the longest row in the tests; more than any sliding window here."""

SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_SEQ,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LAYERS = "model.layers"
ALL = ("q_proj", "v_proj", "o_proj", "down_proj")
GROUPED = SIZES | {"num_key_value_heads": 2}


@dataclass(frozen=True, slots=True)
class TinyModel:
    """How to make one family.

    Attributes:
        make: builds it with the library's own random weights.
        layers: path of the repeated layers.
        targets: linear layers that get an adapter.
        encoder: attends in both directions and takes a padding mask.
        classes: rows of its classification head; 0 for a head of tokens.
    """

    make: Callable[[], PreTrainedModel]
    layers: str
    targets: tuple[str, ...]
    encoder: bool = False
    classes: int = 0

    def build(self) -> PreTrainedModel:
        """The model in eval mode; the same weights every time."""
        torch.manual_seed(0)
        model = self.make().eval()
        randomize(model)
        return model


def randomize(model: torch.nn.Module) -> None:
    """Matrices that keep the size of what passes; norms and biases away from 1 and 0, so that
    mixing them up shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(0.3 * noise)


def save(model: PreTrainedModel, folder: Path) -> Path:
    """Write a model and a tokenizer of its vocabulary size."""
    model.save_pretrained(folder)
    words = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    words |= {f"w{index}": index for index in range(4, VOCAB)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    tokenizer.save_pretrained(folder)
    return folder
