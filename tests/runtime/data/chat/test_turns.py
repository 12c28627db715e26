"""The assistant's turns in renderings of templates of many kinds, against texts written by hand."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.data.chat.messages import check_messages
from edgezo_runtime.data.chat.turn_end import stop_tokens
from edgezo_runtime.data.chat.turns import RenderedChat, TurnFinder
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import DataError
from tests.runtime.chat_styles import STYLES
from tests.runtime.tiny_tokenizer import CHAT, EOS, byte_tokenizer

CASES = Path(__file__).parents[3] / "cases" / "chat"
WHERE = "f.jsonl, line 2"
SPECIAL = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>",
    "<|system|>", "<|observation|>", "<|User|>", "<|Assistant|>", "<|end_of_sentence|>",
    "<start_of_turn>", "<end_of_turn>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "[INST]", "[/INST]",
)  # fmt: skip

ASK, ASK_AGAIN = {"role": "user", "content": "Is it yes?"}, {"role": "user", "content": "Sure?"}
YES, NO = {"role": "assistant", "content": "yes"}, {"role": "assistant", "content": "no"}
THOUGHT = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"}
ONE, TWO = [ASK, YES], [ASK, YES, ASK_AGAIN, NO]
SYSTEM = {"role": "system", "content": "Be yes."}


def tokenizer_of(name: str, **settings: Any) -> TextTokenizer:
    if name == "plain":
        source = CHAT
    elif name in STYLES:
        source = STYLES[name]
    else:
        source = (CASES / f"{name}.jinja").read_text(encoding="utf-8")
    made = byte_tokenizer(chat_template=source, **settings)
    made.core.add_special_tokens(list(SPECIAL))
    return made


def id_of(tokenizer: TextTokenizer, text: str) -> int:
    found = tokenizer.core.token_to_id(text)
    assert found is not None
    return found


def find(name: str, messages: list[dict[str, Any]], **given: Any) -> RenderedChat:
    checked = check_messages(messages, WHERE)
    return TurnFinder(tokenizer_of(name)).find(checked, given.get("tools"), WHERE)


def bracketed(chat: RenderedChat) -> str:
    """The text with each turn in brackets."""
    text = chat.text
    for turn in reversed(chat.turns):
        text = f"{text[: turn.start]}⟦{text[turn.start : turn.end]}⟧{text[turn.end :]}"
    return text


USER = "<|im_start|>user\nIs it yes?<|im_end|>\n"
AGAIN = "<|im_start|>user\nSure?<|im_end|>\n"
BEGIN = "<|im_start|>assistant\n"
LLAMA_BEGIN = "<|start_header_id|>assistant<|end_header_id|>\n\n"
DEFAULT = "<|im_start|>system\nBe of use.<|im_end|>\n"

EXPECTED: list[tuple[str, list[dict[str, Any]], str]] = [
    # a block that the generation prompt opens, and finished turns close
    ("think_open", ONE, f"{USER}{BEGIN}<think></think>⟦yes<|im_end|>⟧\n"),
    ("think_open_line", ONE, f"{USER}{BEGIN}<think></think>⟦yes<|im_end|>⟧\n"),
    (
        "think_open_line",
        TWO,
        f"{USER}{BEGIN}<think></think>⟦yes<|im_end|>⟧\n{AGAIN}{BEGIN}<think></think>"
        "⟦no<|im_end|>⟧\n",
    ),
    # content that begins with its reasoning
    (
        "think_dropped",
        [ASK, THOUGHT, ASK_AGAIN, NO],
        "<s><|User|>Is it yes?<|Assistant|>\n\n⟦yes<|end_of_sentence|>⟧<|User|>Sure?<|Assistant|>"
        "⟦no<|end_of_sentence|>⟧",
    ),
    # a rendering that drops reasoning once messages follow
    (
        "qwen",
        [ASK, THOUGHT, ASK_AGAIN, NO],
        f"{USER}{BEGIN}⟦yes<|im_end|>⟧\n{AGAIN}{BEGIN}⟦<think>\n\n</think>\n\nno<|im_end|>⟧\n",
    ),
    (
        "qwen",
        [ASK, THOUGHT],
        f"{USER}{BEGIN}⟦<think>\nhm\n</think>\n\nyes<|im_end|>⟧\n",
    ),
    # an end of text behind the last turn only
    (
        "end_of_text_last",
        TWO,
        "<|user|>\nIs it yes?<|end|>\n<|assistant|>\n⟦yes<|end|>⟧\n<|user|>\nSure?<|end|>\n"
        "<|assistant|>\n⟦no<|end|>⟧\n</s>",
    ),
    # no mark behind a turn: the token that opens the next turn ends it
    (
        "no_end",
        TWO,
        "[gMASK]<sop><|user|>\nIs it yes?<|assistant|>⟦\nyes<|user|>⟧\nSure?<|assistant|>⟦\nno⟧",
    ),
    ("plain_words", TWO, "user: Is it yes?\nassistant: ⟦yes⟧\nuser: Sure?\nassistant: ⟦no⟧\n"),
    # the assistant speaks first, and a default system prompt has its words
    (
        "chatml",
        [{"role": "assistant", "content": "Be of use."}, ASK, YES],
        f"{DEFAULT}{BEGIN}⟦Be of use.<|im_end|>⟧\n{USER}{BEGIN}⟦yes<|im_end|>⟧\n",
    ),
    ("chatml", ONE, f"{DEFAULT}{USER}{BEGIN}⟦yes<|im_end|>⟧\n"),
    # answers whose text is all over the conversation
    (
        "chatml",
        [{"role": "user", "content": "user"}, {"role": "assistant", "content": "user"}],
        f"{DEFAULT}<|im_start|>user\nuser<|im_end|>\n{BEGIN}⟦user<|im_end|>⟧\n",
    ),
    (
        "llama",
        [{"role": "user", "content": " assistant "}, {"role": "assistant", "content": " Today: "}],
        "<s><|start_header_id|>system<|end_header_id|>\n\nToday: 26 Jul 2024\n\n<|eot_id|>"
        f"<|start_header_id|>user<|end_header_id|>\n\nassistant<|eot_id|>{LLAMA_BEGIN}"
        "⟦Today:<|eot_id|>⟧",
    ),
    (
        "gemma",
        [SYSTEM, *TWO],
        "<s><start_of_turn>user\nBe yes.\n\nIs it yes?<end_of_turn>\n<start_of_turn>model\n"
        "⟦yes<end_of_turn>⟧\n<start_of_turn>user\nSure?<end_of_turn>\n<start_of_turn>model\n"
        "⟦no<end_of_turn>⟧\n",
    ),
    (
        "mistral",
        TWO,
        "<s>[INST] Is it yes?[/INST]⟦ yes</s>⟧[INST] Sure?[/INST]⟦ no</s>⟧",
    ),
    # a system message that is shown in generation prompts only
    (
        "mistral",
        [SYSTEM, *TWO],
        "<s>[INST] Is it yes?[/INST] ⟦yes</s>⟧[INST] Sure?[/INST] ⟦no</s>⟧",
    ),
    # marked by the template
    ("generation", TWO, f"{USER}{BEGIN}⟦yes<|im_end|>⟧\n{AGAIN}{BEGIN}⟦no<|im_end|>⟧\n"),
    (
        "generation_without_end",
        TWO,
        f"{USER}{BEGIN}⟦yes<|im_end|>⟧\n{AGAIN}{BEGIN}⟦no<|im_end|>⟧\n",
    ),
    (
        "plain",
        TWO,
        "<user>Is it yes?</s>\n<assistant>⟦yes</s>⟧\n<user>Sure?</s>\n<assistant>⟦no</s>⟧\n",
    ),
]


@pytest.mark.parametrize(("name", "messages", "expected"), EXPECTED)
def test_turns_of_kinds_of_templates(
    name: str, messages: list[dict[str, Any]], expected: str
) -> None:
    assert bracketed(find(name, messages)) == expected


CALL = {"function": {"name": "look", "arguments": {"at": "yes"}}}
CALLS: list[dict[str, Any]] = [
    ASK,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "yes"},
    YES,
    ASK_AGAIN,
    NO,
]


@pytest.mark.parametrize("missing", [False, True])
def test_turns_of_tool_calls(missing: bool) -> None:
    """The content beside a call is null or absent; the call has its end, whatever follows."""
    call = '<tool_call>\n{"name": "look", "arguments": {"at": "yes"}}\n</tool_call>'
    messages = [dict(message) for message in CALLS]
    if missing:
        del messages[1]["content"]
    found = bracketed(find("qwen", messages))
    assert found == (
        f"{USER}{BEGIN}⟦{call}<|im_end|>⟧\n<|im_start|>user\n<tool_response>\nyes\n</tool_response>"
        f"<|im_end|>\n{BEGIN}⟦yes<|im_end|>⟧\n{AGAIN}{BEGIN}"
        "⟦<think>\n\n</think>\n\nno<|im_end|>⟧\n"
    )
    alone = bracketed(find("qwen", messages[:2]))
    assert alone == f"{USER}{BEGIN}⟦<think>\n\n</think>\n\n{call}<|im_end|>⟧\n"


def test_a_template_that_does_not_show_calls_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"does not show message 2 \(assistant\).*it does not show the tool calls"
    ):
        find("plain_words", [*CALLS[:2], YES])
    with pytest.raises(DataError, match=r"message 2 \(assistant\).*'prompt' and 'completion'"):
        find("think_open_line", CALLS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("think_open_line", "<|im_end|>"),
        ("qwen", "<|im_end|>"),
        ("end_of_text_last", "<|end|>"),
        ("no_end", "<|user|>"),
        ("llama", "<|eot_id|>"),
        ("gemma", "<end_of_turn>"),
        ("generation", "<|im_end|>"),
    ],
)
def test_a_text_ends_where_the_template_ends_a_turn(name: str, text: str) -> None:
    tokenizer = tokenizer_of(name)
    assert stop_tokens(tokenizer) == {EOS, id_of(tokenizer, text)}


def test_the_end_token_is_that_of_the_tokenizer_where_a_template_has_none() -> None:
    assert stop_tokens(tokenizer_of("plain_words")) == {EOS}
    assert stop_tokens(tokenizer_of("mistral")) == {EOS}
    assert stop_tokens(byte_tokenizer()) == {EOS}
    assert stop_tokens(byte_tokenizer(chat_template="{% for %}")) == {EOS}
    assert stop_tokens(byte_tokenizer(chat_template="{{ raise_exception('x') }}")) == {EOS}


@pytest.mark.parametrize("name", ["generation", "generation_without_end"])
def test_marked_turns_are_those_of_transformers(name: str) -> None:
    """Where the marked part lacks the end mark, that is the only difference."""
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizer_of(name)
    other = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.core)
    encoded = other.apply_chat_template(
        TWO,
        chat_template=tokenizer.chat_template,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    masked = [
        token
        for token, own in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
        if own
    ]
    chat = find(name, TWO)
    scored = "".join(chat.text[turn.start : turn.end] for turn in chat.turns)
    expected = tokenizer.decode(masked, skip_special=False)
    if name == "generation_without_end":
        expected = expected.replace("yes", "yes<|im_end|>").replace("no", "no<|im_end|>")
    assert scored == expected


@pytest.mark.parametrize("name", ["qwen", "no_end", "llama"])
def test_tools_and_calls_are_rendered_as_transformers_does(name: str) -> None:
    utilities = pytest.importorskip("transformers.utils.chat_template_utils")
    finder = TurnFinder(tokenizer_of(name))
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    conversation = CALLS if name == "qwen" else CALLS[:1] + CALLS[3:]
    expected = utilities.render_jinja_template(
        [conversation],
        tools=tools,
        chat_template=finder.template.source,
        **finder.template._tokens,
    )[0][0]
    assert finder.find(conversation, tools, WHERE).text == expected
    assert ("look" in expected) is (name != "llama")


@pytest.mark.parametrize(
    ("source", "messages", "reason"),
    [
        # it hides the answer, shows it twice, or changes it
        ("{% for m in messages %}{{ m.role }}{% endfor %}", TWO, "leaves out the content"),
        ("{% for m in messages %}{{ m.content * 2 }}{% endfor %}", ONE, "or repeats it"),
        (
            "{% for m in messages %}{{ m.content | title }}{{ loop.length }}{% endfor %}",
            TWO,
            "its beginning is not the generation prompt",
        ),
    ],
)
def test_what_cannot_be_found_for_certain_is_refused(
    source: str, messages: list[dict[str, Any]], reason: str
) -> None:
    finder = TurnFinder(byte_tokenizer(chat_template=source))
    with pytest.raises(DataError, match=rf"line 2: .* certain: .*{reason}.*; give the row as 'pro"):
        finder.find(messages, None, WHERE)


def test_a_content_of_none_is_never_the_word_none() -> None:
    source = (
        CHAT.replace("m['content']", "(m['content'] | string)") + "{{ messages[1].tool_calls }}"
    )
    tokenizer = byte_tokenizer(chat_template=source)
    text = TurnFinder(tokenizer).find(CALLS[:2], None, WHERE).text
    assert "None" not in text
    told = (
        "{% for m in messages %}"
        "{{ 'call ' + m.tool_calls[0].function.name if m.content is none else m.content }}</s>"
        "{% endfor %}"
    )
    found = TurnFinder(byte_tokenizer(chat_template=told)).find([*CALLS[:2], YES], None, WHERE)
    assert "call look" in found.text


PIECES = (
    "yes", "no", " ", "\n", "<think>", "</think>", "user", "assistant", "Be of use", "\ue000",
    "\u00e9", "{{", "</s>", "<|im_end|>", "hm",
)  # fmt: skip


def test_any_contents_are_found_where_they_were_put() -> None:
    """Against the text put together here, whatever words of roles and marks contents have."""
    chooser = random.Random(3)
    finder = TurnFinder(tokenizer_of("chatml"))
    for _ in range(60):
        text, turns, messages = DEFAULT, list[tuple[int, int]](), list[dict[str, str]]()
        for role in ("user", "assistant") * chooser.randint(1, 3):
            content = "".join(chooser.choices(PIECES, k=chooser.randint(1, 6))) + "!"
            messages.append({"role": role, "content": content})
            text += f"<|im_start|>{role}\n"
            if role == "assistant":
                turns.append((len(text), len(text) + len(content) + len("<|im_end|>")))
            text += f"{content}<|im_end|>\n"
        found = finder.find(messages, None, WHERE)
        assert found.text == text
        assert [(turn.start, turn.end) for turn in found.turns] == turns
