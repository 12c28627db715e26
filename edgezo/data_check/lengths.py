"""Tokens of rows, and what a longest row cuts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgezo.data_check.findings import Finding
from edgezo.wording import percent
from edgezo_runtime.data.example_set import ExampleSet

_STEP = 16
"""A proposed longest row is a multiple of it."""

_LEAST = 32


def length_findings(name: str, examples: ExampleSet) -> list[Finding]:
    """Lengths of the rows of a split, what is cut, and what the reader warns of.

    Args:
        name: of the split.
        examples: its rows, tokenized.
    """
    lengths = np.sort(examples.lengths())
    half, most = lengths[len(lengths) // 2], lengths[-1]
    last = lengths[min(len(lengths) - 1, int(0.95 * len(lengths)))]
    text = f"{name} rows have {half} tokens (median), {last} (95 %), {most} at most"
    found = [Finding("lengths", text)]
    cut = examples.report.truncation
    if cut.rows:
        share = percent(cut.rows / max(1, examples.report.rows))
        rows, are = ("row", "is") if cut.rows == 1 else ("rows", "are")
        told = (
            f"{cut.rows:,} {name} {rows} ({share}) {are} longer than {examples.max_seq} tokens and "
            f"{are} cut: prompts lose {cut.prompt_tokens:,} tokens, answers "
            f"{cut.completion_tokens:,}; raise `max_seq` to keep more"
        )
        found.append(Finding("cut", told, True))
    others = [own for own in examples.warnings if own.name != "truncated"]
    found += [Finding(own.name, f"{name} rows: {own.message}", True) for own in others]
    return found


def longest_row(sets: Sequence[ExampleSet], limit: int) -> int:
    """A longest row that cuts nothing, where the model takes it: a multiple of 16.

    Args:
        sets: rows, tokenized without cuts where possible.
        limit: most tokens that the model takes.
    """
    most = max((int(own.lengths().max()) for own in sets), default=0)
    return min(limit, max(_LEAST, -(-(most + 1) // _STEP) * _STEP))
