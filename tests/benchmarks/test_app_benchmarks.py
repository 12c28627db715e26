"""The benchmarks of pausing and serving do what they say, on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import app_run, models, pause, serve, startup
from tests.benchmarks.pause import Pauses
from tests.benchmarks.serve import SIDES, Side


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = startup.write_tiny_model(tmp_path_factory.mktemp("app") / "model")
    models.export(str(folder), folder.parent / "int8", "int8", "ab")
    return folder.parent / "int8"


@pytest.fixture(autouse=True)
def words_of_the_tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_run, "TEMPLATE", "{text} w4")
    monkeypatch.setattr(app_run, "LABELS", (" w10", " w11"))
    monkeypatch.setattr(app_run, "_WORDS", [f"w{number}" for number in range(20, 40)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", app_run.KINDS)
def test_every_pause_is_measured(
    bundle: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = pause.measure(bundle, kind, pauses=3)
    assert len(found.pauses_s) == 3
    assert 0 < found.between_s < 5
    assert [target.value for target in pause.report({kind: found})] == [
        1000 * found.median_s,
        1000 * max(found.pauses_s),
    ]
    assert capsys.readouterr().out.splitlines()[1].startswith(kind)


def test_a_slow_pause_misses() -> None:
    slow = pause.report({"x": Pauses(1.0, 0.1, [0.2, 0.2])})
    assert [target.is_met for target in slow] == [False, False]


@pytest.mark.slow
def test_every_side_gets_its_share(bundle: Path) -> None:
    found = serve.compare(bundle, rounds=1, seconds=0.4)
    assert tuple(found) == SIDES
    tune, alone, turns, paused = (found[side][0] for side in SIDES)
    assert (tune.requests, alone.steps) == (0, 0)
    assert tune.steps > 0
    assert min(alone.requests, turns.requests, paused.requests) > 0
    assert turns.steps > 0


def test_the_targets_are_those_of_the_table() -> None:
    found = {
        "tune": [Side(10.0, 0.0, ())],
        "serve": [Side(0.0, 100.0, (0.01,))],
        "both, turns": [Side(5.0, 45.0, (0.02,))],
        "both, paused": [Side(6.0, 1.0, (0.05,))],
    }
    met = {target.name: (target.value, target.is_met) for target in serve.report(found)}
    assert met == {
        "shares of both, summed": (pytest.approx(0.95), True),
        "a request in paused(), times one alone": (pytest.approx(5.0), False),
        "steps beside requests in paused()": (pytest.approx(0.6), False),
    }
