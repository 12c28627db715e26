"""Text token by token: whole characters, and nothing of a text that ends it."""

from __future__ import annotations

import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.generation.text_stream import TextStream
from tests.runtime.tiny_tokenizer import byte_tokenizer, masked_tokenizer

TEXT = "Grüße, 世界 👩‍🚀 the film was great"


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def parts(stream, tokens) -> list[str]:
    return [*(stream.add(token) for token in tokens), stream.end()]


def test_no_character_is_broken(tokenizer):
    tokens = tokenizer.encode(TEXT, add_special=False)
    assert len(tokenizer.encode("世界", add_special=False)) > 2  # characters of several tokens
    stream = TextStream(tokenizer)
    shown = parts(stream, tokens)
    assert "".join(shown) == stream.text == TEXT
    assert not any("\ufffd" in part for part in shown)
    assert "" in shown  # halves wait


def test_bytes_that_are_no_character_are_shown_once_that_is_certain(tokenizer):
    (first, *_) = tokenizer.encode("世", add_special=False)
    (word,) = tokenizer.encode(" great", add_special=False)
    stream = TextStream(tokenizer)
    assert stream.add(first) == ""
    assert stream.add(word) == "\ufffd great"
    assert stream.add(first) == ""
    assert stream.end() == "\ufffd"
    endless = TextStream(tokenizer)
    assert "".join(endless.add(first) for _ in range(40)).count("\ufffd") >= 30


def test_special_tokens_are_no_context():
    """Pins words that lost the space between them where a special token stood."""
    tokenizer = masked_tokenizer()
    tokens = [2, *tokenizer.core.encode("the film", add_special_tokens=False).ids]
    tokens.insert(2, 4)
    assert "".join(parts(TextStream(tokenizer), tokens)) == tokenizer.decode(tokens) == "the film"


def test_text_goes_on_from_the_prompt(tokenizer):
    before = tokenizer.encode("the film", add_special=False)
    after = tokenizer.encode(" was great", add_special=False)
    assert "".join(parts(TextStream(tokenizer, before), after)) == " was great"


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (("was",), "Grüße, 世界 👩‍🚀 the film "),
        (("界 👩", "film"), "Grüße, 世"),
        (("film was grea",), "Grüße, 世界 👩‍🚀 the "),
        (("film was bad", "nothing"), TEXT),
        (("great",), TEXT[:-5]),
    ],
)
def test_stop_texts_are_not_shown_and_end_it(tokenizer, stop, expected):
    stream = TextStream(tokenizer, stop=stop)
    shown = ""
    for token in tokenizer.encode(TEXT, add_special=False):
        shown += stream.add(token)
        assert expected.startswith(shown)
        if stream.stopped:
            break
    assert shown + stream.end() == expected
    assert stream.stopped == (expected != TEXT)


def test_an_empty_stop_text_is_refused(tokenizer):
    with pytest.raises(UsageError, match="empty"):
        TextStream(tokenizer, stop=("",))
