"""Curves, results, tables and tasks of the comparisons; the training loops on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from string import Formatter
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import transformers

from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.errors import EdgezoError
from tests.benchmarks import methods, methods_picture, models, race, startup
from tests.benchmarks.adamw_torch import adamw
from tests.benchmarks.curves import (
    Point,
    accuracy_at,
    common_end,
    first_reach,
    mean_at,
    read_points,
)
from tests.benchmarks.mezo_loop import add_lora
from tests.benchmarks.mezo_torch import mezo
from tests.benchmarks.result_file import DONE, MISSING, ResultFile
from tests.benchmarks.targets import DATA
from tests.benchmarks.tasks import TASKS, Task, TaskRows, class_counts, find_rows, majority
from tests.benchmarks.torch_training import label_scores, load_rows

PEFT_ON_TRANSFORMERS_5 = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing. is deprecated:FutureWarning"
)
"""What peft 0.21 makes of transformers 5."""

CURVE = [Point(0, 0, 0.5), Point(10, 100, 0.7), Point(20, 300, 0.6), Point(30, 400, 0.9)]


def test_points_of_a_run(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"event": "eval", "split": "valid", "seconds": 0.0, "accuracy": 0.5},
        {"event": "step", "rows": 32},
        {"event": "pressure", "relief": "less"},
        {"event": "step", "rows": 16},
        {"event": "eval", "split": "valid", "seconds": 2.5, "accuracy": 0.75},
        {"event": "eval", "split": "test", "seconds": 2.5, "accuracy": 0.25},
    ]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_points(file) == [Point(0.0, 0, 0.5), Point(2.5, 48, 0.75)]


@pytest.mark.parametrize(
    ("place", "expected"), [(0, 0.5), (5, 0.6), (10, 0.7), (25, 0.75), (30, 0.9), (31, 0.9)]
)
def test_accuracy_between_evaluations(place: float, expected: float) -> None:
    assert accuracy_at(CURVE, place, "seconds") == pytest.approx(expected)


def test_what_was_over_has_what_it_ended_with() -> None:
    assert accuracy_at(CURVE, 350, "forwards") == pytest.approx(0.75)
    assert accuracy_at(CURVE, 401, "forwards") == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("accuracy", "seconds"), [(0.4, 0), (0.5, 0), (0.6, 5), (0.7, 10), (0.75, 25), (0.91, None)]
)
def test_first_time_of_an_accuracy(accuracy: float, seconds: float | None) -> None:
    found = first_reach(CURVE, accuracy)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_curves_of_seeds_are_compared_where_all_go() -> None:
    short = [Point(0, 0, 0.5), Point(20, 200, 0.9)]
    slow = [Point(0, 0, 0.5), Point(29, 300, 0.9)]
    assert common_end([CURVE, short], "forwards") == 400
    assert common_end([CURVE, short, slow], "forwards") == 300
    assert mean_at([CURVE, short], 10, "seconds") == pytest.approx(0.7)
    assert common_end([CURVE, short], "seconds") == 30
    assert mean_at([CURVE, short], 30, "seconds") == pytest.approx(0.9)
    assert mean_at([CURVE, short], 350, "forwards") == pytest.approx((0.75 + 0.9) / 2)


def result(method: str, seed: int, after: float, **more: object) -> dict[str, Any]:
    """A run that was done."""
    return {
        "method": method, "task": "sst2", "seed": seed, "status": DONE, "before": 0.5,
        "after": after, "test": None, "steps": 10, "seconds": 20.0, "forwards": 200, "step_s": 2.0,
        "peak_mb": 200.0, "points": [[0.0, 0, 0.5], [20.0, 200, after]], **more,
    }  # fmt: skip


def test_results_go_on_where_they_stopped(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    results = ResultFile(file, methods.KEYS)
    results.refuse_used(resume=False)
    failed = {"method": "b", "task": "sst2", "seed": 0, "status": MISSING, "reason": "no bundle"}
    results.add(result("a", 0, 0.8))
    results.add(failed)
    file.write_text(file.read_text() + '{"method": "c", "ta')
    again = ResultFile(file, methods.KEYS)
    assert again.all() == [result("a", 0, 0.8), failed]
    assert again.is_done(method="a", task="sst2", seed=0)
    assert not again.is_done(method="b", task="sst2", seed=0)
    assert not again.is_done(method="a", task="sst2", seed=1)
    with pytest.raises(SystemExit, match="--resume"):
        again.refuse_used(resume=False)


def test_a_result_takes_the_place_of_a_failure(tmp_path: Path) -> None:
    results = ResultFile(tmp_path / "results.jsonl", methods.KEYS)
    results.add({"method": "a", "task": "sst2", "seed": 0, "status": MISSING, "reason": "x"})
    results.add(result("a", 0, 0.8))
    assert ResultFile(results.path, methods.KEYS).all() == [result("a", 0, 0.8)]


def test_table_of_methods(capsys: pytest.CaptureFixture[str]) -> None:
    slow = {"forwards": 100, "points": [[0.0, 0, 0.5], [20.0, 100, 0.6]]}
    missing = {"method": "qzo", "task": "sst2", "seed": 0, "status": MISSING, "reason": "no bundle"}
    methods.report(
        [
            result("zo-sgd", 0, 0.6, **slow),
            result("auto", 0, 0.8),
            result("auto", 1, 0.9),
            missing,
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    first, second = lines[3].split(), lines[4].split()
    # Best first; at 100 forwards auto is halfway; both have 20 seconds.
    spread = ["0.800", "to", "0.900"]
    assert first[:9] == ["auto", "0.5", "0.85", *spread, "0.675", "0.85", "-"]
    assert second[:6] == ["zo-sgd", "0.5", "0.6", "-", "0.6", "0.6"]
    assert lines[-1] == "missing: qzo on sst2, seed 0: no bundle"


def test_colours_are_few() -> None:
    order = ["lozo", "auto", *(f"m{number}" for number in range(20)), "zo-sgd"]
    assert methods_picture.coloured(order) == ["auto", "zo-sgd", "lozo", "m0", "m1", "m2"]


def test_picture(tmp_path: Path) -> None:
    done = {f"m{n}": [result(f"m{n}", seed, n / 20) for seed in (0, 1)] for n in range(10, 20)}
    methods_picture.draw(done, "sst2", tmp_path / "picture.svg")
    text = (tmp_path / "picture.svg").read_text()
    found = ElementTree.fromstring(text)
    assert found.tag.endswith("svg")
    for name in ("m10", "m15"):
        assert text.count(f">{name}<") == 1
    assert "m16" not in text  # grey, in both charts
    paths = [part.get("class", "") for part in found.iter() if part.tag.endswith("path")]
    assert sum(cls.startswith("thin") for cls in paths) == 2 * 4
    assert sum(cls.startswith("line") for cls in paths) == 2 * 6


@pytest.mark.parametrize("name", TASKS)
def test_tasks_name_fields_and_classes(name: str) -> None:
    rows = find_rows(name)
    if not rows.valid.is_file():
        pytest.skip(f"no task data in {DATA}")
    fields = {field for _, field, _, _ in Formatter().parse(rows.task.template) if field}
    first = json.loads(rows.valid.read_text(encoding="utf-8").splitlines()[0])
    assert fields <= first.keys() - {"label"}
    counts = class_counts(rows.train)
    assert sorted(counts) == list(range(len(rows.task.labels)))
    assert 1 / len(rows.task.labels) <= majority(counts) < 0.7


def test_unknown_task() -> None:
    with pytest.raises(ValueError, match="expected one of sst2"):
        find_rows("sst3")


def side(name: str, lr: float, *points: tuple[float, float], peak: float = 300.0) -> dict[str, Any]:
    """A run of the race: (minutes, accuracy)."""
    found = [[60 * minutes, 0, accuracy] for minutes, accuracy in points]
    run = {"side": name, "lr": lr, "task": "sst2", "seed": 0, "status": DONE, "steps": 1}
    return {**run, "points": found, "peak_mb": peak}


def test_race_is_to_what_mezo_ends_with(capsys: pytest.CaptureFixture[str]) -> None:
    results = [
        side("edgezo", 0, (0, 0.6), (5, 0.8), (15, 0.9), (30, 0.95)),
        side("mezo", 1e-4, (0, 0.6), (20, 0.8), (30, 0.7)),
        side("mezo", 5e-5, (0, 0.6), (30, 0.8)),
        side("adamw", 3e-4, (0, 0.6), (1, 0.84), peak=1200.0),
    ]
    found = race.compare(results)
    assert found is not None
    assert (found["mezo_lr"], found["mezo_end"]) == (5e-5, 0.8)
    assert found["our_minutes"] == pytest.approx(5)
    assert found["ratio"] == pytest.approx(6)
    assert found["our_minutes_to_84"] == pytest.approx(9)
    assert found["adamw_minutes_to_84"] == pytest.approx(1)
    assert found["our_accuracy"] == 0.9  # after 15 minutes, not at the end
    targets = race.report(results)
    assert [target.is_met for target in targets] == [True, True]
    assert "adamw peak" in capsys.readouterr().out


def test_race_that_is_not_won() -> None:
    found = race.compare([side("edgezo", 0, (0, 0.6), (15, 0.7)), side("mezo", 1e-4, (0, 0.8))])
    assert found is not None
    assert found["our_minutes"] is None
    assert found["ratio"] is None
    assert race.compare([side("edgezo", 0, (0, 0.6))]) is None


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and its bundle."""
    folder = tmp_path_factory.mktemp("comparisons")
    startup.write_tiny_model(folder / "model")
    models.export(str(folder / "model"), folder / "int8", "int8", "ab")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SST-2's files, in the tiny model's words."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "sst2").mkdir()
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("validation", 10)):
        lines = []
        for _ in range(count):
            words = generator.integers(20, 90, generator.integers(2, 9))
            label = int(words[0] % 2)
            lines.append(json.dumps({"sentence": " ".join(f"w{w}" for w in words), "label": label}))
        (folder / "sst2" / f"{split}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(autouse=True)
def tiny_task(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Label words that the tiny tokenizer has."""
    if "tiny" in request.fixturenames:
        monkeypatch.setitem(TASKS, "sst2", Task("{sentence} w4", (" w10", " w11")))


@pytest.mark.slow
def test_scores_at_the_end_are_those_of_the_whole_model(tiny: Path, data: Path) -> None:
    rows = TaskRows(TASKS["sst2"], *(data / "sst2" / f"{n}.jsonl" for n in ("train", "validation")))
    _, valid = load_rows(str(tiny / "int8"), rows)
    load = transformers.AutoModelForCausalLM.from_pretrained
    model: Any = load(tiny / "model", dtype=torch.float32).eval()
    batch = make_batch(valid, range(len(valid)))
    assert batch.padding
    with torch.inference_mode():
        found = label_scores(model, batch)
        for row, example in enumerate(valid):
            tokens = torch.from_numpy(example.tokens.astype(np.int64))
            logits = model(tokens[None]).logits[0, -1, torch.from_numpy(batch.label_ids)]
            torch.testing.assert_close(found[row], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@PEFT_ON_TRANSFORMERS_5
def test_lora_is_that_of_peft(tiny: Path) -> None:
    peft = pytest.importorskip("peft")
    load = transformers.AutoModelForCausalLM.from_pretrained
    ours: Any = load(tiny / "model", dtype=torch.float32).eval()
    theirs: Any = load(tiny / "model", dtype=torch.float32).eval()
    add_lora(ours, models.TARGETS, models.RANK, models.ALPHA, train="ab")
    config = peft.LoraConfig(
        r=models.RANK, lora_alpha=int(models.ALPHA), target_modules=list(models.TARGETS)
    )
    peft.get_peft_model(theirs, config)
    values = dict(ours.named_parameters())
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.normal_()
                values[name.replace(".default.weight", "")].copy_(parameter)
        ids = torch.randint(97, (2, 7))
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@PEFT_ON_TRANSFORMERS_5
@pytest.mark.parametrize(("loop", "lr", "forwards"), [(mezo, 1e-3, 2), (adamw, 3e-2, 3)])
def test_training_loops(tiny: Path, data: Path, loop: Any, lr: float, forwards: int) -> None:
    run = {
        "model": str(tiny / "model"), "bundle": str(tiny / "int8"), "task": "sst2",
        "data": str(data), "lr": lr, "seed": 0, "threads": 1,
        "limits": {"max_s": 60, "eval_every_s": 1e-9, "batch_size": 8, "max_steps": 30},
    }  # fmt: skip
    found = loop(**run)
    points = [Point(*values) for values in found["points"]]
    assert found["steps"] == 30
    assert len(points) == 31
    assert [point.forwards for point in points] == [8 * forwards * n for n in range(31)]
    seconds = [point.seconds for point in points]
    assert sorted(seconds) == seconds
    again = [Point(*values).accuracy for values in loop(**run)["points"]]
    assert [point.accuracy for point in points] == again


@pytest.mark.slow
def test_two_steps_of_a_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgezo_export.sources.hub import embedded_default

    try:
        embedded_default()
    except EdgezoError as error:
        pytest.skip(str(error))
    folder = tmp_path / "data" / "sst2"
    folder.mkdir(parents=True)
    words = ["awful", "wonderful", "a mess", "a joy"]
    rows = [{"sentence": word, "label": number % 2} for number, word in enumerate(words)]
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "out"
    argv = ["methods", "--methods", "zo-sgd", "--data", str(folder.parent), "--output", str(output)]
    steps = ["--", "--steps", "2", "--batch-size", "2", "--lr", "1e-4", "--eps", "1e-2"]
    monkeypatch.setattr("sys.argv", [*argv, *steps])
    assert methods.main() == 0
    (only,) = ResultFile(output / "results.jsonl", methods.KEYS).all()
    assert (only["status"], only["steps"], only["forwards"]) == (DONE, 2, 8)
    assert only["points"][0][2] == only["before"]
    assert "zo-sgd" in capsys.readouterr().out
