"""Files of tokenizers of every kind, made from one."""

from __future__ import annotations

import json

from edgezo_runtime.data.tokenizer import TextTokenizer
from tests.hostile.seed_texts import PROCESSOR, UNIGRAM, WORDPIECE


def tokenizer_files(tokenizer: TextTokenizer) -> tuple[bytes, ...]:
    """The files of a tokenizer and of others of other kinds."""
    small = json.loads(tokenizer.core.to_str())
    wordpiece = small | {"model": WORDPIECE, "pre_tokenizer": {"type": "Whitespace"}}
    unigram = small | {"model": UNIGRAM, "pre_tokenizer": None}
    merges = [["a", "b"]]
    prefix = small["model"] | {
        "continuing_subword_prefix": "##",
        "vocab": {"a": 0, "##b": 1, "ab": 2},
        "merges": [["a", "##b"]],
    }
    tiny = small["model"] | {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": merges}
    texts = [
        small | {"model": tiny},
        small | {"model": prefix},
        wordpiece,
        unigram,
        small | {"model": tiny, "post_processor": PROCESSOR, "normalizer": {"type": "NFC"}},
    ]
    return tuple(json.dumps(text).encode() for text in texts)
