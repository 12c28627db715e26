"""Generation: the tokens of transformers, the logits of whole passes, one token's work per step."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import DivergedError, DoesNotFitError, UsageError
from edgezo_runtime.generation import kv_cache as key_values
from edgezo_runtime.generation.decode_pass import TokenPass
from edgezo_runtime.generation.generator import GenerationConfig
from edgezo_runtime.generation.sampling import Sampling
from edgezo_runtime.generation.text_reader import Text
from tests.runtime.written_texts import NEW, check_logits, moved, prompts_of, writer

FAST = ("llama", "gpt2", "gemma3_text")
AGAIN = pytest.param("llama-narrow", marks=pytest.mark.slow)
"""Its blocks keep no keys and values: the whole text is read for every token."""


@pytest.fixture(autouse=True)
def _small_rooms(monkeypatch):
    """So that they grow in a test."""
    monkeypatch.setattr(key_values, "ROOM_STEP", 16)


def tokens_of(texts: list[Text]) -> list[list[int]]:
    return [text.tokens for text in texts]


@pytest.mark.parametrize("name", [*FAST, AGAIN])
def test_greedy_tokens_are_those_of_transformers(exported, name):
    torch = pytest.importorskip("torch", reason="compares with torch")
    case = exported(name)
    bundle = case.bundle("fp32").bundle
    found = writer(bundle).generate(prompts_of(), bundle.trainables(), GenerationConfig(NEW))
    for text, prompt in zip(found, prompts_of(), strict=True):
        with torch.inference_mode():
            whole = case.model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=NEW,
                do_sample=False,
            )
        expected = whole[0, len(prompt) :].tolist()
        ended = expected[-1] in bundle.manifest.tokenizer.eos_ids
        assert text.tokens == (expected[:-1] if ended else expected)
        assert text.finish == ("end" if ended else "length")


@pytest.mark.parametrize("scope", ["all", "answer"])
@pytest.mark.parametrize("name", [*FAST, AGAIN])
def test_logits_with_adapters_are_those_of_whole_passes(exported, name, scope):
    bundle = exported(name).bundle("fp32").bundle
    texts = check_logits(bundle, scope)
    plain = writer(bundle).generate(prompts_of(), bundle.trainables(), GenerationConfig(NEW))
    assert tokens_of(texts) != tokens_of(plain)  # the adapters do something


def test_int8_logits_are_those_of_whole_passes(exported):
    # one row in a thousand rounds a quantized activation the other way
    check_logits(exported("llama").bundle("int8").bundle, tolerance=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("quant", ["fp32", "int8", "w4"])
def test_a_text_does_not_depend_on_its_neighbours(exported, quant):
    bundle = exported("llama").bundle(quant).bundle
    engine, params, prompts = Engine(bundle), moved(bundle), prompts_of()
    seen: dict[tuple[int, int], np.ndarray] = {}
    writer(bundle, engine).generate(
        prompts,
        params,
        GenerationConfig(NEW),
        look=lambda n, t, _, x: seen.update({(n, t): x.copy()}),
    )
    for number, prompt in enumerate(prompts):

        def same(_text, place, _token, logits, number=number):
            np.testing.assert_array_equal(logits, seen[number, place])

        writer(bundle, engine).generate([prompt, prompt], params, GenerationConfig(NEW), look=same)
    small = Engine(bundle, threads=1, chunk_tokens=4)
    small.streamed = frozenset({0, 1})
    writer(bundle, small).generate(
        prompts,
        params,
        GenerationConfig(NEW),
        look=lambda n, t, _, x: np.testing.assert_array_equal(x, seen[n, t]),
    )


def test_a_token_costs_one_tokens_work(exported, monkeypatch):
    """Rows and tokens that go through blocks are counted, not seconds."""
    bundle = exported("llama").bundle("fp32").bundle
    passed: list[tuple[int, int]] = []
    run = TokenPass.block

    def counted(self, index, chunk):
        if index == 0:
            passed.append((chunk.rows, chunk.tokens))
        return run(self, index, chunk)

    monkeypatch.setattr(TokenPass, "block", counted)
    (text,) = writer(bundle).generate(prompts_of()[:1], bundle.trainables(), GenerationConfig(NEW))
    assert passed == [(1, 1)] * (len(text.tokens) - (text.finish == "length"))
    passed.clear()
    texts = writer(bundle).generate(prompts_of(), bundle.trainables(), GenerationConfig(NEW))
    written = sum(len(text.tokens) for text in texts)
    assert {tokens for _, tokens in passed} == {1}
    # the first token of each comes with its prompt; an odd row of a pass comes twice
    assert sum(rows for rows, _ in passed) <= written - len(texts) + len(passed)


def test_it_ends_at_stop_texts_and_end_tokens(exported):
    bundle = exported("llama").bundle("fp32").bundle
    params, prompt = bundle.trainables(), prompts_of()[0]
    (whole,) = writer(bundle).generate([prompt], params, GenerationConfig(NEW))
    words = [f"w{token}" for token in whole.tokens]
    stop = f"{words[4]} {words[5]}"
    (cut,) = writer(bundle).generate([prompt], params, GenerationConfig(NEW, stop=(stop,)))
    assert cut.finish == "stop"
    assert cut.stream.text == whole.stream.text[: whole.stream.text.index(stop)]
    assert len(cut.tokens) <= 6


def test_sampling_is_repeated_by_its_seed(exported):
    bundle = exported("llama").bundle("fp32").bundle
    params, prompts = bundle.trainables(), prompts_of()
    drawn = [
        tokens_of(
            writer(bundle).generate(prompts, params, GenerationConfig(8, Sampling(1.0, seed=seed)))
        )
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    one = writer(bundle).generate(prompts, params, GenerationConfig(8, Sampling(1.0, top_k=1)))
    assert tokens_of(one) == tokens_of(
        writer(bundle).generate(prompts, params, GenerationConfig(8))
    )


def test_what_does_not_fit_is_refused_with_what_would(exported):
    bundle = exported("llama").bundle("fp32").bundle
    params, prompt = bundle.trainables(), prompts_of()[0]
    each = key_values.bytes_per_token(bundle.manifest.graphs)
    with pytest.raises(DoesNotFitError, match=r"`max_new_tokens` 12 fits"):
        writer(bundle, cache_bytes=17 * each).generate([prompt], params, GenerationConfig(13))
    (text,) = writer(bundle, cache_bytes=17 * each).generate([prompt], params, GenerationConfig(12))
    assert len(text.tokens) <= 12
    with pytest.raises(DoesNotFitError, match="not even one"):
        writer(bundle, cache_bytes=each).generate([prompt], params, GenerationConfig(2))
    with pytest.raises(UsageError, match="the model takes 64 in all"):
        writer(bundle).generate([prompt], params, GenerationConfig(60))
    assert len(writer(bundle).generate([prompt], params, GenerationConfig(59))) == 1
    with pytest.raises(UsageError, match="empty"):
        writer(bundle).generate([[]], params, GenerationConfig(2))


def test_a_logit_that_is_no_number_ends_it(exported):
    bundle = exported("llama").bundle("fp32").bundle
    params = {name: value * np.nan for name, value in bundle.trainables().items()}
    with pytest.raises(DivergedError, match="not a number"):
        writer(bundle).generate(prompts_of(), params, GenerationConfig(2))


def test_an_encoder_writes_nothing(exported):
    bundle = exported("roberta").bundle("fp32").bundle
    with pytest.raises(UsageError, match="generates no text"):
        writer(bundle)


def test_keys_and_values_are_moved_only_when_a_text_ends(exported, monkeypatch):
    """Of an odd number of texts the last comes twice; that is no reason to copy at every token."""
    bundle = exported("llama").bundle("fp32").bundle
    moves: list[int] = []
    keep = key_values.KvCache.keep

    def counted(self, rows):
        moves.append(len(rows))
        return keep(self, rows)

    monkeypatch.setattr(key_values.KvCache, "keep", counted)
    writing = writer(bundle)
    writing.ends = frozenset()
    texts = writing.generate(prompts_of()[:3], bundle.trainables(), GenerationConfig(NEW))
    assert [len(text.tokens) for text in texts] == [NEW] * 3
    assert moves == [4]  # the padding row
