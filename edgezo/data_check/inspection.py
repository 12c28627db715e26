"""A look at data files: what they hold, and how to ask a model about their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgezo.data_check.findings import Finding, Task, find_all, task_of, written_template
from edgezo.data_check.lengths import length_findings, longest_row
from edgezo.data_check.proposals import Proposal, has_numbered_classes, proposals
from edgezo.data_check.split_summary import SplitSummary, summarize
from edgezo.data_check.zero_shot import ScoredProposal, score_proposals, spread_rows
from edgezo_runtime.budget.memory_limits import limited_engine
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.files.data_files import DataFiles
from edgezo_runtime.data.reading import MAX_SEQ
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.sources import open_tokenizer
from edgezo_runtime.data.tokenizer import TextTokenizer

Tell = Callable[[str, int, int], None]
"""Given what is done, the number of parts done, and of all parts."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found.

    Attributes:
        task: what the rows are for.
        splits: the rows, by name of the split.
        findings: facts, in the order to show them.
        chosen: template and label words; None where rows need none, or nothing fits.
        scored: proposals that the model scored, the best first.
        max_seq: longest row that cuts nothing, in tokens; None without a model.
    """

    task: Task
    splits: Mapping[str, SplitSummary]
    findings: Sequence[Finding]
    chosen: Proposal | None = None
    scored: Sequence[ScoredProposal] = field(default=())
    max_seq: int | None = None


def inspect(
    splits: Mapping[str, DataFiles],
    bundle: Bundle | None = None,
    *,
    template: str | None = None,
    labels: Sequence[str] = (),
    max_seq: int | None = None,
    budget: int | None = None,
    tell: Tell = lambda what, done, total: None,
) -> Inspection:
    """Look at data files.

    Args:
        splits: files by name of the split; "train" is there.
        bundle: the model, for lengths and scores; None leaves them out.
        template: is given; None proposes one.
        labels: label words that are given; () proposes some.
        max_seq: longest row that is given; None finds one that cuts nothing, 512 at most.
        budget: bytes that the process may take while the model scores proposals.
        tell: shows how far it is.
    Raises:
        EdgezoError: a file cannot be read, has a wrong row, or template and labels do not fit.
    """
    found: dict[str, SplitSummary] = {}
    for at, (name, files) in enumerate(splits.items()):
        tell("reading rows", at, len(splits))
        found[name] = summarize(name, files.rows())
    train = found["train"]
    task = task_of(train)
    findings = find_all(found)
    choices = proposals(train, template, labels) if task == "classification" else []
    chosen = choices[0] if choices else None
    written = template or written_template(train)
    if task != "classification" and written is not None:
        chosen = Proposal(written, tuple(labels))
    scored: Sequence[ScoredProposal] = ()
    if bundle is None:
        without = "lengths in tokens, and scores of label words: give --bundle DIR"
        findings.append(Finding("no-bundle", without))
        return Inspection(task, found, findings, chosen)
    tokenizer = open_tokenizer(bundle)
    longest = min(max_seq or MAX_SEQ, bundle.manifest.model.max_seq)
    if len(choices) > 1:
        rows = spread_rows(splits["train"].rows(), train.rows)
        engine = limited_engine(bundle, budget, None)
        try:
            scored = score_proposals(
                engine, tokenizer, choices, rows, max_seq=longest,
                tell=lambda done, total: tell("scoring label words", done, total),
            )  # fmt: skip
        finally:
            engine.close()
        chosen = scored[0].proposal if scored else chosen
    findings += _words(train, scored, labels)
    if task == "unclear" and chosen is None:
        return Inspection(task, found, findings, chosen, scored)
    rows_of = {name: own.rows for name, own in found.items()}
    sets = _tokenized(splits, tokenizer, chosen, longest, rows_of, tell)
    for name, examples in sets.items():
        findings += length_findings(name, examples)
    fitting = max_seq or longest_row(list(sets.values()), longest)
    return Inspection(task, found, findings, chosen, scored, fitting)


def _tokenized(
    splits: Mapping[str, DataFiles],
    tokenizer: TextTokenizer,
    chosen: Proposal | None,
    longest: int,
    rows: Mapping[str, int],
    tell: Tell,
) -> dict[str, ExampleSet]:
    template, labels = (None, ()) if chosen is None else (chosen.template, chosen.labels)
    found: dict[str, ExampleSet] = {}
    total, done = sum(rows.values()), 0

    def count(read: int, expected: int) -> None:
        tell("tokenizing rows", min(total, done + read), total)

    reader = RowReader(tokenizer, template, labels, longest, tell=count)
    for name, files in splits.items():
        found[name] = reader.read(files)
        done += rows[name]
    tell("tokenizing rows", total, total)
    return found


def _words(
    train: SplitSummary, scored: Sequence[ScoredProposal], given: Sequence[str]
) -> list[Finding]:
    """What the model makes of label words."""
    found = []
    for own in scored[:3]:
        words = ", ".join(f"'{word}'" for word in own.proposal.labels)
        text = (
            f"zero-shot margin {own.margin:+.2f} nats, {100 * own.accuracy:.0f} % right: "
            f"{words} after {own.proposal.template!r}"
        )
        found.append(Finding("margin", text))
    if has_numbered_classes(train) and not given:
        text = "the classes have numbers only: check that the words are in class order"
        found.append(Finding("numbered-classes", text, True))
    return found
