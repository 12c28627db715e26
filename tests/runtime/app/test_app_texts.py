"""Texts that an app asks for while a run steps, and rewards for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo import GenerationConfig, Sampling, Tuner
from edgezo_runtime.adapters.adapter import load_adapter, make_adapter
from edgezo_runtime.budget.generation_plan import room_beside
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import DataError, DoesNotFitError, InterruptedRunError, UsageError
from edgezo_runtime.generation.generator import Generator
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.system.memory_guard import MemoryGuard

pytestmark = pytest.mark.usefixtures("unsynced")

ROWS = [{"prompt": f"w{20 + n} w{40 + n}", "completion": f" w{60 + n}"} for n in range(6)]
QUESTIONS = [{"text": row["prompt"], "answer": row["completion"]} for row in ROWS]
CONFIG = method_config(
    "zo-sgd", lr=0.05, eps=0.1, steps=5, max_time_s=0, batch_size=4, max_new_tokens=6
)
NEW = GenerationConfig(12)


def expected(
    bundle: Bundle,
    tuner: Tuner,
    prompt: str,
    writing: GenerationConfig = NEW,
    *,
    special: bool = True,
) -> str:
    """The text that another engine writes with the same adapter."""
    tokenizer = TextTokenizer.open(bundle.root, bundle.manifest.tokenizer)
    tokens = tokenizer.encode(prompt, add_special=special)
    writer = Generator(Engine(bundle), tokenizer, scope=tuner.run.scope)
    return writer.generate([tokens], tuner.adapter(), writing)[0].stream.text


def test_a_text_is_the_adapters(bundle: Bundle, tmp_path: Path) -> None:
    with Tuner.open(bundle, ROWS, CONFIG, tmp_path) as tuner:
        before = tuner.generate("w20 w40", NEW)
        assert before == expected(bundle, tuner, "w20 w40")
        for _ in tuner:
            pass
        after = tuner.generate("w20 w40", NEW)
        assert after == expected(bundle, tuner, "w20 w40") != before
        pieces = list(tuner.stream("w20 w40", NEW))
        assert len(pieces) > 1
        assert "".join(pieces) == after
        drawn = GenerationConfig(12, Sampling(temperature=1.0, seed=7))
        assert tuner.generate("w20", drawn) == expected(bundle, tuner, "w20", drawn)
        with pytest.raises(UsageError, match="a row has no prompt without a template"):
            tuner.generate(ROWS[0])
        with pytest.raises(UsageError, match="max_new_tokens"):
            tuner.generate("w20", GenerationConfig(10**6))


def test_a_row_is_asked_by_the_template(bundle: Bundle, tmp_path: Path) -> None:
    with Tuner.open(bundle, QUESTIONS, CONFIG, tmp_path, template="{text} w4") as tuner:
        found = tuner.generate({"text": "w20 w40"}, NEW)
        assert found == expected(bundle, tuner, "w20 w40 w4")
        with pytest.raises(DataError, match="no field 'text'"):
            tuner.generate({"txt": "w1"})


def test_messages_need_a_chat_template(bundle: Bundle, tmp_path: Path) -> None:
    with Tuner.open(bundle, ROWS, CONFIG, tmp_path) as tuner:
        with pytest.raises(DataError, match="'content' is absent"):
            tuner.generate([{"role": "user"}])
        with pytest.raises(Exception, match="chat template"):
            tuner.generate([{"role": "user", "content": "w1"}])
        with pytest.raises(DataError, match="the last message is the assistant's"):
            tuner.generate([{"role": "assistant", "content": "w1"}])


@pytest.mark.parametrize("prompt", [[1, 2], ["w1"], 5, 5.0, b"w1", None])
def test_what_is_no_prompt_is_refused(bundle: Bundle, tmp_path: Path, prompt: Any) -> None:
    with Tuner.open(bundle, ROWS, CONFIG, tmp_path) as tuner:
        with pytest.raises(UsageError, match="expected a text, a row, or a list of messages"):
            tuner.generate(prompt)
        with pytest.raises(DataError, match="UTF-8"):
            tuner.generate("w1 \ud800")


def test_texts_are_written_while_another_thread_steps(bundle: Bundle, tmp_path: Path) -> None:
    config = method_config("zo-sgd", lr=0.05, eps=0.1, steps=40, max_time_s=0, batch_size=4)
    with Tuner.open(bundle, ROWS, config, tmp_path / "alone") as alone:
        for _ in alone:
            pass
        undisturbed = alone.adapter()
    with Tuner.open(bundle, ROWS, config, tmp_path / "asked") as tuner:
        learning = tuner.run_in_background()
        texts = {tuner.generate("w20 w40", NEW) for _ in range(5)}
        learning.join()
        assert texts
        for name, value in tuner.adapter().items():
            assert np.array_equal(value, undisturbed[name])


def test_a_budget_leaves_keys_and_values_what_is_left(bundle: Bundle, tmp_path: Path) -> None:
    engine = Engine(bundle)
    assert room_beside(engine) is None
    engine.guard = MemoryGuard(10**9, resident=lambda: 2 * 10**9)
    assert room_beside(engine) == 0
    engine.close()
    with Tuner.open(bundle, ROWS, CONFIG, tmp_path, budget="8GB") as tuner:
        assert tuner.generate("w20 w40", NEW) == expected(bundle, tuner, "w20 w40")
        guard = tuner.run.engine.guard
        tuner.run.engine.guard = MemoryGuard(10**9, resident=lambda: 2 * 10**9)
        with pytest.raises(DoesNotFitError, match="not even one token fits"):
            tuner.generate("w20 w40", NEW)
        tuner.run.engine.guard = guard
        assert tuner.step().step == 0  # the run is none the worse


def likes_length(text: str, row: Mapping[str, Any]) -> float:
    return float(len(text)) + len(row["text"]) / 100


def test_a_reward_of_rows_in_memory(bundle: Bundle, tmp_path: Path) -> None:
    with Tuner.open(
        bundle, QUESTIONS, CONFIG, tmp_path, template="{text} w4", reward=likes_length
    ) as tuner:
        for _ in tuner:
            pass
        score = tuner.score(QUESTIONS)
        writing = GenerationConfig(CONFIG.max_new_tokens)
        texts = [tuner.generate(row, writing).strip() for row in QUESTIONS]
        rewards = [likes_length(t, row) for t, row in zip(texts, QUESTIONS, strict=True)]
        assert score == pytest.approx(np.mean(rewards))
        with pytest.raises(UsageError, match="scored by its texts"):
            tuner.add(QUESTIONS[:1])
    with Tuner.open(
        bundle, QUESTIONS, CONFIG, tmp_path, template="{text} w4", reward=likes_length
    ) as again:
        assert again.step_number == 5
        assert again.score(QUESTIONS) == score


def test_a_loss_is_no_score(bundle: Bundle, tmp_path: Path) -> None:
    with (
        Tuner.open(bundle, ROWS, CONFIG, tmp_path) as tuner,
        pytest.raises(UsageError, match="use evaluate"),
    ):
        tuner.score(ROWS)


def test_a_reward_goes_on_from_an_adapter(bundle: Bundle, tmp_path: Path) -> None:
    with Tuner.open(bundle, ROWS, CONFIG, tmp_path / "first") as tuner:
        for _ in tuner:
            pass
        first = tuner.adapter()
    file = tmp_path / "adapter.safetensors"
    make_adapter(file, bundle, first, steps=5, created_by="test", scope="all").save(file)
    with Tuner.open(
        bundle,
        QUESTIONS,
        CONFIG,
        tmp_path / "second",
        template="{text} w4",
        reward=likes_length,
        adapter=load_adapter(file),
    ) as tuner:
        for name, value in tuner.run.trajectory.initial().items():
            assert np.array_equal(value, first[name])
        tuner.step()


def test_one_example_a_step_leaves_room_for_evaluations(bundle: Bundle, tmp_path: Path) -> None:
    """Those write two texts at once, and their prompts may be longer than the run's."""
    config = dataclasses.replace(CONFIG, batch_size=1)
    more = [{"text": f"w20 {'w30 ' * 25}w40", "answer": " w60"}] * 3
    with Tuner.open(
        bundle,
        QUESTIONS,
        config,
        tmp_path,
        template="{text} w4",
        reward=likes_length,
        budget="8GB",
    ) as tuner:
        tuner.step()
        assert tuner.score(QUESTIONS) > 0
        assert tuner.score(more) > 0


def test_a_reward_that_is_slow_is_ended_by_stop(bundle: Bundle, tmp_path: Path) -> None:
    """Between two rewards, not after those of a whole batch."""
    called: list[str] = []

    def slow(text: str, row: Mapping[str, Any]) -> float:
        called.append(text)
        tuner.stop()
        return 1.0

    with Tuner.open(
        bundle, QUESTIONS, CONFIG, tmp_path, template="{text} w4", reward=slow
    ) as tuner:
        with pytest.raises(InterruptedRunError):
            tuner.step()
        assert len(called) == 1
        assert tuner.step_number == 0


def test_a_reward_may_change_its_row(bundle: Bundle, tmp_path: Path) -> None:
    def takes(text: str, row: Any) -> Any:
        return np.bool_(row.pop("answer") is not None)

    with Tuner.open(
        bundle, QUESTIONS, CONFIG, tmp_path, template="{text} w4", reward=takes
    ) as tuner:
        tuner.step()
        assert tuner.score(QUESTIONS) == tuner.score(QUESTIONS) == 1.0
