"""The service of examples/http_service.py, asked by the test client of its framework."""

from __future__ import annotations

import functools
import importlib.util
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.examples.test_examples import SERVICE

pytest.importorskip("flask", reason="pip install 'edgezo[examples]'")


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("http_service", SERVICE)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    settled = functools.partial(
        made.TuneConfig, first_order=2, first_order_lr=0.01
    )  # nothing to measure
    vars(made)["TuneConfig"] = settled
    return made


@pytest.fixture
def tuner(module: ModuleType, bundle: Path, tmp_path: Path) -> Iterator[Any]:
    with module.open_tuner(str(bundle), run=str(tmp_path)) as tuner:
        yield tuner


def test_the_service_answers_while_it_learns(module: ModuleType, tuner: Any) -> None:
    background = tuner.run_in_background(keep_going=True)
    client = module.create_app(tuner).test_client()
    for number in range(10):
        found = client.post("/classify", json={"text": f"dim the lamp {number}"}).get_json()
        assert found["label"] in module.intents
        assert sum(found["probabilities"]) == pytest.approx(1)
    rows = [{"text": "dim the lamp", "label": "light"}] * 3
    added = client.post("/examples", json=rows)
    assert (added.status_code, added.get_json()) == (201, {"examples": 532})
    paused = client.post("/pause").get_json()
    assert (paused["phase"], paused["reason"]) == ("paused", "paused over HTTP")
    steps = paused["step"]
    assert client.get("/status").get_json()["step"] == steps
    assert client.post("/resume").get_json()["phase"] == "running"
    while client.get("/status").get_json()["step"] <= steps:
        time.sleep(0.01)
    tuner.cancel()
    assert background.join(10)


@pytest.mark.slow
def test_a_text_is_written_while_it_learns(module: ModuleType, tuner: Any) -> None:
    client = module.create_app(tuner).test_client()
    asked = {"prompt": "dim the", "max_new_tokens": 12}
    expected = tuner.generate("dim the", module.GenerationConfig(12))
    assert expected
    found = client.post("/generate", json=asked)
    assert (found.status_code, found.get_json()) == (200, {"text": expected})
    background = tuner.run_in_background(keep_going=True)
    for _ in range(3):
        assert client.post("/generate", json=asked).status_code == 200
    tuner.cancel()
    assert background.join(10)
    changed = client.post("/generate", json=asked).get_json()["text"]
    assert changed == tuner.generate(
        "dim the", module.GenerationConfig(12)
    )  # of the adapter as it is now


def test_what_is_told_is_json(module: ModuleType, tuner: Any) -> None:
    """There is no loss before the first step, and JSON has no NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    client = module.create_app(tuner).test_client()
    text = client.get("/status").get_data(as_text=True)
    assert json.loads(text, parse_constant=refuse)["loss"] is None
    tuner.step()
    assert json.loads(client.get("/status").get_data(as_text=True))["loss"] > 0


def test_what_makes_no_sense_is_a_bad_request(module: ModuleType, tuner: Any) -> None:
    client = module.create_app(tuner).test_client()
    for path, content, word in (
        ("/classify", {"words": "dim"}, "no field 'text'"),
        ("/examples", [{"text": "dim", "label": "lamp"}], "none of"),
        ("/examples", [], "no rows"),
        ("/examples", "/etc/passwd", "array of rows"),
        ("/examples", ["/etc/passwd"], "row 1: found a string"),
        ("/classify", 7, "row 1: found the number 7"),
        ("/generate", "dim", "expected an object"),
        ("/generate", {"prompt": 7}, "with a prompt"),
        ("/generate", {"prompt": ""}, "empty"),
        ("/generate", {"prompt": [{"role": "user"}]}, "is absent"),
        ("/generate", {"prompt": "dim", "max_new_tokens": 10**9}, "1 to 200"),
        ("/generate", {"prompt": "dim", "max_new_tokens": True}, "1 to 200"),
        ("/generate", {"prompt": "dim " * 99, "max_new_tokens": 200}, "tokens"),
    ):
        refused = client.post(path, json=content)
        assert refused.status_code == 400, path
        assert word in refused.get_data(as_text=True)
    assert client.get("/status").get_json()["examples"] == 529


def test_events_are_streamed(module: ModuleType, tuner: Any) -> None:
    client = module.create_app(tuner).test_client()
    tuner.run_in_background()
    lines = client.get("/events", buffered=False).iter_encoded()  # waits for the first event
    kind, data = next(lines).decode().strip().split("\n")
    assert kind == "event: StepEvent"
    event = json.loads(data.removeprefix("data: "))
    assert event["step"] == event["report"]["step"] + 1
    tuner.close()
    assert any("EndEvent" in line.decode() for line in lines)
