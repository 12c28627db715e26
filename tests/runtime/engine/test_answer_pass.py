"""Last tokens on top of cached prompts: what is read before, what is kept, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.answer_pass import AnswerPass, PromptPass
from edgezo_runtime.engine.answer_states import KeyValueLayout
from edgezo_runtime.engine.chunks import Cutter, Limits
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.forward import Work
from edgezo_runtime.engine.params import SharedParams
from edgezo_runtime.engine.prefix_cache import AnswerCache
from edgezo_runtime.errors import UsageError
from tests.runtime.tiny_sets import random_set

SIZES = (4, 7, 2)
ENTRY = 1


@pytest.fixture
def made(bundle, tmp_path):
    """(engine, cache, pass, its one chunk, cutter)."""
    engine, manifest = Engine(bundle), bundle.manifest
    examples = random_set("labels", SIZES, manifest.tokenizer.pad_id)
    batch = make_batch(examples, range(len(SIZES)))
    layout = KeyValueLayout.of(manifest.graphs, ENTRY)
    width = manifest.model.hidden_size
    cache = AnswerCache(tmp_path / "cache", examples.sequence_lengths(), width, layout)
    work = Work(engine.model, batch, SharedParams(bundle.trainables()), lambda: None, 256)
    cutter = Cutter.of(manifest, Limits(1), False)
    forward = AnswerPass(work, None, ENTRY, cache, ENTRY)
    (chunk,) = cache.cut(cutter, batch, 1)
    yield engine, cache, forward, chunk, cutter
    cache.close()


def run_all(engine, forward, chunk) -> None:
    forward.start(chunk)
    for index in range(chunk.entry, engine.num_blocks):
        forward.block(index, chunk)
    forward.end(chunk)


def test_missing_prompts_are_read_once(made):
    engine, _, forward, chunk, cutter = made
    prompts, parts = forward.before([chunk], cutter)
    assert isinstance(prompts, PromptPass)
    rows = np.concatenate([part.index for part in parts])
    assert sorted(set(rows.tolist())) == [0, 1, 2]
    for part in parts:
        run_all(engine, prompts, part)
        assert part.hidden is None
        assert part.target is None
    run_all(engine, forward, chunk)
    assert forward.before([chunk], cutter) is None


def test_scores_are_those_of_whole_prompts(made):
    """But for what float16 rounds: the adapters of a fresh bundle change nothing."""
    engine, cache, forward, _, _ = made
    batch, params = forward.batch, forward._work.params
    found = engine.score(batch, params, cache=cache, cache_block=ENTRY, first_active=ENTRY)
    whole = engine.score(batch, params)
    np.testing.assert_allclose(found, whole, atol=5e-3)
    again = engine.score(batch, params, cache=cache, cache_block=ENTRY, first_active=ENTRY)
    np.testing.assert_array_equal(again, found)


def test_a_prompt_is_read_with_what_trains_from_the_entry_on_frozen(made):
    _, _, forward, chunk, cutter = made
    prompts, parts = forward.before([chunk], cutter)
    prompts.start(parts[0])
    early, late = prompts.enter(0, parts[0]), prompts.enter(ENTRY, parts[0])
    assert early.params is forward._work.params
    assert not early.keeps_past
    assert late.params is not forward._work.params
    assert late.keeps_past
    assert parts[0].kept.shape == (parts[0].rows, forward._manifest.model.hidden_size)


def test_a_wave_counts_keys_and_values(made):
    _, cache, forward, chunk, _ = made
    assert forward.wave_bytes(chunk) == 2 * cache.layout.size * max(SIZES)


def test_last_tokens_do_not_start_without_their_prompts(made):
    _, _, forward, chunk, _ = made
    with pytest.raises(UsageError, match="without its prompts"):
        forward.start(chunk)
