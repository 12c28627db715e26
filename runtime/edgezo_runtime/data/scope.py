"""Which tokens adapters act on.

With "answer" an adapter acts from the first scored token on: in a classification prompt on its last
token alone. Everything before is the frozen model's own, so its keys and values are computed once
for the whole run, and a step evaluates one token a row. Others know such adapters as activated LoRA
(Greenewald et al. 2025, arXiv:2504.12397).
"""

from __future__ import annotations

from typing import Literal

from edgezo_runtime.bundle.trainables import SchemeInfo
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.errors import UsageError

Scope = Literal["all", "answer"]


def invocation(examples: ExampleSet) -> tuple[int, ...]:
    """The token at which the answer of every example begins; empty if there is no such token.

    Other programs begin to apply an adapter at the last place of this token, so it must not come
    again in an answer.
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
    """What "auto" means: "answer" where it is faster and other programs can express it.

    Args:
        wanted: as configured.
        examples: training data.
        continues: can the bundle's blocks go on from earlier keys and values?
        scheme: of the bundle.
    Raises:
        UsageError: "answer", and the bundle's trainables act on every token by their nature.
    """
    if scheme.everywhere:
        if wanted == "answer":
            raise UsageError(
                f"--scope answer: {scheme.kind} changes what the model makes of every token; use "
                f"--scope all, or a bundle exported with another --trainable"
            )
        return "all"
    if wanted != "auto":
        return wanted
    return "answer" if continues and examples.kind == "labels" and invocation(examples) else "all"
