"""Requests for a chat or a completion: their JSON, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgezo.serve import limits
from edgezo.serve.refusals import Refusal, invalid, unsupported
from edgezo.serve.request_fields import RequestFields
from edgezo_runtime.generation.sampling import Sampling
from edgezo_runtime.system.typed_json import JsonShapeError, parse_object

MOST_STOPS = 4
"""Stop texts of a request, as many as the API of OpenAI takes."""

_MOST_VALUES = 1 << 16
_LARGEST_SEED = 2**63 - 1
_ROLES = ("system", "developer", "user", "assistant", "tool")
_WITHOUT_EFFECT = (
    "metadata", "parallel_tool_calls", "prompt_cache_key", "safety_identifier", "service_tier",
    "store", "user",
)  # fmt: skip
"""Fields that are about accounts and services; they change no text."""


@dataclass(frozen=True, slots=True)
class TextRequest:
    """What a client asks for.

    Attributes:
        model: name of a voice.
        messages: of a chat; None for a completion.
        tools: of a chat.
        prompt: of a completion: a text, or tokens.
        max_tokens: most new tokens; None leaves it to the server.
        temperature: None leaves it to the server.
        top_p: as in `Sampling`.
        top_k: as in `Sampling`.
        seed: of the draws; None: any.
        stop: texts that end the answer.
        streams: is it to be sent as it grows?
        usage: does a streamed answer end with the numbers of tokens?
        logprobs: likeliest tokens to name at each place, with log-probabilities and that of the
            token that was chosen; None for no log-probabilities.
        unknown: fields that were not looked at.
    """

    model: str
    messages: list[dict[str, Any]] | None
    tools: list[Any] | None
    prompt: str | list[int] | None
    max_tokens: int | None
    temperature: float | None
    top_p: float
    top_k: int
    seed: int | None
    stop: tuple[str, ...]
    streams: bool
    usage: bool
    logprobs: int | None
    unknown: tuple[str, ...]

    @property
    def is_chat(self) -> bool:
        """Is it a chat?"""
        return self.messages is not None

    def sampling(self, temperature: float, seed: Callable[[], int]) -> Sampling:
        """How tokens are chosen.

        Args:
            temperature: of the server, where the request has none.
            seed: gives one, where the request has none.
        """
        return Sampling(
            temperature if self.temperature is None else self.temperature,
            self.top_k,
            self.top_p,
            seed() if self.seed is None else self.seed,
        )


def parse_request(body: bytes, *, chat: bool) -> TextRequest:
    """Parse and check the body of a request.

    Args:
        body: JSON in UTF-8.
        chat: is it for a chat?
    Raises:
        Refusal: it is wrong, or asks for what this server does not do.
    """
    try:
        fields = RequestFields(parse_object(body.decode("utf-8"), _MOST_VALUES))
    except (JsonShapeError, UnicodeDecodeError) as error:
        raise Refusal(400, f"the body is not a JSON object: {error}", code="bad_json") from error
    model = fields.typed("model", str)
    if not model:
        raise invalid("model", "give the name of a model; /v1/models lists them")
    messages, tools, prompt = None, None, None
    if chat:
        messages, tools = _messages(fields), _tools(fields)
        most = fields.whole("max_completion_tokens", 1, 1 << 31)
    else:
        prompt, most = _prompt(fields), None
    legacy = fields.whole("max_tokens", 1, 1 << 31)
    logprobs = _logprobs(fields, chat=chat)
    _refuse_others(fields, chat=chat)
    streams = fields.flag("stream")
    top_p = fields.number("top_p", 0, 1)
    if top_p == 0:
        raise invalid("top_p", "expected a number above 0, and at most 1")
    return TextRequest(
        model=model,
        messages=messages,
        tools=tools,
        prompt=prompt,
        max_tokens=legacy if most is None else most,
        temperature=fields.number("temperature", 0, 2),
        top_p=1.0 if top_p is None else top_p,
        top_k=fields.whole("top_k", 0, 1 << 31) or 0,
        seed=_seed(fields),
        stop=_stop(fields),
        streams=streams,
        usage=_usage(fields, streams=streams),
        logprobs=logprobs,
        unknown=tuple(fields.unknown),
    )


def _messages(fields: RequestFields) -> list[dict[str, Any]]:
    given = fields.typed("messages", list)
    if not given:
        raise invalid("messages", "expected an array of messages, at least one")
    found = [_message(message, number) for number, message in enumerate(given)]
    if found[-1]["role"] == "assistant":
        raise invalid("messages", "the last one is the assistant's; end with one of the user")
    return found


def _message(value: object, number: int) -> dict[str, Any]:
    where = f"messages.{number}"
    if not isinstance(value, dict):
        raise invalid(where, "expected an object with 'role' and 'content'")
    if value.get("role") not in _ROLES:
        raise invalid(f"{where}.role", f"expected one of {', '.join(_ROLES)}")
    role = "system" if value["role"] == "developer" else value["role"]
    message = {**value, "role": role}
    content = value.get("content")
    if isinstance(content, list):
        message["content"] = "".join(_part(part, where) for part in content)
    elif content is None and role == "assistant" and value.get("tool_calls"):
        message["content"] = None
    elif not isinstance(content, str):
        raise invalid(f"{where}.content", "expected a string, or an array of texts")
    return message


def _part(value: object, where: str) -> str:
    if not isinstance(value, dict) or value.get("type") != "text":
        kind = value.get("type") if isinstance(value, dict) else None
        raise unsupported(f"{where}.content", f"parts of type {kind!r:.40} are not supported: text")
    if not isinstance(value.get("text"), str):
        raise invalid(f"{where}.content", "a part of type 'text' has no string 'text'")
    return str(value["text"])


def _tools(fields: RequestFields) -> list[Any] | None:
    """Descriptions of tools go into the template; what the model then writes is plain text."""
    choice = fields.value("tool_choice")
    if choice not in (None, "auto", "none"):
        raise unsupported("tool_choice", "only 'auto' and 'none' are supported")
    tools = fields.typed("tools", list)
    if tools and not all(isinstance(tool, dict) for tool in tools):
        raise invalid("tools", "expected an array of objects")
    return None if choice == "none" else tools


def _prompt(fields: RequestFields) -> str | list[int]:
    value = fields.value("prompt")
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(type(token) is int for token in value):
        return value
    if isinstance(value, list) and len(value) > 1:
        raise unsupported("prompt", "one prompt per request is supported")
    raise invalid("prompt", "expected a string, or an array of tokens")


def _seed(fields: RequestFields) -> int | None:
    found = fields.whole("seed", -_LARGEST_SEED - 1, _LARGEST_SEED)
    return None if found is None else found % 2**64


def _stop(fields: RequestFields) -> tuple[str, ...]:
    value = fields.value("stop")
    found = [] if value is None else [value] if isinstance(value, str) else value
    plain = isinstance(found, list) and all(isinstance(text, str) and text for text in found)
    if not plain or len(found) > MOST_STOPS:
        raise invalid("stop", f"expected a text, or an array of up to {MOST_STOPS}, none empty")
    return tuple(found)


def _usage(fields: RequestFields, *, streams: bool) -> bool:
    value = fields.typed("stream_options", dict)
    if value is None:
        return False
    if not streams:
        raise invalid("stream_options", "goes with 'stream': true only")
    options = RequestFields(value, "stream_options")
    usage = options.flag("include_usage")
    options.ignore("include_obfuscation")
    if options.unknown:
        raise unsupported(options.unknown[0], "is not supported")
    return usage


def _logprobs(fields: RequestFields, *, chat: bool) -> int | None:
    """A chat says whether and how many; a completion how many."""
    if not chat:
        return fields.whole("logprobs", 0, limits.MOST_LOGPROBS)
    wanted = fields.flag("logprobs")
    top = fields.whole("top_logprobs", 0, limits.MOST_LOGPROBS)
    if top and not wanted:
        raise invalid("top_logprobs", "goes with 'logprobs': true only")
    return top or 0 if wanted else None


def _refuse_others(fields: RequestFields, *, chat: bool) -> None:
    """Refuse fields that would change the answer and are not supported."""
    fields.ignore(*_WITHOUT_EFFECT)
    fields.refuse("n", "one answer per request", 1)
    fields.refuse("frequency_penalty", "give 0", 0)
    fields.refuse("presence_penalty", "give 0", 0)
    fields.refuse("logit_bias", "leave it out", {})
    if not chat:
        fields.refuse("best_of", "one answer per request", 1)
        fields.refuse("echo", "the prompt is not repeated", False)
        fields.refuse("suffix", "texts are continued at their end", "")
        return
    fields.refuse("response_format", "answers are plain text", {"type": "text"})
    fields.refuse("modalities", "answers are plain text", ["text"])
    for name in ("audio", "functions", "function_call", "prediction", "web_search_options"):
        fields.refuse(name, "leave it out")
