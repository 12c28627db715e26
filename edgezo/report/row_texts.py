"""Texts of the rows that a run keeps as tokens, by the tokenizer of its bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgezo.runs.evaluated_rows import KeptRow
from edgezo.runs.run_record import RunRecord
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.sources import open_tokenizer
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import EdgezoError


@dataclass(frozen=True, slots=True)
class RowText:
    """A row in words.

    Attributes:
        row: the row.
        prompt: text before the answer; begins with an ellipsis if the row is longer.
        answer: right answer; of a class, its label word.
    """

    row: KeptRow
    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Texts that two adapters write after the same prompt.

    Attributes:
        prompt: the end of the prompt.
        right: what the row says.
        before: text with the initial adapter.
        after: text with the tuned adapter.
    """

    prompt: str
    right: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class RunTexts:
    """Texts of a run.

    Attributes:
        worst: rows with the largest losses, by set, then by "before" or "after".
        samples: texts before and after.
        note: why there are none; empty if there are.
    """

    worst: Mapping[str, Mapping[str, Sequence[RowText]]] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    note: str = ""


def open_bundle(run: RunRecord, path: Path | None = None) -> Bundle:
    """The bundle of a run.

    Args:
        run: the run.
        path: the bundle; None takes the place that the run knows.
    Raises:
        EdgezoError: the bundle is missing, or is not that of the run.
    """
    place = path if path is not None else run.settings.get("bundle")
    if not isinstance(place, (str, Path)):
        raise EdgezoError("the run does not say where its bundle is; give --bundle DIR")
    if path is None and not Path(place).exists():
        raise EdgezoError(f"its bundle {place} is not there; give --bundle DIR")
    bundle = Bundle.open(place, verify=False)
    name = bundle.manifest.tokenizer.file
    if run.header is not None and name in run.header.bundle:
        own = bundle.manifest.files[name].sha256
        if run.header.bundle[name] != own:
            raise EdgezoError(f"{place} has another tokenizer than the run; give --bundle DIR")
    return bundle


def read_texts(run: RunRecord, bundle: Path | None = None) -> RunTexts:
    """The texts of the rows that a run keeps; without them, the reason.

    Args:
        run: the run.
        bundle: its bundle; None takes the place that the run knows.
    """
    if not run.rows.sets:
        return RunTexts(note="the run keeps no rows: none were evaluated")
    try:
        tokenizer = open_tokenizer(open_bundle(run, bundle))
    except EdgezoError as error:
        return RunTexts(note=f"texts are left out: {error}")
    return RunTexts(
        {
            split: {
                when: [row_text(row, tokenizer, run.labels) for row in found.worst]
                for when, found in own.items()
            }
            for split, own in run.rows.sets.items()
        }
    )


def row_text(row: KeptRow, tokenizer: TextTokenizer, labels: Sequence[str]) -> RowText:
    """A row in words; tokens that the tokenizer lacks are left out."""
    known = tokenizer.core.get_vocab_size()
    tokens = [token for token in row.tokens if 0 <= token < known]
    prompt = tokenizer.decode(tokens[: row.answer])
    if 0 <= row.label < len(labels):
        answer = labels[row.label]
    else:
        answer = tokenizer.decode(tokens[row.answer :])
    return RowText(row, ("… " if row.cut else "") + prompt.strip(), answer)
