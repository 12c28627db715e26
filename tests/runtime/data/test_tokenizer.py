"""The tokenizer: special tokens as the manifest says, no truncation or padding of its own."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgezo_runtime.bundle.manifest_types import TokenizerInfo
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import BundleError
from tests.runtime.tiny_tokenizer import BOS, CHAT, EOS, PAD, byte_tokenizer, masked_tokenizer

INFO = TokenizerInfo(
    file="tokenizer.json",
    chat_template=None,
    bos_id=BOS,
    eos_ids=(EOS,),
    pad_id=PAD,
    unk_id=None,
    mask_id=None,
    add_bos=True,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    byte_tokenizer().core.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_words_of_the_test_tokenizer_are_tokens() -> None:
    tokenizer = byte_tokenizer()
    assert [len(tokenizer.encode(t, add_special=False)) for t in (" great", "Yes", "It was")] == [
        1,
        1,
        2,
    ]


@pytest.mark.parametrize("text", ["", "the film", " café 🎉\n\tx", "</s>"])
def test_round_trip(folder: Path, text: str) -> None:
    tokenizer = TextTokenizer.open(folder, INFO)
    ids = tokenizer.encode(text, add_special=False)
    assert tokenizer.decode(ids, skip_special=False) == text


def test_bos_is_added_when_the_manifest_says_so(folder: Path) -> None:
    with_bos = TextTokenizer.open(folder, INFO)
    without = TextTokenizer.open(folder, replace(INFO, add_bos=False))
    plain = without.encode("the film", add_special=True)
    assert with_bos.encode("the film", add_special=True) == [BOS, *plain]
    assert with_bos.encode("the film", add_special=False) == plain
    assert with_bos.encode_spans("the film", add_special=True)[1][:2] == [(0, 0), (0, 3)]


def test_masked_model_gets_all_special_tokens() -> None:
    ids = masked_tokenizer().encode("It was [MASK]", add_special=True)
    assert (ids[0], ids[-2], ids[-1], len(ids)) == (2, 4, 3, 5)


def test_truncation_and_padding_in_the_file_are_switched_off(folder: Path) -> None:
    core = byte_tokenizer().core
    core.enable_truncation(max_length=3)
    core.enable_padding(length=64)
    core.save(str(folder / "tokenizer.json"))
    tokenizer = TextTokenizer.open(folder, replace(INFO, add_bos=False))
    assert len(tokenizer.encode("the film " * 10, add_special=True)) == 21


def test_token_text() -> None:
    tokenizer = byte_tokenizer()
    assert tokenizer.token_text(EOS) == "</s>"
    assert tokenizer.token_text(None) == tokenizer.token_text(10**6) == ""


def test_chat_template_is_read(folder: Path) -> None:
    (folder / "chat.jinja").write_text(CHAT)
    assert TextTokenizer.open(folder, replace(INFO, chat_template="chat.jinja")).chat_template == (
        CHAT
    )
    with pytest.raises(BundleError, match="no such file"):
        TextTokenizer.open(folder, replace(INFO, chat_template="none.jinja"))


def test_broken_bundles(folder: Path) -> None:
    with pytest.raises(BundleError, match="no such file; export the model again"):
        TextTokenizer.open(folder, replace(INFO, file="none.json"))
    (folder / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(BundleError, match=r"tokenizer\.json: the tokenizers package cannot read"):
        TextTokenizer.open(folder, INFO)
    with pytest.raises(BundleError, match="add_bos is set but bos_id is not"):
        byte_tokenizer(bos_id=None, add_bos=True)
    with pytest.raises(BundleError, match="needs mask_id"):
        byte_tokenizer(task="masked-lm")


@pytest.mark.parametrize(
    ("longest", "max_seq", "remedy"),
    [
        (64, 64, "this model takes no rows of more than 64 tokens"),
        (64, 32, "raise `max_seq` (this model takes at most 64)"),
        (64, 0, "raise `max_seq` (this model takes at most 64)"),
        (None, 32, "raise `max_seq`"),
    ],
)
def test_a_limit_of_the_model_is_no_limit_that_can_be_raised(longest, max_seq, remedy):
    options = {} if longest is None else {"longest": longest}
    assert byte_tokenizer(**options).remedy_for_length(max_seq) == remedy
