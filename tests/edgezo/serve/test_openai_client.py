"""The official client of the OpenAI API gets what the generator writes."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from edgezo_runtime.generation.generator import GenerationConfig, Generator
from edgezo_runtime.generation.sampling import Sampling
from tests.edgezo.serve.conftest import Served

HELLO: list[Any] = [{"role": "user", "content": "great film"}]


def expected(served: Served, voice: str, prompt: list[int], config: GenerationConfig) -> Any:
    """The text of a generator of its own."""
    speaker = served.speaker
    generator = Generator(speaker.engine, speaker.tokenizer)
    return generator.generate([prompt], speaker.voices[voice].tensors(), config)[0]


@pytest.mark.parametrize("voice", ["plain", "tuned"])
def test_a_chat_is_answered(served: Served, voice: str) -> None:
    found = served.client().chat.completions.create(model=voice, messages=HELLO, max_tokens=12)
    prompt = served.speaker.chat_prompt(HELLO)
    text = expected(served, voice, prompt, GenerationConfig(12))
    (choice,) = found.choices
    assert choice.message.content == text.stream.text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == {"length": "length", "end": "stop"}[text.finish]
    assert found.model == voice
    assert found.object == "chat.completion"
    assert found.usage is not None
    new = len(text.tokens) + (text.finish == "end")
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (len(prompt), new)
    assert found.usage.total_tokens == len(prompt) + new


def test_voices_differ(served: Served) -> None:
    said = {
        voice: served.client()
        .chat.completions.create(model=voice, messages=HELLO, max_tokens=12)
        .choices[0]
        .message.content
        for voice in ("plain", "tuned")
    }
    assert said["plain"] != said["tuned"]


def test_a_streamed_chat_says_the_same(served: Served) -> None:
    client = served.client()
    whole = client.chat.completions.create(model="tuned", messages=HELLO, max_completion_tokens=9)
    parts = list(
        client.chat.completions.create(
            model="tuned",
            messages=HELLO,
            max_completion_tokens=9,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert parts[0].choices[0].delta.role == "assistant"
    said = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert said == whole.choices[0].message.content
    assert parts[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert parts[-1].choices == []
    assert parts[-1].usage is not None
    assert whole.usage is not None
    assert parts[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({part.id for part in parts}) == 1


def test_a_second_turn_reads_what_is_new(served: Served) -> None:
    client = served.client()
    first = client.chat.completions.create(model="plain", messages=HELLO, max_tokens=6)
    said = first.choices[0].message.content
    more: list[Any] = [*HELLO, {"role": "assistant", "content": said}, *HELLO]
    second = client.chat.completions.create(model="plain", messages=more, max_tokens=6)
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached is not None
    assert cached >= len(served.speaker.chat_prompt(HELLO))
    other = client.chat.completions.create(model="tuned", messages=more, max_tokens=6)
    assert other.usage is not None
    assert other.usage.prompt_tokens_details is not None
    assert other.usage.prompt_tokens_details.cached_tokens == 0  # of other tensors


def test_completions_continue_texts_and_tokens(served: Served) -> None:
    client, prompt = served.client(), served.speaker.text_prompt("the film It was")
    text = expected(served, "tuned", prompt, GenerationConfig(8))
    for given in ("the film It was", prompt, ["the film It was"]):
        found = client.completions.create(model="tuned", prompt=given, max_tokens=8)
        assert found.choices[0].text == text.stream.text
        assert found.object == "text_completion"
    parts = client.completions.create(model="tuned", prompt=prompt, max_tokens=8, stream=True)
    assert "".join(part.choices[0].text for part in parts) == text.stream.text


def test_sampling_and_stop_texts_arrive(served: Served) -> None:
    client = served.client()
    prompt = served.speaker.chat_prompt(HELLO)
    config = GenerationConfig(16, Sampling(1.5, 0, 0.9, 5))
    text = expected(served, "plain", prompt, config)
    asked = {"model": "plain", "messages": HELLO, "max_tokens": 16, "temperature": 1.5}
    found = client.chat.completions.create(**asked, top_p=0.9, seed=5)
    assert found.choices[0].message.content == text.stream.text
    stop = text.stream.text[3:5]
    cut = client.chat.completions.create(**asked, top_p=0.9, seed=5, stop=[stop])
    assert cut.choices[0].message.content == text.stream.text[: text.stream.text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    drawn = {client.chat.completions.create(**asked).choices[0].message.content for _ in range(3)}
    assert len(drawn) > 1  # without a seed, each request has its own


def test_models_are_listed(served: Served) -> None:
    client = served.client()
    assert [model.id for model in client.models.list()] == ["plain", "tuned"]
    assert client.models.retrieve("plain").created == 7
    with pytest.raises(openai.NotFoundError, match="/v1/models lists"):
        client.models.retrieve("../../etc/passwd")
    with pytest.raises(openai.NotFoundError, match="no model none"):
        client.chat.completions.create(model="none", messages=HELLO)


def test_longest_answers_are_the_servers(served: Served) -> None:
    found = served.client().chat.completions.create(
        model="plain", messages=HELLO, max_tokens=10_000, stop=None
    )
    assert found.usage is not None
    assert found.usage.completion_tokens <= 64
    long = [{"role": "user", "content": "great film " * 200}]
    with pytest.raises(openai.BadRequestError, match="there is room for 256") as refused:
        served.client().chat.completions.create(model="plain", messages=long)  # type: ignore[arg-type]
    assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"n": 2}, "n"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 0.5}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    served: Served, extra: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        served.client().chat.completions.create(model="plain", messages=HELLO, **extra)
    assert refused.value.param == param
    assert f"'{param}'" in refused.value.message


def test_harmless_values_and_unknown_fields_pass(served: Served) -> None:
    found = served.client().chat.completions.create(
        model="plain", messages=HELLO, max_tokens=2, n=1, frequency_penalty=0, logprobs=False,
        user="me", response_format={"type": "text"}, extra_body={"mirostat": 2, "top_k": 1},
    )  # fmt: skip
    assert found.choices
    assert "not known, left out: mirostat" in served.logged


def test_parts_of_texts_are_joined_and_others_refused(served: Served) -> None:
    client = served.client()
    parts: list[Any] = [{"type": "text", "text": "great "}, {"type": "text", "text": "film"}]
    asked = {"model": "plain", "max_tokens": 6}
    joined = client.chat.completions.create(**asked, messages=[{"role": "user", "content": parts}])
    whole = client.chat.completions.create(**asked, messages=HELLO)
    assert joined.choices[0].message.content == whole.choices[0].message.content
    parts.append({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}})
    with pytest.raises(openai.BadRequestError, match="'image_url' are not supported"):
        client.chat.completions.create(**asked, messages=[{"role": "user", "content": parts}])
