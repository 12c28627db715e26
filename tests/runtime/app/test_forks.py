"""Forks of a process that tunes, and prompts that are none."""

from __future__ import annotations

import os
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

ASKED: list[Callable[[Tuner], object]] = [
    lambda tuner: tuner.classify("w1 w2"),
    lambda tuner: tuner.add(ROWS[:1]),
    lambda tuner: tuner.step(),
    lambda tuner: tuner.snapshot(),
]


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
        expected = state_bits(alone.state)
    with Tuner.open(
        bundle, ROWS, CONFIG, tmp_path / "forked", template=TEMPLATE, labels=LABELS
    ) as tuner:
        tuner.step()
        child = os.fork()
        if not child:  # nothing of pytest's may run here
            told = sum(refuses(ask, tuner) for ask in ASKED) - len(ASKED)
            tuner.close()
            os._exit(told)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [report.step for report in tuner] == [1, 2, 3]
        assert state_bits(tuner.state) == expected


@pytest.mark.parametrize("prompt", [5, 5.0, b"w1", ["w1"], None])
def test_what_is_no_prompt_is_refused(bundle: Bundle, tmp_path: Path, prompt: object) -> None:
    with (
        Tuner.open(bundle, ROWS, CONFIG, tmp_path, template=TEMPLATE, labels=LABELS) as tuner,
        pytest.raises(EdgezoError, match="expected a text, a row, or a list of messages"),
    ):
        tuner.generate(prompt)  # type: ignore[arg-type]
