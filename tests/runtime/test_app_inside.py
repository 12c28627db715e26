"""Calls from places that a step waits for, forks of the process, and the end of the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from edgezo import TuneConfig, Tuner
from edgezo_runtime.bundle import Bundle
from edgezo_runtime.errors import EdgezoError, UsageError
from tests.runtime.tuner_runs import state_bits

pytestmark = pytest.mark.usefixtures("unsynced")

ROOT = Path(__file__).resolve().parents[2]
LABELS = [" w10", " w11"]
TEMPLATE = "{text} w4"
ROWS = [{"text": f"w{20 + 3 * n} w{40 + n}", "label": n % 2} for n in range(8)]
CONFIG = TuneConfig.of("zo-sgd", lr=0.01, eps=0.01, steps=4, max_time_s=0, batch_size=4)
WAITING: dict[str, Callable[[Tuner], object]] = {
    "classify": lambda tuner: tuner.classify("w1 w2"),
    "close": lambda tuner: tuner.close(),
    "cancel": lambda tuner: tuner.cancel(),
    "pause": lambda tuner: tuner.pause(wait=True),
    "step": lambda tuner: tuner.step(),
}


@pytest.mark.parametrize("what", WAITING)
@pytest.mark.parametrize("at", [1, 4])  # before the step, and at a block in it
def test_a_governor_that_would_wait_for_itself_is_told(
    bundle: Bundle, tmp_path: Path, what: str, at: int
) -> None:
    tuners: list[Tuner] = []
    looks = 0

    def governor() -> None:
        nonlocal looks
        looks += 1
        if looks == at:
            WAITING[what](tuners[0])

    with Tuner.open(
        bundle, ROWS, CONFIG, tmp_path, template=TEMPLATE, labels=LABELS, governors=[governor]
    ) as tuner:
        tuners.append(tuner)
        if (what, at) == ("classify", 1):  # no pass is on: it is answered
            tuner.step()
            return
        with pytest.raises(UsageError, match=r"would wait for itself|a step waits for"):
            tuner.step()
        assert tuner.step_number == 0
        assert [report.step for report in tuner] == [0, 1, 2, 3]


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
            told = 1
            try:
                tuner.classify("w1 w2")
            except UsageError as error:
                told = 0 if "cannot be used in a fork" in str(error) else 2
            except BaseException:  # whatever it is, the parent has to hear of it
                told = 3
            tuner.close()
            os._exit(told)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [report.step for report in tuner] == [1, 2, 3]
        assert state_bits(tuner.state) == expected


def test_an_interpreter_ends_while_a_thread_steps(bundle: Bundle, tmp_path: Path) -> None:
    code = f"""
        import time
        from edgezo import TuneConfig, Tuner
        config = TuneConfig.of(
            "zo-sgd", lr=0.01, eps=0.01, steps=10**6, max_time_s=0, batch_size=4
        )
        tuner = Tuner.open(
            {str(bundle.root)!r}, {ROWS!r}, config, {str(tmp_path / "run")!r},
            template={TEMPLATE!r}, labels={LABELS!r},
        )
        tuner.run_in_background()
        while tuner.step_number < 3:
            time.sleep(0.01)
        print(tuner.step_number)
    """
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "export", "runtime"))
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) >= 3


@pytest.mark.parametrize("prompt", [5, 5.0, b"w1", ["w1"], None])
def test_what_is_no_prompt_is_refused(bundle: Bundle, tmp_path: Path, prompt: object) -> None:
    with (
        Tuner.open(bundle, ROWS, CONFIG, tmp_path, template=TEMPLATE, labels=LABELS) as tuner,
        pytest.raises(EdgezoError, match="expected a text, a row, or a list of messages"),
    ):
        tuner.generate(prompt)  # type: ignore[arg-type]
