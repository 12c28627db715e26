"""A prompt that begins as the text before reads the rest only, with the logits of a whole one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import UsageError
from edgezo_runtime.generation import kv_cache as key_values
from edgezo_runtime.generation.generator import GenerationConfig, Generator
from edgezo_runtime.generation.kept_text import KeptText
from edgezo_runtime.generation.text_reader import Text
from tests.runtime.written_texts import log_probs, moved, prompts_of, writer

FIRST, NEW = prompts_of()[2], 8  # 13 tokens


@pytest.fixture(autouse=True)
def _small_rooms(monkeypatch):
    """So that they grow in a test."""
    monkeypatch.setattr(key_values, "ROOM_STEP", 16)


def said(
    generator: Generator, prompt: list[int], params: Any, kept: KeptText | None
) -> tuple[Text, list[np.ndarray]]:
    """The text, and the log-probabilities of all tokens at each place."""
    seen: list[np.ndarray] = []

    def look(number: int, place: int, token: int, logits: np.ndarray) -> None:
        shifted = logits - logits.max()
        seen.append(shifted - np.log(np.exp(shifted).sum()))

    (*_, last) = generator.stream([prompt], params, GenerationConfig(NEW), look, kept)
    return last.text, seen


@pytest.mark.parametrize("scope", ["all", "answer"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text"])
def test_a_second_turn_reads_what_is_new(exported, name, scope):
    bundle = exported(name).bundle("fp32").bundle
    engine, params, kept = Engine(bundle, chunk_tokens=4), moved(bundle), KeptText()
    generator = writer(bundle, engine, scope=scope)
    first, _ = said(generator, FIRST, params, kept)
    read = generator.prompt_tokens
    second = [*FIRST, *first.tokens, 9, 33, 70, 12, 8, 31]
    text, seen = said(generator, second, params, kept)
    # of an answer, the last token was never read; adapters of answers act on no prompt
    known = len(FIRST) + len(first.tokens) - 1 if scope == "all" else len(FIRST) - 1
    assert generator.prompt_tokens - read == len(second) - known
    (whole,) = log_probs(Engine(bundle), params, [second], [text], scope)
    found = [own[token] for own, token in zip(seen, text.tokens, strict=False)]
    np.testing.assert_allclose(found, whole, atol=2e-4)
    assert kept.tokens == (*second, *text.tokens)[: len(kept.tokens)]
    assert len(kept.tokens) == len(second) + len(text.tokens) - (text.finish == "length")


def test_states_of_another_text_are_not_used(exported):
    bundle = exported("llama").bundle("fp32").bundle
    params, kept, generator = moved(bundle), KeptText(), writer(bundle)
    said(generator, FIRST, params, kept)
    for prompt, given, more in (
        ([*FIRST[:7], 50, 51], params, 2),  # another end
        (FIRST[:5], params, 1),  # the beginning of it: one token is read, for its logits
        ([90, *FIRST], params, 14),  # another beginning
        ([90, *FIRST], dict(params), 14),  # other tensors, for all that is known
    ):
        read = generator.prompt_tokens
        text, seen = said(generator, prompt, given, kept)
        assert generator.prompt_tokens - read == more
        alone, expected = said(writer(bundle), prompt, given, None)
        assert text.tokens == alone.tokens
        np.testing.assert_allclose(seen, expected, atol=2e-4)
    kept.clear()
    assert kept.nbytes == 0
    with pytest.raises(UsageError, match="one only"):
        list(generator.stream([FIRST, FIRST], params, GenerationConfig(2), kept=kept))


def test_a_text_that_its_reader_leaves_is_kept_as_far_as_it_was_read(exported):
    bundle = exported("llama").bundle("fp32").bundle
    params, kept, generator = moved(bundle), KeptText(), writer(bundle)
    stream = generator.stream([FIRST], params, GenerationConfig(NEW), kept=kept)
    text = [next(stream), next(stream), next(stream)][-1].text
    stream.close()
    assert kept.tokens == (*FIRST, *text.tokens[:2])  # the third was chosen, not read
    longer = [*FIRST, *text.tokens, 7]
    found, _ = said(generator, longer, params, kept)
    assert found.tokens == said(writer(bundle), longer, params, None)[0].tokens


def test_it_grows_no_larger_than_the_model_takes(exported):
    """The longest prompt behind a kept one, in a model of 64 tokens."""
    bundle = exported("llama").bundle("fp32").bundle
    params, kept, generator = moved(bundle), KeptText(), writer(bundle)
    said(generator, FIRST, params, kept)
    longest = [*FIRST, *[5 + n % 80 for n in range(64 - NEW - len(FIRST))]]
    text, _ = said(generator, longest, params, kept)
    assert text.tokens == said(writer(bundle), longest, params, None)[0].tokens
