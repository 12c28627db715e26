"""Kills real runs at random instants, goes on with them, and compares what they end with.

    python -m tests.crash.kills [--kills 200] [--seed 0] [--method NAME,...]
        [--bundle BUNDLE --data FOLDER [--template TEXT --label TEXT ...]] [--steps 300]
        [--folder FOLDER]

For every method, in turn: one `edgezo tune` that nothing happens to, then runs that get SIGKILL at
an instant drawn between their start and somewhat after their expected end, again and again until
one comes through; its adapter must have the same SHA-256. Without a bundle a tiny one is made.

Prints a line a method: kills, of them before the first step and while steps were being done, runs
that were brought to their end, differences. Ends with exit code 1 if there was any.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bundles.tiny import tiny_bundle

METHODS: dict[str, list[str]] = {
    "two-point": ["--method", "zo-sgd", "--lr", "0.01", "--eps", "0.01"],
    "adam": ["--method", "zo-adam", "--lr", "0.001", "--eps", "0.01"],
    "per-example": ["--method", "auto", "--first-order", "0", "--modules", "down_proj"],
    "first_order": ["--method", "zo-sgd", "--lr", "0.01", "--eps", "0.01", "--first-order", "1"],
    "first-order": [],
    "feedback": ["--method", "feedback", "--pairs", "100"],
    "carried": ["--method", "feedback", "--scope", "all"],
}

LAYERS = ("q_proj", "v_proj", "o_proj", "down_proj")
"""Of the tiny bundle; feedback trains the layers that blocks add to the residual."""


@dataclass(slots=True)
class Tally:
    """What became of the runs of a method.

    Attributes:
        kills: how often a process was killed.
        before: of these, before there was a journal.
        runs: that were brought to their end.
        different: of these, with another adapter.
    """

    kills: int = 0
    before: int = 0
    runs: int = 0
    different: int = 0

    @property
    def during(self) -> int:
        """Kills after the run had begun."""
        return self.kills - self.before


def command(args: Sequence[str], run: Path) -> list[str]:
    """`edgezo tune` in this Python."""
    return [sys.executable, "-m", "edgezo", "tune", *args, "-o", str(run), "--json"]


def whole(args: Sequence[str], run: Path) -> tuple[str, float]:
    """The adapter of a run that nothing happens to, and the seconds it took.

    Raises:
        RuntimeError: it failed.
    """
    started = time.monotonic()
    done = subprocess.run(command(args, run), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)["adapter_sha256"], time.monotonic() - started


def campaign(args: Sequence[str], folder: Path, kills: int, generator: random.Random) -> Tally:
    """Kill so many runs, and bring each to its end.

    Args:
        args: of `edgezo tune`, without -o.
        folder: where the runs lie; those that ended well are removed.
        kills: how many.
        generator: of the instants.
    Raises:
        RuntimeError: a run cannot be gone on with.
    """
    expected, seconds = whole(args, folder / "whole")
    tally = Tally()
    while tally.kills < kills:
        run = folder / f"run-{tally.runs}"
        digest: str | None = None
        while digest is None:
            process = subprocess.Popen(
                command(args, run), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            wait = generator.uniform(0, 1.2 * seconds) if tally.kills < kills else None
            try:
                stdout, stderr = process.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                tally.kills += 1
                tally.before += not (run / "journal.bin").exists()
                continue
            if process.returncode:
                raise RuntimeError(f"{run}: {stderr}")
            digest = json.loads(stdout)["adapter_sha256"]
        tally.runs += 1
        if digest == expected:
            shutil.rmtree(run)
        else:
            tally.different += 1
    return tally


def tiny_task(folder: Path) -> list[str]:
    """A tiny bundle and rows in its words; arguments of `edgezo tune`."""
    made = tiny_bundle("llama", "int8", (2, 4.0), LAYERS)
    bundle = shutil.copytree(made, folder / "bundle")
    generator = random.Random(0)
    rows = folder / "rows.jsonl"
    with rows.open("w") as file:
        for _ in range(100):  # of which 20 are held out, and evaluated during the run
            label = generator.randrange(2)
            words = [f"w{generator.randrange(20, 50) + 40 * label}" for _ in range(5)]
            file.write(json.dumps({"text": " ".join(words), "label": label}) + "\n")
    task = ["--data", str(rows), "--template", "{text} w4", "--label", " w10", "--label", " w11"]
    return [str(bundle), *task]


def options_of(method: str, steps: int) -> list[str]:
    """Settings of `edgezo tune` that end by steps alone."""
    common = [
        "--budget", "1GB", "--steps", str(steps), "--max-time", "0",
        "--batch-size", "8", "--save-every", "7", "--threads", "1",
    ]  # fmt: skip
    return [*common, *METHODS[method]]


def main() -> int:
    """Kill, report."""
    found = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    found.add_argument("--kills", type=int, default=200)
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--method", default=",".join(METHODS))
    found.add_argument("--bundle")
    found.add_argument("--data")
    found.add_argument("--template")
    found.add_argument("--label", action="append", default=[])
    found.add_argument("--steps", type=int, default=300)
    found.add_argument("--folder", type=Path)
    options = found.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        if options.bundle:
            task = [options.bundle, "--data", options.data]
            task += ["--template", options.template] if options.template else []
            task += [part for label in options.label for part in ("--label", label)]
        else:
            task = tiny_task(folder)
        methods = options.method.split(",")
        generator = random.Random(options.seed)
        total = Tally()
        for index, method in enumerate(methods):
            share = (options.kills * (index + 1)) // len(methods) - total.kills
            args = [*task, *options_of(method, options.steps)]
            (folder / method).mkdir()
            tally = campaign(args, folder / method, share, generator)
            print(
                f"{method}: {tally.kills} kills, {tally.before} before the journal was there, "
                f"{tally.during} after; {tally.runs} runs, {tally.different} different", flush=True,
            )  # fmt: skip
            total = Tally(*(a + b for a, b in zip(_fields(total), _fields(tally), strict=True)))
    print(f"all: {total.kills} kills, {total.runs} runs, {total.different} different")
    return 1 if total.different else 0


def _fields(tally: Tally) -> tuple[int, int, int, int]:
    return tally.kills, tally.before, tally.runs, tally.different


if __name__ == "__main__":
    sys.exit(main())
