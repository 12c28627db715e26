"""Chat templates: the sandbox, and which characters the assistant wrote."""

from typing import Any

import pytest
from jinja2 import TemplateError

from edgezo_runtime.data.chat.chat_template import ChatTemplate
from edgezo_runtime.data.chat.messages import check_messages
from edgezo_runtime.errors import BundleError, DataError
from tests.runtime.chat_styles import STYLES
from tests.runtime.tiny_tokenizer import CHAT, byte_tokenizer

WHERE = "f.jsonl, line 2"
TURNS = [
    {"role": "user", "content": "question"},
    {"role": "assistant", "content": "answer"},
    {"role": "user", "content": "answer"},
    {"role": "assistant", "content": "good"},
]


def chat(source: str = CHAT) -> ChatTemplate:
    return ChatTemplate(byte_tokenizer(chat_template=source))


def test_render() -> None:
    assert chat().render(TURNS[:2], WHERE) == "<user>question</s>\n<assistant>answer</s>\n"
    assert (
        chat().render(TURNS[:1], WHERE, generation_prompt=True) == "<user>question</s>\n<assistant>"
    )


def test_generation_tag_is_its_content() -> None:
    source = (
        "{% for m in messages %}{% generation %}{{ m.content }};{% endgeneration %}{% endfor %}"
    )
    assert chat(source).render(TURNS, WHERE) == "question;answer;answer;good;"


def test_functions_and_variables_of_hugging_face_templates() -> None:
    source = (
        "{{ bos_token }}{{ eos_token }}{{ messages[0] | tojson }}"
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}!{% endfor %}"
        "{{ strftime_now('%Y') | length }}"
    )
    expected = '<s></s>{"role": "user", "content": "<é>"}!4'
    assert chat(source).render([{"role": "user", "content": "<é>"}], WHERE) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refuses the messages: roles must"),
        ("{{ ''.__class__.__mro__ }}", "refuses the messages: access to attribute '__class__'"),
        ("{{ messages.append(1) }}", "refuses the messages: .*append"),
        ("{{ range(10000000) | list }}", "refuses the messages: Range too big"),
        ("{{ messages[0].content + 1 }}", "refuses the messages"),
        ("{{ 1 // 0 }}", "refuses the messages"),
    ],
)
def test_refusals_have_the_line(source: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"^f\.jsonl, line 2: the chat template {message}"):
        chat(source).render(TURNS, WHERE)


def test_broken_templates() -> None:
    with pytest.raises(BundleError, match=r"chat template, line 2: .* export the model again"):
        chat("\n{% for %}")
    with pytest.raises(BundleError, match="has no chat template"):
        ChatTemplate(byte_tokenizer())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("hello", "field 'messages' is a string, expected an array"),
        ([], "field 'messages' is an empty array"),
        (["hello"], "message 1 is a string, expected an object with 'role' and 'content'"),
        ([{"content": "x"}], "message 1: 'role' is absent"),
        ([TURNS[0], {"role": "assistant", "content": None}], "message 2: 'content' is null"),
        (
            [{"role": "user", "content": [{"type": "text"}]}],
            "'content' is an array, expected a str",
        ),
        ([TURNS[0]], "no message has the role 'assistant'"),
        ([{"role": "assistant", "content": " "}], "a message of the assistant is empty"),
        ([{"role": "user", "content": "\udc00"}], "message 1 has half of a surrogate pair"),
    ],
)
def test_check_messages(value: object, message: str) -> None:
    with pytest.raises(DataError, match=rf"^f\.jsonl, line 2: .*{message}"):
        check_messages(value, WHERE)


CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": " hi\nthere "}, {"role": "assistant", "content": "well met "}],
    [
        {"role": "system", "content": "be <brief> & 'kind'"},
        {"role": "user", "content": "what\u00fc"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nthat"},
        {"role": "user", "content": "and?"},
        {"role": "assistant", "content": "<think>so</think>this"},
    ],
    [
        {"role": "user", "content": "call"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"function": {"name": "f", "arguments": {"a": [1, None, "\u00e9\u2028"]}}}
            ],
        },
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "it is 42"},
    ],
    [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
]


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("ask", [False, True])
def test_templates_of_known_families_are_rendered_as_transformers_does(
    name: str, ask: bool
) -> None:
    """What transformers refuses is refused here."""
    utilities = pytest.importorskip("transformers.utils.chat_template_utils")
    template = ChatTemplate(byte_tokenizer(chat_template=STYLES[name]))
    rendered = 0
    for messages in CONVERSATIONS:
        try:
            expected = utilities.render_jinja_template(
                [messages],
                chat_template=STYLES[name],
                add_generation_prompt=ask,
                **template._tokens,
            )[0][0]
        except TemplateError:
            with pytest.raises(DataError, match="refuses the messages"):
                template.render(messages, WHERE, generation_prompt=ask)
            continue
        assert template.render(messages, WHERE, generation_prompt=ask) == expected
        rendered += 1
    assert rendered >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", STYLES)
def test_a_long_conversation_is_within_the_allowance(name: str) -> None:
    """Five hundred turns of two thousand characters."""
    turns = [
        {"role": ("user", "assistant")[number % 2], "content": "word " * 400}
        for number in range(500)
    ]
    template = ChatTemplate(byte_tokenizer(chat_template=STYLES[name]))
    assert len(template.render(turns, WHERE)) > 1_000_000
