"""Tokenizers in the bundle: special tokens as measured."""

from __future__ import annotations

import json

import pytest
import tokenizers
import transformers

from edgezo_export.sources.model_source import open_source
from edgezo_export.sources.tokenizer_files import token_count
from edgezo_runtime.errors import EdgezoError
from tests.export.source_models import (
    tiny_llama,
)


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
    with pytest.raises(
        EdgezoError, match=r"has no tokenizer; copy tokenizer\.json and tokenizer_c"
    ):
        open_source(str(tmp_path)).save_tokenizer(tmp_path)


def test_a_tokenizer_that_cannot_be_read(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(EdgezoError, match="cannot load the tokenizer"):
        open_source(str(tmp_path)).save_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("own", "config", "generation", "expected"),
    [
        ("</s>", 2, None, (2,)),
        ("</s>", 6, None, (2, 6)),
        ("</s>", [6, 4], [5, 6], (2, 6, 4, 5)),
        (None, [6, 2], 5, (6, 2, 5)),
        (None, None, [5, 2], (5, 2)),
        (None, None, None, ()),
    ],
)
def test_the_ends_are_those_of_tokenizer_config_and_generation(
    tmp_path, own, config, generation, expected
):
    """The first one stays that of the tokenizer: training rows end with it."""
    tiny_llama().save_pretrained(tmp_path)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(None), eos_token=own
    )
    fast.save_pretrained(tmp_path)
    for name, ends in (("config.json", config), ("generation_config.json", generation)):
        content = json.loads((tmp_path / name).read_text())
        content["eos_token_id"] = ends
        (tmp_path / name).write_text(json.dumps(content))
    assert open_source(str(tmp_path)).save_tokenizer(tmp_path).eos_ids == expected


def test_a_token_per_row_is_counted_with_the_added_ones(tmp_path):
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=word_tokenizer(None))
    assert token_count(fast) == 7
    fast.add_tokens(["<new>", "<newer>"])
    assert token_count(fast) == 9
