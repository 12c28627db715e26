"""Runs on a tiny bundle, whole or cut, and all the bits that they end with."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgezo_runtime.app.open_run import OpenedRun
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.training.run import Run
from edgezo_runtime.training.training_state import TrainingState

SIZES = (4, 7, 5, 3, 6, 4, 8, 5)
"""Tokens of the examples."""

BASE = TuneConfig(
    modules="all",
    steps=6,
    max_time_s=0,
    batch_size=2,
    lr=0.03,
    eps=0.01,
    blocks="all",
    save_every=1000,
)
"""A short run on all blocks."""

FIRST_ORDER = replace(BASE, modules="auto", first_order=1, first_order_lr=0.01)
"""The same with first-order steps of the last block."""


def with_both_factors(bundle: Bundle, folder: Path) -> Bundle:
    """The bundle as `--lora-train ab` makes it: the graphs are the same."""
    shutil.copytree(bundle.root, folder)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for info in manifest["trainables"]:
        info["trains"] = True
    manifest["scheme"]["train"] = "ab"
    path.write_text(json.dumps(manifest))
    return Bundle.open(folder)


def unstarted(engine: Engine, examples: ExampleSet, config: TuneConfig, folder: RunFolder) -> Tuner:
    """A tuner of an engine that is there, without a plan; its folder is not touched."""
    run = Run(engine, examples, config, folder)
    return Tuner(OpenedRun(run, None, {"train": examples}, {}, None, None, ()))


def alter_last_byte(path: Path) -> None:
    """Change the last weight of a file, and neither its size nor its name."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def bits(tuner: Tuner) -> dict[str, bytes]:
    """All that a run resumes from, and what it hands out."""
    return state_bits(tuner.run.state)


def state_bits(state: TrainingState) -> dict[str, bytes]:
    """The same of a state."""
    found = {f"theta {name}": value.tobytes() for name, value in state.theta.items()}
    found |= {f"adapter {name}": value.tobytes() for name, value in state.adapter().items()}
    for kind in (state.slots, state.sampler_slots):
        for name, slot in kind.items():
            found |= {f"slot {name} {key}": value.tobytes() for key, value in (slot or {}).items()}
    found["normalizer"] = np.array(state.norm_state).tobytes()
    found["watch"] = repr(state.monitor).encode()
    return found


def run_to_the_end(
    bundle: Bundle, examples: ExampleSet, config: TuneConfig, folder: Path, **options: Any
) -> dict[str, bytes]:
    """Start or, with `resume`, resume a run, and finish it."""
    with Tuner.open(bundle, examples, config, folder, **options) as tuner:
        for _ in tuner:
            pass
        return bits(tuner)


def resumed_bits(
    bundle: Bundle,
    examples: ExampleSet,
    config: TuneConfig,
    folder: Path,
    steps: int,
    *,
    cut: int = 0,
    snapshot_at: int | None = None,
    journal_alone: bool = False,
) -> dict[str, bytes]:
    """A run that stops after `steps` steps, loses `cut` bytes of its journal, and resumes.

    Where it resumes from the journal alone, it has lost its snapshot, too.
    """
    with Tuner.open(bundle, examples, config, folder) as tuner:
        for number in range(steps):
            if number == snapshot_at:
                tuner.snapshot()
            tuner.step()
    journal = folder / "journal.bin"
    os.truncate(journal, journal.stat().st_size - cut)
    if journal_alone:
        (folder / "snapshot.safetensors").unlink()
    return run_to_the_end(bundle, examples, config, folder, resume=True)


def losses_of(journal: Path) -> list[bytes]:
    """The recorded losses of every step."""
    return [record.losses.tobytes() for record in read_journal(journal).records]
