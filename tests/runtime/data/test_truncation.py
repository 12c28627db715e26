"""Truncation of prompts: the template stays whole, the longest fields lose their end."""

from __future__ import annotations

import pytest

from edgezo_runtime.data.template import Template
from edgezo_runtime.data.truncation import TruncatedPrompt, truncate_prompt
from edgezo_runtime.errors import DataError
from tests.runtime.tiny_tokenizer import BOS, byte_tokenizer

TOKENIZER = byte_tokenizer()
TEMPLATE = Template.parse("{a} then {b} It was")


def truncated(limit: int, a: str, b: str) -> TruncatedPrompt:
    return truncate_prompt(TEMPLATE, {"a": a, "b": b}, TOKENIZER, limit, "f, line 3")


def test_a_prompt_that_fits_is_unchanged() -> None:
    found = truncated(5, "the", "film")
    assert (found.text, found.dropped) == ("the then film It was", 0)
    assert found.tokens == TOKENIZER.encode(found.text, add_special=True)


@pytest.mark.parametrize("limit", range(4, 24))
def test_it_has_as_many_tokens_as_allowed(limit: int) -> None:
    """Words are tokens here, so nothing is lost that need not be."""
    found = truncated(limit, "story" + " story" * 9, "music" + " music" * 9)
    full = len(
        TOKENIZER.encode(
            TEMPLATE.render({"a": "story" + " story" * 9, "b": "music" + " music" * 9}),
            add_special=True,
        )
    )
    assert limit - 2 < len(found.tokens) <= limit
    assert found.dropped == full - len(found.tokens)
    assert found.tokens == TOKENIZER.encode(found.text, add_special=True)
    assert found.text.endswith(" It was")
    assert " then " in found.text
    assert abs(found.text.count("story") - found.text.count("music")) <= 1


def test_short_fields_stay_whole() -> None:
    found = truncated(10, "story" + " story" * 30, "light music")
    assert found.text == "story story story story story then light music It was"
    assert len(found.tokens) == 10


def test_tokens_that_start_a_text_count() -> None:
    with_bos = byte_tokenizer(add_bos=True)
    values = {"a": "story" + " story" * 30, "b": "music"}
    found = truncate_prompt(TEMPLATE, values, with_bos, 10, "f, line 3")
    assert len(found.tokens) == 10
    assert found.tokens[0] == BOS


def test_a_template_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(
        DataError,
        match=r"^f, line 3: the template alone has \d tokens and at most 2 fit; shorten the .*, or "
        r"raise `max_seq`",
    ):
        truncated(2, "story story", "music")
