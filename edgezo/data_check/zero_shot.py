"""How well a model without tuning knows the classes, by template and label words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgezo.data_check.proposals import Proposal
from edgezo_runtime.data.batches import SequentialBatches
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.files.row import Row
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.losses import class_scores
from edgezo_runtime.errors import DataError, UsageError

ROWS = 32
"""Rows that each proposal is scored on."""

_BATCH = 16


@dataclass(frozen=True, slots=True)
class ScoredProposal:
    """A proposal and how it does.

    Attributes:
        proposal: template and label words.
        margin: score of the right class less that of the best other one, nats: the mean over the
            classes of their means.
        accuracy: share of right rows.
    """

    proposal: Proposal
    margin: float
    accuracy: float


def spread_rows(rows: Iterable[Row], total: int, count: int = ROWS) -> list[Row]:
    """Some rows, at equal distances.

    Args:
        rows: as they are read; only those that are chosen stay in memory.
        total: their number.
        count: number of rows to choose; all if there are no more.
    """
    chosen = {index * total // count for index in range(count)}
    return [row for at, row in enumerate(rows) if total <= count or at in chosen]


def score_proposals(
    engine: Engine,
    tokenizer: TextTokenizer,
    proposals: Sequence[Proposal],
    rows: Sequence[Row],
    *,
    max_seq: int,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[ScoredProposal]:
    """Score proposals, the best first; those that the rows or the tokenizer refuse are left out.

    Args:
        engine: the model.
        tokenizer: its tokenizer.
        proposals: what to try.
        rows: with a field `label`; of the training rows.
        max_seq: longest prompt, in tokens.
        tell: given the number of proposals done, and of all.
    """
    params = SharedParams(engine.bundle.trainables())
    found = []
    for done, proposal in enumerate(proposals):
        tell(done, len(proposals))
        examples = _examples(tokenizer, proposal, rows, max_seq)
        if examples is not None:
            found.append(_scored(engine, params, proposal, examples))
    tell(len(proposals), len(proposals))
    return sorted(found, key=lambda own: -own.margin)


def _examples(
    tokenizer: TextTokenizer, proposal: Proposal, rows: Sequence[Row], max_seq: int
) -> ExampleSet | None:
    try:
        reader = RowReader(tokenizer, proposal.template, proposal.labels, max_seq)
        return reader.take([row.fields for row in rows])
    except (DataError, UsageError):
        return None


def _scored(
    engine: Engine, params: SharedParams, proposal: Proposal, examples: ExampleSet
) -> ScoredProposal:
    margins: list[float] = []
    labels: list[int] = []
    for batch, scores in _passes(engine, params, examples):
        own = np.array(batch)
        right = scores[np.arange(len(own)), own]
        scores[np.arange(len(own)), own] = -np.inf
        margins += [float(value) for value in right - scores.max(axis=1)]
        labels += batch
    values, classes = np.array(margins), np.array(labels)
    by_class = [float(values[classes == label].mean()) for label in np.unique(classes)]
    return ScoredProposal(proposal, float(np.mean(by_class)), float((values > 0).mean()))


def _passes(
    engine: Engine, params: SharedParams, examples: ExampleSet
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Labels and class scores, (E, C), of each batch."""
    for batch in SequentialBatches(examples, _BATCH):
        scores = engine.score(batch, params, scope="all")
        yield list(map(int, batch.labels)), class_scores(batch, scores)[0]
