"""Peaks of processes that write texts, as the kernel counts them, against their budgets.

The model has next to no weights, and keys and values of 16 KB a token: what is written at once
decides whether a budget holds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.system.sizes import parse_size
from tests.bundles.tiny import wide_bundle
from tests.conftest import copied
from tests.edgezo.conftest import ROOT, write_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="the system tells no peak of other processes"
    ),
]

TELL = """
import atexit, sys
def tell():
    line, = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    print("peak", 1024 * int(line.split()[1]), file=sys.stderr)
atexit.register(tell)
"""
COMMAND = f"{TELL}from edgezo.cli import main\nmain()"
LONG = f"""{TELL}
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.budget.memory_limits import limited_engine
from edgezo_runtime.generation.generator import Generator, GenerationConfig
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.budget.generation_plan import plan_generation
bundle, budget, texts, new = Bundle.open(sys.argv[1]), *map(int, sys.argv[2:])
tokenizer = TextTokenizer.open(bundle.root, bundle.manifest.tokenizer)
writer = Generator(limited_engine(bundle, budget, 2), tokenizer)
writer.ends = frozenset()
params, writing = bundle.trainables(), GenerationConfig(new)
plan_generation(writer, [4] * texts, params, writing, budget).apply(writer)
found = writer.generate([[20, 30, 40, 50 + n] for n in range(texts)], params, writing)
assert [len(text.tokens) for text in found] == [new] * texts
"""
WORDS = " ".join(f"w{20 + number % 70}" for number in range(1500))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with adapters of 3 MB."""
    return copied(tmp_path_factory.mktemp("wide") / "wide.int8", wide_bundle)


def run(code: str, *args: object, folder: Path) -> tuple[int, int, str, str]:
    """Run Python code in a process of its own.

    Returns:
        Its exit code, its peak in bytes, and what it wrote to stdout and to stderr.
    """
    paths = [ROOT, ROOT / "export", ROOT / "runtime"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(
        command, cwd=folder, env=env, text=True, capture_output=True, check=False, timeout=120
    )
    peak = re.search(r"^peak (\d+)$", done.stderr, re.MULTILINE)
    assert peak is not None, done.stderr
    return done.returncode, int(peak[1]), done.stdout, done.stderr


def generate_args(bundle: Path, budget: str, texts: int) -> list[object]:
    prompts = [part for n in range(texts) for part in ("--prompt", f"{WORDS} w{20 + n}")]
    return [
        "generate", bundle, *prompts, "--max-new-tokens", 4, "--budget", budget, "--threads", 2,
        "--json",
    ]  # fmt: skip


@pytest.mark.parametrize("budget", ["220MB", "300MB"])
def test_long_prompts_keep_below_the_budget(wide: Path, tmp_path: Path, budget: str) -> None:
    """Eight texts at once would take 400 MB."""
    code, peak, out, err = run(COMMAND, *generate_args(wide, budget, 8), folder=tmp_path)
    assert code == 0, err
    result = json.loads(out)
    assert [entry["prompt_tokens"] for entry in result["texts"]] == [1501] * 8
    assert max(peak, result["peak_bytes"]) < parse_size(budget)
    # the kernel counts pages per core, and its two peaks of a process differ by some of them
    assert result["peak_bytes"] <= peak + (1 << 20)


def test_the_budget_that_is_named_does(wide: Path, tmp_path: Path) -> None:
    code, _, out, err = run(COMMAND, *generate_args(wide, "150MB", 2), folder=tmp_path)
    assert (code, out) == (3, "")
    named = re.findall(r"give --budget '([^']*)'", err)[0]
    code, peak, _, err = run(COMMAND, *generate_args(wide, named, 2), folder=tmp_path)
    assert code == 0, err
    assert peak < parse_size(named)


def test_growing_texts_keep_below_the_budget(wide: Path, tmp_path: Path) -> None:
    """Room for keys and values grows ten times, and what attention makes has a new size each
    time."""
    budget = 170_000_000
    code, peak, _, err = run(LONG, wide, budget, 4, 640, folder=tmp_path)
    assert code == 0, err
    assert peak < budget


def test_rewards_keep_below_the_budget(wide: Path, tmp_path: Path) -> None:
    """64 rows with copies of the trainables of their own would take 180 MB."""
    rows: list[dict[str, Any]] = [
        {"prompt": f"w{20 + n} w5", "completion": f" w{30 + n % 60}"} for n in range(64)
    ]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    (tmp_path / "mine.py").write_text("def score(text, row):\n    return len(text)\n")
    code, peak, out, err = run(
        COMMAND, "tune", wide, "--budget", "190MB", "--data", data, "--reward", "mine.py:score",
        "--steps", 2, "--max-time", 0, "--max-new-tokens", 4, "--batch-size", 64, "--blocks",
        "all", "--modules", "all", "--lr", "0.01", "--eps", "0.3", "--threads", 2, "-o", "run",
        "--json", folder=tmp_path,
    )  # fmt: skip
    assert code == 0, err
    result = json.loads(out)
    assert result["reliefs"] == []
    assert result["peak_bytes"] <= peak < 190_000_000
