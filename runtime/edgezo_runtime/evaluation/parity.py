"""Agreement of two programs on an adapter: scores of both on the same rows, compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.data.batches import SequentialBatches
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.random_rows import random_rows
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.errors import DivergedError

Float32 = npt.NDArray[np.float32]

_ROWS, _TOKENS, _LABELS = 8, 12, 32
_BATCH = 8


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rows whose next tokens are scored.

    Attributes:
        rows: token ids of each.
        label_ids: the tokens whose logits are compared.
        scope: tokens the adapter acts on: all, or the last of each row.
    """

    rows: tuple[npt.NDArray[np.int32], ...]
    label_ids: tuple[int, ...]
    scope: Scope

    @property
    def answers(self) -> bool:
        """Does the adapter act on the last token alone?"""
        return self.scope == "answer"


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Logits of the labels behind each row, (rows, labels) float32.

    Attributes:
        tuned: with the adapter.
        plain: without it.
    """

    tuned: Float32
    plain: Float32


@dataclass(frozen=True, slots=True)
class Agreement:
    """Differences between the scores of two programs.

    Attributes:
        rows: number of rows.
        scores: number of scores compared.
        largest: largest difference of two scores.
        difference: root mean square of the differences.
        effect: root mean square of the changes that the adapter makes, by edgezo.
        relative: root mean square of the difference between the two programs' changes, over
            `effect`. Other arithmetic of the base model, such as its quantization, cancels here.
        base: root mean square of the differences without the adapter.
        same: share of the rows whose best label is the same.
    """

    rows: int
    scores: int
    largest: float
    difference: float
    effect: float
    relative: float
    base: float
    same: float

    @classmethod
    def of(cls, own: Scores, other: Scores) -> Agreement:
        """Compare edgezo's scores with those of another program.

        Raises:
            DivergedError: a score is not finite, or the adapter changes nothing.
        """
        for scores in (own.tuned, own.plain, other.tuned, other.plain):
            if not np.isfinite(scores).all():
                raise DivergedError("a score is not finite, so there is nothing to compare")
        effect = own.tuned - own.plain
        size = _rms(effect)
        if size == 0:
            raise DivergedError(
                "the adapter changes no score, so nothing can be proved; is it trained?"
            )
        apart = other.tuned - own.tuned
        return cls(
            rows=len(own.tuned),
            scores=own.tuned.size,
            largest=float(np.abs(apart).max()),
            difference=_rms(apart),
            effect=size,
            relative=_rms(other.tuned - other.plain - effect) / size,
            base=_rms(other.plain - own.plain),
            same=float((own.tuned.argmax(axis=1) == other.tuned.argmax(axis=1)).mean()),
        )


def draw_sample(adapter: Adapter, vocab_size: int) -> Sample:
    """Draw rows of random tokens, always the same, that end where an answer begins."""
    info = adapter.info
    generator = np.random.default_rng(1)
    rows = generator.integers(1, vocab_size, (_ROWS, _TOKENS), np.int32)
    if info.invocation:  # it may come once only
        rows[rows == info.invocation[0]] = 0
        rows[:, -1] = info.invocation[0]
    labels = generator.permutation(vocab_size)[:_LABELS]
    return Sample(tuple(rows), tuple(int(label) for label in labels), info.scope)


def sample_of(adapter: Adapter, examples: ExampleSet, vocab_size: int) -> Sample:
    """Take prompts of a data set, each up to where its answer begins.

    For an adapter that acts on every token, short prompts of completions continue into the answer:
    behind one or two tokens, attention hardly tells one order of q and k from another.
    """
    completes = examples.kind == "completion"
    before = 0 if completes else 1
    least = _TOKENS if completes and adapter.info.scope == "all" else 0
    rows = [one.tokens[: max(int(one.places[0]) + before, least)] for one in examples]
    known = [tokens[0] for tokens in examples.label_tokens]
    drawn = draw_sample(adapter, vocab_size).label_ids
    labels = tuple(dict.fromkeys([*known, *drawn]))[:_LABELS]
    return Sample(tuple(rows[:_ROWS]), labels, adapter.info.scope)


def own_scores(
    engine: Engine, params: Mapping[str, Float32], plain: Mapping[str, Float32], sample: Sample
) -> Scores:
    """Edgezo's scores.

    Args:
        engine: runs the bundle.
        params: every trainable, with the adapter.
        plain: without it.
        sample: the rows.
    """
    examples = _examples(sample, engine.bundle.manifest.model.vocab_size)
    return Scores(*(_logits(engine, values, examples, sample.scope) for values in (params, plain)))


def _logits(
    engine: Engine, params: Mapping[str, Float32], examples: ExampleSet, scope: Scope
) -> Float32:
    found = np.empty((len(examples), len(examples.label_tokens)), np.float32)
    shared = SharedParams(params)
    for batch in SequentialBatches(examples, _BATCH):
        found[batch.ids] = engine.score(batch, shared, scope=scope)[0]
    return found


def _examples(sample: Sample, vocab_size: int) -> ExampleSet:
    made = random_rows(len(sample.rows), 2, vocab_size, sample.label_ids)
    examples = tuple(
        dataclasses.replace(one, tokens=row, places=np.array([len(row) - 1], np.int32))
        for one, row in zip(made, sample.rows, strict=True)
    )
    return dataclasses.replace(made, examples=examples, max_seq=max(map(len, sample.rows)))


def _rms(values: Float32) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def last_logits(rows: Sequence[Float32], sample: Sample) -> Float32:
    """Logits of the labels, of the whole vocabulary's (V,) of each row."""
    return np.stack([row[list(sample.label_ids)] for row in rows]).astype(np.float32)
