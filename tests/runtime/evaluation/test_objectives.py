"""Scores without a gradient: what is recorded is what they say, and runs go on to the same bits."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.questions import Question, QuestionSet, load_questions, prompt_of
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.evaluation.class_f1 import macro_f1
from edgezo_runtime.evaluation.evaluate import evaluate
from edgezo_runtime.evaluation.objectives import Reward
from edgezo_runtime.evaluation.squad import exact_match, f1
from edgezo_runtime.generation.generator import GenerationConfig, Generator
from edgezo_runtime.generation.sampling import Sampling
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.noise import derive_seed
from edgezo_runtime.training.replay import replay
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import SIZES, resumed_bits, run_to_the_end, state_bits

pytestmark = pytest.mark.usefixtures("unsynced")

STEPS, ROWS, NEW = 4, 5, 6
CONFIG = TuneConfig(
    method="zo-sgd",
    blocks="all",
    modules="all",
    steps=STEPS,
    max_time_s=0,
    batch_size=ROWS,
    lr=0.01,
    eps=0.3,
    max_new_tokens=NEW,
)


@pytest.fixture
def questions(bundle, tmp_path) -> QuestionSet:
    """Prompts of random words, answered by one or two."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(8):
        words = [f"w{token}" for token in generator.integers(20, 90, generator.integers(2, 7))]
        rows.append({"prompt": " ".join(words), "completion": f" w{generator.integers(20, 90)}"})
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_questions(file, tokenizer_of(bundle), max_seq=40)


def tokenizer_of(bundle) -> TextTokenizer:
    return TextTokenizer.open(bundle.root, bundle.manifest.tokenizer)


def high_words(text: str, row) -> float:
    """Mean number of a text's words; more for those that the prompt has too."""
    words = text.split()
    known = sum(word in row["prompt"].split() for word in words)
    return known + sum(int(word[1:]) for word in words) / 97 / max(1, len(words))


SCORES = {
    "exact-match": lambda text, q: 1 - exact_match(text, q.answers),
    "f1": lambda text, q: 1 - f1(text, q.answers),
    "reward": lambda text, q: -high_words(text, q.fields),
}


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("method", ["zo-sgd", "auto", "n-spsa"])
def test_recorded_losses_are_the_scores_of_texts(
    bundle, questions, tmp_path, monkeypatch, method, temperature
):
    """Every probe's texts are written once more, each by itself, by trainables made from z."""
    config = dataclasses.replace(CONFIG, method=method, temperature=temperature)
    reward = high_words
    with Tuner.open(bundle, questions, config, tmp_path / "run", reward=reward) as tuner:
        seen = []
        losses = tuner.run.probes.objective.__class__.losses

        def keep(self, probed):
            batch, params = probed.batch, probed.params()
            found = losses(self, dataclasses.replace(probed, params=lambda: params))
            names = list(bundle.trainables())
            own = [
                [{n: p.copies(n, np.array([row]))[0] for n in names} for row in range(ROWS)]
                for p in params
            ]
            seen.append((batch.ids.tolist(), own, probed.seed, found))
            return found

        monkeypatch.setattr(tuner.run.probes.objective.__class__, "losses", keep)
        tuner.step()
    (record,) = read_journal(tmp_path / "run" / "journal.bin").records
    (ids, own, seed, found), *_ = seen
    engine, tokenizer = Engine(bundle), questions.tokenizer
    expected = np.empty((len(own), ROWS))
    for group, params in enumerate(own):
        sampling = Sampling(temperature, seed=derive_seed(seed, "texts"))
        for row, number in enumerate(ids):
            question = questions.questions[number]
            prompts = [questions.questions[other].prompt for other in ids]
            texts = Generator(engine, tokenizer).generate(
                prompts, params[row], GenerationConfig(NEW, sampling)
            )
            expected[group, row] = -high_words(texts[row].stream.text.strip(), question.fields)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected)) > 2
    private = method == "auto"
    kept = expected if private else expected.mean(axis=1, keepdims=True)
    rounds = record.losses if len(record.losses) == len(kept) else record.losses[: len(kept)]
    np.testing.assert_array_equal(rounds, kept.astype(np.float32))


def test_a_centre_has_the_luck_of_what_it_is_compared_with(
    bundle, questions, tmp_path, monkeypatch
):
    """One-sided differences would be mostly draws otherwise; the seeds of directions differ."""
    config = dataclasses.replace(CONFIG, method="fzoo", temperature=1.0, lr=1e-6, eps=1e-9)
    with Tuner.open(bundle, questions, config, tmp_path / "run", reward=high_words) as tuner:
        tuner.step()
    (record,) = read_journal(tmp_path / "run" / "journal.bin").records
    assert len(record.losses) > 2
    assert len(np.unique(record.losses)) == 1  # by a perturbation of nothing, nothing changes


@pytest.mark.parametrize("objective", ["exact-match", "f1"])
def test_answers_are_compared_with_those_of_the_rows(bundle, questions, tmp_path, objective):
    """Half of the right answers are what the untuned model writes."""
    engine = Engine(bundle)
    texts = Generator(engine, questions.tokenizer).generate(
        questions.prompts, bundle.trainables(), GenerationConfig(NEW)
    )
    answered = QuestionSet(
        questions.examples,
        tuple(
            Question(q.prompt, (text.stream.text,) if n % 2 else ("w1 " + text.stream.text,), {})
            for n, (q, text) in enumerate(zip(questions.questions, texts, strict=True))
        ),
        questions.tokenizer,
    )
    config = dataclasses.replace(CONFIG, objective=objective)
    with Tuner.open(bundle, answered, config, tmp_path / "run") as tuner:
        found = tuner.score(answered)
    pairs = list(zip(texts, answered.questions, strict=True))
    expected = [1 - SCORES[objective](text.stream.text, q) for text, q in pairs]
    assert found == pytest.approx(np.mean(expected))
    assert found == 0.5 if objective == "exact-match" else 0.5 < found < 1


@pytest.mark.parametrize("kind", ["labels", "candidates"])
@pytest.mark.parametrize("objective", ["accuracy", "f1"])
def test_classes_are_scored_by_how_often_they_are_right(bundle, tmp_path, objective, kind):
    examples = random_set(kind, SIZES, 0)
    config = dataclasses.replace(CONFIG, objective=objective, lr=1e-30, eps=1e-6, batch_size=8)
    with Tuner.open(bundle, examples, config, tmp_path / "run") as tuner:
        report = tuner.step()
        with pytest.raises(UsageError, match="no answers are generated"):
            tuner.score(QuestionSet(examples, (), tokenizer_of(bundle)))
    found = evaluate(Engine(bundle), bundle.trainables(), examples, scope="all")
    labels = np.array([example.label for example in examples])
    right = found.accuracy
    if objective == "f1":
        right = macro_f1(labels, found.predictions, examples.num_classes)
        assert right == found.f1
    assert 1 - report.loss == pytest.approx(right, abs=1e-7)


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_bits(bundle, questions, tmp_path):
    config = dataclasses.replace(CONFIG, objective="reward", temperature=0.7)
    reward = Reward.of(high_words)
    whole = run_to_the_end(bundle, questions, config, tmp_path / "whole", reward=reward)
    with Tuner.open(bundle, questions, config, tmp_path / "cut", reward=reward) as tuner:
        tuner.step()
        tuner.step()
    again = run_to_the_end(
        bundle, questions, config, tmp_path / "cut", reward=reward, resume=True, threads=1
    )
    assert again == whole
    told = replay(bundle, tmp_path / "whole" / "journal.bin")
    assert state_bits(told.state) == whole
    assert told.header.reward == reward.name
    assert "high_words sha256:" in reward.name


def test_an_f1_run_of_classes_goes_on_to_the_same_bits(bundle, tmp_path):
    examples = random_set("labels", SIZES, 0)
    config = dataclasses.replace(CONFIG, objective="f1")
    whole = run_to_the_end(bundle, examples, config, tmp_path / "whole")
    assert resumed_bits(bundle, examples, config, tmp_path / "cut", 2) == whole


def test_another_reward_does_not_continue_a_run(bundle, questions, tmp_path):
    Tuner.open(bundle, questions, CONFIG, tmp_path, reward=high_words).close()
    with pytest.raises(RunFileError, match=r"reward was '.*high_words sha256:.*"):
        Tuner.open(bundle, questions, CONFIG, tmp_path, reward=lambda text, row: 0.0)
    with pytest.raises(UsageError, match="no function was given; set `reward`"):
        Tuner.open(bundle, questions, dataclasses.replace(CONFIG, objective="reward"), tmp_path)
    with pytest.raises(RunFileError, match="objective was 'reward'"):
        Tuner.open(bundle, questions, CONFIG, tmp_path)


@pytest.mark.slow
def test_memory_pressure_changes_no_score(bundle, questions, tmp_path):
    config = dataclasses.replace(CONFIG, objective="f1")
    whole = run_to_the_end(bundle, questions, config, tmp_path / "whole")
    with Tuner.open(bundle, questions, config, tmp_path / "small", threads=1) as tuner:
        tuner.run.engine.limits = dataclasses.replace(tuner.run.engine.limits, chunk_tokens=4)
        tuner.run.engine.streamed = frozenset({0, 1})
        tuner.run.probes.objective.generator.cache_bytes = 2 * 64 * 1024
        for _ in tuner:
            pass
        assert state_bits(tuner.run.state) == whole


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"objective": "accuracy"}, "completion", "no classes"),
        ({"objective": "exact-match"}, "completion", "no answers to compare with"),
        ({"objective": "exact-match"}, "labels", "no answers are generated"),
        ({"objective": "accuracy", "first_order": 1}, "labels", "has no gradient"),
        ({"objective": "f1", "method": "auto"}, "labels", "one number per batch"),
        ({"objective": "loss", "max_new_tokens": 0}, "labels", "`max_new_tokens`"),
        ({"objective": "loss", "temperature": -1.0}, "labels", "`temperature`"),
        ({"objective": "loss", "stop": ("",)}, "labels", "empty"),
        ({"objective": "beauty"}, "labels", "expected one of"),
    ],
)
def test_what_does_not_go_together_is_refused(bundle, tmp_path, change, kind, message):
    examples = random_set(kind, SIZES, 0)
    with pytest.raises(UsageError, match=message):
        Tuner.open(bundle, examples, dataclasses.replace(CONFIG, **change), tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e300, 10**400, "much", None])
def test_a_reward_is_a_number(bundle, questions, tmp_path, value):
    with (
        Tuner.open(bundle, questions, CONFIG, tmp_path, reward=lambda text, row: value) as tuner,
        pytest.raises(UsageError, match="expected a number"),
    ):
        tuner.step()


def test_errors_of_a_reward_name_it(bundle, questions, tmp_path):
    def broken(text, row):
        return row["nothing"]

    with (
        Tuner.open(bundle, questions, CONFIG, tmp_path, reward=broken) as tuner,
        pytest.raises(UsageError, match=r"broken.*KeyError: 'nothing'"),
    ):
        tuner.step()


def test_automatic_runs_take_estimates(bundle, questions, tmp_path):
    """Exact gradients are the default for the loss alone; rates are read off the loss."""
    config = TuneConfig(objective="f1", steps=1, max_time_s=0, max_new_tokens=NEW, blocks="all")
    with Tuner.open(bundle, questions, config, tmp_path) as tuner:
        assert tuner.run.rates.num_first_order == 0
        assert tuner.run.rates.eps > 2**-13
        assert "enough to change the generated texts" in tuner.run.rates.words
        tuner.step()


def test_prompts_are_those_that_are_learned(bundle, tmp_path):
    tokenizer = tokenizer_of(bundle)
    rows = [{"q": "w20 w21", "answers": ["w30", "w31 w32"]}]
    (tmp_path / "r.jsonl").write_text(json.dumps(rows[0]) + "\n")
    found = load_questions(tmp_path / "r.jsonl", tokenizer, template="{q} w5", max_seq=30)
    (question,) = found.questions
    assert question.prompt == (20, 21, 5)
    assert question.answers == ("w30", "w31 w32")
    assert question.fields == rows[0]
    examples = load_examples(tmp_path / "r.jsonl", tokenizer, template="{q} w5", max_seq=30)
    assert prompt_of(examples.examples[0]) == (20, 21, 5)
    (tmp_path / "t.jsonl").write_text('{"text": "w20 w21"}\n')
    with pytest.raises(Exception, match="no answer to compare with"):
        load_questions(tmp_path / "t.jsonl", tokenizer, max_seq=30)


@pytest.mark.slow
def test_a_reward_rises(bundle, questions, tmp_path):
    """Share of even words, .54 of the untuned model; what back-propagation has no slope for."""

    def even(text: str, row) -> float:
        words = text.split()
        return sum(int(word[1:]) % 2 == 0 for word in words) / max(1, len(words))

    config = dataclasses.replace(
        CONFIG, method="auto", steps=60, batch_size=8, lr=0.09, eps=0.1, average=0.9
    )
    with Tuner.open(bundle, questions, config, tmp_path, reward=even) as tuner:
        before = tuner.score(questions)
        for _ in tuner:
            pass
        assert tuner.score(questions) > before + 0.1
