"""Every example runs without an argument, in a process of its own, on a tiny default model."""

from __future__ import annotations

import ast
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.examples.conftest import ROOT, Surroundings, surroundings

SERVICE = ROOT / "examples" / "http_service.py"
"""Does not end by itself."""

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
ENDING = sorted({*EXAMPLES} - {SERVICE})

DATA = {"Path(__file__).parent.parent": f"Path({str(ROOT)!r})"}
"""The change that a copy of an example needs to find the rows that come with edgezo."""

WithDefault = Callable[[Path], Surroundings]


def run_example(example: Path, env: Surroundings, cwd: Path, *arguments: str) -> str:
    """Run an example and return what it prints."""
    done = subprocess.run(
        [sys.executable, str(example), *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def changed(example: Path, place: Path, changes: dict[str, str]) -> Path:
    """A copy of an example with some of its settings changed."""
    text = example.read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    place.write_text(text)
    return place


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_what_it_shows_and_how_long_it_takes(example: Path) -> None:
    text = ast.get_docstring(ast.parse(example.read_text()))
    assert text is not None
    assert f"    python examples/{example.name}\n" in text
    assert re.search(r"[Tt]akes|learned", text)
    assert re.search(r"a second|minute", text)
    assert "argument names another bundle" in " ".join(text.split())


@pytest.mark.slow
@pytest.mark.parametrize("example", ENDING, ids=lambda path: path.stem)
def test_an_example_runs_on_the_default_bundle(
    example: Path, bundle: Path, with_default: WithDefault, tmp_path: Path
) -> None:
    """Pins an IndexError: the bundle had to be named."""
    lines = run_example(example, with_default(bundle), tmp_path).splitlines()
    assert re.search(r"takes about|Takes a second", lines[0])
    assert len(lines) >= 4
    if example.stem != "score_labels":  # tunes nothing
        assert any(line.startswith("before: ") for line in lines)
        assert any(line.startswith("after") for line in lines)


@pytest.mark.slow
def test_an_example_takes_another_bundle(bundle: Path, tmp_path: Path) -> None:
    env = {**surroundings(), "XDG_CACHE_HOME": str(tmp_path / "none")}
    printed = run_example(ROOT / "examples" / "score_labels.py", env, tmp_path, str(bundle))
    assert len(printed.splitlines()) == 4
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_second_call_resumes_the_run(
    bundle: Path, with_default: WithDefault, tmp_path: Path
) -> None:
    """What was before tuning cannot be measured any more, and is not claimed."""
    example = ROOT / "examples" / "tune_in_an_app.py"
    short = changed(example, tmp_path / "app.py", {"steps=50": "steps=2", **DATA})
    env = with_default(bundle)
    assert "before: " in run_example(short, env, tmp_path)
    again = run_example(short, env, tmp_path)
    assert "holds a run of 2 steps" in again
    assert "before: " not in again


@pytest.mark.slow
def test_the_service_runs_on_the_default_bundle(
    bundle: Path, with_default: WithDefault, tmp_path: Path
) -> None:
    pytest.importorskip("flask", reason="pip install 'edgezo[examples]'")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    service = changed(SERVICE, tmp_path / "service.py", {"port=8080": f"port={port}", **DATA})
    process = subprocess.Popen(
        [sys.executable, str(service)],
        cwd=tmp_path,
        env=with_default(bundle),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        _wait_for_a_step(f"http://127.0.0.1:{port}/status", process)
        process.send_signal(signal.SIGINT)
        lines = process.communicate(timeout=60)[0].splitlines()
    finally:
        process.kill()
    assert process.returncode == 0
    assert "learns for about" in lines[0]
    assert any(line.startswith("before: ") for line in lines)
    assert re.match(r"after \d+ steps: ", lines[-1])


def _wait_for_a_step(url: str, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url) as answer:
                if json.load(answer)["step"]:
                    return
        except OSError:  # not there yet
            pass
        time.sleep(0.05)
    raise AssertionError(f"no step; exit code {process.poll()}")


@pytest.mark.slow
def test_the_reward_rises(real_bundle: Path, with_default: WithDefault, tmp_path: Path) -> None:
    """Pins an example whose mean reward fell: on unseen questions it rises beyond noise.

    A quarter of the example's steps and half of its questions; the whole example gains .66 to .70
    with a standard error of .06 (seeds 0 to 2).
    """
    fewer = {'UNSEEN = ["bread", "chocolate", "a bee", "a tiger", ': "UNSEEN = ["}
    short = changed(
        ROOT / "examples" / "tune_for_a_reward.py",
        tmp_path / "reward.py",
        {"steps=30": "steps=7", **fewer},
    )
    printed = run_example(short, with_default(real_bundle), tmp_path)
    gain, error = re.findall(r"^gain: (\S+) \+- (\S+)$", printed, re.MULTILINE)[0]
    assert float(gain) > max(0.15, 3 * float(error)), printed
