"""The engine: torch's scores, and the same bits however the rows are cut, padded and shared out."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.forward import Forward
from edgezo_runtime.engine.pair_coding import code_matrices
from edgezo_runtime.engine.prefix_cache import PrefixCache
from edgezo_runtime.errors import UsageError
from edgezo_runtime.evaluation.evaluate import evaluate
from edgezo_runtime.methods.estimators import Probe
from tests.runtime.dense_directions import dense_params
from tests.runtime.tiny_sets import LABEL_TOKENS, random_set

SIZES = (2, 5, 9, 21, 1, 13, 16, 17, 30, 33, 8, 3)
KINDS = tuple(LABEL_TOKENS)
FAMILIES = ("llama", "gpt2", "roberta")
BUNDLES = [
    *(("llama", quant) for quant in ("fp32", "int8", "w4")),
    *(pytest.param("llama", quant, marks=pytest.mark.slow) for quant in ("w8", "fp16")),
    *((name, "fp32") for name in FAMILIES[1:]),
    *(pytest.param(name, "int8", marks=pytest.mark.slow) for name in FAMILIES[1:]),
]
SCALES = {1: [0.1], 2: [0.1, -0.1], 5: [0.1] * 5}


def tiny(exported, name: str, quant: str):
    """A tiny bundle and adapters that do something."""
    bundle = exported(name).bundle(quant).bundle
    generator = np.random.default_rng(1)
    theta = {
        key: (value + generator.normal(0, 0.1, value.shape)).astype(np.float32)
        for key, value in bundle.trainables().items()
    }
    return bundle, theta


def batch_of(bundle, kind="labels", sizes=SIZES, **options):
    examples = random_set(kind, sizes, bundle.manifest.tokenizer.pad_id, **options)
    return make_batch(examples, range(len(sizes)))


def probes_of(groups: int, private: bool) -> list[Probe]:
    """An antithetic pair, or directions of their own."""
    scales = SCALES[groups]
    return [Probe(3 if groups == 2 else g, s, private) for g, s in enumerate(scales)]


def perturbed_scores(engine, theta, batch, probes, *, active=None, **options):
    names = dict.fromkeys(theta if active is None else active, 0)
    params = dense_params(theta, names, probes, batch.row_example)
    return engine.score(batch, params, code_matrices([p.scale for p in probes]), **options)


# --- what the scores are ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_scores_are_those_of_torch(exported, name, kind):
    from tests.runtime.torch_lora import TorchLora  # here: a subprocess below imports this file

    bundle, theta = tiny(exported, name, "fp32")
    batch = batch_of(bundle, kind)
    found = Engine(bundle).score(batch, SharedParams(theta))
    torch_model = TorchLora(exported(name).model, bundle)
    expected = torch_model.scores(torch_model.tensors(theta), batch).detach().numpy()
    assert found.dtype == np.float32
    assert found.shape == (1, *expected.shape)
    assert np.abs(found[0] - expected).max() <= 1e-4 * np.abs(expected).max()  # order of sums


@pytest.mark.parametrize("private", [False, True], ids=["shared", "private"])
def test_every_group_is_the_model_at_its_own_parameters(exported, private):
    bundle, theta = tiny(exported, "llama", "fp32")
    batch, probes = batch_of(bundle), probes_of(5, private)
    engine = Engine(bundle)
    found = perturbed_scores(engine, theta, batch, probes)
    params = dense_params(theta, dict.fromkeys(theta, 0), probes, batch.row_example)
    for group in range(5):
        for row in (0, 7):
            own = {
                name: params.copies(name, np.array([row]))[group] for name in theta
            }  # (G, *shape) for one row, shared or private
            alone = engine.score(batch, SharedParams(own))
            np.testing.assert_array_equal(found[group, row], alone[0, row])


# --- the same bits ---


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "quant"), BUNDLES)
def test_chunks_change_no_bit(exported, name, quant, kind):
    """Pins a token scorer whose rounding depended on how many tokens shared the pass."""
    bundle, theta = tiny(exported, name, quant)
    batch = batch_of(bundle, kind)
    engines = [Engine(bundle, chunk_tokens=size) for size in (8, 64, 10_000)]
    for groups, private in ((1, False), (2, True), (2, False), (5, True)):
        probes = probes_of(groups, private)
        one, *others = (perturbed_scores(e, theta, batch, probes) for e in engines)
        assert len(one) == groups
        for other in others:
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("name", "quant"), BUNDLES)
def test_a_row_has_the_same_bits_alone(exported, name, quant):
    """Pins attention whose last row took another kernel where 32 k + 1 tokens were padded to."""
    bundle, theta = tiny(exported, name, quant)
    sizes = (34, 33, 32, 31, 18, 17, 3, 2, 1, 62)  # neighbours share a chunk
    examples = random_set("completion", sizes, bundle.manifest.tokenizer.pad_id, scored=99)
    engine, probes = Engine(bundle, chunk_tokens=10_000), probes_of(2, private=False)
    everyone = make_batch(examples, range(len(sizes)))
    together = perturbed_scores(engine, theta, everyone, probes)
    for index in range(len(sizes)):
        alone = perturbed_scores(engine, theta, make_batch(examples, [index]), probes)
        np.testing.assert_array_equal(together[:, everyone.positions[:, 0] == index], alone)
    padded = perturbed_scores(engine, theta, make_batch(examples, [1, 7], pad_to=64), probes)
    shorter = perturbed_scores(engine, theta, make_batch(examples, [1, 7]), probes)
    np.testing.assert_array_equal(padded, shorter)


def test_the_longest_sequence_is_not_padded_beyond_an_odd_limit(exported):
    bundle, theta = tiny(exported, "gpt2", "fp32")
    model = dataclasses.replace(bundle.manifest.model, max_seq=33)
    odd = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, model=model))
    batch = batch_of(bundle, "completion", (33, 20, 64 // 2))
    found = Engine(odd).score(batch, SharedParams(theta))
    expected = Engine(bundle).score(batch, SharedParams(theta))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


_DIGEST = """
import sys
from pathlib import Path
from edgezo_runtime.bundle.bundle import Bundle
from tests.runtime.engine import test_engine as t
bundle = Bundle.open(Path(sys.argv[1]))
print(t.digest(bundle, threads=int(sys.argv[2])))
"""


def digest(bundle, threads: int | None = None) -> str:
    """Of the scores of a pair, for all kinds."""
    engine = Engine(bundle, threads=threads)
    digests = hashlib.sha256()
    for kind in KINDS:
        batch, probes = batch_of(bundle, kind), probes_of(2, private=True)
        digests.update(perturbed_scores(engine, bundle.trainables(), batch, probes).tobytes())
    return digests.hexdigest()


@pytest.mark.slow
def test_threads_change_no_bit(exported):
    """Their number holds for the life of a process, so each has its own."""
    bundle, _ = tiny(exported, "llama", "int8")
    found = []
    for threads in ("1", "2"):
        command = [sys.executable, "-c", _DIGEST, str(bundle.root), threads]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.strip())
    assert found == [digest(bundle)] * 2


@pytest.mark.slow
def test_threads_that_score_at_once_get_the_bits_of_one(exported):
    bundle, theta = tiny(exported, "llama", "int8")
    engine = Engine(bundle, chunk_tokens=64)
    jobs = [
        (batch_of(bundle, kind, seed=seed), probes_of(groups, private=True))
        for seed, kind in enumerate(KINDS)
        for groups in (1, 2)
    ]
    alone = [perturbed_scores(engine, theta, batch, probes) for batch, probes in jobs]
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(perturbed_scores, engine, theta, *job) for job in jobs * 3]
        for future, expected in zip(futures, alone * 3, strict=True):
            np.testing.assert_array_equal(future.result(), expected)


def test_two_engines_of_one_process_do_not_meet(exported):
    bundles = [tiny(exported, "llama", quant) for quant in ("fp32", "int8")]
    batch = batch_of(bundles[0][0])
    first = [Engine(bundle).score(batch, SharedParams(theta)) for bundle, theta in bundles]
    engines = [Engine(bundle) for bundle, _ in bundles]
    for _ in range(2):
        for engine, (_, theta), expected in zip(engines, bundles, first, strict=True):
            np.testing.assert_array_equal(engine.score(batch, SharedParams(theta)), expected)
    assert (first[0] != first[1]).any()


# --- blocks that nothing perturbs ---


def names_of_block(bundle, block: int) -> set[str]:
    return {info.name for info in bundle.manifest.trainables if info.block == block}


@pytest.mark.parametrize("groups", [2, 5])
@pytest.mark.parametrize(("name", "quant"), BUNDLES)
def test_running_the_first_blocks_once_changes_no_bit(exported, name, quant, groups):
    """Of int8 with five directions the code's mean of equal rows is rounded: close, not equal."""
    bundle, theta = tiny(exported, name, quant)
    batch, probes = batch_of(bundle), probes_of(groups, private=True)
    engine, active = Engine(bundle), names_of_block(bundle, 1)
    each, once = (
        perturbed_scores(engine, theta, batch, probes, active=active, first_active=first)
        for first in (0, 1)
    )
    if quant in ("int8", "w4") and groups == 5:
        np.testing.assert_allclose(each, once, atol=0.05 * once.std())
    else:
        np.testing.assert_array_equal(each, once)
    assert (once[0] != once[1]).any()


@pytest.mark.parametrize(("copies", "first"), [(3, 0), (2, 1), (12, 1)])
def test_a_wrong_number_of_copies_is_refused(exported, copies, first):
    """Two copies are right for two groups, but not where the groups are still one."""
    bundle, theta = tiny(exported, "llama", "fp32")

    class Wrong:
        private = False

        def copies(self, name, rows):
            return np.repeat(theta[name][None], copies, axis=0)

    engine, batch = Engine(bundle, chunk_tokens=10_000), batch_of(bundle, sizes=(4,) * 6)
    with pytest.raises(UsageError, match=rf"{copies} copies for . groups of \d sequences"):
        engine.score(batch, Wrong(), code_matrices([1, -1]), first_active=first)


@pytest.mark.parametrize("options", [{"chunk_tokens": 0}, {"threads": 0}, {"threads": -1}])
def test_unfit_settings_are_refused(exported, options):
    bundle, _ = tiny(exported, "llama", "fp32")
    with pytest.raises(UsageError, match="must be 1 or more"):
        Engine(bundle, **options)


# --- the prefix cache ---


@pytest.fixture
def cached(exported, tmp_path):
    """(engine, theta, examples, a function that makes a cache of their states)."""
    bundle, theta = tiny(exported, "llama", "int8")
    examples = random_set("candidates", SIZES[:6], bundle.manifest.tokenizer.pad_id)

    def make(**options) -> PrefixCache:
        lengths, width = examples.sequence_lengths(), bundle.manifest.model.hidden_size
        return PrefixCache(tmp_path / "cache", lengths, width, **options)

    return Engine(bundle, chunk_tokens=64), theta, examples, make


def score_with(cached, cache, indices=(0, 1, 2, 3, 4, 5), seed=3, engine=None):
    own, theta, examples, _ = cached
    batch = make_batch(examples, indices)
    active = names_of_block(own.bundle, 1)
    probes = [Probe(seed, 0.1), Probe(seed, -0.1)]
    options = {} if cache is None else {"cache": cache, "cache_block": 1}
    return perturbed_scores(
        engine or own, theta, batch, probes, active=active, first_active=1, **options
    )


def count_blocks(monkeypatch) -> list[int]:
    """Indices of the blocks run from now on."""
    run, seen = Forward.block, []

    def counting(self, index, chunk):
        seen.append(index)
        return run(self, index, chunk)

    monkeypatch.setattr(Forward, "block", counting)
    return seen


def test_states_found_give_the_bits_of_states_made(cached, monkeypatch):
    """Pins a cache that never kept candidates shorter than the longest of their example."""
    cache = cached[3]()
    first = score_with(cached, cache)
    ran = count_blocks(monkeypatch)
    np.testing.assert_array_equal(score_with(cached, cache), first)
    assert set(ran) == {1}
    exact = score_with(cached, None)
    assert (first != exact).any()
    np.testing.assert_allclose(first, exact, atol=0.05)  # float16 states
    other = score_with(cached, cache, seed=4)
    assert (other != first).any()
    cache.close()
    np.testing.assert_array_equal(score_with(cached, cached[3](), seed=4), other)
    streaming = Engine(cached[0].bundle, chunk_tokens=16)
    streaming.streamed = frozenset({0, 1})
    made = cached[3]()
    for _ in range(2):  # made, then found
        found = score_with(cached, made, seed=4, engine=streaming)
        np.testing.assert_array_equal(found, other)
    made.close()


def test_states_of_some_rows_do_not_change_the_others(cached):
    cache = cached[3]()
    score_with(cached, cache, indices=(1, 3))
    partly = score_with(cached, cache)
    cache.close()
    np.testing.assert_array_equal(partly, score_with(cached, cached[3]()))


@pytest.mark.parametrize("max_bytes", [0, 3000])
def test_what_does_not_fit_the_cache_is_made_again(cached, max_bytes, monkeypatch, tmp_path):
    whole = cached[3]()
    expected = score_with(cached, whole)
    whole.close()
    cache = cached[3](max_bytes=max_bytes)
    ran = count_blocks(monkeypatch)
    for _ in range(2):
        np.testing.assert_array_equal(score_with(cached, cache), expected)
    assert ran.count(0) > 1
    assert (tmp_path / "cache").stat().st_size <= max_bytes == cache.size_bytes
    assert whole.size_bytes > 3000


def test_two_engines_share_a_cache(cached):
    cache = cached[3]()
    first = score_with(cached, cache)
    other = Engine(cached[0].bundle, chunk_tokens=10_000)
    np.testing.assert_array_equal(score_with(cached, cache, engine=other), first)


# --- evaluation ---


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_does_not_depend_on_the_batch_size(exported, kind):
    bundle, theta = tiny(exported, "llama", "int8")
    examples = random_set(kind, SIZES, bundle.manifest.tokenizer.pad_id)
    engine, seen = Engine(bundle), []
    one, all_at_once = (
        evaluate(
            engine, theta, examples, size, lambda done, rows: seen.append((done, rows)), scope="all"
        )
        for size in (5, 100)
    )
    assert seen == [(0, 12), (5, 12), (10, 12), (12, 12), (0, 12), (12, 12)]
    assert (one.loss, one.accuracy, one.rows) == (all_at_once.loss, all_at_once.accuracy, 12)
    np.testing.assert_array_equal(one.predictions, all_at_once.predictions)
    if kind == "completion":
        assert one.accuracy is None
        assert one.predictions.size == 0
    else:
        labels = [example.label for example in examples]
        assert one.accuracy == np.mean(one.predictions == labels)
