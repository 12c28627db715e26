"""The embedded data set: what a row holds, balance, and no leak between the splits."""

import json
import re
from collections import Counter
from importlib.resources import files
from itertools import combinations, pairwise
from typing import Any

import pytest

FOLDER = files("edgezo") / "data" / "device_commands"
SPLITS = ("train", "valid", "test")
INTENTS = ["light", "music", "timer", "weather", "message", "map", "volume", "heat"]


def read_split(split: str) -> list[dict[str, Any]]:
    """Read the rows of one split."""
    lines = (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def words(text: str) -> tuple[str, ...]:
    """Split a text into lower-case words without punctuation."""
    return tuple(re.findall(r"[a-z0-9']+", text.lower()))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Return the share of words that two non-empty sets have in common, 0 to 1."""
    return len(a & b) / len(a | b)


ROWS = {split: read_split(split) for split in SPLITS}
TASK = json.loads((FOLDER / "task.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("split", SPLITS)
def test_rows_hold_text_label_and_intent(split: str) -> None:
    for row in ROWS[split]:
        assert set(row) == {"text", "label", "intent"}
        assert type(row["label"]) is int
        assert 0 <= row["label"] < len(INTENTS)
        assert row["intent"] == INTENTS[row["label"]]
        assert row["text"] == row["text"].strip()
        assert 2 <= len(row["text"].split()) <= 20


@pytest.mark.parametrize(("split", "at_least"), [("train", 500), ("valid", 100), ("test", 100)])
def test_splits_are_large_enough_and_balanced(split: str, at_least: int) -> None:
    counts = Counter(row["label"] for row in ROWS[split])
    assert sum(counts.values()) >= at_least
    assert set(counts) == set(range(len(INTENTS)))
    assert max(counts.values()) - min(counts.values()) <= 2


@pytest.mark.parametrize("split", SPLITS)
def test_order_does_not_give_the_class_away(split: str) -> None:
    labels = [row["label"] for row in ROWS[split]]
    runs = sum(a != b for a, b in pairwise(labels))
    assert runs > 0.75 * len(labels)  # 7/8 of the neighbours differ in a shuffled file


def test_every_sentence_occurs_once() -> None:
    sentences = [words(row["text"]) for rows in ROWS.values() for row in rows]
    repeated = [sentence for sentence, count in Counter(sentences).items() if count > 1]
    assert repeated == []


@pytest.mark.parametrize(("left", "right"), list(combinations(SPLITS, 2)))
def test_no_near_copies_across_splits(left: str, right: str) -> None:
    theirs = [(row["text"], frozenset(words(row["text"]))) for row in ROWS[right]]
    near = [
        (row["text"], text)
        for row in ROWS[left]
        for text, bag in theirs
        if jaccard(frozenset(words(row["text"])), bag) >= 0.6
    ]
    assert near == []


def test_task_names_the_classes_in_order() -> None:
    assert set(TASK) == {"name", "template", "labels"}
    assert TASK["name"] == "device_commands"
    assert [label.strip() for label in TASK["labels"]] == INTENTS
    assert all(label.startswith(" ") for label in TASK["labels"])


def test_template_uses_only_the_text_field() -> None:
    assert re.findall(r"{(\w*)}", TASK["template"]) == ["text"]
    assert TASK["template"] == TASK["template"].rstrip()
