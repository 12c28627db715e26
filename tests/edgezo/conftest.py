from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgezo.cli import main
from tests.bundles.tiny import tiny_bundle, tiny_model, tuned_bundle
from tests.conftest import copied, there

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Tiny:
    """A tiny llama and data in its words.

    Attributes:
        model: folder of the torch model, in the cache: only read.
        int8: bundle.
        fp32: bundle of the same model, with the same initial adapter.
        data: folder with train.jsonl, valid.jsonl and task.json; label words "w10" and "w11".
        prompts: file of rows with prompt and completion.
    """

    model: Path
    int8: Path
    fp32: Path
    data: Path
    prompts: Path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Made once a session, the bundles once and for all."""
    folder = tmp_path_factory.mktemp("tiny")
    model = there(tiny_model, "llama")
    int8, fp32 = (
        copied(folder / f"tiny.{quant}", tuned_bundle, quant) for quant in ("int8", "fp32")
    )
    return Tiny(model, int8, fp32, _data(folder), _prompts(folder))


@pytest.fixture
def deep(tiny: Tiny, tmp_path: Path) -> Tiny:
    """With adapters at the layers that blocks add to the residual."""
    layers = ("q_proj", "o_proj", "down_proj")
    bundle = copied(tmp_path / "deep.int8", tiny_bundle, "llama", "int8", (2, 4.0), layers)
    return dataclasses.replace(tiny, int8=bundle)


def _data(folder: Path) -> Path:
    data = folder / "data"
    data.mkdir()
    generator = random.Random(0)
    for split, count in (("train", 40), ("valid", 12)):
        rows = []
        for _ in range(count):
            label = generator.randrange(2)
            words = [f"w{generator.randrange(20, 50) + 40 * label}" for _ in range(5)]
            rows.append({"text": " ".join(words), "label": label})
        write_rows(data / f"{split}.jsonl", rows)
    task = {"template": "{text} w4", "labels": [" w10", " w11"]}
    (data / "task.json").write_text(json.dumps(task))
    return data


def _prompts(folder: Path) -> Path:
    rows = [{"prompt": f"w{i} w5", "completion": f" w{i + 1} w6"} for i in range(20, 44)]
    return write_rows(folder / "prompts.jsonl", rows)


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write a JSON Lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object, code: int | None = 0) -> Result:
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if code is not None:
            assert result.exit_code == code, result.output
        return result

    return run


def start(
    *args: object, cwd: Path, preexec_fn: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    paths = [ROOT, ROOT / "export", ROOT / "runtime"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-m", "edgezo", *map(str, args)]
    return subprocess.Popen(
        command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=preexec_fn,
    )  # fmt: skip


def tune_args(tiny: Tiny, *more: object) -> list[object]:
    """A short run on the tiny data, unless others are given."""
    data = [] if "--data" in more else ["--data", tiny.data]
    return [
        "tune", tiny.int8, "--budget", "8GB", *data, "--steps", "4",
        "--batch-size", "8", "--threads", "1", "-o", "run", "--eval-every", "0", "--keep", "last",
        *more,
    ]  # fmt: skip


def wait_for_steps(run: Path, size: int = 3000) -> None:
    """Wait until the journal of a run has so many bytes, some steps."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if (run / "journal.bin").exists() and (run / "journal.bin").stat().st_size > size:
            return
        time.sleep(0.05)
    pytest.fail("no steps in a minute")
