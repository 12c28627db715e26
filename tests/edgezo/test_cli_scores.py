"""`edgezo tune` of scores and rewards: options, receipts, continuing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgezo_runtime.journal.journal import read_journal
from tests.edgezo.conftest import Invoke, Tiny

REWARD = """
def score(text, row):
    return sum(word == row["prompt"].split()[0] for word in text.split())

def broken(text, row):
    return None
"""
FAST = ("--budget", "8GB", "--steps", "3", "--max-time", "0", "--batch-size", "4")
SHORT = ("--max-new-tokens", "4", "--method", "zo-sgd", "--lr", "0.01", "--eps", "0.5")


@pytest.fixture
def reward(tmp_path: Path) -> Path:
    """A file with functions."""
    file = tmp_path / "mine.py"
    file.write_text(REWARD)
    return file


@pytest.mark.slow
def test_a_reward_is_tuned_for_and_named(
    invoke: Invoke, tiny: Tiny, reward: Path, tmp_path: Path
) -> None:
    data = ("--data", tiny.prompts, "--valid", tiny.prompts)
    args = ("tune", tiny.int8, *FAST, *SHORT, *data, "-o", "run", "--json")
    result = json.loads(invoke(*args, "--reward", f"{reward}:score").stdout)
    assert result["status"] == "done"
    assert result["objective"].startswith("mine.py:score sha256:")
    assert 0 <= result["score_before"] <= 4
    assert result["score_after"] is not None
    header = read_journal(tmp_path / "run" / "journal.bin").header.meta
    assert header["reward"] == result["objective"]
    assert header["config"]["objective"] == "reward"
    # the same command goes on with the run, and finds it finished
    again = json.loads(invoke(*args, "--reward", f"{reward}:score").stdout)
    assert again["adapter_sha256"] == result["adapter_sha256"]


@pytest.mark.slow
def test_a_run_never_names_code_to_load(
    invoke: Invoke, tiny: Tiny, reward: Path, tmp_path: Path
) -> None:
    """A folder that came from a stranger could name any file."""
    args = ("tune", tiny.int8, *FAST, *SHORT, "--data", tiny.prompts, "-o", "run")
    invoke(*args, "--reward", f"{reward}:score")
    assert "mine.py" not in (tmp_path / "run" / "config.json").read_text()
    told = invoke("tune", "--resume", "-o", "run", code=2).stderr
    assert "set --reward" in told
    invoke("tune", "--resume", "-o", "run", "--reward", f"{reward}:score")
    reward.write_text(REWARD + "\n# another one\n")
    told = invoke("tune", "--resume", "-o", "run", "--reward", f"{reward}:score", code=1).stderr
    assert "reward was 'mine.py:score sha256:" in told
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"reward": f"{reward}:score"}))
    assert "unknown setting 'reward'" in invoke(*args, "--config", settings, code=2).stderr


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mine.py", "expected FILE.py:FUNCTION"),
        ("none.py:score", "cannot be read"),
        ("mine.py:nothing", "no function 'nothing'"),
        ("mine.py:a b", "expected FILE.py:FUNCTION"),
        ("mine.txt:score", "not a Python file"),
        ("wrong.py:score", "SyntaxError"),
        ("mine.py:broken", "expected a number"),
    ],
)
def test_rewards_that_cannot_be_used_say_why(
    invoke: Invoke, tiny: Tiny, reward: Path, spec: str, message: str
) -> None:
    (reward.parent / "mine.txt").write_text(REWARD)
    (reward.parent / "wrong.py").write_text("def")
    args = ("tune", tiny.int8, *FAST, *SHORT, "--data", tiny.prompts, "-o", "run")
    assert message in invoke(*args, "--reward", spec, code=2).stderr


def test_a_reward_file_is_a_module_like_any_other(
    invoke: Invoke, tiny: Tiny, tmp_path: Path
) -> None:
    """Dataclasses look up the module they stand in where annotations are strings."""
    file = tmp_path / "typed.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Judge:\n"
        "    weight: float\n"
        "    def __call__(self, text, row):\n"
        "        return self.weight * len(text)\n"
        "score = Judge(0.5)\n"
    )
    args = ("tune", tiny.int8, *FAST, *SHORT, "--data", tiny.prompts, "-o", "run")
    invoke(*args, "--reward", f"{file}:score")
    assert not (tmp_path / "__pycache__").exists()  # an old one could be what runs
    file.write_text("import sys\nsys.exit(0)\n")
    assert "SystemExit" in invoke(*args, "--reward", f"{file}:score", code=2).stderr


@pytest.mark.slow
@pytest.mark.parametrize(("score", "told"), [("1.0", True), ("len(text)", False)])
def test_scores_that_are_all_alike_are_told_of(
    invoke: Invoke, tiny: Tiny, tmp_path: Path, score: str, told: bool
) -> None:
    file = tmp_path / "flat.py"
    file.write_text(f"def score(text, row):\n    return {score}\n")
    args = ("tune", tiny.int8, *FAST, *SHORT, "--data", tiny.prompts, "-o", "run", "--json")
    done = invoke(*args, "--steps", "12", "--reward", f"{file}:score")
    assert ("all probes have scored alike" in done.stderr) == told
    assert bool(json.loads(done.stdout)["events"]) == told


@pytest.mark.slow
def test_a_reward_that_fails_on_the_way_loses_nothing(
    invoke: Invoke, tiny: Tiny, tmp_path: Path
) -> None:
    file = tmp_path / "frail.py"
    file.write_text(
        "calls = 0\n"
        "def score(text, row):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    return 1.0 if calls <= 20 else 1 / 0\n"
    )
    args = ("tune", tiny.int8, *FAST, *SHORT, "--data", tiny.prompts, "-o", "run")
    told = invoke(*args, "--reward", f"{file}:score", code=2).stderr
    assert "ZeroDivisionError" in told
    assert "state after 2 steps is saved" in told
    assert "--adapter run" in told
    receipt = json.loads((tmp_path / "run" / "receipt.json").read_text())
    assert receipt["status"] == "reward-failed"
    assert receipt["steps"] == 2
    file.write_text("def score(text, row):\n    return 1.0\n")
    more = ("--adapter", "run", "-o", "other")
    invoke(*args[:-2], *more, "--reward", f"{file}:score")


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["exact-match", "f1"])
def test_scores_of_answers_are_in_the_receipt(invoke: Invoke, tiny: Tiny, objective: str) -> None:
    data = ("--data", tiny.prompts, "--valid", tiny.prompts, "--objective", objective)
    args = ("tune", tiny.int8, *FAST, *SHORT, *data, "-o", "run", "--json")
    result = json.loads(invoke(*args).stdout)
    assert result["objective"] == objective
    args = ("eval", tiny.int8, "--data", tiny.prompts, "--answers", "--max-new-tokens", "4")
    found = json.loads(invoke(*args, "--json").stdout)
    name = objective.replace("-", "_")
    assert result["score_before"] == pytest.approx(found[name])
    found = json.loads(invoke(*args, "--adapter", "run", "--json").stdout)
    assert result["score_after"] == pytest.approx(found[name])
    assert result["plan"]["ledger"]["texts"] > 0


def test_texts_are_planned_for_with_their_prompts(invoke: Invoke, tiny: Tiny) -> None:
    args = ("plan", tiny.int8, "--budget", "8GB", "--objective", "exact-match")
    assert "give --data" in invoke(*args, code=2).stderr
    assert "keys and values of" in invoke(*args, "--data", tiny.prompts).stdout


@pytest.mark.slow
def test_accuracy_is_descended_by_any_method(invoke: Invoke, tiny: Tiny) -> None:
    args = ("tune", tiny.int8, *FAST, "--data", tiny.data, "--objective", "accuracy", "--json")
    result = json.loads(invoke(*args, "-o", "run").stdout)
    assert result["first_order_blocks"] == []
    assert result["objective"] == "accuracy"
    told = invoke(*args, "-o", "other", "--first-order", "1", code=2).stderr
    assert "has no gradient" in told
    assert (
        "one number per batch"
        in invoke(
            "tune", tiny.int8, *FAST, "--data", tiny.data, "--objective", "f1", "-o", "f", code=2
        ).stderr
    )
    args = ("tune", tiny.int8, *FAST, *SHORT, "--data", tiny.data, "--objective", "f1", "-o", "f")
    invoke(*args)
