"""Scopes: the token from which adapters act, and what "auto" stands for."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from edgezo_runtime.bundle.trainables import SchemeInfo, SchemeKind
from edgezo_runtime.data.example_set import ExampleSet, Kind
from edgezo_runtime.data.scope import Scope, choose_scope, invocation
from edgezo_runtime.errors import UsageError
from tests.runtime.tiny_sets import random_set

KINDS = ("labels", "candidates", "completion")


def with_last_token(kind: Kind, last: int | None) -> ExampleSet:
    """A set whose tokens before the answers are the same, or random ones."""
    examples = random_set(kind, (3, 5, 4), 0)
    if last is None:
        return examples
    place = 1 if kind == "completion" else 0
    for example in examples:
        example.tokens[example.places[0] - place] = last
    return examples


@pytest.mark.parametrize("kind", KINDS)
def test_invocation_is_the_token_before_every_answer(kind: Kind) -> None:
    assert invocation(with_last_token(kind, None)) == ()
    assert invocation(with_last_token(kind, 42)) == (42,)


def test_a_token_that_comes_again_is_no_invocation() -> None:
    """Pins adapters that PEFT would begin to apply later than edgezo does."""
    again = with_last_token("completion", 42)
    again.examples[1].tokens[-1] = 42
    assert invocation(again) == ()
    words = with_last_token("candidates", 8)  # a token of a label word
    assert invocation(words) == ()


LORA = SchemeInfo("lora", ("down_proj",), 1, 1.0, "b")


def test_auto_takes_answers_where_it_pays_and_can_be_expressed() -> None:
    same, differ = with_last_token("labels", 42), with_last_token("labels", None)
    assert choose_scope("auto", same, True, LORA) == "answer"
    assert choose_scope("auto", same, False, LORA) == "all"
    assert choose_scope("auto", differ, True, LORA) == "all"
    assert choose_scope("auto", with_last_token("completion", 42), True, LORA) == "all"
    for wanted in get_args(Scope):
        assert choose_scope(wanted, differ, False, LORA) == wanted


@pytest.mark.parametrize("kind", ["prompt", "prefix", "last-layers"])
def test_what_changes_every_token_takes_all(kind: SchemeKind) -> None:
    same, scheme = with_last_token("labels", 42), SchemeInfo(kind, tokens=(5, 6))
    assert choose_scope("auto", same, True, scheme) == "all"
    assert choose_scope("all", same, True, scheme) == "all"
    with pytest.raises(UsageError, match=f"`scope` answer: {kind} changes"):
        choose_scope("answer", same, True, scheme)


def test_one_row_that_begins_otherwise_leaves_no_invocation() -> None:
    examples = with_last_token("labels", 42)
    examples.examples[1].tokens[examples.examples[1].places[0]] = 43
    assert invocation(examples) == ()
    early = with_last_token("completion", 42)  # before the answer it may come more than once
    early.examples[1].tokens[0] = 42
    assert invocation(early) == (42,)
    assert np.unique([e.tokens[e.places[0] - 1] for e in early]).tolist() == [42]
