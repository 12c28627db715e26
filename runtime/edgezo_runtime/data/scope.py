"""Scopes: the tokens on which adapters act.

With the scope "answer" an adapter acts from the first scored token on: in a classification prompt
on the last token only. The tokens before it go through the frozen model, so their keys and values
are computed once per run, and a step evaluates one token per row. Such adapters are known as
activated LoRA (Greenewald et al. 2025, arXiv:2504.12397).
"""

from __future__ import annotations

from typing import Literal

from edgezo_runtime.bundle.trainables import SchemeInfo
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.errors import UsageError

Scope = Literal["all", "answer"]

ACTS_ON: dict[Scope, str] = {"all": "every token", "answer": "answers only"}
"""The scopes in words."""


def invocation(examples: ExampleSet) -> tuple[int, ...]:
    """Return the token at which the adapter begins to act in every example; empty if there is none.

    Other programs apply an adapter from the last occurrence of this token on, so the token must not
    occur again in an answer.
    """
    before = 1 if examples.kind == "completion" else 0
    starts = [int(example.places[0]) - before for example in examples]
    found = {int(example.tokens[start]) for example, start in zip(examples, starts, strict=True)}
    later = {token for word in examples.label_tokens for token in word}
    if len(found) != 1 or found & later:
        return ()
    for example, start in zip(examples, starts, strict=True):
        if (example.tokens[start + 1 :] == example.tokens[start]).any():
            return ()
    return tuple(found)


def choose_scope(
    wanted: Literal["auto", "all", "answer"],
    examples: ExampleSet,
    continues: bool,
    scheme: SchemeInfo,
) -> Scope:
    """Resolve "auto": "answer" if it is faster and other programs can express it, else "all".

    Args:
        wanted: the configured scope.
        examples: training data.
        continues: True if the bundle's blocks can continue from cached keys and values.
        scheme: scheme of the bundle.
    Raises:
        UsageError: "answer" is wanted, but the bundle's trainables always act on every token.
    """
    if scheme.everywhere:
        if wanted == "answer":
            raise UsageError(
                f"`scope` answer: {scheme.kind} changes the model's output for every token; set "
                f"`scope` to all, or use a bundle exported with another `trainable`"
            )
        return "all"
    if wanted == "answer" and examples.kind == "pairs":
        raise UsageError("`scope` answer: pairs of texts have no answers; set `scope` to all")
    if wanted != "auto":
        return wanted
    return "answer" if continues and examples.kind == "labels" and invocation(examples) else "all"
