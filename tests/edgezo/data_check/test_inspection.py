"""A look at files with a model: scores of label words, and lengths."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgezo.data_check.inspection import inspect
from edgezo.data_check.lengths import longest_row
from edgezo.data_check.proposals import Proposal
from edgezo.data_check.zero_shot import score_proposals, spread_rows
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.files.data_files import DataFiles
from edgezo_runtime.data.files.row import Row
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.sources import open_tokenizer
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.evaluation.evaluate import evaluate
from tests.edgezo.conftest import Tiny


def test_margins_are_those_of_the_losses(tiny: Tiny) -> None:
    """Of two classes the loss is log(1 + exp(-margin))."""
    bundle = Bundle.open(tiny.int8)
    tokenizer = open_tokenizer(bundle)
    rows = list(DataFiles.of(tiny.data / "train.jsonl").rows())[:20]
    tried = [Proposal("{text} w4", (" w10", " w11")), Proposal("{text} w5", (" w11", " w10")),
             Proposal("{none}", (" w10", " w11"))]  # fmt: skip
    engine = Engine(bundle, threads=1)
    found = score_proposals(engine, tokenizer, tried, rows, max_seq=64)
    assert {own.proposal.template for own in found} == {"{text} w4", "{text} w5"}
    assert found[0].margin >= found[1].margin
    for own in found:
        reader = RowReader(tokenizer, own.proposal.template, own.proposal.labels, 64)
        examples = reader.take([row.fields for row in rows])
        whole = evaluate(engine, bundle.trainables(), examples, scope="all")
        margins = -np.log(np.expm1(whole.losses))
        labels = np.array([row.fields["label"] for row in rows])
        by_class = [margins[labels == label].mean() for label in (0, 1)]
        assert own.margin == pytest.approx(float(np.mean(by_class)), abs=1e-4)
        assert own.accuracy == pytest.approx(whole.accuracy)
    engine.close()


def test_what_is_cut(tiny: Tiny) -> None:
    splits = {"train": DataFiles.of(tiny.data / "train.jsonl"),
              "valid": DataFiles.of(tiny.data / "valid.jsonl")}  # fmt: skip
    bundle = Bundle.open(tiny.int8)
    given = {"template": "{text} w4", "labels": [" w10", " w11"]}
    whole = inspect(splits, bundle, **given)  # type: ignore[arg-type]
    assert (whole.max_seq, whole.task) == (32, "classification")
    names = [own.name for own in whole.findings]
    assert names.count("lengths") == 2
    assert "cut" not in names
    short = inspect(splits, bundle, max_seq=4, **given)  # type: ignore[arg-type]
    cut = next(own for own in short.findings if own.name == "cut")
    assert cut.warns
    assert cut.text.startswith("40 train rows (100.0 %) are longer than 4 tokens and are cut")


def test_without_a_model(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"sentence": f"a long text {n}", "label": n % 2}) for n in range(20)]
    path.write_text("\n".join(lines) + "\n")
    found = inspect({"train": DataFiles.of(path)})
    assert found.chosen == Proposal("{sentence} It was", (" terrible", " great"))
    assert found.max_seq is None
    assert found.findings[-1].name == "no-bundle"


def test_some_rows_at_equal_distances() -> None:
    rows = [Row({}, number, "") for number in range(100)]
    assert [row.line for row in spread_rows(iter(rows), 100, 4)] == [0, 25, 50, 75]
    assert spread_rows(iter(rows[:3]), 3, 4) == rows[:3]
    assert longest_row([], 512) == 32
