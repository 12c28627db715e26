"""Rows as apps give them: added, and found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.methods.catalogue import method_config
from tests.runtime.app_runs import CONFIG, LABELS, ROWS, TEMPLATE, opened

pytestmark = pytest.mark.usefixtures("unsynced")


def test_a_run_of_rows_is_opened_again_with_the_same(bundle: Bundle, tmp_path: Path) -> None:
    with opened(bundle, tmp_path) as tuner:
        tuner.step()
        assert tuner.add([{"text": "w7 w8", "label": " w11"}]) == 9
    with opened(bundle, tmp_path) as tuner:
        assert (tuner.step_number, len(tuner.examples)) == (1, 9)
        assert tuner.examples.examples[8].label == 1
    with pytest.raises(Exception, match="other inputs"):
        Tuner.open(bundle, ROWS[1:], CONFIG, tmp_path, template=TEMPLATE, labels=LABELS)


def test_of_a_folder_the_training_rows_are_added(bundle: Bundle, tmp_path: Path) -> None:
    rows = {"train": [{"text": "w7", "label": 1}], "valid": [{"text": "w8", "label": 0}] * 3}
    for name, own in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    with opened(bundle, tmp_path / "run") as tuner:
        assert tuner.add(tmp_path) == len(ROWS) + 1
        assert tuner.examples.examples[-1].label == 1
        assert tuner.evaluate(tmp_path).rows == 3


def test_what_added_rows_lose_is_logged(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"prompt": "w20 w40", "completion": " w60"}] * 2
    config = method_config("zo-sgd", lr=0.05, eps=0.1, steps=1, max_time_s=0, batch_size=2)
    with Tuner.open(bundle, rows, config, tmp_path, max_seq=8, long="drop") as tuner:
        caplog.clear()
        long = {"prompt": " ".join(["w9"] * 20), "completion": " w60"}
        assert tuner.add([rows[0], long]) == 3
        assert "1 of 2 rows are longer than 8 tokens and are left out" in caplog.text
