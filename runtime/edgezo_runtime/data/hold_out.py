"""Rows held out of the training data, to evaluate on: a tenth, chosen by the seed of the run.

The choice is a function of the rows and the seed, not of the order of the rows. Rows with the same
tokens stay on one side, and classes are held out in proportion.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgezo_runtime.data.example_set import Example, ExampleSet, LoadReport, TruncationReport
from edgezo_runtime.data.questions import QuestionSet

SHARE = 10
"""One row of so many is held out."""

FEWEST, MOST = 20, 200
"""Rows that are held out at least, and at most."""

FEWEST_IN_ALL = 60
"""Rows below which none is held out: the rest would be too few to tune on."""


@dataclass(frozen=True, slots=True)
class HoldOut:
    """A division of rows.

    Attributes:
        train: indices of the rows to tune on, ascending.
        held_out: indices of the rows that are held out, ascending; empty if none are.
        reason: why none are held out; empty if some are.
    """

    train: tuple[int, ...]
    held_out: tuple[int, ...]
    reason: str = ""


def hold_out(rows: Sequence[bytes], classes: Sequence[int], seed: int) -> HoldOut:
    """Divide rows into those to tune on and those to evaluate on.

    Args:
        rows: the content of each row; rows with the same content stay together.
        classes: the class of each row; one number for all rows that have none.
        seed: seed of the run.
    Returns:
        The division. Every class keeps a row to tune on. A tenth of the rows is held out, at least
        `FEWEST` and at most `MOST`; a few less where rows with the same content would be divided.
    """
    everything = tuple(range(len(rows)))
    if len(rows) < FEWEST_IN_ALL:
        return HoldOut(
            everything,
            (),
            f"{len(rows)} rows are too few to hold out {FEWEST} and tune on the rest, "
            f"{FEWEST_IN_ALL} would be enough",
        )
    wanted = min(MOST, max(FEWEST, round(len(rows) / SHARE)))
    found = _chosen(rows, classes, seed, wanted)
    if len(found) < FEWEST:
        return HoldOut(
            everything, (), f"too many of the {len(rows)} rows are the same to hold out {FEWEST}"
        )
    return HoldOut(tuple(index for index in everything if index not in found), tuple(sorted(found)))


def _chosen(rows: Sequence[bytes], classes: Sequence[int], seed: int, wanted: int) -> set[int]:
    """Choose groups of the same rows, class by class, then from all classes."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[row].append(index)
    order = sorted(groups.values(), key=lambda group: _rank(rows[group[0]], seed))
    left = Counter(classes)  # rows of each class to tune on
    found: set[int] = set()

    def take(candidates: list[list[int]], limit: int) -> None:
        """Take whole groups until there are `limit` rows."""
        for group in candidates:
            own = Counter(classes[index] for index in group)
            fits = len(found) + len(group) <= limit
            if fits and group[0] not in found and all(left[c] > own[c] for c in own):
                found.update(group)
                left.subtract(own)

    for label, quota in _quotas(left, wanted):
        take([group for group in order if classes[group[0]] == label], len(found) + quota)
    take(order, wanted)
    return found


def _quotas(counts: Counter[int], wanted: int) -> Iterator[tuple[int, int]]:
    """Divide a number of rows among classes in proportion, by the largest remainders."""
    total = sum(counts.values())
    shares = {label: divmod(count * wanted, total) for label, count in sorted(counts.items())}
    rest = wanted - sum(whole for whole, _ in shares.values())
    first = sorted(shares, key=lambda label: (-shares[label][1], label))[:rest]
    for label, (whole, _) in shares.items():
        yield label, whole + (label in first)


def _rank(row: bytes, seed: int) -> bytes:
    return hashlib.sha256(f"hold out {seed}\n".encode() + row).digest()


def divide(
    rows: ExampleSet | QuestionSet, seed: int
) -> tuple[ExampleSet | QuestionSet, ExampleSet | QuestionSet | None, str]:
    """Divide examples or questions.

    Args:
        rows: the rows of a run.
        seed: seed of the run.
    Returns:
        Rows to tune on, whose `held_out` says how many are missing; the held-out rows, or None; and
        why there are none, or "". The report of the load stays with the rows to tune on.
    """
    examples = rows if isinstance(rows, ExampleSet) else rows.examples
    found = hold_out([_content(e) for e in examples], [e.label for e in examples], seed)
    if not found.held_out:
        return rows, None, found.reason
    train = replace(_part(examples, found.train), held_out=len(found.held_out))
    held_out = _part(examples, found.held_out)
    lengths = held_out.lengths()
    size, longest = int(lengths.sum()), int(lengths.max())
    report = LoadReport(len(found.held_out), size, longest, TruncationReport())
    held_out = replace(held_out, report=report)
    if isinstance(rows, ExampleSet):
        return train, held_out, ""
    own = [tuple(rows.questions[n] for n in part) for part in (found.train, found.held_out)]
    return (
        replace(rows, examples=train, questions=own[0]),
        replace(rows, examples=held_out, questions=own[1]),
        "",
    )


def _content(example: Example) -> bytes:
    """What the model reads of a row; the class is left out, so that no prompt is on both sides."""
    return example.tokens.astype("<i4").tobytes() + b"|" + example.places.astype("<i4").tobytes()


def _part(examples: ExampleSet, indices: Sequence[int]) -> ExampleSet:
    """Some examples, numbered anew; their lines are those of the file."""
    chosen = tuple(
        replace(examples.examples[index], example_id=number) for number, index in enumerate(indices)
    )
    return replace(examples, examples=chosen)
