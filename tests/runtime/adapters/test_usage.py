"""What exports say of the use of an adapter."""

from __future__ import annotations

import dataclasses
import json

import pytest

from edgezo_runtime.adapters.adapter_info import AdapterInfo
from edgezo_runtime.adapters.usage import READING_KEY, Usage, read_metadata
from edgezo_runtime.data.reading import Reading
from edgezo_runtime.system.typed_json import JsonShapeError
from tests.runtime.small_adapters import LORA, LORA_SHAPES, small_adapter

READING = Reading("{sentence} It was", (" bad", " good"), 128)


def info(**changes: object) -> AdapterInfo:
    values = {"reading": READING, **changes}
    return dataclasses.replace(small_adapter(LORA, LORA_SHAPES).info, **values)  # type: ignore[arg-type]


def test_every_token_needs_no_further_word() -> None:
    usage = Usage(info())
    assert usage.acts_on() == "every token"
    assert usage.elsewhere("peft") is None


def test_answers_begin_at_a_token_that_is_named() -> None:
    usage = Usage(info(scope="answer", invocation=(280,)), " was")
    expected = "answers only: from the last token 280, ' was', of the prompt on"
    assert usage.acts_on() == expected
    assert Usage(usage.info).acts_on() == expected.replace(", ' was',", "")
    told = usage.elsewhere("peft")
    assert told is not None
    assert told.startswith("PEFT 0.18 and newer do so")
    assert "applies the adapter to every token" in told
    unlike = Usage(info(scope="answer"))
    assert unlike.acts_on() == "answers only: from the last token of each prompt on"


def test_the_metadata_give_the_reading_back() -> None:
    found = Usage(info()).metadata()
    assert read_metadata(found[READING_KEY]) == READING
    assert Usage(info(reading=None)).metadata() == {}
    for text in ("{", '{"template": "x", "labels": [], "max_seq": 5}', '{"max_seq": "5"}'):
        with pytest.raises(JsonShapeError):
            read_metadata(text)


def test_the_card_says_prompts_and_tokens() -> None:
    card = Usage(info(scope="answer", invocation=(280,)), " was").card("peft", "peft")
    assert card.startswith('---\nbase_model: "org/m"\nlibrary_name: "peft"\n')
    inner = card.partition("```json\n")[2].partition("```")[0]
    assert json.loads(inner) == {
        "template": READING.template,
        "labels": list(READING.labels),
        "max_seq": 128,
        "train_on": "all",
        "long": "truncate",
    }
    assert "from the last token 280, ' was', of the prompt on" in card
    assert "applies the adapter to every token" in card
    assert "Each label word stands for a class" in card


def test_the_card_of_merged_weights_speaks_of_no_tokens() -> None:
    card = Usage(info()).card("transformers", "merged")
    assert "merged into the weights" in card
    assert "acts on" not in card


def test_a_name_of_a_stranger_is_no_markup() -> None:
    card = Usage(info(model="a](http://x)\n# b", created_by="`c`")).card("peft", "peft")
    assert "# An adapter of a\\](http://x)\\\\n\\# b\n" in card
    assert "\\`c\\`" in card
