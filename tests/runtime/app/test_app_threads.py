"""One thread steps while others read, pause, save and evaluate."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import InterruptedRunError, UsageError
from edgezo_runtime.journal.snapshot import load_snapshot
from edgezo_runtime.methods.catalogue import method_config
from tests.conftest import Exported
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import SIZES, bits

STEPS = 40
CONFIG = method_config(
    "zo-adam", lr=0.01, eps=0.01, steps=STEPS, max_time_s=0, batch_size=2, blocks="all",
    average=0.9, save_every=7, lr_schedule="constant",
)  # fmt: skip


def key(tensors: dict[str, np.ndarray]) -> bytes:
    """All bytes of some tensors."""
    return b"".join(tensors[name].tobytes() for name in sorted(tensors))


Alone = tuple[dict[bytes, int], dict[str, bytes]]


@pytest.fixture(scope="module")
def alone(exported: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """The adapters of a run that nobody else looks at, with their steps, and its last bits."""
    bundle = exported("llama").bundle("fp32").bundle
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    with Tuner.open(bundle, examples, CONFIG, tmp_path_factory.mktemp("alone")) as tuner:
        found = {key(tuner.adapter()): 0}
        for report in tuner:
            found[key(tuner.adapter())] = report.step + 1
        return found, bits(tuner)


class Crowd:
    """Threads that do something over and over until they are told to end."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []
        self.counts: dict[str, int] = {}

    def add(self, name: str, work: Callable[[], None]) -> None:
        """Start a thread."""
        self.counts[name] = 0

        def loop() -> None:
            try:
                while not self._end.is_set():
                    work()
                    self.counts[name] += 1
            except BaseException as error:
                self.errors.append(error)

        self._threads.append(threading.Thread(target=loop, name=name, daemon=True))
        self._threads[-1].start()

    def end(self) -> None:
        """Let all end, or fail where one hangs."""
        self._end.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), f"{thread.name} hangs"
        assert self.errors == []


@pytest.mark.slow
def test_readers_see_whole_steps_and_change_nothing(
    bundle: Bundle, examples: ExampleSet, alone: Alone, tmp_path: Any
) -> None:
    known, last = alone
    crowd = Crowd()
    with Tuner.open(bundle, examples, CONFIG, tmp_path / "crowd") as tuner:
        before = tuner.evaluate(examples).loss
        seen: list[int] = []

        def read_status() -> None:
            status = tuner.status
            assert status.fraction_done == pytest.approx(status.step / STEPS)
            assert status.phase in ("ready", "running", "paused", "done")
            seen.append(status.step)
            time.sleep(1e-4)

        def read_adapter() -> None:
            assert key(tuner.adapter()) in known

        def save() -> None:
            tuner.snapshot()
            # one open: a file that is replaced meanwhile stays whole for who reads it
            copy = shutil.copy(tuner.run.folder.snapshot, tmp_path / "copy.safetensors")
            found = load_snapshot(copy)
            assert 0 <= found.step <= STEPS
            time.sleep(1e-3)

        def evaluate() -> None:
            assert np.isfinite(tuner.evaluate(examples, batch_size=3).loss)

        def pause() -> None:
            tuner.pause()
            time.sleep(2e-3)
            tuner.resume()
            time.sleep(2e-2)

        for work in (read_status, read_adapter, save, evaluate, pause):
            crowd.add(work.__name__, work)
        try:
            reports = list(tuner)
        finally:
            tuner.resume()
            crowd.end()
        assert [report.step for report in reports] == list(range(STEPS))
        assert seen == sorted(seen)
        assert min(crowd.counts.values()) > 1
        assert bits(tuner) == last
        assert tuner.status.phase == "done"
        assert tuner.evaluate(examples).loss != before
    assert tuner.status.phase == "closed"


def test_a_pause_gives_the_step_up_and_a_stop_ends_it(
    bundle: Bundle, examples: ExampleSet, tmp_path: Any
) -> None:
    with Tuner.open(bundle, examples, CONFIG, tmp_path) as tuner:
        assert tuner.status.phase == "ready"
        tuner.step()
        assert tuner.status.phase == "running"
        tuner.pause()
        assert tuner.status.phase == "paused"
        waiting = threading.Thread(target=lambda: list(tuner), daemon=True)
        waiting.start()
        time.sleep(0.1)
        assert tuner.step_number == 1
        assert np.isfinite(tuner.evaluate(examples).loss)
        tuner.stop()
        waiting.join(10)
        assert not waiting.is_alive()
        assert (tuner.step_number, tuner.status.phase) == (1, "stopped")
        with pytest.raises(InterruptedRunError):
            tuner.step()


def test_closing_waits_for_the_step_of_another_thread(
    bundle: Bundle, examples: ExampleSet, tmp_path: Any
) -> None:
    config = dataclasses.replace(CONFIG, steps=10**6)
    tuner = Tuner.open(bundle, examples, config, tmp_path)
    stepping = threading.Thread(target=lambda: list(tuner), daemon=True)
    stepping.start()
    while tuner.step_number < 2:
        time.sleep(0.001)
    tuner.close()
    stepping.join(10)
    assert not stepping.is_alive()
    done = tuner.step_number
    with pytest.raises(UsageError, match="closed"):
        tuner.snapshot()
    with Tuner.open(bundle, examples, config, tmp_path) as again:
        assert again.step_number == done


@pytest.mark.slow
@pytest.mark.parametrize("after", range(0, 40, 7))
def test_a_step_is_given_up_at_the_next_block(
    bundle: Bundle,
    examples: ExampleSet,
    alone: Alone,
    tmp_path: Any,
    after: int,
    monkeypatch: Any,
) -> None:
    """Wherever the stop comes, the state is that between two steps, and a resume ends the same."""
    _, last = alone
    calls = 0
    with Tuner.open(bundle, examples, CONFIG, tmp_path / "cut") as tuner:
        watch = Engine._watch

        def counted(self: Engine) -> None:
            nonlocal calls
            calls += 1
            if calls == after:
                tuner.stop()
            watch(self)

        with monkeypatch.context() as patch:
            patch.setattr(Engine, "_watch", counted)
            if not after:
                tuner.stop()
            list(tuner)
        assert calls <= after + 2 * tuner.run.engine.limits.workers
        assert tuner.step_number < STEPS
    with Tuner.open(bundle, examples, CONFIG, tmp_path / "cut") as tuner:
        list(tuner)
        assert bits(tuner) == last


# --- calls from where a step waits for them ---


@pytest.mark.parametrize("what", ["cancel", "close", "step", "pause", "paused"])
def test_what_would_wait_for_itself_is_refused(
    bundle: Bundle, examples: ExampleSet, tmp_path: Any, what: str
) -> None:
    """By a governor, at its first look (the thread that steps) and at later ones (workers)."""
    for look in (1, 3):
        looks = iter(range(1, 10**6))

        def govern(look: int = look, looks: Any = looks) -> None:
            if next(looks) == look:
                ask()

        with Tuner.open(bundle, examples, CONFIG, tmp_path, governors=[govern]) as tuner:

            def ask(tuner: Tuner = tuner) -> None:
                if what == "pause":
                    tuner.pause(wait=True)
                elif what == "paused":
                    with tuner.paused():
                        pass
                else:
                    getattr(tuner, what)()

            with pytest.raises(UsageError, match=f"'{what}' was called by a reward or a governor"):
                tuner.step()
            tuner.resume()
            assert tuner.step().step == tuner.step_number - 1  # nothing is the worse for it


def test_a_pass_inside_a_pass_is_refused(
    bundle: Bundle, examples: ExampleSet, tmp_path: Any
) -> None:
    looks = iter(range(10**6))

    def govern() -> None:
        if next(looks) == 2:
            tuner.evaluate(examples)

    with Tuner.open(bundle, examples, CONFIG, tmp_path, governors=[govern]) as tuner:
        with pytest.raises(UsageError, match="would wait for itself"):
            tuner.step()
        assert np.isfinite(tuner.evaluate(examples).loss)
        assert tuner.step().step == 0
