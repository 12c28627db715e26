"""Forks of a process that tunes: everything is refused there at once. And prompts that are none."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edgezo import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import EdgezoError, UsageError
from edgezo_runtime.methods.catalogue import method_config
from tests.runtime.tuner_runs import state_bits

pytestmark = pytest.mark.usefixtures("unsynced")

ROOT = Path(__file__).resolve().parents[3]
LABELS = [" w10", " w11"]
TEMPLATE = "{text} w4"
ROWS = [{"text": f"w{20 + 3 * n} w{40 + n}", "label": n % 2} for n in range(8)]
CONFIG = method_config("zo-sgd", lr=0.01, eps=0.01, steps=4, max_time_s=0, batch_size=4)

ASKED: dict[str, Callable[[Tuner], object]] = {
    "adapter": lambda tuner: tuner.adapter(),
    "add": lambda tuner: tuner.add(ROWS[:1]),
    "cancel": lambda tuner: tuner.cancel(),
    "classify": lambda tuner: tuner.classify("w1 w2"),
    "classify_all": lambda tuner: tuner.classify_all(["w1 w2"]),
    "evaluate": lambda tuner: tuner.evaluate(ROWS[:2]),
    "events": lambda tuner: tuner.events(),
    "generate": lambda tuner: tuner.generate("w1 w2"),
    "listen": lambda tuner: tuner.listen(print),
    "pause": lambda tuner: tuner.pause(),
    "paused": lambda tuner: tuner.paused().__enter__(),
    "resume": lambda tuner: tuner.resume(),
    "run_in_background": lambda tuner: tuner.run_in_background(),
    "score": lambda tuner: tuner.score(ROWS[:1]),
    "snapshot": lambda tuner: tuner.snapshot(),
    "start": lambda tuner: tuner.start(),
    "step": lambda tuner: tuner.step(),
    "stop": lambda tuner: tuner.stop(),
    "stream": lambda tuner: tuner.stream("w1 w2"),
    "subscribe": lambda tuner: tuner.subscribe(print),
    "wait_for_examples": lambda tuner: tuner.wait_for_examples(),
}
"""Every public method of a tuner, but `open`, and `close`, which does nothing in a fork."""


def refuses(ask: Callable[[Tuner], object], tuner: Tuner) -> bool:
    try:
        ask(tuner)
    except UsageError as error:
        return "cannot be used in a fork" in str(error)
    except BaseException:  # whatever it is, the parent has to hear of it
        return False
    return False


def test_a_fork_leaves_the_run_alone(bundle: Bundle, tmp_path: Path) -> None:
    with Tuner.open(
        bundle, ROWS, CONFIG, tmp_path / "alone", template=TEMPLATE, labels=LABELS
    ) as alone:
        assert len(list(alone)) == 4
        expected = state_bits(alone.run.state)
    with Tuner.open(
        bundle, ROWS, CONFIG, tmp_path / "forked", template=TEMPLATE, labels=LABELS
    ) as tuner:
        tuner.step()
        child = os.fork()
        if not child:  # nothing of pytest's may run here
            told = sum(refuses(ask, tuner) for ask in ASKED.values()) - len(ASKED)
            tuner.close()
            os._exit(told)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [report.step for report in tuner] == [1, 2, 3]
        assert state_bits(tuner.run.state) == expected


def test_every_method_is_asked() -> None:
    public = {name for name, value in vars(Tuner).items() if name[0] != "_" and callable(value)}
    assert public - {"close"} == set(ASKED)  # `open` is a classmethod object, and not callable


def test_a_fork_waits_for_no_lock_of_the_other_process(bundle: Bundle, tmp_path: Path) -> None:
    """Pins `evaluate` in a child that was forked while a step held the lock: it waited for ever."""
    with Tuner.open(bundle, ROWS, CONFIG, tmp_path, template=TEMPLATE, labels=LABELS) as tuner:
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with tuner._steps, tuner.run.lock, tuner.run.gate._changed, tuner._adding:
                held.set()
                done.wait(120)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(120)
        child = os.fork()
        if not child:
            signal.alarm(60)  # a child that waits is killed, and its status says so
            told = sum(refuses(ask, tuner) for ask in ASKED.values()) - len(ASKED)
            tuner.close()
            os._exit(told)
        status = os.waitpid(child, 0)[1]
        done.set()
        thread.join()
        assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("prompt", [5, 5.0, b"w1", ["w1"], None])
def test_what_is_no_prompt_is_refused(bundle: Bundle, tmp_path: Path, prompt: object) -> None:
    with (
        Tuner.open(bundle, ROWS, CONFIG, tmp_path, template=TEMPLATE, labels=LABELS) as tuner,
        pytest.raises(EdgezoError, match="expected a text, a row, or a list of messages"),
    ):
        tuner.generate(prompt)  # type: ignore[arg-type]
