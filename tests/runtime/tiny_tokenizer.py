"""Tokenizers built in code, for the tests of the data path."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from edgezo_runtime.data.tokenizer import TextTokenizer

SPECIAL = ("<pad>", "<s>", "</s>", "<user>", "<assistant>")
PAD, BOS, EOS, USER, ASSISTANT = range(len(SPECIAL))
TEXT = (
    "the film It was terrible great good bad Yes No a very long story about nothing at all and "
    "then some more words light music so it goes on question answer"
)
WORDS = TEXT.split()
CHAT = (
    "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def byte_tokenizer(**settings: Any) -> TextTokenizer:
    """A byte-level BPE tokenizer in which each of `WORDS` is one token, with a space or without."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        min_frequency=1,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([f"{word}\n {word}" for word in WORDS for _ in range(3)], trainer)
    defaults: dict[str, Any] = {"pad_id": PAD, "bos_id": BOS, "eos_ids": (EOS,)}
    return TextTokenizer(core=core, **(defaults | settings))


def masked_tokenizer() -> TextTokenizer:
    """A word-level tokenizer with [CLS], [SEP] and [MASK]."""
    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
    vocab = {name: index for index, name in enumerate(names)}
    core = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    core.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return TextTokenizer(
        core=core, pad_id=0, bos_id=2, eos_ids=(3,), unk_id=1, mask_id=4, task="masked-lm"
    )


def write_rows(path: Path, rows: Iterable[object]) -> Path:
    """Write a JSON Lines file."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path
