"""Log-probabilities that the official client gets are those of transformers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest

from edgezo.serve.spelling import Spelling
from edgezo.serve.token_scores import LEAST, logprobs
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.generation.generator import GenerationConfig
from edgezo_runtime.generation.sampling import Sampling
from tests.bundles.tiny import speller_model
from tests.edgezo.serve.conftest import Served, make_speaker, serving
from tests.edgezo.serve.test_openai_client import HELLO, expected
from tests.runtime.chat_bundle import chat_bundle

NEW = 10
WARM = {"temperature": 1.5, "top_p": 0.9, "seed": 5}
"""Draws, so that tokens are not the likeliest ones, and logits over temperature not logits."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with a bundle that rounds nothing."""
    bundle = chat_bundle(tmp_path_factory.mktemp("exact") / "bundle", quant="fp32")
    with serving(make_speaker(bundle)) as found:
        yield found


@pytest.fixture(scope="module")
def model() -> Any:
    """The model of the bundle; the adapter "plain" changes nothing."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(speller_model()).eval()


def reference(model: Any, prompt: list[int], tokens: list[int]) -> np.ndarray:
    """(T, V) log-probabilities at each place of an answer."""
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    return np.asarray(torch.log_softmax(logits.double(), dim=-1))


def drawn(served: Served, prompt: list[int]) -> tuple[list[int], str]:
    """Tokens and text of an answer by `WARM`."""
    config = GenerationConfig(NEW, Sampling(1.5, 0, 0.9, 5))
    text = expected(served, "plain", prompt, config)
    assert text.finish == "length"
    return text.tokens, text.stream.text


def test_a_chat_has_the_log_probabilities_of_transformers(served: Served, model: Any) -> None:
    prompt = served.speaker.chat_prompt(HELLO)
    tokens, text = drawn(served, prompt)
    found = served.client().chat.completions.create(
        model="plain", messages=HELLO, max_tokens=NEW, logprobs=True, top_logprobs=4, **WARM
    )  # type: ignore[call-overload]
    content = found.choices[0].logprobs.content
    wanted = reference(model, prompt, tokens)
    spelling = Spelling(served.speaker.tokenizer)
    assert len(content) == len(tokens)
    for entry, token, row in zip(content, tokens, wanted, strict=True):
        assert entry.token == spelling.of(token).text
        assert entry.logprob == pytest.approx(row[token], abs=1e-4)
        assert [own.logprob for own in entry.top_logprobs] == pytest.approx(
            np.sort(row)[:-5:-1], abs=1e-4
        )
        likeliest = spelling.of(int(row.argmax()))
        assert entry.top_logprobs[0].token == likeliest.text
    assert any(entry.token != entry.top_logprobs[0].token for entry in content)
    raw = b"".join(bytes(entry.bytes) for entry in content)
    assert raw.decode(errors="replace") == text


def test_a_completion_has_them_in_its_own_form(served: Served, model: Any) -> None:
    prompt = served.speaker.text_prompt("the film It was")
    tokens, text = drawn(served, prompt)
    asked = {"model": "plain", "prompt": prompt, "max_tokens": NEW, **WARM}
    found = served.client().completions.create(**asked, logprobs=2).choices[0]
    wanted = reference(model, prompt, tokens)
    assert found.text == text
    own = found.logprobs
    assert own.token_logprobs == pytest.approx(wanted[np.arange(len(tokens)), tokens], abs=1e-4)
    spelling = Spelling(served.speaker.tokenizer)
    for place, token in enumerate(tokens):
        top = own.top_logprobs[place]
        assert top[own.tokens[place]] == own.token_logprobs[place]
        inside = token in np.argsort(-wanted[place])[:2]
        assert len(top) == (2 if inside else 3)
        spelled = spelling.of(token)
        assert own.tokens[place] == spelled.text
        # characters in parts begin where their first part does
        parts = [text.startswith("bytes:") for text in own.tokens[max(0, place - 1) : place + 1]]
        if spelled.raw is not None and not any(parts):
            assert text[own.text_offset[place] :].startswith(own.tokens[place])
    alone = served.client().completions.create(**asked, logprobs=0).choices[0].logprobs
    assert alone.token_logprobs == pytest.approx(own.token_logprobs, abs=1e-4)
    assert alone.top_logprobs is None
    assert served.client().completions.create(**asked).choices[0].logprobs is None


@pytest.mark.parametrize("chat", [True, False])
def test_streamed_ones_are_the_same(served: Served, chat: bool) -> None:
    client = served.client()
    asked: dict[str, Any] = {"model": "tuned", "max_tokens": NEW, **WARM}
    if chat:
        asked |= {"messages": HELLO, "logprobs": True, "top_logprobs": 3}
        make: Any = client.chat.completions.create
    else:
        asked |= {"prompt": "the film", "logprobs": 3}
        make = client.completions.create
    make(**asked)  # the prompt is known to both that follow, and their last bits are the same
    whole = make(**asked).choices[0]
    parts = [part.choices[0] for part in make(**asked, stream=True)]
    said = [part for part in parts if part.logprobs is not None]
    if chat:
        assert [entry for part in said for entry in part.logprobs.content] == (
            whole.logprobs.content
        )
        text = "".join(part.delta.content for part in said)
        assert text == whole.message.content
        return
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        joined = [value for part in said for value in getattr(part.logprobs, name)]
        assert joined == getattr(whole.logprobs, name)


def test_tokens_of_a_stop_text_and_end_tokens_are_left_out(served: Served) -> None:
    client, prompt = served.client(), served.speaker.text_prompt("the film It was")
    asked = {"model": "plain", "prompt": prompt, "max_tokens": NEW, "logprobs": 1, **WARM}
    whole = client.completions.create(**asked).choices[0]
    place = next(n for n in range(3, NEW) if not whole.logprobs.tokens[n].startswith("bytes:"))
    stop = whole.text[whole.logprobs.text_offset[place] :][:2]
    cut = client.completions.create(**asked, stop=[stop]).choices[0]
    assert cut.finish_reason == "stop"
    kept = sum(start < len(cut.text) for start in whole.logprobs.text_offset)
    assert cut.logprobs.tokens == whole.logprobs.tokens[:kept]
    assert 0 < kept < NEW


def test_an_end_token_has_none(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = served.speaker.text_prompt("the film It was")
    text = expected(served, "plain", prompt, GenerationConfig(NEW))
    place = next(n for n in range(1, NEW) if text.tokens[n] not in text.tokens[:n])
    generator = served.speaker._generators["all"]
    monkeypatch.setattr(generator, "ends", generator.ends | {text.tokens[place]})
    found = served.client().completions.create(
        model="plain", prompt=prompt, max_tokens=NEW, logprobs=1, temperature=0
    )
    assert found.choices[0].finish_reason == "stop"
    assert found.choices[0].logprobs is not None
    assert len(found.choices[0].logprobs.tokens or []) == place


@pytest.mark.parametrize(
    ("chat", "extra", "param"),
    [
        (True, {"logprobs": 2}, "logprobs"),
        (True, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (True, {"logprobs": True, "top_logprobs": True}, "top_logprobs"),
        (True, {"top_logprobs": 2}, "top_logprobs"),
        (False, {"logprobs": 21}, "logprobs"),
        (False, {"logprobs": -1}, "logprobs"),
        (False, {"logprobs": True}, "logprobs"),
    ],
)
def test_wrong_numbers_are_refused(
    served: Served, chat: bool, extra: dict[str, Any], param: str
) -> None:
    client = served.client()
    own: dict[str, Any] = {"messages": HELLO} if chat else {"prompt": "great"}
    make: Any = client.chat.completions.create if chat else client.completions.create
    with pytest.raises(openai.BadRequestError) as refused:
        make(model="plain", extra_body=extra, **own)
    assert refused.value.param == param


def test_equal_and_impossible_tokens() -> None:
    logits = np.array([1, 3, 3, -np.inf, 3], np.float32)
    own, top = logprobs(logits, 3, 2)
    assert own == LEAST
    total = math.log(3 * math.exp(3) + math.exp(1))
    assert top == [(1, pytest.approx(3 - total)), (2, pytest.approx(3 - total))]
    assert len(logprobs(logits, 0, 20)[1]) == 5


def tokenizer_of(core: Any) -> TextTokenizer:
    return TextTokenizer(core=core, pad_id=0)


def test_bytes_of_sentencepiece_tokens() -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    names = ["<pad>", "a", "▁a", "▁", *(f"<0x{byte:02X}>" for byte in range(256))]
    core = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, [], byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    core.add_special_tokens([AddedToken("<pad>", special=True)])
    spelling = Spelling(tokenizer_of(core))
    assert (spelling.of(1).text, spelling.of(2).text) == ("a", " a")
    assert spelling.of(2).raw == b" a"
    assert (spelling.of(4 + 0xE2).text, spelling.of(4 + 0xE2).raw) == ("bytes:\\xe2", b"\xe2")
    assert spelling.of(4 + 0x0A).text == "\n"
    assert (spelling.of(0).text, spelling.of(0).raw) == ("<pad>", None)
    assert (spelling.of(5000).text, spelling.of(5000).raw) == ("token_id:5000", None)


def test_bytes_of_gpt2_tokens() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    text = "".join(map(chr, range(0x100, 0x180))) + "é€ \n\x7f\xad"
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({name: n for n, name in enumerate(letters)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    spelling = Spelling(tokenizer_of(core))
    assert {spelling.of(n).raw for n in range(256)} == {bytes([n]) for n in range(256)}
    raw = b"".join(spelling.of(n).raw or b"" for n in core.encode(text).ids)
    assert raw.decode() == text
