"""Models with two sets of rotary frequencies: every row takes the set of its own length."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.chunks import Cutter, Limits
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.first_order import FirstOrderGradient
from edgezo_runtime.engine.first_order_pass import ExampleCutter
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.engine.rotary_sides import RotarySides
from edgezo_runtime.errors import UsageError
from edgezo_runtime.generation import kv_cache as key_values
from edgezo_runtime.generation.generator import GenerationConfig
from tests.bundles.tiny import SWITCH, two_sided_bundle, two_sided_model
from tests.conftest import there
from tests.runtime.engine.test_answer_scope import make_cache
from tests.runtime.tiny_bundle import make_manifest
from tests.runtime.tiny_sets import LABEL_TOKENS, random_set
from tests.runtime.written_texts import prompts_of, writer

SIZES = (SWITCH - 1, SWITCH, SWITCH + 1, 4, 30, 29, 5, SWITCH - 1, 15, 33)


@pytest.fixture(scope="module")
def two_sided() -> Bundle:
    return Bundle.open(there(two_sided_bundle))


@pytest.fixture(scope="module")
def torch_model():
    pytest.importorskip("torch", reason="compares with torch")
    transformers = pytest.importorskip("transformers")
    return transformers.LlamaForCausalLM.from_pretrained(there(two_sided_model)).eval()


def torch_scores(model, batch) -> np.ndarray:
    """Scores of each example by itself: transformers chooses by the longest row of a pass."""
    import torch

    found = []
    for row, place in batch.positions:
        own = batch.row_example == batch.row_example[row]
        ids = batch.input_ids[row : row + 1, : batch.lengths[own].max()]
        with torch.inference_mode():
            found.append(model(torch.tensor(ids)).logits[0, place])
    logits = torch.stack(found)
    if batch.label_ids is not None:
        return logits[:, torch.tensor(batch.label_ids)].numpy()
    targets = torch.tensor(batch.targets)[:, None]
    return torch.log_softmax(logits, -1).gather(1, targets)[:, 0].numpy()


def batch_of(kind: str):
    return make_batch(random_set(kind, SIZES, 0), range(len(SIZES)))


@pytest.mark.parametrize("kind", LABEL_TOKENS)
def test_scores_are_those_of_transformers_for_every_row_alone(two_sided, torch_model, kind):
    batch = batch_of(kind)
    params = SharedParams(two_sided.trainables())
    expected = torch_scores(torch_model, batch)
    for chunk_tokens in (10, 64, 10_000):
        engine = Engine(two_sided, chunk_tokens=chunk_tokens)
        for scope in ("all", "answer"):
            found = engine.score(batch, params, scope=scope)[0]
            np.testing.assert_allclose(found, expected, atol=2e-5)


def test_last_tokens_on_top_of_cached_prompts(two_sided, torch_model, tmp_path):
    engine = Engine(two_sided)
    examples = random_set("labels", SIZES, 0)
    batch = make_batch(examples, range(len(SIZES)))
    cache = make_cache(engine, examples, tmp_path)
    params = SharedParams(two_sided.trainables())
    for _ in range(2):  # prompts that are read, and prompts that are there
        found = engine.score(
            batch, params, first_active=1, cache=cache, cache_block=1, scope="answer"
        )
        np.testing.assert_allclose(found[0], torch_scores(torch_model, batch), atol=5e-3)
    cache.close()


@pytest.mark.parametrize("kind", LABEL_TOKENS)
def test_gradients_go_back_from_the_same_losses(two_sided, kind):
    engine, batch = Engine(two_sided), batch_of(kind)
    params = two_sided.trainables()
    expected = example_losses(batch, engine.score(batch, SharedParams(params)))[0]
    found = FirstOrderGradient(engine, 0).gradient(batch, params).losses
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_texts_are_those_of_transformers_on_both_sides(two_sided, torch_model, monkeypatch):
    import torch

    monkeypatch.setattr(key_values, "ROOM_STEP", 8)
    prompts = prompts_of((5, 30, SWITCH - 6, SWITCH + 1, 1))
    texts = writer(two_sided).generate(prompts, two_sided.trainables(), GenerationConfig(6))
    for prompt, text in zip(prompts, texts, strict=True):
        with torch.inference_mode():
            whole = torch_model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=6,
                do_sample=False,
            )
        expected = whole[0, len(prompt) :].tolist()
        assert text.tokens == [token for token in expected if token != 2]


def test_no_text_crosses_the_switch(two_sided):
    generator = writer(two_sided)
    params, prompts = two_sided.trainables(), prompts_of((SWITCH - 5,))
    with pytest.raises(UsageError, match=r"leads beyond 16, .* `max_new_tokens` 5 or less"):
        generator.generate(prompts, params, GenerationConfig(6))
    assert generator.generate(prompts, params, GenerationConfig(5))
    with pytest.raises(UsageError, match=r"leads beyond 16, .* a shorter or a longer prompt"):
        generator.generate(prompts_of((SWITCH,)), params, GenerationConfig(1))
    assert generator.most_tokens(SWITCH - 5, 1 << 30, 1) == 5
    assert generator.most_tokens(SWITCH + 1, 1 << 30, 1) == 64 - SWITCH - 1


@pytest.mark.parametrize("switch", [15, 16, None])
@pytest.mark.parametrize("kind", LABEL_TOKENS)
def test_no_chunk_mixes_the_sides(kind, switch):
    batch, sides = batch_of(kind), RotarySides(switch)
    for chunk_tokens in (8, 64, 10_000):
        chunks = Cutter(Limits(1, chunk_tokens), 64, 8, sides=sides).chunks(batch, 1)
        parts = ExampleCutter(chunk_tokens, 64, sides).cut(batch)
        for cut in (chunks, parts):
            assert np.concatenate([chunk.index for chunk in cut]).tolist() == [
                *range(batch.num_rows)
            ]
            for chunk in cut:
                longest = [
                    batch.lengths[batch.row_example == example].max()
                    for example in batch.row_example[chunk.index]
                ]
                assert chunk.tokens >= batch.lengths[chunk.index].max()
                if switch is not None:
                    assert {length > switch for length in longest} == {chunk.tokens > switch}


def test_a_prefix_counts():
    manifest = make_manifest({})
    model = dataclasses.replace(manifest.model, rotary_switch=16)
    manifest = dataclasses.replace(manifest, model=model)
    assert RotarySides.of(manifest) == RotarySides(16)
    scheme = dataclasses.replace(manifest.scheme, kind="prefix", tokens=(5, 6, 7))
    assert RotarySides.of(dataclasses.replace(manifest, scheme=scheme)) == RotarySides(13)
