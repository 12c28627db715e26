"""The types that an app sees: a script of a user's, checked by mypy as strictly as edgezo is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SCRIPT = """
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgezo import Event, Foreground, Governor, PauseEvent, Prediction, StepEvent, TuneConfig, Tuner

rows: list[dict[str, str | int]] = [{"text": "dim the lamp", "label": 0}]
foreground = Foreground()
governors: list[str | Governor] = ["battery:40", foreground, lambda: None]


def tell(event: Event) -> None:
    if isinstance(event, StepEvent):
        reveal_type(event.report.loss)
    elif isinstance(event, PauseEvent):
        reveal_type(event.reason)


def learn(bundle: Path) -> Prediction:
    with Tuner.open(
        bundle, rows, TuneConfig(steps=3), "run", template="{text} is", labels=[" a", " b"],
        budget="2GB", governors=governors,
    ) as tuner:
        tuner.subscribe(tell)
        for report in tuner:
            reveal_type(report.step)
        reveal_type(tuner.status.phase)
        reveal_type(tuner.evaluate("rows.jsonl").accuracy)
        tuner.add(rows)
        return tuner.classify("dim the lamp")


def wrong(tuner: Tuner) -> None:
    tuner.pause(3)
    tuner.classify(7)
    Tuner.open("b", rows, budget=1.5, governors=[lambda: 3])
"""

REVEALED = ["float", "str", "int", "Literal[", "float | None"]
WRONG = 4


@pytest.mark.slow
def test_a_script_is_checked(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "script.py").write_text(SCRIPT)
    config = tmp_path / "mypy.ini"
    config.write_text(
        "[mypy]\nstrict = true\n"
        "[mypy-onnxruntime.*]\nignore_missing_imports = true\n"
        "[mypy-edgezo.cli.*]\nfollow_imports = silent\n"  # it needs the exporter
    )
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(config), "script.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": os.pathsep.join(map(str, (ROOT, ROOT / "runtime")))},
        capture_output=True,
        text=True,
        check=False,
    )
    notes = [line for line in found.stdout.splitlines() if "Revealed type" in line]
    assert len(notes) == len(REVEALED), found.stdout + found.stderr
    for line, kind in zip(notes, REVEALED, strict=True):
        assert kind in line.replace("builtins.", ""), line
        assert "Any" not in line
    wrong = SCRIPT.splitlines().index("def wrong(tuner: Tuner) -> None:")
    errors = [line for line in found.stdout.splitlines() if ": error:" in line]
    places = [int(line.split(":")[1]) for line in errors]
    assert len(errors) == WRONG, found.stdout
    assert min(places) > wrong
