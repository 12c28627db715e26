"""Write the tokenizer of a model into the bundle, and measure its special tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgezo_runtime.bundle.bundle import TokenizerInfo
from edgezo_runtime.errors import EdgezoError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

TOKENIZER_FILE = "tokenizer.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
_PROBE = "probe"
_FILES = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json",
    "vocab.txt", "tekken.json",
)  # fmt: skip
"""A folder with a tokenizer has one of these."""


def load_tokenizer(folder: Path, gguf_file: str | None = None) -> Any:
    """Load the fast tokenizer of a local folder, or of a .gguf file in it.

    Raises:
        EdgezoError: there is no tokenizer, or it has no fast form.
    """
    from transformers import AutoTokenizer

    arguments = {} if gguf_file is None else {"gguf_file": gguf_file}
    if gguf_file is None and not any((folder / name).is_file() for name in _FILES):
        raise EdgezoError(
            f"{folder} has no tokenizer; copy tokenizer.json and tokenizer_config.json there from "
            f"the model that it was made from, or write them with the tokenizer's 'save_pretrained'"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, **arguments
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise EdgezoError(f"{folder}: cannot load the tokenizer: {first:.300}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise EdgezoError(f"{folder}: {type(tokenizer).__name__} has no fast form (tokenizer.json)")
    return tokenizer


def token_count(tokenizer: Any) -> int:
    """Return how many rows a model needs for all tokens of a tokenizer, added ones included."""
    ids = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True).values()
    return max(ids, default=-1) + 1


def write_tokenizer(
    tokenizer: Any, config: PretrainedConfig, eos_ids: tuple[int, ...], folder: Path
) -> TokenizerInfo:
    """Write tokenizer.json and the chat template, if any.

    Args:
        tokenizer: a fast tokenizer of transformers.
        config: the model's config.
        eos_ids: ids that end a text besides that of the tokenizer.
        folder: an existing folder.
    Returns:
        The manifest's entry. `bos_id` is the token that the tokenizer puts in front ([CLS] for
        BERT), else its bos token; `add_bos` is measured with a probe; `pad_id` falls back to the
        first end token, then 0. Tokens without an embedding in the model are omitted.
    Raises:
        EdgezoError: a file cannot be written.
    """
    from tokenizers import Tokenizer

    vocab_size = int(config.get_text_config().vocab_size)
    content = _without_tokens_from(vocab_size, tokenizer.backend_tokenizer.to_str())
    backend = Tokenizer.from_str(content)
    backend.no_truncation()
    backend.no_padding()
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    try:
        backend.save(str(folder / TOKENIZER_FILE))
        if template:
            (folder / CHAT_TEMPLATE_FILE).write_text(template, encoding="utf-8")
    except OSError as error:
        raise EdgezoError(f"cannot write the tokenizer to {folder}: {error.strerror}") from error

    def known(token: int | None) -> int | None:
        return token if token is not None and 0 <= token < vocab_size else None

    first = _added_in_front(backend)
    ends = dict.fromkeys(known(token) for token in (tokenizer.eos_token_id, *eos_ids))
    ends.pop(None, None)
    eos = tuple(token for token in ends if token is not None)
    pad = known(tokenizer.pad_token_id)
    return TokenizerInfo(
        file=TOKENIZER_FILE,
        chat_template=CHAT_TEMPLATE_FILE if template else None,
        bos_id=known(tokenizer.bos_token_id if first is None else first),
        eos_ids=eos,
        pad_id=pad if pad is not None else next(iter(eos), 0),
        unk_id=known(tokenizer.unk_token_id),
        mask_id=known(tokenizer.mask_token_id),
        add_bos=first is not None,
    )


def _without_tokens_from(vocab_size: int, content: str) -> str:
    """Leave out the added tokens that the model has no embedding for.

    transformers adds such tokens to the tokenizers of some .gguf files; the files lack them.
    """
    settings = json.loads(content)
    added = settings.get("added_tokens", [])
    settings["added_tokens"] = [token for token in added if token["id"] < vocab_size]
    if len(settings["added_tokens"]) == len(added):
        return content
    return json.dumps(settings, ensure_ascii=False)


def _added_in_front(backend: Any) -> int | None:
    """Return the id that the tokenizer puts in front of a text, if any."""
    plain = backend.encode(_PROBE, add_special_tokens=False).ids
    special = backend.encode(_PROBE, add_special_tokens=True).ids
    for front in range(len(special) - len(plain) + 1):
        if special[front : front + len(plain)] == plain:
            return int(special[0]) if front else None
    return None
